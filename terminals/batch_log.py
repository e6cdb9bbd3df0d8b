"""What a terminal counts of its batches until they are settled."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from fengshou.protocol import elements as de
from fengshou.protocol.batch import Line, Side
from fengshou.protocol.codes import APPROVED, UNKNOWN_OUTCOME
from fengshou.protocol.message import Value
from fengshou.protocol.templates import Template


class BatchLog:
    """The transactions of this terminal's batches that are not settled yet.

    Give a path for a log that outlives the process. It is written and synced after each answer; what a power cut takes
    in between is missing, and the settlement then shows that it is.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._batches: dict[int, dict[int, Line | None]] = {}  # by STAN; None: taken back
        if path is not None and path.exists():
            self._read(path)

    def note(self, template: Template, batch: int, values: Mapping[int, Value], code: str) -> None:
        """Take note of an answer: an approval counts, or takes back the transaction that it names."""
        if template.side is None:
            takes_back = template.mti // 100 in (2, 4) and de.ORIGINAL_STAN in values
            if takes_back and code in (APPROVED, UNKNOWN_OUTCOME):  # 98: the switch delivers the reversal
                self._enter(_integer(values[de.ORIGINAL_BATCH]), _integer(values[de.ORIGINAL_STAN]), None)
        elif code == APPROVED:
            stan = _integer(values[de.STAN])
            if stan not in self._batches.get(batch, ()):
                self._enter(batch, stan, Line(stan, template.side, _integer(values[de.AMOUNT])))

    def lines(self, batch: int) -> list[Line]:
        """What counts in a batch, by STAN."""
        return sorted(line for line in self._batches.get(batch, {}).values() if line is not None)

    def batches(self) -> list[int]:
        """The batches in which something counts, the oldest first."""
        return [batch for batch in self._batches if self.lines(batch)]

    def forget(self, batch: int) -> None:
        """A batch is settled."""
        self._batches.pop(batch, None)
        if self._path is not None:
            self._rewrite(self._path)

    def _enter(self, batch: int, stan: int, line: Line | None) -> None:
        self._batches.setdefault(batch, {})[stan] = line
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(_row(batch, stan, line))
                file.flush()
                os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        for row in path.read_bytes().splitlines():
            try:
                batch, stan, side, fen = json.loads(row)
            except ValueError:  # torn by a power cut; whatever followed it was never written
                break
            self._batches.setdefault(batch, {})[stan] = Line(stan, Side(side), fen) if side else None
        self._rewrite(path)

    def _rewrite(self, path: Path) -> None:
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            for batch, lines in self._batches.items():
                file.writelines(_row(batch, stan, line) for stan, line in lines.items())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def _row(batch: int, stan: int, line: Line | None) -> bytes:
    row = [batch, stan, line.side.value, line.fen] if line else [batch, stan, "", 0]
    return json.dumps(row).encode() + b"\n"


def _integer(value: Value) -> int:
    assert isinstance(value, int)
    return value
