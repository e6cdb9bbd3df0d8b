"""The first half of the way: from frames to intents."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import trio

from fengshou.codecs import sm3_many, verify_batch
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import COMMAND_NONE, COMMAND_SIGN_IN, Value
from fengshou.protocol.service import Conclusion
from fengshou.protocol.session import Event as SessionEvent
from fengshou.protocol.session import SessionRefusal
from fengshou.protocol.templates import ECHO, ERROR, KEYS, OFFLINE_UPLOAD, RECEIPT, RENEWAL, SIGN_IN, SIGN_OFF, SIGNER
from fengshou.protocol.transaction import Duty, Event, Machine, State
from fengshou.switch import uploads
from fengshou.switch.admission import Admission, Ended
from fengshou.switch.clock import Clock
from fengshou.switch.conclusions import event_of
from fengshou.switch.counters import Counters
from fengshou.switch.duplicates import FRESH, Duplicates, Found, Verdict
from fengshou.switch.exchange import Exchange
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Entry
from fengshou.switch.recording import Recorder
from fengshou.switch.sessions import Sessions
from fengshou.terminals.pump import Peer

logger = logging.getLogger(__name__)

CUT_OVER = "90"
_JOURNAL = Event.JOURNAL  # asked for each request, see ``protocol.session``

_NOTHING: Mapping[int, Value] = {}  # what a sign-in implies


class Inbound:
    """The steps ``read``, ``verify`` and ``admit``, and what follows when the disk has or has not taken a batch."""

    def __init__(
        self,
        catalogue: Catalogue,
        clock: Clock,
        admission: Admission,
        duplicates: Duplicates,
        counters: Counters,
        recorder: Recorder,
        receipt: Callable[[Exchange], None],
        owe: Callable[[int, Duty], None],
        machine: Machine,
        sessions: Sessions,
    ) -> None:
        """``receipt`` answers a request for an earlier transaction's receipt; ``owe`` is told of each intent whose back
        end is owed something, once that is durable."""
        self._catalogue = catalogue
        self._codec = catalogue.codec
        self._clock = clock
        self._admission = admission
        self._duplicates = duplicates
        self._counters = counters
        self._recorder = recorder
        self._receipt = receipt
        self._owe = owe
        self._machine = machine
        self.sessions = sessions
        self._uploads: dict[Exchange, uploads.Upload] = {}  # of the batch that is being read
        self.refused: Counter[str] = Counter()  # by reason

    # -- frames → messages: the grammar and the session's rules ----------------------------------------------------

    def read(self, arrivals: Iterable[tuple[Peer, bytes]]) -> list[Exchange]:
        """Decode, and refuse what the session does not allow. A flood is refused here, before it costs a signature."""
        now_us, now = self._clock.now_us(), trio.current_time()
        exchanges, waiting = [], 0
        for peer, frame in arrivals:
            exchange = Exchange(peer, frame, now_us, now, self._machine)
            exchanges.append(exchange)
            refused = self._decode(exchange)
            if overload := self._admission.overload(peer, waiting, now):  # first: what is too much is not even recorded
                exchange.shed(overload)
            elif refused is not None:
                exchange.refuse(*refused)
            else:
                waiting += 1
        return exchanges

    def _decode(self, exchange: Exchange) -> tuple[str, str, int] | None:
        """Fill in the message. Returns code, reason and command when grammar or session refuse it."""
        try:
            message = self._codec.decode(exchange.frame, exchange.peer.session.history)
        except UntrustedBytesError as error:
            exchange.sequence = sequence_of(exchange.frame)
            return error.code, str(error), COMMAND_NONE
        exchange.asked = message
        exchange.sequence = message.sequence
        unlawful = exchange.peer.session.refusal(message)
        if unlawful is not None:
            return _reason_of(unlawful)
        if message.template == OFFLINE_UPLOAD.id:
            try:
                self._uploads[exchange] = uploads.unpack(self._codec, exchange)
            except UntrustedBytesError as error:
                return codes.FORMAT_ERROR, str(error), COMMAND_NONE
        return None

    # -- signatures ------------------------------------------------------------------------------------------------

    def verify(self, exchanges: list[Exchange]) -> None:
        """Refuse every signed message whose signature is not its terminal's over its canonical form in this session.

        In the place of each upload that passes come the requests in it.
        """
        signed = [exchange for exchange in exchanges if exchange.conclusion is None and exchange.asked.signature]
        alone = [exchange for exchange in signed if exchange not in self._uploads]
        for exchange, digest in zip(alone, sm3_many(map(self._signed_text, alone)), strict=True):
            exchange.digest = digest
            exchange.evidence = digest + exchange.asked.signature
        for exchange, upload in self._uploads.items():
            if exchange.conclusion is None:
                exchange.digest = uploads.digest(exchange.peer.certificate.public_key.za, upload)
        verdicts = verify_batch(
            [(exchange.peer.certificate.public_key, exchange.digest, exchange.asked.signature) for exchange in signed]
        )
        for exchange, genuine in zip(signed, verdicts, strict=True):
            if not genuine:
                # A delta that was made from another base than the switch has expands to what nobody signed.
                exchange.refuse(codes.RESYNC if exchange.in_delta else "63", "signature does not verify")
        if self._uploads:
            self._open_uploads(exchanges)

    def _signed_text(self, exchange: Exchange) -> bytes:
        message, peer = exchange.asked, exchange.peer
        implied = _NOTHING if message.template == SIGN_IN.id else peer.session.implied
        return self._codec.signed_text(peer.certificate.public_key.za, peer.session.binding, message, implied)

    def _open_uploads(self, exchanges: list[Exchange]) -> None:
        for exchange, upload in self._uploads.items():
            if exchange.conclusion is None:
                requests = uploads.requests(exchange, upload)
                place = exchanges.index(exchange)
                exchanges[place : place + 1] = requests
                for waiting, request in enumerate(requests[1:], len(exchanges)):  # the first is paid for by the upload
                    if overload := self._admission.overload(request.peer, waiting, request.arrived):
                        request.shed(overload)
        self._uploads.clear()

    # -- admission, duplicates -------------------------------------------------------------------------------------

    def admit(self, exchanges: Sequence[Exchange]) -> list[Entry]:
        """End what may not or need not go on; returns everything that must be durable before an answer or a call."""
        self._state(exchanges)
        entries: list[Entry] = []
        for exchange in exchanges:
            if exchange.conclusion is None:
                asked = exchange.asked
                match asked.template:
                    case _ if not exchange.peer.session.allows(asked):  # a sign-off came first in the same batch
                        exchange.refuse(*_reason_of(SessionRefusal.NOT_SIGNED_IN))
                    case template if self._catalogue.service(template) is not None:  # most of them
                        self._admit_request(exchange, entries)
                    case SIGN_IN.id:
                        self.sessions.sign_in(exchange, entries)
                    case SIGN_OFF.id:
                        self.sessions.sign_off(exchange, entries)
                    case KEYS.id:
                        self.sessions.hear_of_keys(exchange, entries)
                    case RENEWAL.id:
                        self.sessions.renew(exchange)
                    case SIGNER.id:
                        self.sessions.tell_signer(exchange)
                    case ECHO.id:
                        exchange.answer_now({de.RESPONSE_CODE: codes.APPROVED})
                    case RECEIPT.id:
                        self._receipt(exchange)
                    case ERROR.id:
                        exchange.refuse("40", "never a request")
                    case _:
                        self._admit_request(exchange, entries)
            if exchange.reason:
                self.refused[exchange.reason] += 1
                entries.append(self._recorder.refusal(exchange))
        return entries

    def admit_again(
        self, exchanges: Iterable[Exchange], entries: Iterable[Entry], over: Iterable[Entry]
    ) -> list[Entry]:
        """Nothing was written, because the intents ``over`` passed a limit which other workers have used up: judge
        these by what the journal says now, and leave the others as they are."""
        again = set(over)
        kept = [entry for entry in entries if entry not in again and entry.intent not in again]
        for exchange in exchanges:
            if exchange.intent in again:
                self._counters.release(exchange.charges)
                self._duplicates.finish(exchange)
                exchange.begin_again()
                self._begin(exchange, kept)
        return kept

    def _state(self, exchanges: Sequence[Exchange]) -> None:
        """What each request states, by which repeats are known: hashed side by side, for a third of the time."""
        asking = [exchange for exchange in exchanges if exchange.conclusion is None]
        for exchange in asking:
            exchange.stated = self._recorder.stated(exchange.asked)
        for exchange, content in zip(asking, sm3_many([exchange.stated for exchange in asking]), strict=True):
            exchange.content = content

    def _admit_request(self, exchange: Exchange, entries: list[Entry]) -> None:
        if self._admission.permit(exchange):
            self._begin(exchange, entries)

    def _begin(self, exchange: Exchange, entries: list[Entry]) -> None:
        try:
            ended = self._judge(exchange)
        except Exception:  # a scene that breaks its contract, or a record that cannot be read, must not end the others
            logger.exception("a request for template %d cannot be judged", exchange.asked.template)
            self._counters.release(exchange.charges)
            exchange.shed("96")
        if exchange.conclusion is not None:
            return
        exchange.intent = self._recorder.intent(exchange)
        entries.append(exchange.intent)
        self._duplicates.begin(exchange)
        if ended is not None:
            entries.append(self._end(exchange, ended))
            if ended.settles is not None:
                self._settled(exchange, BatchState(ended.settles[1]))

    def _end(self, exchange: Exchange, ended: Ended) -> Entry:
        """The outcome that is journalled together with its intent. An approval keeps what it uses of limits."""
        assert exchange.service is not None
        assert exchange.request is not None
        conclusion = Conclusion(ended.code, ended.values)
        exchange.conclude(conclusion, Event.ACCEPT if ended.advice else None)
        return self._recorder.outcome(
            exchange,
            owes=ended.reverses,
            advice=ended.advice,
            gives_back=() if exchange.approved else exchange.charges,
            tombstone=ended.tombstone,
            settles=ended.settles,
            event=event_of(exchange.service, exchange.request, conclusion),
        )

    def _judge(self, exchange: Exchange) -> Ended | None:
        """Answer what was answered before, refuse what may not begin; what is open afterwards is to be journalled."""
        found = self._duplicates.look(exchange.key, exchange.content)
        if found is not FRESH:
            self._answer_known(exchange, found)
        elif exchange.service and self._clock.is_cutting_over(exchange.service.name, exchange.received_us):
            exchange.shed(CUT_OVER)
        else:
            ended = self._admission.begin(exchange)
            if ended is None or codes.action_of(ended.code) != "B":
                return ended
            self._counters.release(exchange.charges)  # not now: the same request may come again
            exchange.shed(ended.code)
        return None

    def _answer_known(self, exchange: Exchange, found: Found) -> None:
        match found.verdict:
            case Verdict.REPLAY:
                assert found.outcome is not None
                exchange.replay(self._recorder.values(found.outcome), found.outcome.number)
            case Verdict.IN_PROGRESS:
                exchange.shed(Verdict.IN_PROGRESS.value)
            case Verdict.CONFLICT:
                if found.barred:
                    exchange.state = State.TOMBSTONE
                exchange.refuse(Verdict.CONFLICT.value, "another content under the same key")

    def _settled(self, exchange: Exchange, state: BatchState) -> None:
        """A settled batch takes no more transactions: its session ends, and the next sign-in begins the next batch."""
        if state is not BatchState.BALANCED:
            terminal, batch = exchange.peer.terminal, exchange.asked.values[de.ORIGINAL_BATCH]
            logger.warning("terminal %s: batch %s is out of balance, %s", terminal, batch, state.name.lower())
        if exchange.key.startswith(exchange.batch):
            exchange.command = COMMAND_SIGN_IN
            exchange.peer.session.advance(SessionEvent.SIGN_OFF, {})

    @property
    def changing(self) -> bool:
        """Whether somebody signs in or settles, and that is not durable yet: what is lawful after it is not known."""
        return self.sessions.waiting or self._duplicates.settling

    # -- after the disk --------------------------------------------------------------------------------------------

    def durable(self, exchanges: Sequence[Exchange]) -> None:
        """The batch is in the journal: sign-ins take effect, reservations are charges, what ended has ended."""
        # A terminal that settled over one connection and signed in to that batch over another, both in this batch.
        closed = {exchange.batch for exchange in exchanges if exchange.outcome and exchange.outcome.settles}
        for exchange in exchanges:
            if exchange.intent is not None:
                self._counters.release(exchange.charges)
                exchange.advance(_JOURNAL)
                if exchange.conclusion is not None:
                    exchange.settle()
                    self._duplicates.finish(exchange)
                    self._owe_what_follows(exchange)
            else:
                self.sessions.durable(exchange, closed)

    def _owe_what_follows(self, exchange: Exchange) -> None:
        assert exchange.intent is not None
        assert exchange.outcome is not None
        if exchange.outcome.advice:
            self._owe(exchange.intent.record.number, Duty.ADVICE)
        if exchange.outcome.owes:
            self._owe(exchange.outcome.owes, Duty.REVERSAL)
        if exchange.outcome.tombstone:
            self._machine.step(State.RECEIVED, Event.BAR)  # of the original, which has not come

    def lost(self, exchanges: Sequence[Exchange]) -> None:
        """The journal could not take the batch: nothing was done, and that is what the terminals hear."""
        for exchange in exchanges:
            if exchange.intent is not None:
                self._counters.release(exchange.charges)
                self._duplicates.finish(exchange)
                exchange.outcome = None  # there is none to give a receipt for
                exchange.shed("96")
            else:
                self.sessions.lost(exchange)


def _reason_of(unlawful: SessionRefusal) -> tuple[str, str, int]:
    command = COMMAND_SIGN_IN if unlawful is SessionRefusal.NOT_SIGNED_IN else COMMAND_NONE
    return unlawful.value, unlawful.name.lower().replace("_", " "), command


def sequence_of(untrusted: bytes) -> int:
    """The sequence of a frame that has no meaning, so that its sender can tell which it was; 0 when unreadable."""
    value, shift = 0, 0
    for byte in untrusted[2:11]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value
    return 0
