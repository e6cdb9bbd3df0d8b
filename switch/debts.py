"""What the switch owes a back end: which message it is, and what an answer to it means."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import msgspec

from fengshou.protocol import codes
from fengshou.protocol.iso8583 import REVERSED_NO_RESPONSE
from fengshou.protocol.record import Record, RecordKind
from fengshou.protocol.reversal import (
    REVERSAL_ADVICE_MTI,
    advice_of,
    authorisation_of,
    demanded_again,
    reversal_of,
)
from fengshou.protocol.service import Iso8583Call, Reply, Request, Service, TerminalFacts
from fengshou.protocol.transaction import DUE, Duty, State
from fengshou.routing.destination import Failure, Trace
from fengshou.switch.conclusions import conclusion_of, event_of, printable
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Charges, Entry, Journal, key_of
from fengshou.switch.originals import Originals
from fengshou.switch.outbound import trace_of
from fengshou.switch.recording import Recorder

# What ends a reversal: it was done, there is nothing to do (25, 12), or the original was declined anyway (01).
REVERSAL_ENDED = frozenset(("00", "25", "12", "01"))
# The back end is not ready: cut-over, no issuer, no route, too late, busy. Nothing is decided.
NOT_READY = frozenset(("68", "90", "91", "92", "96"))

# Fields in which a call names whose money moves: the card, the account that pays, the one that is paid.
_ACCOUNT_FIELDS = (2, 102, 103)


class Verdict(Enum):
    DONE = "done"
    REFUSED = "refused"  # decided against us
    AGAIN = "again"


def verdict(duty: Duty, result: Reply | Failure) -> Verdict:
    """What an answer means for a debt."""
    if isinstance(result, Failure) or codes.action_of(result.code) in "BE" or result.code in NOT_READY:
        return Verdict.AGAIN
    if duty is Duty.REPEAT or result.code in (REVERSAL_ENDED if duty is Duty.REVERSAL else {codes.APPROVED}):
        return Verdict.DONE
    return Verdict.REFUSED


@dataclass(slots=True, eq=False)
class Debt:
    """One message that is owed. ``accounts`` are those whose order it must keep."""

    intent: int
    duty: Duty
    state: State
    destination: str
    accounts: tuple[str, ...]
    record: Record  # of the intent, without what it kept of the message
    request: Request
    call: Iso8583Call
    late_us: int = 0  # of a reversal: the late approval that owes it, see ``journal.tables.due_row``
    attempts: int = 0  # also those of an earlier run
    in_flight: bool = False
    in_lanes: bool = True
    closing: bool = False  # its end is on its way to the disk
    then: Duty | None = None  # what it owes after that


@dataclass(frozen=True, slots=True)
class Attempt:
    """A debt as it was sent."""

    debt: Debt
    duty: Duty
    late_us: int

    @property
    def outlived(self) -> bool:
        """Meanwhile the debt has become another one, which no answer to this ends."""
        return (self.duty, self.late_us) != (self.debt.duty, self.debt.late_us)


class Undeliverable(Exception):
    """A debt whose service, terminal or call is gone. It stays in the journal until a restart with them."""


class Ledger:
    """Debts from the journal and back into it."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        recorder: Recorder,
        originals: Originals,
        facts: Callable[[str], TerminalFacts | None],
    ) -> None:
        self._catalogue = catalogue
        self._journal = journal
        self._recorder = recorder
        self._originals = originals
        self._facts = facts

    def open(self, intent: int, duty: Duty, attempts: int) -> Debt:
        """The debt of an intent, as the journal's current view knows it. Raises Undeliverable."""
        record = self._journal.record(intent)
        service, request = self._request(record)
        call = self._originals.call(request)
        if call is None:
            raise Undeliverable("it asked no host for anything")
        # Without repeats, in any order: the lanes of all are entered at once.
        accounts = tuple({str(call.fields[field]) for field in _ACCOUNT_FIELDS if field in call.fields})
        record = msgspec.structs.replace(record, evidence=b"", clear=b"", sealed=b"")
        late_us = self._journal.late_us(intent)
        return Debt(intent, duty, DUE[duty], service.destination, accounts, record, request, call, late_us, attempts)

    def message(self, debt: Debt) -> tuple[Iso8583Call, Trace]:
        """What to send now. A repeat is marked as one: 0401, 0421, 0221."""
        trace = trace_of(debt.request, repeat=debt.attempts > 0)
        match debt.duty:
            case Duty.REVERSAL:
                reversal = reversal_of(
                    debt.call, trace.rrn, trace.received_us, trace.acquirer, REVERSED_NO_RESPONSE, REVERSAL_ADVICE_MTI
                )
                return demanded_again(reversal, trace.rrn, debt.late_us) if debt.late_us else reversal, trace
            case Duty.ADVICE:
                return advice_of(debt.call, authorisation_of(trace.rrn)), trace
            case Duty.REPEAT:
                return debt.call, trace

    def ending(self, debt: Debt, reply: Reply) -> Entry:
        """The entry that ends a debt. It must be durable before the debt is forgotten."""
        record = debt.record
        if debt.duty is Duty.REPEAT:
            return self._outcome(record, debt.request, reply)
        code = printable(reply.code)
        if debt.duty is Duty.ADVICE:
            return Entry(self._recorder.follow_up(RecordKind.ADVICE, record, code))
        key = key_of(record.terminal, record.merchant, record.batch, record.stan)
        known = self._journal.known(key)
        undone_before = known is not None and known.undone_by
        return Entry(
            self._recorder.follow_up(RecordKind.REVERSAL, record, code),
            late_us=debt.late_us,
            undoes=key,
            charges=() if undone_before else self._journal.charges(debt.intent),
        )

    def _outcome(self, record: Record, request: Request, reply: Reply) -> Entry:
        service = self._catalogue.service(record.template)
        assert service is not None
        conclusion = conclusion_of(service, request, reply, self._catalogue.codec)
        approved = conclusion.code == codes.APPROVED
        given_back: Charges = () if approved else self._journal.charges(record.number)
        return self._recorder.later_outcome(
            record, conclusion, gives_back=given_back, event=event_of(service, request, conclusion)
        )

    def _request(self, record: Record) -> tuple[Service, Request]:
        service, facts = self._catalogue.service(record.template), self._facts(record.terminal)
        if service is None:
            raise Undeliverable("its service is not in the configuration any more")
        if facts is None:
            raise Undeliverable("its terminal is not in the registry any more")
        return service, self._originals.request(record, facts)
