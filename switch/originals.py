"""Earlier transactions that requests refer to, as the journal and what is in flight know them."""

from collections.abc import Callable

import msgspec

from fengshou.protocol.record import Record
from fengshou.protocol.service import Fate, Iso8583Call, Original, Request, TerminalFacts
from fengshou.protocol.transaction import State
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Journal, key_of
from fengshou.switch.journal.tables import Forgotten
from fengshou.switch.recording import Recorder

# A void refers to a completion, that to a pre-authorisation; a terminal may name longer chains, which mean nothing.
_CHAIN_MAX = 2

STATE_OF = {
    Fate.APPROVED: State.APPROVED,
    Fate.ACCEPTED: State.ADVICE_DUE,
    Fate.UNKNOWN: State.REVERSAL_DUE,
    Fate.REVERSED: State.REVERSED,
    Fate.DECLINED: State.DECLINED,
    Fate.OPEN: State.SENT,
}


class Originals:
    """Reads; owns nothing."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        duplicates: Duplicates,
        recorder: Recorder,
        pseudonym: Callable[[str], str],
    ) -> None:
        self._catalogue = catalogue
        self._journal = journal
        self._duplicates = duplicates
        self._recorder = recorder
        self._pseudonym = pseudonym

    def find(self, key: bytes, facts: TerminalFacts, chain: int = _CHAIN_MAX) -> Original | None:
        """The transaction at a duplicate key of this terminal; None when it never became an intent."""
        fate, known = self._duplicates.fate(key)
        running = self._duplicates.running(key)
        if running is not None and running.request is not None:
            was = running.request
            return Original(
                was.template.id, was.template.mti, Fate.OPEN, was.business_day, was.received_us, was.rrn, was.values
            )
        if known is None and self._journal.forgotten(key):
            raise Forgotten(key)
        if known is None or known.intent == 0:
            return None
        record = self._journal.record(known.intent)
        request = self.request(record, facts, chain - 1)
        return Original(
            record.template,
            request.template.mti,
            fate,
            record.business_day,
            record.time_us,
            record.rrn,
            request.values,
            self.call(request),
        )

    def request(self, record: Record, facts: TerminalFacts, chain: int = _CHAIN_MAX) -> Request:
        """The request that an intent recorded, without its C3 values; with the transaction that it refers to."""
        request = self._recorder.request(record, facts, self._pseudonym)
        service = self._catalogue.service(record.template)
        named = service.original_key(request) if service else None
        if named is None or chain <= 0:
            return request
        original = self.find(key_of(record.terminal, record.merchant, *named), facts, chain)
        return msgspec.structs.replace(request, original=original)

    def call(self, request: Request) -> Iso8583Call | None:
        """What asked a host to move money, derived again; None when nothing moved, or it undid another."""
        service = self._catalogue.service(request.template.id)
        if service is None or not service.moves_money:
            return None
        if service.undoes and service.original_key(request) is not None:
            return None
        call = service.call(request)
        return call if isinstance(call, Iso8583Call) else None
