"""The journal's store: an append-only, chained log in LMDB with the indexes that the switch asks.

One thread writes (``writer.Writer``), anyone reads. ``commit`` makes a group of entries durable in one synced
transaction: their records, the Merkle root over them, the header that chains to the commit before, and every index that
follows from them. Either all of it is there after a crash, or none.

Tables; integers are big-endian, so that LMDB's order is ours:

===========  ==========================================  ====================================================
table        key                                         value
===========  ==========================================  ====================================================
records      record number (8)                           record, see ``protocol.record``
commits      number of its first record (8)              commit header (92)
signatures   commit number (8)                           r || s of the switch over the header (64)
keys         terminal (8) merchant (15) batch (4) STAN   intent (8) outcome (8) undone by (8), 0 where not yet
rrns         RRN (8)                                     intent (8)
open         intent (8)                                  nothing: it has no outcome
due          intent (8)                                  what its back end is owed: R reversal, A advice
charges      intent (8)                                  what it used up of limits: (counter 20, amount 8) …
counters     business day (4) name and subject (16)      sum (8)
batches      terminal (8)                                current batch (4)
settlements  terminal (8) merchant (15) batch (4)        state (1), intents (8 each): of its totals, its details
events       event number (8)                            JSON for analytics, until it is delivered
meta         name                                        last event number, format version
===========  ==========================================  ====================================================
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lmdb

from fengshou.codecs import merkle_root, sm3
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import GENESIS, Commit, Record, RecordKind, parse_commit, parse_record
from fengshou.protocol.transaction import Duty

FORMAT_VERSION = b"1"
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_KEY_VALUE = struct.Struct(">QQQ")
_TABLES = (
    "records", "commits", "signatures", "keys", "rrns", "open", "due", "charges", "counters", "batches",
    "settlements", "events", "meta",
)  # fmt: skip

COUNTER_BYTES = 20
BATCH_MAX = 999_999  # DE 60.2; after it comes 1 again
Charges = tuple[tuple[bytes, int], ...]  # (counter, amount)


class JournalError(Exception):
    """The store refused: disk full, map full, damaged, of another format. Nothing of the group was written."""


def key_of(terminal: str, merchant: str, batch: int, stan: int) -> bytes:
    """The duplicate key (merchant, terminal, batch, STAN)."""
    return b"%-8b%-15b%b%b" % (terminal.encode(), merchant.encode(), _U32.pack(batch), _U32.pack(stan))


def batch_key(terminal: str, merchant: str, batch: int) -> bytes:
    """What the duplicate keys of a batch begin with."""
    return b"%-8b%-15b%b" % (terminal.encode(), merchant.encode(), _U32.pack(batch))


@dataclass(slots=True, eq=False)
class Entry:
    """A record to be written and what follows from it. The writer gives the record its number."""

    record: Record
    intent: "Entry | None" = None  # an outcome in the same group as its intent
    owes: int = 0  # intent whose back end is owed a reversal
    advice: bool = False  # the intent that it refers to was approved without its back end, which is owed an advice
    tombstone: bytes = b""  # key of an original that must be refused should it still come
    undoes: bytes = b""  # key of the transaction that this one has reversed
    charges: Charges = ()  # an intent: what it uses up of limits; an outcome: what it gives back
    event: bytes = b""
    settles: tuple[bytes, int] | None = None  # key of a batch and the state that this outcome gives it


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal knows under a duplicate key. ``intent`` 0 is a tombstone; ``outcome`` 0 is still open."""

    intent: int
    outcome: int
    undone_by: int


@dataclass(slots=True)
class Statistics:
    commits: int = 0
    records: int = 0
    largest_commit: int = 0


