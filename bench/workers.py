"""Several workers' commits: in one journal, whose writers take turns, against a journal each."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from bench.figures import Figure
from bench.journal import intent
from bench.measure import BenchFailed
from fengshou.switch.affinity import Share
from fengshou.switch.journal.store import Entry, Journal

GROUPS = (1, 16, 64)
_WORKERS = 2
_MAP_BYTES = 1 << 32


class Plan(msgspec.Struct, frozen=True):
    """What one process does."""

    folder: str
    worker: int
    workers: int  # that share the journal
    group: int
    seconds: float


class Done(msgspec.Struct, frozen=True):
    records: int
    seconds: float
    cpu_s: float


def figures(seconds: float, folder: Path) -> list[Figure]:
    """About so many seconds for each case. ``folder`` is on the disk that is measured."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Figure] = []
    for group in GROUPS:
        one = f"workers.{group}.one"
        cases = (
            ("one", "one worker", [(0, 0, 1)], ""),
            ("shared", "two workers, one journal", [(0, worker, _WORKERS) for worker in range(_WORKERS)], one),
            ("apart", "two workers, a journal each", [(worker, 0, 1) for worker in range(_WORKERS)], one),
        )
        for name, what, places, peer in cases:
            with tempfile.TemporaryDirectory(prefix="workers-", dir=folder) as place:
                plans = [
                    Plan(f"{place}/{journal}", worker, workers, group, seconds) for journal, worker, workers in places
                ]
                done = _together(plans)
            key, what = f"workers.{group}.{name}", f"{what}, groups of {group}"
            records = sum(it.records for it in done)
            found += [
                Figure(
                    key=f"{key}.rate", what=f"{what}: synced", unit="records/s", more=True,
                    peer=peer and f"{peer}.rate", value=sum(it.records / it.seconds for it in done),
                ),
                Figure(
                    key=f"{key}.cpu", what=f"{what}: CPU", unit="µs/record", peer=peer and f"{peer}.cpu",
                    value=sum(it.cpu_s for it in done) / records * 1e6,
                ),
            ]  # fmt: skip
    return found


def _together(plans: Sequence[Plan]) -> list[Done]:
    """Each in a process of its own; all begin when all are ready. Raises BenchFailed."""
    for folder, workers in {plan.folder: plan.workers for plan in plans}.items():
        journal = Journal(Path(folder), map_bytes=_MAP_BYTES)
        journal.share_out(workers)
        journal.close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in plans
    ]
    try:
        for process, plan in zip(processes, plans, strict=True):
            _tell(process, msgspec.json.encode(plan))
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            _tell(process, b"go")
        return [_done(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has failed; why is known when all have ended
        process.stdin.write(line + b"\n")
        process.stdin.flush()


def _done(process: subprocess.Popen[bytes]) -> Done:
    out, told = process.communicate()
    if process.returncode:
        raise BenchFailed(told.decode(errors="replace").strip().rpartition("\n")[2])
    return msgspec.json.decode(out, type=Done)


def _commit(plan: Plan) -> Done:
    """Group after group of the worker's own terminal, as fast as they become durable."""
    share = Share(plan.worker, plan.workers)
    terminal = next(name for name in map("FS{:06d}".format, range(1000)) if share.has(name))
    journal = Journal(Path(plan.folder), map_bytes=_MAP_BYTES, share=share)
    print("ready", flush=True)
    sys.stdin.readline()
    start, cpu, number = time.perf_counter(), time.process_time(), 1
    while time.perf_counter() - start < plan.seconds:
        journal.commit([_of(terminal, number + at) for at in range(plan.group)])
        number += plan.group
    done = Done(number - 1, time.perf_counter() - start, time.process_time() - cpu)
    journal.close()
    return done


def _of(terminal: str, number: int) -> Entry:
    entry = intent(number)
    entry.record.terminal = terminal
    return entry


if __name__ == "__main__":
    told = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    sys.stdout.write(msgspec.json.encode(_commit(told)).decode())
