"""What stands in the journal's tables, and what a caller hands over to be written.

All integers are big-endian, so that LMDB's order is ours. ``LINES`` never change once they are written; a sealed day
has them in a file of its own, see ``days``. The other tables follow from them and stay in one place.

===========  ==========================================  ====================================================
table        key                                         value
===========  ==========================================  ====================================================
records      record number (8)                           record, see ``protocol.record``
commits      number of its first record (8)              commit header (92)
signatures   commit number (8)                           r || s of the switch over the header (64)
columns      number of its first record (8)              what is searched for, see ``columns``
filters      number of its first record (8) page (2)     which columns to scan, see ``filters``
-----------  ------------------------------------------  ----------------------------------------------------
days         number of its first record (8)              a business day, see ``Day``
keys         terminal (8) merchant (15) batch (4) STAN   intent (8) outcome (8), 0 where not yet
undone       a key of ``keys``                           record that undid it, or barred it before it came (8)
rrns         YDDD (2)                                    none above it was given on that day (8)
open         intent (8)                                  its record: it has no outcome
due          intent (8)                                  what its back end is owed, see ``due_row``
charges      intent (8)                                  what it used up of limits: (counter 20, amount 8) …
counters     business day (4) name and subject (16)      sum (8)
batches      terminal (8)                                current batch (4)
forgotten    terminal (8)                                newest batch of which a key is gone (4), ``prune``
held         terminal (8)                                epochs of the working and the master key that it has (1, 1)
settlements  terminal (8) merchant (15) batch (4)        state (1), intents (8 each): of its totals, its details
events       event number (8)                            JSON for analytics, until it is delivered
meta         name                                        format; the last event that is gone; ``keyed``: for each
                                                         worker the first record whose key is not yet in ``keys``
===========  ==========================================  ====================================================

``keys`` and ``open`` lag behind the records by what ``keys`` holds in memory.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fengshou.protocol.record import GENESIS, Commit, Record, who
from fengshou.protocol.transaction import Duty

FORMAT_VERSION = b"3"
LINES = ("records", "commits", "signatures", "columns", "filters")
TABLES = (
    *LINES, "days", "keys", "undone", "rrns", "open", "due", "charges", "counters", "batches",
    "forgotten", "held",
    "settlements", "events", "meta",
)  # fmt: skip

U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")
PAIR = struct.Struct(">QQ")
_BATCH_STAN = struct.Struct(">II")

COUNTER_BYTES = 20
BATCH_KEY_BYTES = 27
WHO = slice(23)  # terminal and merchant in a key
TAG_BYTES = 8
BATCH_MAX = 999_999  # DE 60.2; after it comes 1 again
Charges = tuple[tuple[bytes, int], ...]  # (counter, amount)


class JournalError(Exception):
    """The store refused: disk full, damaged, of another format. Nothing of the group was written."""


class LimitPassed(Exception):
    """Intents would bring a counter past its cap, which another worker has used up meanwhile. Nothing was written."""

    def __init__(self, entries: "Sequence[Entry]") -> None:
        super().__init__(f"{len(entries)} intents pass a limit")
        self.entries = entries


class JournalTorn(JournalError):
    """The store lost writes that it had been promised, or was altered. Nothing was changed."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is torn: {why}. Nothing was changed. Take a copy of the folder; `fengshou journal repair OUT` "
            "then copies what is provably good and reports the rest"
        )


class DayAbsent(JournalError):
    """What is asked for lies on a sealed day whose file is not in the journal's folder any more."""

    def __init__(self, day: int) -> None:
        super().__init__(f"day {day} of the journal is archived: bring {segment_name(day)} back to read it")
        self.day = day


class Forgotten(DayAbsent):
    """What is named may have been there, but so long ago that the store has forgotten its key."""

    def __init__(self, batch: bytes) -> None:
        JournalError.__init__(
            self, f"batch {U32.unpack_from(batch, 23)[0]} of {terminal_of(batch)} was too long ago: find it by its RRN"
        )
        self.day = 0


def segment_name(day: int) -> str:
    """The file of a sealed business day (YYYYMMDD)."""
    return f"{day:08d}.mdb"


def key_of(terminal: str, merchant: str, batch: int, stan: int) -> bytes:
    """The duplicate key (merchant, terminal, batch, STAN)."""
    return who(terminal, merchant) + _BATCH_STAN.pack(batch, stan)


def due_row(duty: Duty, late_us: int = 0) -> bytes:
    """What an intent's back end is owed (1). A reversal that a late approval owes has the time of its record behind it
    (8, microseconds): it is another demand than the one before, and only its own answer ends it."""
    return duty.value + (U64.pack(late_us) if late_us else b"")