class Journal:
    """The store at a folder. Not thread-safe for writing: only one thread may call the methods that write."""

    def __init__(self, folder: Path, *, map_bytes: int = 1 << 36, read_only: bool = False) -> None:
        """Open or create. Raises JournalError."""
        try:
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._env = lmdb.open(
                str(folder), map_size=map_bytes, max_dbs=len(_TABLES), readonly=read_only, max_readers=64
            )
            self._db = {name: self._env.open_db(name.encode(), create=not read_only) for name in _TABLES}
            self._read = self._env.begin()
        except (lmdb.Error, OSError) as error:
            raise JournalError(f"cannot open the journal in {folder}: {error}") from error
        self.statistics = Statistics()
        try:
            self._check_format(folder, read_only)
            self._load()
        except (lmdb.Error, UntrustedBytesError) as error:
            self.close()
            raise JournalError(f"the journal in {folder} is damaged: {error}") from error
        except JournalError:
            self.close()
            raise

    def _check_format(self, folder: Path, read_only: bool) -> None:
        found = self._get("meta", b"format")
        if found is None and not read_only:
            with self._env.begin(write=True) as txn:
                txn.put(b"format", FORMAT_VERSION, db=self._db["meta"])
        elif found != FORMAT_VERSION:
            raise JournalError(f"the journal in {folder} is of another format")

    def _load(self) -> None:
        with self._read.cursor(self._db["commits"]) as cursor:
            self._last = parse_commit(cursor.value()) if cursor.last() else None
        self._next_record = self._last.first_record + self._last.records if self._last else 1
        self._last_event = int.from_bytes(self._get("meta", b"last-event") or b"", "big")

    def close(self) -> None:
        self._read.abort()
        self._env.close()

    # -- writing -------------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], signatures: Sequence[tuple[int, bytes]] = ()) -> Commit | None:
        """Make entries durable, in their order. Returns the commit's header, None when only signatures were given.

        Raises JournalError; then nothing was written and the same call may be made again.
        """
        last_event = self._last_event
        try:
            with self._env.begin(write=True) as txn:
                for number, signature in signatures:
                    txn.put(_U64.pack(number), signature, db=self._db["signatures"])
                header = None
                if entries:
                    leaves = []
                    for number, entry in enumerate(entries, self._next_record):
                        entry.record.number = number
                        if entry.intent is not None:
                            entry.record.refers = entry.intent.record.number
                        leaves.append(entry.record.to_bytes())
                        last_event = self._index(txn, entry, last_event)
                    header = self._seal(txn, entries, leaves)
        except (lmdb.Error, OSError) as error:
            raise JournalError(f"the journal cannot be written: {error}") from error
        self._last_event = last_event
        if header is not None:
            self._last = header
            self._next_record += len(entries)
            self.statistics.commits += 1
            self.statistics.records += len(entries)
            self.statistics.largest_commit = max(self.statistics.largest_commit, len(entries))
        return header

    def _seal(self, txn: lmdb.Transaction, entries: Sequence[Entry], leaves: list[bytes]) -> Commit:
        first = _U64.pack(self._next_record)
        with txn.cursor(self._db["records"]) as cursor:
            cursor.putmulti(
                [(_U64.pack(entry.record.number), leaf) for entry, leaf in zip(entries, leaves, strict=True)],
                append=True,
            )
        header = Commit(
            number=self._last.number + 1 if self._last else 1,
            first_record=self._next_record,
            records=len(entries),
            time_us=entries[-1].record.time_us,
            root=merkle_root(leaves),
            previous=sm3(self._last.to_bytes()) if self._last else GENESIS,
        )
        txn.put(first, header.to_bytes(), db=self._db["commits"], append=True)
        return header

    def _index(self, txn: lmdb.Transaction, entry: Entry, last_event: int) -> int:
        """Write what follows from one entry; returns the number of the last event."""
        record, db = entry.record, self._db
        number = _U64.pack(record.number)
        if record.kind == RecordKind.INTENT:
            key = key_of(record.terminal, record.merchant, record.batch, record.stan)
            txn.put(key, _KEY_VALUE.pack(record.number, 0, 0), db=db["keys"])
            txn.put(_U64.pack(record.rrn), number, db=db["rrns"])
            txn.put(number, b"", db=db["open"], append=True)
            if entry.charges:
                txn.put(
                    number, b"".join(counter + _U64.pack(amount) for counter, amount in entry.charges), db=db["charges"]
                )
                self._charge(txn, entry.charges, 1)
        elif record.kind == RecordKind.OUTCOME:
            intent = _U64.pack(record.refers)
            key = key_of(record.terminal, record.merchant, record.batch, record.stan)
            txn.put(key, _KEY_VALUE.pack(record.refers, record.number, 0), db=db["keys"])
            txn.delete(intent, db=db["open"])
            if entry.advice:
                txn.put(intent, Duty.ADVICE.value, db=db["due"])
            if entry.settles:
                self._settle(txn, *entry.settles, intent)
        elif record.kind == RecordKind.REVERSAL:
            txn.delete(_U64.pack(record.refers), db=db["due"])
        elif record.kind == RecordKind.ADVICE:
            intent = _U64.pack(record.refers)
            if txn.get(intent, db=db["due"]) == Duty.ADVICE.value:  # not a reversal that it has become meanwhile
                txn.delete(intent, db=db["due"])
        elif record.kind == RecordKind.SESSION and not txn.get(
            batch_key(record.terminal, record.merchant, record.batch), db=db["settlements"]
        ):
            txn.put(record.terminal.encode(), _U32.pack(record.batch), db=db["batches"])
        if entry.owes:
            txn.put(_U64.pack(entry.owes), Duty.REVERSAL.value, db=db["due"])
        if record.kind != RecordKind.INTENT and entry.charges:
            self._charge(txn, entry.charges, -1)
        if entry.undoes and (undone := txn.get(entry.undoes, db=db["keys"])):
            intent_number, outcome, _ = _KEY_VALUE.unpack(undone)
            txn.put(entry.undoes, _KEY_VALUE.pack(intent_number, outcome, record.number), db=db["keys"])
        if entry.tombstone and txn.get(entry.tombstone, db=db["keys"]) is None:
            txn.put(entry.tombstone, _KEY_VALUE.pack(0, record.number, record.number), db=db["keys"])
        if entry.event:
            last_event += 1
            txn.put(_U64.pack(last_event), entry.event, db=db["events"], append=True)
            txn.put(b"last-event", _U64.pack(last_event), db=db["meta"])
        return last_event

    def _settle(self, txn: lmdb.Transaction, key: bytes, state: int, intent: bytes) -> None:
        """Take note of totals or details; a batch whose totals have come takes no more transactions."""
        known = txn.get(key, db=self._db["settlements"])
        txn.put(key, bytes((state,)) + (known or b"\0")[1:] + intent, db=self._db["settlements"])
        terminal, batch = key[:8].rstrip(), key[23:]
        if known is None and txn.get(terminal, db=self._db["batches"]) == batch:
            txn.put(terminal, _U32.pack(_U32.unpack(batch)[0] % BATCH_MAX + 1), db=self._db["batches"])

    def _charge(self, txn: lmdb.Transaction, charges: Charges, sign: int) -> None:
        for counter, amount in charges:
            total = _U64.unpack(txn.get(counter, bytes(8), db=self._db["counters"]))[0] + sign * amount
            txn.put(counter, _U64.pack(max(total, 0)), db=self._db["counters"])

    def forget_events(self, delivered: int) -> None:
        """Drop the events up to ``delivered``; their records stay. Raises JournalError."""
        try:
            with self._env.begin(write=True) as txn, txn.cursor(self._db["events"]) as cursor:
                while cursor.first() and _U64.unpack(cursor.key())[0] <= delivered:
                    cursor.delete()
        except lmdb.Error as error:
            raise JournalError(f"the journal cannot be written: {error}") from error

    # -- reading: the view is that of the last ``refresh`` -----------------------------------------------------------

    def refresh(self) -> None:
        """Let the reading methods see everything that is committed by now."""
        self._read.abort()
        self._read = self._env.begin()

    def _get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._read.get(key, db=self._db[table])
        return value

    def known(self, key: bytes) -> Known | None:
        """What stands under a duplicate key."""
        value = self._get("keys", key)
        return Known(*_KEY_VALUE.unpack(value)) if value else None

    def record_bytes(self, number: int) -> bytes | None:
        return self._get("records", _U64.pack(number))

    def record(self, number: int) -> Record:
        """The record at ``number``. Raises KeyError when there is none, UntrustedBytesError when it is damaged."""
        data = self.record_bytes(number)
        if data is None:
            raise KeyError(number)
        return parse_record(data)

    def intent_of_rrn(self, rrn: int) -> int | None:
        value = self._get("rrns", _U64.pack(rrn))
        return _U64.unpack(value)[0] if value else None

    def last_rrn(self, below: int) -> int:
        """The highest RRN under ``below``; 0 when there is none."""
        with self._read.cursor(self._db["rrns"]) as cursor:
            found = cursor.prev() if cursor.set_range(_U64.pack(below)) else cursor.last()
            return _U64.unpack(cursor.key())[0] if found else 0

    def batch(self, terminal: str) -> int:
        """The terminal's current batch; 0 when it never signed in."""
        value = self._get("batches", terminal.encode())
        return _U32.unpack(value)[0] if value else 0

    def transactions(self, batch: bytes) -> Iterator[Known]:
        """What stands under each duplicate key of a batch (``batch_key``), by STAN."""
        with self._read.cursor(self._db["keys"]) as cursor:
            there = cursor.set_range(batch)
            while there and cursor.key().startswith(batch):
                yield Known(*_KEY_VALUE.unpack(cursor.value()))
                there = cursor.next()

    def settlement(self, batch: bytes) -> tuple[int, tuple[int, ...]]:
        """State of a batch (``batch_key``) and the intents that brought its totals and then its details."""
        value = self._get("settlements", batch) or b"\0"
        return value[0], tuple(_U64.unpack_from(value, at)[0] for at in range(1, len(value), 8))

    def settlements(self) -> Iterator[bytes]:
        """The keys of all batches whose totals have come, by terminal."""
        with self._read.cursor(self._db["settlements"]) as cursor:
            yield from cursor.iternext(keys=True, values=False)

    def counter(self, counter: bytes) -> int:
        value = self._get("counters", counter)
        return int.from_bytes(value or b"", "big")

    def charges(self, intent: int) -> Charges:
        """What an intent used up of limits."""
        value = self._get("charges", _U64.pack(intent)) or b""
        return tuple(
            (value[at : at + COUNTER_BYTES], _U64.unpack_from(value, at + COUNTER_BYTES)[0])
            for at in range(0, len(value), COUNTER_BYTES + 8)
        )

    def open_intents(self) -> list[int]:
        """Intents without an outcome, oldest first."""
        return self._numbers("open")

    def due(self) -> list[tuple[int, Duty]]:
        """Intents whose back end is owed something, oldest first, and what."""
        with self._read.cursor(self._db["due"]) as cursor:
            return [(_U64.unpack(key)[0], Duty(value)) for key, value in cursor]

    def due_reversals(self) -> list[int]:
        """Intents that owe their back end a reversal, oldest first."""
        return [intent for intent, duty in self.due() if duty is Duty.REVERSAL]

    def duty(self, intent: int) -> Duty | None:
        """What this intent's back end is owed and has not answered yet."""
        value = self._get("due", _U64.pack(intent))
        return Duty(value) if value is not None else None

    def _numbers(self, table: str) -> list[int]:
        with self._read.cursor(self._db[table]) as cursor:
            return [_U64.unpack(key)[0] for key in cursor.iternext(keys=True, values=False)]

    def events(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Undelivered events above ``after``, in order, at most ``limit``."""
        rows: list[tuple[int, bytes]] = []
        with self._read.cursor(self._db["events"]) as cursor:
            there = cursor.set_range(_U64.pack(after + 1))
            while there and len(rows) < limit:
                rows.append((_U64.unpack(cursor.key())[0], cursor.value()))
                there = cursor.next()
        return rows

    def records(self, first: int = 1) -> Iterator[tuple[int, bytes]]:
        """Record numbers and bytes from ``first`` on."""
        with self._read.cursor(self._db["records"]) as cursor:
            if cursor.set_range(_U64.pack(first)):
                for key, value in cursor:
                    yield _U64.unpack(key)[0], value

    def commits(self, record: int = 1) -> Iterator[bytes]:
        """Headers from the commit that holds ``record`` on."""
        with self._read.cursor(self._db["commits"]) as cursor:
            there = cursor.set_range(_U64.pack(record))
            if not there or _U64.unpack(cursor.key())[0] > record:
                # Where the commit itself is gone, from the first one that is left: an auditor must see it.
                there = cursor.prev() or cursor.first() if there else cursor.last()
            while there:
                yield cursor.value()
                there = cursor.next()

    def signature(self, commit: int) -> bytes | None:
        """The switch's signature over the header of commit ``commit``."""
        return self._get("signatures", _U64.pack(commit))

    @property
    def next_record(self) -> int:
        """The number that the next record gets."""
        return self._next_record

    @property
    def last_event(self) -> int:
        """The number of the last event ever written, pruned or not."""
        return self._last_event

    @property
    def last_commit(self) -> Commit | None:
        return self._last
