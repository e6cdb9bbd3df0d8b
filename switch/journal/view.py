"""What the journal says: the reading half of ``journal.Journal``. The view is that of the last ``refresh``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb

from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import Commit, Record, parse_key, parse_record
from fengshou.protocol.transaction import Duty
from fengshou.switch.affinity import Share
from fengshou.switch.journal.end import events_of, tail_of
from fengshou.switch.journal.keys import RecentKeys
from fengshou.switch.journal.lines import Lines, Segments
from fengshou.switch.journal.prune import batches_since
from fengshou.switch.journal.tables import (
    BATCH_MAX,
    COUNTER_BYTES,
    PAIR,
    U16,
    U32,
    U64,
    Charges,
    Day,
    Known,
    keyed_rows,
    parse_day,
    parse_due,
    terminal_of,
)  # fmt: skip

_AFTER_ALL = b"\xff" * 8  # behind any batch and STAN


class JournalView:
    """Everything that is asked of the journal. Reading methods belong to one thread."""

    def __init__(
        self,
        env: lmdb.Environment,
        tables: Mapping[str, Any],
        folder: Path,
        share: Share,
        *,
        follows: bool,
        readahead: bool = False,
    ) -> None:
        """``follows``: another process writes, so each ``refresh`` has to read what came. Of the newest records only
        those of ``share`` are known by their keys. ``readahead`` as of ``Journal``.

        Raises lmdb.Error, UntrustedBytesError, struct.error and JournalError for a store that is damaged.
        """
        self._env = env
        self._db = tables
        self.segments = Segments(folder, readahead=readahead)
        self._read = env.begin()
        self._lines = Lines(self._read, tables)
        self._follows = follows
        self._share = share
        self._seen = 1  # the view's next record
        self._look()
        self._keys = RecentKeys(share.worker)
        self._followed = self._keyed()  # the first record whose key is not in ``_keys``, of who follows
        if not follows:
            self._follow(self._followed)

    def refresh(self) -> None:
        """Let the reading methods see everything that is committed by now."""
        self._read.abort()
        self._seen = self._tail.next_record  # first: the view may hold more than that, never less
        try:
            self._read = self._env.begin()
        except lmdb.MapResizedError:  # the process that writes has made the map larger
            self._env.set_mapsize(0)
            self._read = self._env.begin()
        self._lines.txn = self._read
        if self._follows:
            self._look()
        if self._keys.waits_for_reader():
            self._keys.release(self._keyed())

    def close(self) -> None:
        self._read.abort()
        self.segments.close()
        self._env.close()

    def _look(self) -> None:
        """Where the journal ends."""
        self._tail = tail_of(self._read, self._db)
        self._seen = self._tail.next_record

    def _keyed(self) -> int:
        rows = self._keyed_rows()
        return rows.get(self._keys.row, 1) if self._share.workers > 1 else min(rows.values(), default=1)

    def _keyed_rows(self) -> dict[bytes, int]:
        with self._read.cursor(self._db["meta"]) as cursor:
            return keyed_rows(cursor)

    def _recent_keys(self) -> RecentKeys:
        """What the table of keys does not have yet. Who follows another process reads it when it is asked for: most
        commands never do."""
        if self._follows and self._followed < self._seen:
            self._follow(self._followed)
            self._followed = self._seen
        return self._keys

    def _follow(self, first: int) -> None:
        for number, data in self.records(first):
            if number >= self._seen:
                break
            try:
                kind, key, refers = parse_key(data)
            except UntrustedBytesError:
                if self._follows:
                    continue  # who only reads sees the rest; the auditor names it
                raise
            if self._share.workers == 1 or self._share.has(terminal_of(key)):
                self._keys.follow(number, kind, key, refers)
        self._keys.caught_up(self._seen)

    def _get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._read.get(key, db=self._db[table])
        return value

    @property
    def next_record(self) -> int:
        """The number that the next record gets."""
        return self._tail.next_record

    @property
    def last_event(self) -> int:
        """The number of the last event ever written, pruned or not, as of the current view."""
        return events_of(self._read, self._db)[1]

    @property
    def last_commit(self) -> Commit | None:
        return self._tail.last

    # -- transactions ----------------------------------------------------------------------------------------------

    def known(self, key: bytes) -> Known | None:
        """What stands under a duplicate key."""
        value = self._recent_keys().find(key, self._seen) or self._get("keys", key)
        undone_by = self.undone_by(key)
        if value is None:
            return Known(0, undone_by, undone_by) if undone_by else None
        intent, outcome = PAIR.unpack(value)
        return Known(intent, outcome, undone_by)

    def highest_key(self, who: bytes) -> bytes:
        """The highest duplicate key that begins with ``who`` and under which anything stands; empty for none."""
        found = self._recent_keys().highest(who)
        for table in ("keys", "undone"):
            with self._read.cursor(self._db[table]) as cursor:
                there = cursor.prev() if cursor.set_range(who + _AFTER_ALL) else cursor.last()
                if there and cursor.key().startswith(who):
                    found = max(found, cursor.key())
        return found

    def transactions(self, batch: bytes) -> Iterator[Known]:
        """What stands under each duplicate key of a batch (``batch_key``) that has a transaction, by STAN."""
        found: dict[bytes, bytes] = {}
        with self._read.cursor(self._db["keys"]) as cursor:
            there = cursor.set_range(batch)
            while there and cursor.key().startswith(batch):
                found[cursor.key()] = cursor.value()
                there = cursor.next()
        found |= self._recent_keys().find_batch(batch, self._seen)
        for key in sorted(found):
            intent, outcome = PAIR.unpack(found[key])
            yield Known(intent, outcome, self.undone_by(key))

    def undone_by(self, key: bytes) -> int:
        """The record that undid the transaction under a duplicate key, or barred it before it came; 0 for none."""
        return int.from_bytes(self._get("undone", key) or b"", "big")

    def last_rrn(self, year_and_day: int) -> int:
        """No higher RRN that begins with this YDDD was given; 0 when none was."""
        return int.from_bytes(self._get("rrns", U16.pack(year_and_day)) or b"", "big")

    def charges(self, intent: int) -> Charges:
        """What an intent used up of limits."""
        value = self._get("charges", U64.pack(intent)) or b""
        return tuple(
            (value[at : at + COUNTER_BYTES], U64.unpack_from(value, at + COUNTER_BYTES)[0])
            for at in range(0, len(value), COUNTER_BYTES + 8)
        )

    def counter(self, counter: bytes) -> int:
        return int.from_bytes(self._get("counters", counter) or b"", "big")

    def open_intents(self) -> list[int]:
        """Intents of our share without an outcome, oldest first."""
        if self._share.workers > 1:
            return [record.number for record in self.open_records()]
        return self._all_open()

    def _all_open(self) -> list[int]:
        known = set(self._numbers("open"))
        for intent, is_open in self._recent_keys().unfinished(self._seen):
            (known.add if is_open else known.discard)(intent)
        return sorted(known)

    def open_records(self) -> list[Record]:
        """The records of ``open_intents``. What is open since long has a copy beside its number, so that a start reads
        some pages in a row and not one anywhere for each. Raises UntrustedBytesError."""
        records = map(self._open_record, self._all_open())
        return [record for record in records if self._share.has(record.terminal)]

    def open_copy(self, number: int) -> bytes | None:
        """The copy of an intent that is open since long, where there is one."""
        return self._get("open", U64.pack(number))

    def _open_record(self, number: int) -> Record:
        copy = self.open_copy(number)
        return parse_record(copy) if copy else self.record(number)

    def due(self) -> list[tuple[int, Duty]]:
        """Intents of our share whose back end is owed something, oldest first, and what. Among workers the record of
        each is read: 56 ms of CPU for 10,000, once at a start."""
        with self._read.cursor(self._db["due"]) as cursor:
            rows = [(U64.unpack(key)[0], parse_due(value)[0]) for key, value in cursor]
        if self._share.workers == 1:
            return rows
        return [(intent, duty) for intent, duty in rows if self._share.has(self.record(intent).terminal)]

    def duty(self, intent: int) -> Duty | None:
        """What this intent's back end is owed and has not answered yet."""
        value = self._get("due", U64.pack(intent))
        return parse_due(value)[0] if value is not None else None

    def late_us(self, intent: int) -> int:
        """When the late approval was written that owes this intent's reversal; 0 when its outcome does."""
        value = self._get("due", U64.pack(intent))
        return parse_due(value)[1] if value is not None else 0

    def _numbers(self, table: str) -> list[int]:
        with self._read.cursor(self._db[table]) as cursor:
            return [U64.unpack(key)[0] for key in cursor.iternext(keys=True, values=False)]

    # -- what is too long ago, see ``prune`` ------------------------------------------------------------------

    def forgotten(self, key: bytes) -> bool:
        """Whether keys of this batch (``batch_key``, or a duplicate key) may be gone from the store."""
        terminal = terminal_of(key)
        newest = int.from_bytes(self._get("forgotten", terminal.encode()) or b"", "big")
        if not newest:
            return False
        current = self.batch(terminal) or 1
        since = batches_since(U32.unpack_from(key, 23)[0], current)
        return batches_since(newest, current) <= since < BATCH_MAX - 1  # the last one is the next batch

    @property
    def pruned(self) -> int:
        """The last record of the days that were sealed when the store forgot what it may."""
        return int.from_bytes(self._get("meta", b"pruned") or b"", "big")

    # -- whole tables, for an audit --------------------------------------------------------------------------------

    def all_keys(self) -> Iterator[tuple[bytes, int, int]]:
        """Every duplicate key with its intent and outcome; those that are in memory only come last."""
        recent = dict(self._recent_keys().all(self._seen))
        for key, value in self._rows("keys"):
            yield key, *PAIR.unpack(recent.pop(key, value))
        for key, value in recent.items():
            yield key, *PAIR.unpack(value)

    def all_charges(self) -> Iterator[tuple[int, Charges]]:
        """What each intent used up of limits, see ``charges``."""
        for key, _ in self._rows("charges"):
            intent = U64.unpack(key)[0]
            yield intent, self.charges(intent)

    def counters(self) -> Iterator[tuple[bytes, int]]:
        """Each counter and its sum."""
        for key, value in self._rows("counters"):
            yield key, int.from_bytes(value, "big")

    def _rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        with self._read.cursor(self._db[table]) as cursor:
            yield from cursor

    # -- terminals and their batches -------------------------------------------------------------------------------

    def batch(self, terminal: str) -> int:
        """The terminal's current batch; 0 when it never signed in."""
        value = self._get("batches", terminal.encode())
        return U32.unpack(value)[0] if value else 0

    def held_keys(self) -> Iterator[tuple[str, int, int]]:
        """Each terminal that uses working keys, with the epochs of its working and its master key, by terminal."""
        with self._read.cursor(self._db["held"]) as cursor:
            for terminal, epochs in cursor:
                yield bytes(terminal).decode(), *bytes(epochs)

    def settlement(self, batch: bytes) -> tuple[int, tuple[int, ...]]:
        """State of a batch (``batch_key``) and the intents that brought its totals and then its details."""
        value = self._get("settlements", batch) or b"\0"
        return value[0], tuple(U64.unpack_from(value, at)[0] for at in range(1, len(value), 8))

    def settlements(self) -> Iterator[bytes]:
        """The keys of all batches whose totals have come, by terminal."""
        with self._read.cursor(self._db["settlements"]) as cursor:
            yield from cursor.iternext(keys=True, values=False)

    # -- events for analytics --------------------------------------------------------------------------------------

    def events(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Undelivered events above ``after``, in order, at most ``limit``."""
        rows: list[tuple[int, bytes]] = []
        with self._read.cursor(self._db["events"]) as cursor:
            there = cursor.set_range(U64.pack(after + 1))
            while there and len(rows) < limit:
                rows.append((U64.unpack(cursor.key())[0], cursor.value()))
                there = cursor.next()
        return rows

    # -- lines, whichever file they are in: DayAbsent when it is not here --------------------------------------------

    def days(self) -> list[Day]:
        """All business days of the journal, oldest first."""
        with self._read.cursor(self._db["days"]) as cursor:
            return [parse_day(key, value) for key, value in cursor]

    def day_of(self, record: int) -> Day | None:
        """The business day whose commits hold ``record``."""
        with self._read.cursor(self._db["days"]) as cursor:
            there = cursor.set_range(U64.pack(record))
            if not there or U64.unpack(cursor.key())[0] > record:
                there = cursor.prev() if there else cursor.last()
            return parse_day(cursor.key(), cursor.value()) if there else None

    @property
    def store(self) -> Lines:
        """The lines of the store itself, and the filters of all days."""
        return self._lines

    def lines_of(self, day: Day) -> Lines:
        """The file that holds a day; a sealed day's lines are read from its own. Raises DayAbsent."""
        return self.segments.of(day) if day.sealed else self._lines

    def record_bytes(self, number: int) -> bytes | None:
        """A record as it is hashed; None when there is none. Raises DayAbsent."""
        value = self._lines.record(number)
        if value is None and (day := self.day_of(number)) and number <= day.last_record:
            return self.segments.of(day).record(number)
        return value

    def record(self, number: int) -> Record:
        """The record at ``number``. Raises KeyError, UntrustedBytesError when it is damaged, DayAbsent."""
        data = self.record_bytes(number)
        if data is None:
            raise KeyError(number)
        return parse_record(data)

    def signature(self, commit: int) -> bytes | None:
        """The switch's signature over the header of commit ``commit``. Raises DayAbsent."""
        value = self._lines.signature(commit)
        if value is None:
            for day in reversed(self.days()):
                if day.first_commit <= commit <= day.last_commit:
                    return self.segments.of(day).signature(commit)
        return value

    def records(self, first: int = 1) -> Iterator[tuple[int, bytes]]:
        """Record numbers and bytes from ``first`` on. Raises DayAbsent."""
        for lines, begin in self._parts(first):
            yield from lines.records(begin)

    def live_records(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Record numbers and bytes of the store itself from ``first`` on, whether a commit has them or not."""
        return self._lines.records(first)

    def columns(self, first: int = 1) -> Iterator[tuple[int, bytes]]:
        """Rows of columns from the one that holds record ``first`` on. Raises DayAbsent."""
        for lines, begin in self._parts(first):
            yield from lines.columns(begin)

    def commits(self, record: int = 1) -> Iterator[bytes]:
        """Headers from the commit that holds ``record`` on. Raises DayAbsent."""
        for lines, begin in self._parts(record):
            for _, header in lines.commits(begin):
                yield header

    def _parts(self, first: int) -> Iterator[tuple[Lines, int]]:
        """The files that hold records from ``first`` on, in order, each with the first record wanted of it."""
        for day in self.days():
            if day.sealed and day.last_record >= first:
                yield self.segments.of(day), max(first, day.first_record)
                first = day.last_record + 1
        if first < self._seen:
            yield self._lines, first
