"""From exchanges to journal entries, and back from records to what they recorded.

Values are kept by their privacy class (JR/T 0171-2020): C1 in clear, C2 sealed under the journal's data key, C3 never.
What stands in the record's own columns is not written again.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from fengshou.codecs import sm3
from fengshou.hsm.custody import JOURNAL_DATA, PSEUDONYM, Custody
from fengshou.protocol import elements as de
from fengshou.protocol import offline
from fengshou.protocol.message import Message, Value
from fengshou.protocol.record import Record, RecordKind
from fengshou.protocol.service import Conclusion, Request, TerminalFacts
from fengshou.switch.clock import Clock
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Charges, Entry

if TYPE_CHECKING:  # commands that read a journal need none of what an exchange stands on
    from fengshou.switch.exchange import Exchange

_COLUMNS = frozenset((de.TERMINAL, de.MERCHANT, de.BATCH, de.STAN))
_RESPONSE_COLUMNS = frozenset((de.RESPONSE_CODE, de.RRN))
_SEARCHED = (de.PAN, de.FROM_ACCOUNT, de.TO_ACCOUNT)  # found again by their keyed hash
_REASON_BYTES_MAX = 64
_INTENT, _OUTCOME = int(RecordKind.INTENT), int(RecordKind.OUTCOME)  # plain: asked for each record


class Recorder:
    """Makes entries and reads records; owns nothing but knowledge of the format."""

    def __init__(self, catalogue: Catalogue, custody: Custody, clock: Clock) -> None:
        self._catalogue = catalogue
        self._codec = catalogue.codec
        self._custody = custody
        self._clock = clock

    # -- entries ---------------------------------------------------------------------------------------------------

    def intent(self, exchange: "Exchange") -> Entry:
        """The line that is durable before a back end hears of the request."""
        request, content = exchange.request, exchange.content
        assert request is not None
        values, facts = request.values, request.terminal
        clear, sealed = self._keep(values, _INTENT, content, _COLUMNS)
        record = Record(
            _INTENT,
            0,
            request.received_us,
            request.business_day,
            request.rrn,
            request.template.id,
            facts.terminal,
            facts.merchant,
            request.integer(de.BATCH),
            request.integer(de.STAN),
            refers=exchange.peer.session_record,
            content=content,
            evidence=exchange.evidence,
            clear=clear,
            sealed=sealed,
        )
        tags = tags_of(values, request.pseudonym)
        return Entry(record, charges=exchange.charges, caps=exchange.caps, tags=tags)

    def outcome(
        self,
        exchange: "Exchange",
        *,
        owes: int = 0,
        advice: bool = False,
        gives_back: Charges = (),
        tombstone: bytes = b"",
        event: bytes = b"",
        settles: tuple[bytes, int] | None = None,
    ) -> Entry:
        """The line that is durable before the terminal hears of the end. Fills in ``exchange.response``.

        ``owes`` is the intent whose back end is owed a reversal, ``advice`` that it is owed an advice of this one,
        ``gives_back`` what no longer counts against limits.
        """
        intent, conclusion = exchange.intent, exchange.conclusion
        assert intent is not None
        assert conclusion is not None
        record, exchange.response = self._outcome(intent.record, conclusion)
        exchange.outcome = Entry(
            record,
            intent=intent,
            owes=owes,
            advice=advice,
            tombstone=tombstone,
            undoes=exchange.original if exchange.approved and exchange.original_intent else b"",
            charges=gives_back,
            event=event,
            settles=settles,
        )
        return exchange.outcome

    def later_outcome(
        self, was: Record, conclusion: Conclusion, *, owes: int = 0, gives_back: Charges = (), event: bytes = b""
    ) -> Entry:
        """The outcome of an intent that nobody waits for any more: a restart found it open, or it was repeated."""
        return Entry(self._outcome(was, conclusion)[0], owes=owes, charges=gives_back, event=event)

    def _outcome(self, was: Record, conclusion: Conclusion) -> tuple[Record, bytes]:
        """The record of an intent's end, and the body of the response."""
        values: dict[int, Value] = {
            de.RESPONSE_CODE: conclusion.code,
            de.RRN: was.rrn,
            de.SETTLEMENT_DATE: was.business_day % 10_000,
            **conclusion.values,
        }
        body = self._codec.encode_body(was.template, True, values)
        clear, sealed = self._keep(values, _OUTCOME, was.content, _RESPONSE_COLUMNS)
        record = Record(
            _OUTCOME,
            0,
            self._clock.now_us(),
            was.business_day,
            was.rrn,
            was.template,
            was.terminal,
            was.merchant,
            was.batch,
            was.stan,
            refers=was.number,
            code=conclusion.code,
            content=was.content,
            evidence=sm3(body),
            clear=clear,
            sealed=sealed,
        )
        return record, body

    def session(
        self, exchange: "Exchange", facts: TerminalFacts, batch: int, held: tuple[int, int] | None = None
    ) -> Entry:
        """An accepted sign-in or sign-off: who, with which key, on which channel; ``held`` as in ``Entry``."""
        peer, message = exchange.peer, exchange.asked
        values = {
            **message.values,
            de.SESSION_BINDING: peer.session.binding,
            de.SIGNER: peer.certificate.public_key.point,
        }
        clear, sealed = self._keep(values, RecordKind.SESSION, exchange.content, _COLUMNS)
        stan = message.values.get(de.STAN, 0)
        assert isinstance(stan, int)
        return Entry(
            Record(
                RecordKind.SESSION,
                0,
                exchange.received_us,
                self._clock.business_day(exchange.received_us),
                0,
                message.template,
                facts.terminal,
                facts.merchant,
                batch,
                stan,
                code="00",
                content=exchange.content,
                evidence=exchange.evidence,
                clear=clear,
                sealed=sealed,
            ),
            held=held,
        )

    def refusal(self, exchange: "Exchange") -> Entry:
        """Why something never became an intent. The frame itself is kept as a digest only."""
        assert exchange.conclusion is not None
        row = exchange.peer.row
        message = exchange.asked
        return Entry(
            Record(
                RecordKind.REFUSAL,
                0,
                exchange.received_us,
                self._clock.business_day(exchange.received_us),
                0,
                message.template,
                exchange.peer.terminal[:8],
                row.facts.merchant if row else "",
                _integer(exchange.peer.session.implied.get(de.BATCH, 0)),
                _integer(message.values.get(de.STAN, 0)),
                code=exchange.conclusion.code,
                content=sm3(exchange.frame),
                clear=self._codec.pack({de.TEXT: exchange.reason[:_REASON_BYTES_MAX]}) if exchange.reason else b"",
            )
        )

    def follow_up(self, kind: RecordKind, was: Record, code: str) -> Record:
        """What happened to an intent after its outcome: a reversal was answered, or its own reply came late."""
        now_us = self._clock.now_us()
        return Record(
            kind, 0, now_us, self._clock.business_day(now_us), was.rrn, was.template, was.terminal, was.merchant,
            was.batch, was.stan, refers=was.number, code=code, content=was.content,
        )  # fmt: skip

    def _keep(
        self, values: Mapping[int, Value], kind: int, content: bytes, columns: frozenset[int]
    ) -> tuple[bytes, bytes]:
        clear, secret = self._codec.pack_kept(values, columns)
        return clear, self._custody.seal(JOURNAL_DATA, secret, _context(kind, content)) if secret else b""

    # -- records -----------------------------------------------------------------------------------------------------

    def clear(self, record: Record) -> dict[int, Value]:
        """The C1 values; no key is needed. Raises UntrustedBytesError."""
        return self._codec.unpack(record.clear)

    def values(self, record: Record) -> dict[int, Value]:
        """Everything that was kept of a request or response, C2 opened. Raises SealBroken, UntrustedBytesError."""
        values = self.clear(record)
        if record.sealed:
            values |= self._codec.unpack(
                self._custody.open(JOURNAL_DATA, record.sealed, _context(record.kind, record.content))
            )
        if record.kind in (RecordKind.INTENT, RecordKind.SESSION):
            values |= {
                de.TERMINAL: record.terminal,
                de.MERCHANT: record.merchant,
                de.BATCH: record.batch,
                de.STAN: record.stan,
            }
        elif record.kind == RecordKind.OUTCOME:
            values |= {de.RESPONSE_CODE: record.code, de.RRN: record.rrn}
        return values

    def leaf(self, record: Record) -> bytes:
        """The leaf of an item of an offline upload, built again from the line of its intent."""
        return offline.leaf(self._codec, record.template, self.values(record), {})

    def request(self, record: Record, facts: TerminalFacts, pseudonym: Callable[[str], str]) -> Request:
        """The request that an intent recorded, without its C3 values."""
        return Request(
            self._catalogue.template(record.template),
            self.values(record),
            facts,
            record.time_us,
            record.business_day,
            record.rrn,
            pseudonym,
        )

    def stated(self, message: Message) -> bytes:
        """Template id and body: the same for the same request under any sequence, session and form."""
        return bytes((message.template,)) + self._codec.encode_body(message.template, False, message.values)


def tags_of(values: Mapping[int, Value], pseudonym: Callable[[str], str]) -> tuple[bytes, ...]:
    """By which a request is found again: the keyed hashes (8 bytes) of the card and the accounts that it names."""
    return tuple([_octets(pseudonym(named)) for key in _SEARCHED if isinstance(named := values.get(key), str)])


_octets = lru_cache(maxsize=16_384)(bytes.fromhex)  # as many as there are pseudonyms remembered


def pseudonyms(custody: Custody) -> Callable[[str], str]:
    """The stable keyed hash of identifiers: 16 hexadecimal characters of HMAC-SM3.

    The latest are remembered: a buyer's own is asked for with every trade.
    """

    @lru_cache(maxsize=16_384)
    def pseudonym(identifier: str) -> str:
        return custody.mac(PSEUDONYM, identifier.encode())[:8].hex()

    return pseudonym


def _context(kind: int, content: bytes) -> bytes:
    """What a sealed value is tied to, so that it cannot be moved to another record."""
    return bytes((kind,)) + content


def _integer(value: Value) -> int:
    return value if isinstance(value, int) else 0
