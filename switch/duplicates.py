"""One effect a key: what the switch knows under (merchant, terminal, batch, STAN), in flight or in the journal."""

from enum import Enum

import msgspec

from fengshou.protocol.codes import APPROVED, UNKNOWN_OUTCOME
from fengshou.protocol.record import Record
from fengshou.protocol.service import Fate
from fengshou.protocol.transaction import Duty
from fengshou.switch.exchange import Exchange
from fengshou.switch.journal.store import WHO, DayAbsent, Journal, Known


class Verdict(Enum):
    """What a request's key means; the value is the response code where there is one."""

    FRESH = ""
    REPLAY = "00"  # same key, same content: the stored response, byte for byte
    IN_PROGRESS = "09"  # same key, same content, no outcome yet
    CONFLICT = "94"  # same key, another content, or a reversal came first


class Found(msgspec.Struct, frozen=True):
    verdict: Verdict
    outcome: Record | None = None  # of a replay
    barred: bool = False  # its reversal came first


FRESH = Found(Verdict.FRESH)


class Duplicates:
    """The exchanges in flight by key, in front of the journal's index.

    Of each terminal the highest key (batch and STAN) is remembered under which anything stands. A terminal counts up,
    and everything that is written under its keys goes by way of ``begin``: so what is above is fresh, and neither the
    journal's recent keys nor two of its tables are asked. That saves 2 of 80 µs a purchase.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._highest: dict[bytes, bytes] = {}  # by terminal and merchant; no more than the registry has
        self._in_flight: dict[bytes, Exchange] = {}
        self._undoing: set[bytes] = set()
        self._settling: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def settling(self) -> bool:
        """Whether the settlement of a batch is in flight."""
        return bool(self._settling)

    def look(self, key: bytes, content: bytes) -> Found:
        """Judge a key by what is in flight and what the journal's current view holds."""
        if key > self._highest_of(key):
            return FRESH
        running = self._in_flight.get(key)
        if running is not None:
            return Found(Verdict.IN_PROGRESS if running.content == content else Verdict.CONFLICT)
        known = self._journal.known(key)
        if known is None:  # a reversal that came before its original may stand in the same batch
            return Found(Verdict.CONFLICT, barred=True) if key in self._undoing else FRESH
        if known.intent == 0:
            return Found(Verdict.CONFLICT, barred=True)
        try:
            if self._journal.record(known.intent).content != content:
                return Found(Verdict.CONFLICT)
            if known.outcome == 0:
                return Found(Verdict.IN_PROGRESS)
            return Found(Verdict.REPLAY, self._journal.record(known.outcome))
        except DayAbsent:  # archived long ago: what it was cannot be said, but it is not done again
            return Found(Verdict.CONFLICT)

    def begin(self, exchange: Exchange) -> None:
        """From now on its key is in flight."""
        self._in_flight[exchange.key] = exchange
        self._raise_to(exchange.key)
        if exchange.original:
            self._undoing.add(exchange.original)
            self._raise_to(exchange.original)
        if exchange.batch:
            self._settling.add(exchange.batch)

    def _highest_of(self, key: bytes) -> bytes:
        who = key[WHO]
        found = self._highest.get(who)
        if found is None:
            found = self._highest[who] = self._journal.highest_key(who)
        return found

    def _raise_to(self, key: bytes) -> None:
        if key > self._highest_of(key):
            self._highest[key[WHO]] = key

    def finish(self, exchange: Exchange) -> None:
        """The journal knows its end, or it never began."""
        if self._in_flight.get(exchange.key) is exchange:
            del self._in_flight[exchange.key]
            self._undoing.discard(exchange.original)
            self._settling.discard(exchange.batch)

    def runs_in(self, batch: bytes) -> bool:
        """Whether a transaction of this batch, or its settlement, is in flight."""
        return batch in self._settling or any(key.startswith(batch) for key in self._in_flight)

    def running(self, key: bytes) -> Exchange | None:
        """The exchange in flight under ``key``."""
        return self._in_flight.get(key)

    def fate(self, key: bytes) -> tuple[Fate, Known | None]:
        """What became of the transaction at ``key``; None as second: it is not in the journal."""
        known = self._journal.known(key)
        if key in self._in_flight or key in self._undoing:
            return Fate.OPEN, known
        if known is None:
            return Fate.OPEN, None
        if known.undone_by:
            return Fate.REVERSED, known
        if not known.outcome:
            return Fate.OPEN, known
        duty = self._journal.duty(known.intent)
        if duty is not None:
            return (Fate.ACCEPTED if duty is Duty.ADVICE else Fate.UNKNOWN), known
        code = self._journal.record(known.outcome).code
        if code == APPROVED:
            return Fate.APPROVED, known
        return (Fate.UNKNOWN if code == UNKNOWN_OUTCOME else Fate.DECLINED), known
