"""The lines of the journal in one LMDB file: the newest days' in the store itself, a sealed day's in its own file."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb

from fengshou.switch.journal.tables import (
    FORMAT_VERSION,
    LINES,
    U64,
    Day,
    DayAbsent,
    JournalError,
    parse_day,
    segment_name,
)  # fmt: skip

# Sealed days that stay open: what is asked for is mostly of the last days.
_OPEN_MAX = 8


class Lines:
    """Reads the tables ``LINES`` through one transaction."""

    def __init__(self, txn: lmdb.Transaction, tables: Mapping[str, Any]) -> None:
        self.txn: Any = txn  # values are bytes, never the views that LMDB could give as well
        self._db = tables

    def record(self, number: int) -> bytes | None:
        value: bytes | None = self.txn.get(U64.pack(number), db=self._db["records"])
        return value

    def signature(self, commit: int) -> bytes | None:
        """The switch's signature over the header of commit ``commit``."""
        value: bytes | None = self.txn.get(U64.pack(commit), db=self._db["signatures"])
        return value

    def first(self) -> Iterator[int]:
        """The first record of each table that is keyed by records."""
        for table in ("records", "columns", "commits"):
            with self.txn.cursor(self._db[table]) as cursor:
                if cursor.first():
                    yield U64.unpack_from(cursor.key())[0]

    def filter(self, key: bytes) -> bytes | None:
        """A row of the table of filters."""
        value: bytes | None = self.txn.get(key, db=self._db["filters"])
        return value

    def filter_keys(self, first: int, last: int) -> Iterator[bytes]:
        """The keys of the table of filters whose blocks begin between these records."""
        with self.txn.cursor(self._db["filters"]) as cursor:
            there = cursor.set_range(U64.pack(first))
            while there and U64.unpack_from(cursor.key())[0] <= last:
                yield cursor.key()
                there = cursor.next()

    def filter_from(self, key: bytes) -> tuple[bytes, bytes] | None:
        """The first row of the table of filters from ``key`` on."""
        with self.txn.cursor(self._db["filters"]) as cursor:
            return (cursor.key(), cursor.value()) if cursor.set_range(key) else None

    def records(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Record numbers and bytes from ``first`` on."""
        return self.rows("records", first)

    def columns(self, first: int) -> Iterator[tuple[int, bytes]]:
        """First record and bytes of the rows of columns, from the one that holds record ``first`` on."""
        return self._holding("columns", first)

    def commits(self, record: int) -> Iterator[tuple[int, bytes]]:
        """First record and header of the commits, from the one that holds ``record`` on."""
        return self._holding("commits", record)

    def rows(self, table: str, first: int) -> Iterator[tuple[int, bytes]]:
        """Numbers and values of a table from the first number on."""
        with self.txn.cursor(self._db[table]) as cursor:
            if cursor.set_range(U64.pack(first)):
                for key, value in cursor:
                    yield U64.unpack(key)[0], value

    def _holding(self, table: str, record: int) -> Iterator[tuple[int, bytes]]:
        with self.txn.cursor(self._db[table]) as cursor:
            there = cursor.set_range(U64.pack(record))
            if not there or U64.unpack(cursor.key())[0] > record:
                # Where it is gone, from the first one that is left: an auditor must see it.
                there = cursor.prev() or cursor.first() if there else cursor.last()
            while there:
                yield U64.unpack(cursor.key())[0], cursor.value()
                there = cursor.next()


class Segment(Lines):
    """The file of a sealed business day."""

    def __init__(self, path: Path, *, readahead: bool = False) -> None:
        """Open it for reading; ``readahead`` as of ``Journal``. Raises JournalError."""
        try:
            self._env = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, create=False, max_dbs=len(LINES) + 2,
                readahead=readahead,
            )  # fmt: skip
            tables = {name: self._env.open_db(name.encode(), create=False) for name in (*LINES, "sign-ins", "meta")}
            txn = self._env.begin()
            row = txn.get(b"day", db=tables["meta"])
            if txn.get(b"format", db=tables["meta"]) != FORMAT_VERSION or row is None:
                raise JournalError(f"{path} is not a day of a journal of this format")
            self.day: Day = parse_day(row[:8], row[8:])
        except (lmdb.Error, struct.error) as error:
            raise JournalError(f"{path} is not a sealed day of a journal: {error}") from error
        super().__init__(txn, tables)

    def record_bytes(self, number: int) -> bytes | None:
        """A record of the day, or a sign-in to which it refers."""
        return self.record(number) or self.sign_in(number)

    def sign_in(self, record: int) -> bytes | None:
        """The copy of an earlier day's sign-in to which intents of this day refer."""
        value: bytes | None = self.txn.get(U64.pack(record), db=self._db["sign-ins"])
        return value

    def close(self) -> None:
        self.txn.abort()
        self._env.close()


class Segments:
    """The sealed days in the journal's folder, opened when they are asked for."""

    def __init__(self, folder: Path, *, readahead: bool) -> None:
        """``readahead`` as of ``Journal``."""
        self.folder = folder
        self._readahead = readahead
        self._open: dict[int, Segment] = {}

    def path(self, day: int) -> Path:
        return self.folder / segment_name(day)

    def of(self, day: Day) -> Segment:
        """The file of a sealed day. Raises DayAbsent when it is not here, JournalError when it is another's."""
        segment = self._open.pop(day.day, None)
        if segment is None:
            path = self.path(day.day)
            if not path.exists():
                raise DayAbsent(day.day)
            segment = Segment(path, readahead=self._readahead)
            if segment.day != day:
                segment.close()
                raise JournalError(f"{path} is not the day that was sealed here")
            if len(self._open) >= _OPEN_MAX:
                self._open.pop(next(iter(self._open))).close()
        self._open[day.day] = segment
        return segment

    def close(self) -> None:
        for segment in self._open.values():
            segment.close()
        self._open.clear()
