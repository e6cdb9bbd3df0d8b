"""Past business days as files: sealed by the switch, proven before they leave its store, archived by hand.

A day is over when a later one has begun. Its lines are copied to a file of their own, its last header is signed if it
is not yet, the copy is proven and made durable under its final name; only then the store takes note and lets go of its
own lines, a step at a time between two commits. Killed at any moment, the lines stand in one place at least, and the
next start does what is left.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import lmdb

from fengshou.codecs import merkle_root, sm3
from fengshou.protocol.record import Commit, RecordKind, parse_commit, parse_record
from fengshou.switch.journal.columns import Row, join
from fengshou.switch.journal.filters import Block, Rows, blocks_of, filter_rows
from fengshou.switch.journal.lines import Segment
from fengshou.switch.journal.store import Journal
from fengshou.switch.journal.tables import FORMAT_VERSION, LINES, U64, Day, JournalError, segment_name

# Records a row of columns in a sealed day: long enough that a scan is all memory, short enough that a search by time,
# which knows the times of whole rows, reads few records in vain.
_ROW = 1024


def over(days: list[Day]) -> list[tuple[Day, Day]]:
    """The days that are over and not sealed, each with the one after it."""
    return [(day, after) for day, after in pairwise(days) if not day.sealed]


class DayFile:
    """A day's file while it is being made: ``copy``, then ``finish``. Raises JournalError."""

    def __init__(self, journal: Journal, day: Day, after: Day) -> None:
        self.day = replace(day, last_record=after.first_record - 1, last_commit=after.first_commit - 1)
        self._journal = journal
        self._path = journal.segments.path(day.day)
        self._part = self._path.with_suffix(".part")
        self._packed = self._path.with_suffix(".packed")
        self.filters: list[tuple[Block, Rows]] = []  # once it is copied

    def copy(self, sign: Callable[[Commit], bytes]) -> set[int]:
        """Copy all lines. Returns the sign-ins of earlier days to which they refer. May run in any thread."""
        self._part.unlink(missing_ok=True)
        with self._store() as store:
            sign_ins = self._copy_records(store)
            last = self._copy_commits(store)
            earliest_us, latest_us = self._copy_columns(store)
            self.day = replace(self.day, last_hash=sm3(last.to_bytes()), earliest_us=earliest_us, latest_us=latest_us)
            if store.get("signatures", U64.pack(last.number)) is None:
                store.put("signatures", [(U64.pack(last.number), sign(last))])
            row = U64.pack(self.day.first_record) + self.day.to_bytes()
            store.put("meta", [(b"format", FORMAT_VERSION), (b"day", row)])
        return sign_ins

    def finish(self, sign_ins: Mapping[int, bytes]) -> Day:
        """Add the sign-ins, prove the file, give it its name. May run in any thread."""
        with self._store() as store:
            store.put("sign-ins", [(U64.pack(number), record) for number, record in sorted(sign_ins.items())])
            self._packed.unlink(missing_ok=True)
            store.pack(self._packed)
        _sync(self._packed)
        prove(self._packed)
        os.replace(self._packed, self._path)
        self._part.unlink()
        _sync(self._path.parent)
        return self.day

    def _copy_records(self, store: "_Store") -> set[int]:
        sign_ins: set[int] = set()
        for rows in self._slices("records"):
            store.put("records", _keyed(rows))
            for _, data in rows:
                record = parse_record(data)
                if record.kind == RecordKind.INTENT and record.refers < self.day.first_record:
                    sign_ins.add(record.refers)
        return sign_ins

    def _copy_commits(self, store: "_Store") -> Commit:
        header = None
        for rows in self._slices("commits"):
            store.put("commits", _keyed(rows))
            headers = [parse_commit(data) for _, data in rows]
            with self._journal.snapshot() as lines:
                signatures = [(U64.pack(each.number), lines.signature(each.number)) for each in headers]
            store.put("signatures", [(number, value) for number, value in signatures if value])
            header = headers[-1]
        if header is None:
            raise JournalError(f"day {self.day.day} has no commit in the store")
        return header

    def _copy_columns(self, store: "_Store") -> tuple[int, int]:
        """Returns the times between which the records were written."""
        times: list[int] = []
        for block in blocks_of(self._joined()):
            store.put("columns", _keyed(block))
            rows = filter_rows(block)
            store.put("filters", rows)
            self.filters.append((Block(block[0][0], block[-1][0] + Row(block[-1][1]).count - 1), rows))
            for _, data in block:
                row = Row(data)
                times += (row.earliest, row.latest)
        return min(times), max(times)

    def _joined(self) -> Iterator[tuple[int, bytes]]:
        """The rows of columns, longer ones."""
        rows: list[tuple[int, Row]] = []
        records = 0
        for first, data in chain.from_iterable(self._slices("columns")):
            rows.append((first, Row(data)))
            records += rows[-1][1].count
            if records >= _ROW:
                yield rows[0][0], join([row for _, row in rows])
                rows, records = [], 0
        if rows:
            yield rows[0][0], join([row for _, row in rows])

    def _slices(self, table: str) -> Iterator[list[tuple[int, bytes]]]:
        return self._journal.slices(table, self.day.first_record, self.day.last_record)

    @contextmanager
    def _store(self) -> Iterator["_Store"]:
        """The file, open for writing, and all of it on the disk in the end. On a full disk it gives back the room that
        it took: trade needs that more."""
        try:
            store = _Store(self._part)
            try:
                yield store
                store.sync()
            finally:
                store.close()
        except (lmdb.Error, OSError, ValueError) as error:
            self._part.unlink(missing_ok=True)
            self._packed.unlink(missing_ok=True)
            raise JournalError(f"{self._path} cannot be written: {error}") from error


