"""What the store forgets, so that ten years of sealed days leave it as small as one.

Lines go to files (``days``); what the rules ask by stays in the store for as long as a rule can ask for it:

===========  ======================================================================================================
keys         ``KEPT_DAYS``: so long may a refund, a void or a reversal name its original. Longer: what is open or owed,
             what ended more than a day after it began, and all of a terminal's current and next batch, which are the
             only ones in which a request can still come again
charges      as long as the keys: until then a reversal may give back
settlements  as long as the keys of their batch
counters     a limit of a business day until that day is sealed; lasting limits for ever
rrns         until the day is sealed
undone       for ever: it is what reports of old days need, and one transaction in a hundred
===========  ======================================================================================================

A terminal's newest batch of which a key went is noted (table ``forgotten``): what names that one or an older one is
answered with 25, not taken for a transaction that never came.

A terminal's batches stand in their order, so a walk reads of each terminal what may go and the first row that is too
new, and leaps over the rest: a day's walk costs as much as a day's trade, not as much as the year that is kept.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import lmdb

from fengshou.switch.clock import rrn_base
from fengshou.switch.journal.tables import BATCH_MAX, PAIR, U16, U32, U64, Day

# A year and a month: what was bought in one season may be given back in the next.
KEPT_DAYS = 400

_RRN_COUNT = 10**8
_ORDER = ("keys", "charges", "settlements", "counters", "rrns")

Place = tuple[int, bytes]  # where a walk stands: which of these tables, and the key that comes next
Verdict = bool | bytes | None  # whether a row goes; where to go on instead; None: it and all behind it stay
BEGIN: Place = (0, b"")


def forgotten_up_to(days: Sequence[Day]) -> int:
    """The last record of which the store need not know the key; 0 for none."""
    if not days:
        return 0
    newest = _date(days[-1].day)
    old = [day for day in days if day.sealed and newest - _date(day.day) > timedelta(days=KEPT_DAYS)]
    return old[-1].last_record if old else 0


def batches_since(batch: int, current: int) -> int:
    """How many batches of a terminal lie between one and the current one; numbers begin again after ``BATCH_MAX``."""
    return (current - batch) % BATCH_MAX


def _date(day: int) -> date:
    return date(day // 10_000, day // 100 % 100, day % 100)


class Pruning:
    """One step inside of one transaction."""

    def __init__(self, txn: lmdb.Transaction, tables: Mapping[str, Any], days: Sequence[Day]) -> None:
        self._txn = txn
        self._db = tables
        self._up_to = forgotten_up_to(days)
        self._sealed = max((day.last_record for day in days), default=0)
        self._begins = [day.first_record for day in days]
        open_days = [day.day for day in days if not day.sealed]
        self._first_open_day = min(open_days, default=0)
        self._rrns = {rrn_base(day) // _RRN_COUNT for day in open_days}
        self._rules: dict[str, Callable[[bytes, bytes], Verdict]] = {
            "keys": self._key_goes,
            "charges": self._charge_goes,
            "settlements": self._settlement_goes,
            "counters": self._counter_goes,
            "rrns": self._rrn_goes,
        }

    def step(self, at: Place, rows: int) -> Place | None:
        """Look at so many rows from ``at`` on. Returns the next place; None at the end, which is noted."""
        table, key = at
        if not self._up_to and not key:  # before the first day is too long ago, only counters and RRNs go
            table = max(table, _ORDER.index("counters"))
        goes = self._rules[_ORDER[table]]
        with self._txn.cursor(self._db[_ORDER[table]]) as cursor:
            there = cursor.set_range(key) if key else cursor.first()
            for _ in range(rows):
                if not there:
                    break
                verdict = goes(bytes(cursor.key()), bytes(cursor.value()))
                if verdict is None:
                    there = False
                elif isinstance(verdict, bytes):
                    there = cursor.set_range(verdict)
                else:
                    there = cursor.delete() and bool(cursor.key()) if verdict else cursor.next()
            if there:
                return table, bytes(cursor.key())
        if table + 1 < len(_ORDER):
            return table + 1, b""
        self._txn.put(b"pruned", U64.pack(self._sealed), db=self._db["meta"])
        return None

    def _key_goes(self, key: bytes, value: bytes) -> Verdict:
        intent, outcome = PAIR.unpack(value)
        if intent > self._up_to:
            return self._beyond(key)
        if not outcome or outcome > self._up_to or self._owed(intent) or self._ended_late(intent, outcome):
            return False
        terminal, batch = key[:8].rstrip(), U32.unpack_from(key, 23)[0]
        current = self._number("batches", terminal) or 1
        since = batches_since(batch, current)
        if since in (0, BATCH_MAX - 1):  # the current and the next one
            return False
        newest = self._number("forgotten", terminal)
        if not newest or since < batches_since(newest, current):
            self._txn.put(terminal, U32.pack(batch), db=self._db["forgotten"])
        return True

    def _charge_goes(self, key: bytes, value: bytes) -> bool | None:
        intent = U64.unpack(key)[0]
        return not self._owed(intent) if intent <= self._up_to else None

    def _settlement_goes(self, key: bytes, value: bytes) -> Verdict:
        if int.from_bytes(value[1:9], "big") > self._up_to:
            return self._beyond(key)
        since = batches_since(U32.unpack_from(key, 23)[0], self._number("batches", key[:8].rstrip()) or 1)
        return since not in (0, BATCH_MAX - 1)

    def _beyond(self, key: bytes) -> bytes:
        """Where a terminal's batches end that are as new as the one of this key: behind its current one, where those of
        before the numbers began again stand; of these, behind the last."""
        current = self._number("batches", key[:8].rstrip()) or 1
        return key[:23] + U32.pack(current + 1 if U32.unpack_from(key, 23)[0] <= current else BATCH_MAX + 1)

    def _counter_goes(self, key: bytes, value: bytes) -> bool:
        return 0 < int.from_bytes(key[:4], "big") < self._first_open_day

    def _rrn_goes(self, key: bytes, value: bytes) -> bool:
        return U16.unpack(key)[0] not in self._rrns

    def _owed(self, intent: int) -> bool:
        """Whether it is open, or its back end is owed something."""
        number = U64.pack(intent)
        return any(self._txn.get(number, db=self._db[table]) is not None for table in ("open", "due"))

    def _ended_late(self, intent: int, outcome: int) -> bool:
        """Whether its outcome is not on its own day or the next one: a report of its day finds it by the key."""
        return bisect_right(self._begins, outcome) - bisect_right(self._begins, intent) > 1

    def _number(self, table: str, terminal: bytes) -> int:
        return int.from_bytes(self._txn.get(terminal, b"", db=self._db[table]), "big")