def parse_due(value: bytes) -> tuple[Duty, int]:
    """The duty, and the time of the late approval that owes it; 0 when an outcome does."""
    return Duty(value[:1]), U64.unpack(value[1:])[0] if len(value) > 1 else 0


GONE_EVENT = b"last-event"  # in ``meta``: the last event that was delivered and is gone
KEYED = b"keyed"


def keyed_row(worker: int) -> bytes:
    """Where in ``meta`` stands the first record whose key this worker may not have put into ``keys`` yet."""
    return KEYED + (b"-%d" % worker if worker else b"")


def keyed_rows(meta: Any) -> dict[bytes, int]:
    """Those of all workers, by a cursor over ``meta``."""
    found: dict[bytes, int] = {}
    there = meta.set_range(KEYED)
    while there and meta.key().startswith(KEYED):
        found[bytes(meta.key())] = U64.unpack(meta.value())[0]
        there = meta.next()
    return found


def terminal_of(key: bytes) -> str:
    """The terminal's id in a duplicate key or in what it begins with."""
    return key[:8].decode().rstrip()


def batch_key(terminal: str, merchant: str, batch: int) -> bytes:
    """What the duplicate keys of a batch begin with."""
    return who(terminal, merchant) + U32.pack(batch)


class Entry(msgspec.Struct, eq=False):
    """A record to be written and what follows from it. The writer gives the record its number."""

    record: Record
    intent: "Entry | None" = None  # an outcome in the same group as its intent
    owes: int = 0  # intent whose back end is owed a reversal; by a late approval: another one
    late_us: int = 0  # a reversal that is answered: the late approval that owed it, see ``due_row``
    advice: bool = False  # the intent that it refers to was approved without its back end, which is owed an advice
    tombstone: bytes = b""  # key of an original that must be refused should it still come
    undoes: bytes = b""  # key of the transaction that this one has reversed
    charges: Charges = ()  # an intent: what it uses up of limits; an outcome: what it gives back
    caps: tuple[int, ...] = ()  # an intent: what each of its charges may bring its counter to
    event: bytes = b""
    settles: tuple[bytes, int] | None = None  # key of a batch and the state that this outcome gives it
    held: tuple[int, int] | None = None  # a session: epochs of the keys that its terminal has
    tags: tuple[bytes, ...] = ()  # an intent: keyed hashes (8 bytes) of the cards and accounts that it names


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal knows under a duplicate key. ``intent`` 0 is a tombstone; ``outcome`` 0 is still open."""

    intent: int
    outcome: int
    undone_by: int


_DAY = struct.Struct(">IQQQ32sQQ")


@dataclass(frozen=True, slots=True)
class Day:
    """The commits of one business day: from ``first_record`` to the next day's.

    A commit belongs to the latest business day that the journal has seen, so days follow each other without a gap and
    an outcome after midnight belongs to the new day. ``last_record`` is 0 until the day is sealed: then its lines stand
    in a file of its own, and ``last_hash`` is SM3 of its last header, to which the next day's first one chains. Its
    records were written between ``earliest_us`` and ``latest_us``.
    """

    first_record: int
    day: int
    first_commit: int
    last_record: int = 0
    last_commit: int = 0
    last_hash: bytes = bytes(32)
    earliest_us: int = 0
    latest_us: int = 0

    @property
    def sealed(self) -> bool:
        return self.last_record > 0

    def to_bytes(self) -> bytes:
        return _DAY.pack(
            self.day, self.first_commit, self.last_record, self.last_commit, self.last_hash, self.earliest_us,
            self.latest_us,
        )  # fmt: skip


def parse_day(key: bytes, value: bytes) -> Day:
    """A row of ``days``. Raises struct.error when it is damaged."""
    return Day(*U64.unpack(key), *_DAY.unpack(value))


def spans(days: Sequence[Day]) -> list[tuple[Day, int]]:
    """Each day with its last record; 0 for the newest, which has no end yet."""
    ends = [after.first_record - 1 for after in days[1:]]
    return [(day, day.last_record or end) for day, end in zip(days, [*ends, 0], strict=True)] if days else []


class Tail(msgspec.Struct):
    """Where the journal ends."""

    last: Commit | None = None  # None also when only sealed days stand before
    commit: int = 0  # number of the last commit
    previous: bytes = GENESIS  # SM3 of its header
    next_record: int = 1
    last_event: int = 0
    gone_event: int = 0
    day: int = 0
