"""One group on its way into the store: the records, their header, and every index that follows from them."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import lmdb

from fengshou.codecs import merkle_root, pack_records, sm3
from fengshou.protocol.record import KEY, Commit, RecordKind
from fengshou.protocol.transaction import Duty
from fengshou.switch.journal.columns import pack_entries
from fengshou.switch.journal.keys import RecentKeys
from fengshou.switch.journal.prune import Place, Pruning
from fengshou.switch.journal.tables import (
    BATCH_MAX,
    GONE_EVENT,
    PAIR,
    U16,
    U32,
    U64,
    Charges,
    Day,
    Entry,
    JournalError,
    LimitPassed,
    Tail,
    batch_key,
    due_row,
    keyed_row,
    keyed_rows,
    parse_day,
)  # fmt: skip

_RRN_COUNT = 10**8
# RRNs that the table is ahead: so many transactions write its page once. A start leaves as many of a day's numbers out.
_RRNS_AHEAD = 1000
# Delivered events that a small commit drops at most; a large one drops two for each of its entries.
_EVENTS_A_COMMIT = 64
_INTENT, _OUTCOME = int(RecordKind.INTENT), int(RecordKind.OUTCOME)  # plain: asked for each record


class Group:
    """What one transaction writes. Nothing outside of the transaction changes before ``durable``."""

    def __init__(
        self, txn: lmdb.Transaction, tables: Mapping[str, Any], keys: RecentKeys, tail: Tail, delivered: int
    ) -> None:
        """``tail``: where the journal ends; ``delivered``: the last event that may go."""
        self._txn = txn
        self._db = tables
        self._keys = keys
        self._delivered = delivered
        self._moved = 0
        self._new: dict[bytes, bytes] = {}  # duplicate keys and their values
        self._over: list[Entry] = []  # intents that pass a limit
        self.header: Commit | None = None
        self.tail = copy(tail)  # where it ends once this is durable

    def write(self, entries: Sequence[Entry], signatures: Sequence[tuple[int, bytes]]) -> None:
        """Raises LimitPassed."""
        for number, signature in signatures:
            self._put("signatures", U64.pack(number), signature)
        if entries:
            self.move_keys(len(entries))
            self.forget_events(len(entries))
            self._begin_day(entries)
            leaves = self._number(entries)
            self._index(entries, leaves)
            if self._over:
                raise LimitPassed(self._over)
            self._seal(entries, leaves)

    def durable(self) -> None:
        """The transaction is on the disk."""
        self._keys.written(self._moved)
        self._keys.put(self._new)
        self._keys.turn(self.tail.next_record)

    def restore(self, table: str, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Rows as they are."""
        for key, value in rows:
            self._put(table, key, value)

    def _put(self, table: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._db[table])

    def _append(self, table: str, rows: list[tuple[bytes, bytes]]) -> None:
        """Rows behind all others. Raises JournalError: there are some already, which LMDB would keep."""
        with self._txn.cursor(self._db[table]) as cursor:
            if cursor.putmulti(rows, append=True)[1] != len(rows):
                raise JournalError(f"the table {table} does not end where the journal does")

    # -- lines -----------------------------------------------------------------------------------------------------

    def _begin_day(self, entries: Sequence[Entry]) -> None:
        tail = self.tail
        latest = max([entry.record.business_day for entry in entries])
        if latest > tail.day:
            tail.day = latest
            self.note_day(Day(tail.next_record, latest, tail.commit + 1))

    def note_day(self, day: Day) -> None:
        """A day begins, or is sealed."""
        self._put("days", U64.pack(day.first_record), day.to_bytes())

    def _number(self, entries: Sequence[Entry]) -> list[bytes]:
        for number, entry in enumerate(entries, self.tail.next_record):
            entry.record.number = number
            if entry.intent is not None:
                entry.record.refers = entry.intent.record.number
        return pack_records([entry.record for entry in entries])

    def _seal(self, entries: Sequence[Entry], leaves: list[bytes]) -> None:
        tail, first = self.tail, self.tail.next_record
        self._append("records", [(U64.pack(number), leaf) for number, leaf in enumerate(leaves, first)])
        self._append("columns", [(U64.pack(first), pack_entries(entries))])
        self.header = Commit(
            number=tail.commit + 1,
            first_record=first,
            records=len(entries),
            time_us=entries[-1].record.time_us,
            root=merkle_root(leaves),
            previous=tail.previous,
        )
        data = self.header.to_bytes()
        self._append("commits", [(U64.pack(first), data)])
        tail.last, tail.commit, tail.previous = self.header, self.header.number, sm3(data)
        tail.next_record += len(entries)

    # -- what follows from them --------------------------------------------------------------------------------------

    def _index(self, entries: Sequence[Entry], leaves: Sequence[bytes]) -> None:
        events: list[tuple[bytes, bytes]] = []
        rrns: dict[int, int] = {}
        for entry, leaf in zip(entries, leaves, strict=True):
            record = entry.record
            kind = record.kind
            if kind == _INTENT:
                self._new[leaf[KEY]] = PAIR.pack(record.number, 0)
                prefix = record.rrn // _RRN_COUNT
                if record.rrn > rrns.get(prefix, 0):
                    rrns[prefix] = record.rrn
                if entry.charges:
                    self._use_up(entry)
            elif kind == _OUTCOME:
                self._end(entry, leaf[KEY])
            elif kind == RecordKind.REVERSAL:
                self._answered(U64.pack(record.refers), due_row(Duty.REVERSAL, entry.late_us))
            elif kind == RecordKind.ADVICE:
                self._answered(U64.pack(record.refers), due_row(Duty.ADVICE))
            elif kind == RecordKind.SESSION:
                self._sign_in(entry)
            if entry.owes:
                late_us = record.time_us if kind == RecordKind.LATE else 0
                self._put("due", U64.pack(entry.owes), due_row(Duty.REVERSAL, late_us))
            if entry.charges and kind != _INTENT:
                self._charge(entry.charges, -1)
            if entry.undoes and self._has(entry.undoes):
                self._put("undone", entry.undoes, U64.pack(record.number))
            if entry.tombstone and not self._has(entry.tombstone):
                self._put("undone", entry.tombstone, U64.pack(record.number))
            if entry.event:
                self.tail.last_event += 1
                events.append((U64.pack(self.tail.last_event), entry.event))
        if events:
            self._append("events", events)
        for prefix, highest in rrns.items():
            if highest > int.from_bytes(self._txn.get(U16.pack(prefix), b"", db=self._db["rrns"]), "big"):
                ahead = min(highest + _RRNS_AHEAD, (prefix + 1) * _RRN_COUNT - 1)
                self._put("rrns", U16.pack(prefix), U64.pack(ahead))

    def _has(self, key: bytes) -> bool:
        """Whether a transaction stands under this key."""
        return (
            key in self._new
            or self._keys.find(key, self.tail.next_record) is not None
            or self._txn.get(key, db=self._db["keys"]) is not None
        )

    def _end(self, entry: Entry, key: bytes) -> None:
        record = entry.record
        self._new[key] = PAIR.pack(record.refers, record.number)
        if self._keys.may_be_open(record.refers):
            self._txn.delete(U64.pack(record.refers), db=self._db["open"])
        if entry.advice:
            self._put("due", U64.pack(record.refers), due_row(Duty.ADVICE))
        if entry.settles:
            self._settle(*entry.settles, U64.pack(record.refers))

    def _answered(self, intent: bytes, due: bytes) -> None:
        """A debt is answered; meanwhile it may have become another one: an advice a reversal, a reversal the next."""
        if self._txn.get(intent, db=self._db["due"]) == due:
            self._txn.delete(intent, db=self._db["due"])

    def _sign_in(self, entry: Entry) -> None:
        record = entry.record
        batch = batch_key(record.terminal, record.merchant, record.batch)
        if self._txn.get(batch, db=self._db["settlements"]) is None:
            self._put("batches", record.terminal.encode(), U32.pack(record.batch))
        if entry.held is not None:
            self._put("held", record.terminal.encode(), bytes(entry.held))

    def _settle(self, key: bytes, state: int, intent: bytes) -> None:
        """Take note of totals or details; a batch whose totals have come takes no more transactions."""
        known = self._txn.get(key, db=self._db["settlements"])
        self._put("settlements", key, bytes((state,)) + (known or b"\0")[1:] + intent)
        terminal, batch = key[:8].rstrip(), key[23:]
        if known is None and self._txn.get(terminal, db=self._db["batches"]) == batch:
            self._put("batches", terminal, U32.pack(U32.unpack(batch)[0] % BATCH_MAX + 1))

    def _use_up(self, entry: Entry) -> None:
        """What was reserved in one process is proven here against all: others have committed since."""
        if any(self._counter(of) + amount > cap for (of, amount), cap in zip(entry.charges, entry.caps, strict=False)):
            self._over.append(entry)
            return
        value = b"".join([counter + U64.pack(amount) for counter, amount in entry.charges])
        self._put("charges", U64.pack(entry.record.number), value)
        self._charge(entry.charges, 1)

    def _charge(self, charges: Charges, sign: int) -> None:
        for counter, amount in charges:
            if sign < 0 and self._txn.get(counter, db=self._db["counters"]) is None:
                continue  # of a business day that is over
            self._put("counters", counter, U64.pack(max(self._counter(counter) + sign * amount, 0)))

    def _counter(self, counter: bytes) -> int:
        return int.from_bytes(self._txn.get(counter, b"", db=self._db["counters"]), "big")

    # -- what was left for later ---------------------------------------------------------------------------------------

    def move_keys(self, entries: int) -> None:
        """A slice of the recent keys to their table; intents that are still open are noted."""
        rows = self._keys.slice(entries)
        if rows:
            with self._txn.cursor(self._db["keys"]) as cursor:
                cursor.putmulti(rows)
            for _, value in rows:
                intent, outcome = PAIR.unpack(value)
                if not outcome:
                    self._put("open", U64.pack(intent), self._record(intent))
            self._moved = len(rows)
            if self._keys.last_slice(len(rows)):
                self._put("meta", self._keys.row, U64.pack(self._keys.keyed))

    def _record(self, number: int) -> bytes:
        """A record whose key is not in the table yet: it stands in this file."""
        return bytes(self._txn.get(U64.pack(number), b"", db=self._db["records"]))

    def note_keyed(self) -> None:
        """The keys of all records are in the table, when none is left in memory."""
        if self._keys.empty:
            self._put("meta", self._keys.row, U64.pack(self.tail.next_record))

    def share_out_keys(self, workers: int) -> None:
        """From now on so many workers keep keys: each begins where any of those before had not got further."""
        rows, keyed = self._keyed_rows(), self._keyed()
        for row in rows:
            self._txn.delete(row, db=self._db["meta"])
        for worker in range(workers):
            self._put("meta", keyed_row(worker), U64.pack(keyed))

    def _keyed(self) -> int:
        """The first record whose key may not be in the table."""
        return min(self._keyed_rows().values(), default=1)

    def _keyed_rows(self) -> dict[bytes, int]:
        with self._txn.cursor(self._db["meta"]) as cursor:
            return keyed_rows(cursor)

    def forget_events(self, entries: int) -> None:
        """The delivered ones, twice as many as may come."""
        if self._delivered <= self.tail.gone_event:
            return
        gone = 0
        with self._txn.cursor(self._db["events"]) as cursor:
            for _ in range(max(2 * entries, _EVENTS_A_COMMIT)):
                if not cursor.first() or (event := U64.unpack(cursor.key())[0]) > self._delivered:
                    break
                cursor.delete()
                gone = event
        if gone:
            self.tail.gone_event = gone
            self._put("meta", GONE_EVENT, U64.pack(gone))

    def drop_sealed(self, rows: int) -> None:
        """Lines of sealed days whose keys are in the table, up to so many of each."""
        keyed = self._keyed()
        with self._txn.cursor(self._db["days"]) as cursor:
            sealed = [
                day
                for key, value in cursor
                if (day := parse_day(bytes(key), bytes(value))).sealed and day.last_record < keyed
            ]
        if sealed:
            self._drop("records", sealed[-1].last_record, rows)
            self._drop("columns", sealed[-1].last_record, rows)
            self._drop("commits", sealed[-1].last_record, rows)
            self._drop("signatures", sealed[-1].last_commit, rows)

    def replace_filter(self, first: int, last: int, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """The rows of the filter of a block in the place of all that begin within it, see ``filters``."""
        with self._txn.cursor(self._db["filters"]) as cursor:
            there = cursor.set_range(U64.pack(first))
            while there and cursor.key() and U64.unpack_from(cursor.key())[0] <= last:
                there = cursor.delete()
        self.restore("filters", rows)

    def prune(self, at: Place, rows: int) -> Place | None:
        """A step of forgetting, see ``prune``."""
        with self._txn.cursor(self._db["days"]) as cursor:
            days = [parse_day(bytes(key), bytes(value)) for key, value in cursor]
        return Pruning(self._txn, self._db, days).step(at, rows)

    def _drop(self, table: str, last: int, rows: int) -> None:
        with self._txn.cursor(self._db[table]) as cursor:
            for _ in range(rows):
                if not cursor.first() or U64.unpack_from(cursor.key())[0] > last:
                    return
                cursor.delete()
