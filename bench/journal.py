"""The journal's group commit beside SQLite as people use it for this: WAL, synced with every transaction."""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure
from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.journal.store import Entry, Journal

GROUPS = (1, 64, 256)


def intent(number: int) -> Entry:
    """A purchase as it stands in the journal: its clear and sealed values, digest and signature."""
    record = Record(
        RecordKind.INTENT, 0, 1_780_000_000_000_000, 20260612, 632_800_000_000 + number, 1, "FS000001",
        "999452007630001", 1, number, content=bytes(32), evidence=bytes(96), clear=bytes(60), sealed=bytes(60),
    )  # fmt: skip
    return Entry(record)


Commit = Callable[[int, int], None]  # number of the first record, how many


@contextmanager
def fengshou(folder: Path) -> Iterator[Commit]:
    journal = Journal(folder / "journal", map_bytes=1 << 32)

    def commit(first: int, count: int) -> None:
        journal.commit([intent(number) for number in range(first, first + count)])

    try:
        yield commit
    finally:
        journal.close()


@contextmanager
def sqlite(folder: Path) -> Iterator[Commit]:
    database = sqlite3.connect(folder / "journal.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, key BLOB UNIQUE, record BLOB)")

    def commit(first: int, count: int) -> None:
        rows = [(number, b"%d" % number, intent(number).record.to_bytes()) for number in range(first, first + count)]
        database.execute("BEGIN")
        database.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
        database.execute("COMMIT")

    try:
        yield commit
    finally:
        database.close()


STORES = {"fengshou": fengshou, "sqlite": sqlite}
_NAMES = {"fengshou": "journal", "sqlite": "SQLite"}


def _measured(commit: Commit, group: int, seconds: float) -> tuple[float, float, float]:
    """Records a second, microseconds of CPU a record, KiB given to the system a commit; the disk's time is in the first
    only."""
    commit(1, group)
    first = number = 1 + group
    start, cpu, written = time.perf_counter(), time.process_time(), _written_bytes()
    while time.perf_counter() - start < seconds:
        commit(number, group)
        number += group
    records = number - first
    return (
        records / (time.perf_counter() - start),
        (time.process_time() - cpu) / records * 1e6,
        (_written_bytes() - written) / (records / group) / 1024,
    )


def _written_bytes() -> int:
    """What this thread has written so far, as of proc(5)."""
    counts = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text().splitlines())
    return int(counts["wchar"])


def figures(seconds: float, folder: Path) -> list[Figure]:
    """``folder`` is made where it is missing: on the project's disk, because temporary folders may be in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Figure] = []
    for name, store in STORES.items():
        for group in GROUPS:
            with tempfile.TemporaryDirectory(prefix="journal-", dir=folder) as place, store(Path(place)) as commit:
                rate, cpu, written = _measured(commit, group, seconds)
            key, what = f"journal.{name}.{group}", f"{_NAMES[name]}, groups of {group}"
            peer = f"journal.sqlite.{group}" if name == "fengshou" else ""
            found += [
                Figure(
                    key=f"{key}.rate", what=f"{what}: synced", value=rate, unit="records/s", more=True,
                    peer=peer and f"{peer}.rate",
                ),
                Figure(
                    key=f"{key}.cpu", what=f"{what}: CPU", value=cpu, unit="µs/record", peer=peer and f"{peer}.cpu"
                ),
                Figure(
                    key=f"{key}.written", what=f"{what}: written", value=written, unit="KiB/commit",
                    peer=peer and f"{peer}.written",
                ),
            ]  # fmt: skip
    return found