class _Store:
    """An LMDB file that grows."""

    def __init__(self, path: Path) -> None:
        size = max(1 << 20, path.stat().st_size * 2 if path.exists() else 0)
        self._env = lmdb.open(
            str(path), subdir=False, lock=False, map_size=size, max_dbs=len(LINES) + 2, sync=False, metasync=False
        )
        self._db: dict[str, Any] = {name: self._env.open_db(name.encode()) for name in (*LINES, "sign-ins", "meta")}

    def put(self, table: str, rows: list[tuple[bytes, bytes]]) -> None:
        while True:
            try:
                with self._env.begin(write=True) as txn, txn.cursor(self._db[table]) as cursor:
                    cursor.putmulti(rows)
                return
            except lmdb.MapFullError:
                self._env.set_mapsize(self._env.info()["map_size"] * 2)

    def get(self, table: str, key: bytes) -> bytes | None:
        with self._env.begin() as txn:
            value: bytes | None = txn.get(key, db=self._db[table])
            return value

    def pack(self, path: Path) -> None:
        """A copy without the pages that are not in use any more."""
        self._env.copy(str(path), compact=True)

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()


def _keyed(rows: list[tuple[int, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(U64.pack(number), data) for number, data in rows]


def prove(path: Path) -> Day:
    """A sealed day is whole: every record is under its commit's root, all commits chain, the last one is signed.

    Signatures are not checked here, see ``audit``. Raises JournalError.
    """
    segment = Segment(path, readahead=True)
    try:
        day, previous, next_record = segment.day, None, segment.day.first_record
        for _, data in segment.commits(day.first_record):
            header = parse_commit(data)
            leaves = [segment.record(number) for number in range(next_record, next_record + header.records)]
            if (
                header.first_record != next_record
                or (previous is not None and header.previous != sm3(previous.to_bytes()))
                or None in leaves
                or merkle_root([leaf for leaf in leaves if leaf is not None]) != header.root
            ):
                raise JournalError(f"{path}: commit {header.number} is not what was journalled")
            previous, next_record = header, next_record + header.records
        if (
            previous is None
            or next_record != day.last_record + 1
            or sm3(previous.to_bytes()) != day.last_hash
            or segment.signature(previous.number) is None
        ):
            raise JournalError(f"{path}: the end of the day is missing")
        return day
    except lmdb.Error as error:
        raise JournalError(f"{path} cannot be read: {error}") from error
    finally:
        segment.close()


def archive(journal: Journal, day: Day, to: Path, *, remove: bool) -> Path:
    """Copy a sealed day, prove the copy; then, if asked, take the file out of the journal's folder.

    Raises JournalError: not sealed, the copy differs, or the day is still needed to finish what is open.
    """
    if not day.sealed:
        raise JournalError(f"day {day.day} is not sealed yet: the switch does that when the next day has begun")
    needed = [
        number
        for number in (*journal.open_intents(), *(intent for intent, _ in journal.due()))
        if day.first_record <= number <= day.last_record
    ]
    if remove and needed:
        raise JournalError(f"day {day.day} is still needed: record {needed[0]} of it is open or owes a reversal")
    source = journal.segments.path(day.day)
    to.mkdir(parents=True, exist_ok=True)
    target = to / segment_name(day.day)
    part = target.with_suffix(".part")
    if not source.exists():
        raise JournalError(f"{source} is not here")
    if target.exists():
        raise JournalError(f"{target} is there already")
    shutil.copyfile(source, part)
    _sync(part)
    if prove(part) != day:
        raise JournalError(f"{source} is not the day that was sealed here")
    os.replace(part, target)
    _sync(to)
    if remove:
        source.unlink()
        _sync(source.parent)
    return target


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
