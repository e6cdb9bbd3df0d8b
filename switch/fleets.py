"""Fleets as processes: what each is told, how it is followed, and how what several saw is added up."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import IO, Any

import msgspec

from fengshou.terminals.fleet import FleetPlan, FleetProgress, FleetResult
from fengshou.terminals.trades import Trade, read_trades

FARM_PURCHASE = "farm-purchase"  # what a row of a trades file is when it does not say


class FleetFailed(Exception):
    """The process of a fleet has failed; the text has the end of its log."""


class FleetFile(msgspec.Struct, frozen=True):
    """What the process of a fleet is told: which terminals it runs, and the files whose trades of theirs they make.

    A terminal runs in one process only. Files come one after the other, and of each the first so many rows count.
    Rows without a terminal are made by any. With ``cycle`` they begin again at their end, until ``plan.seconds`` are
    over; with ``waits`` trade begins when a line comes on the standard input.
    """

    terminals: frozenset[str]
    files: tuple[str, ...]
    rows: tuple[int | None, ...]
    plan: FleetPlan = FleetPlan(homes=())
    cycle: bool = False
    waits: bool = False

    def read_trades(self) -> Iterator[Trade]:
        once = self._once()
        return cycle(once) if self.cycle else once

    def _once(self) -> Iterator[Trade]:
        for file, rows in zip(self.files, self.rows, strict=True):
            for trade in islice(read_trades(Path(file), FARM_PURCHASE), rows):
                if not trade.terminal or trade.terminal in self.terminals:
                    yield trade


class FleetProcess:
    """``fengshou fleet`` in a process of its own; it tells its progress line by line and ends with its result."""

    def __init__(self, document: FleetFile, name: Path) -> None:
        """``name`` without a suffix is that of its file and log."""
        file, self._log_path = name.with_suffix(".json"), name.with_suffix(".log")
        file.write_bytes(msgspec.json.encode(document))
        self._log: IO[bytes] = self._log_path.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fengshou.switch", "fleet", str(file)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            stdin=subprocess.PIPE,
        )
        self.prepared = False  # all are signed in and have signed ahead; it waits for ``go``
        self.progress = FleetProgress(signed_ahead=0, sent=0, answered=0, approved=0, seconds=0.0)
        self._result: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._reader.is_alive()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "result" in told:
                self._result = told["result"]
            elif "prepared" in told:
                self.prepared = True
            else:
                self.progress = msgspec.convert(told, FleetProgress)

    def go(self) -> None:
        """Let a fleet that ``waits`` begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def check(self) -> None:
        """Raises FleetFailed when it has failed."""
        if self._process.poll():
            raise FleetFailed(f"a fleet failed:\n{self._log_path.read_text(errors='replace')[-2000:]}")

    def result(self) -> FleetResult:
        """Waits for its end. Raises FleetFailed."""
        self._process.wait()
        self._close()
        self.check()
        return msgspec.convert(self._result, FleetResult, strict=False)

    def _close(self) -> None:
        self._reader.join()
        self._log.close()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def merge(results: Sequence[FleetResult]) -> FleetResult:
    """The sum of what several fleets saw; they ran at the same time, so seconds are those of the longest."""
    merged: dict[str, Any] = {}
    for name in FleetResult.__struct_fields__:
        values = [getattr(result, name) for result in results]
        merged[name] = max(values) if name == "seconds" else _sum(values)
    return FleetResult(**merged)


def _sum(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        keys = {key for value in values for key in value}
        return {key: _sum([value[key] for value in values if key in value]) for key in keys}
    return sum(values[1:], values[0])
