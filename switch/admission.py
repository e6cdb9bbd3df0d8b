"""Who may do what: the guards between a verified message and an intent, in order of precedence.

Nothing here waits or writes. Each guard either lets an exchange pass or ends it with a code; what was never allowed is
refused for the record, what was only too much is refused for now.
"""

from collections.abc import Callable, Mapping

import msgspec

from fengshou.hsm.custody import CustodyError, SealBroken
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_SIGN_IN, Value
from fengshou.protocol.reversal import authorisation_of
from fengshou.protocol.service import Counter, Iso8583Call, JsonCall, Request, Service, refusal
from fengshou.switch.affinity import Share
from fengshou.switch.counters import Counters
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.exchange import Exchange
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import BATCH_MAX, DayAbsent, Journal, batch_key, key_of
from fengshou.switch.originals import STATE_OF, Originals
from fengshou.switch.pins import PIN_BLOCK, PinRefused, Pins
from fengshou.switch.recording import Recorder
from fengshou.switch.rrn import RrnSource
from fengshou.switch.settlement.totals import Settlements
from fengshou.switch.stand_in import StandIn
from fengshou.switch.terminal_keys import TerminalKeys
from fengshou.terminals.binding import TerminalRow, binding_refusal
from fengshou.terminals.pump import Peer

# Of a connection on which nobody has signed in: a sign-in, perhaps a second one for the batch, an echo.
STRANGER_RATE_PER_SECOND = 10
_NOT_FOUND = "25"
_NOT_HERE = "97"  # unknown terminal: to this worker
_SEALED = de.SEALED.keys()
_CALLS = (Iso8583Call, JsonCall)


class Ended(msgspec.Struct, frozen=True):
    """An intent that needs no back end: refused by the ladder or a limit, or answered by its service."""

    code: str
    values: Mapping[int, Value]
    tombstone: bytes = b""  # key of an original that never came
    settles: tuple[bytes, int] | None = None  # key of the batch that it settles, and what that has become
    reverses: int = 0  # intent that the switch itself shall reverse
    advice: bool = False  # approved without its back end, which is to be told


class Admission:
    """The guards. ``terminals`` gives the registry's current view."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        duplicates: Duplicates,
        counters: Counters,
        recorder: Recorder,
        originals: Originals,
        rrns: RrnSource,
        pseudonym: Callable[[str], str],
        terminals: Callable[[str], TerminalRow | None],
        in_flight_max: int,
        stand_in: StandIn,
        pins: Pins,
        keys: TerminalKeys,
        share: Share,
    ) -> None:
        self._catalogue = catalogue
        self._journal = journal
        self._duplicates = duplicates
        self._counters = counters
        self._originals = originals
        self._rrns = rrns
        self._pseudonym = pseudonym
        self._terminals = terminals
        self._in_flight_max = in_flight_max
        self._stand_in = stand_in
        self._pins = pins
        self._keys = keys
        self._share = share
        self._settlements = Settlements(journal, catalogue, recorder)
        self._may_seal = {  # templates
            template.id
            for template in catalogue.grammar.templates.values()
            if not _SEALED.isdisjoint(field.key for field in template.request)
        }

    # -- before the signature is looked at: cheap, so that a flood is cheap ----------------------------------------

    def overload(self, peer: Peer, waiting: int, now: float) -> str | None:
        """65 when the peer sends faster than its rate allows, 96 when the switch has enough in flight, else None.

        ``waiting`` are those of the same batch that were let through; ``now`` is Trio's time.
        """
        rate = peer.row.rate_per_second if peer.row else STRANGER_RATE_PER_SECOND
        # A bucket of two seconds: a person may press twice, a loop may not run.
        peer.allowance = min(2.0 * rate, peer.allowance + (now - peer.spent_at) * rate)
        peer.spent_at = now
        if peer.allowance < 1.0:
            return "65"
        peer.allowance -= 1.0
        return "96" if len(self._duplicates) + waiting >= self._in_flight_max else None

    # -- sign-in -----------------------------------------------------------------------------------------------------

    def sign_in(self, exchange: Exchange) -> tuple[TerminalRow, int] | None:
        """The row and batch that a sign-in takes on; None when it is refused."""
        values = exchange.asked.values
        if not self._share.has(str(values[de.TERMINAL])):
            exchange.refuse(_NOT_HERE, "another worker's terminal: the server name is not its id")
            return None
        row = self._terminals(str(values[de.TERMINAL]))
        refused = binding_refusal(row, exchange.peer.certificate, values)
        if refused is not None or row is None:
            assert refused is not None
            exchange.refuse(refused.code, refused.reason)
            return None
        batch = self._batch(row.facts.terminal, values[de.BATCH])
        if batch is None:
            exchange.refuse("77", "the batch is neither the current nor the next one", COMMAND_SIGN_IN)
            return None
        return row, batch

    def _batch(self, terminal: str, claimed: Value) -> int | None:
        """The current batch goes on, the next one begins; 0 asks which is current."""
        current = self._journal.batch(terminal) or 1
        if claimed == 0:
            return current
        return int(claimed) if claimed in (current, current % BATCH_MAX + 1) else None

    # -- requests ----------------------------------------------------------------------------------------------------

    def permit(self, exchange: Exchange) -> bool:
        """Is there such a service, and may this terminal with this application use it?"""
        message, peer = exchange.asked, exchange.peer
        row, session = peer.row, peer.session
        service = self._catalogue.service(message.template)
        if service is None:
            exchange.refuse("40", "no service for this template")
        elif row is None or service.name not in peer.permitted:
            exchange.refuse("58", f"service {service.name} is not permitted")
        elif not message.values.get(de.STAN):
            exchange.refuse("30", "STAN is 0")
        else:
            exchange.service = service
            if session.history is not None and self._catalogue.template(message.template).operators:
                session.history.keep(message.sequence, exchange.stated)
            batch, stan = int(session.implied[de.BATCH]), int(message.values[de.STAN])
            exchange.key = key_of(row.facts.terminal, row.facts.merchant, batch, stan)
            return True
        return False

    def begin(self, exchange: Exchange) -> Ended | None:
        """Make the intent: RRN, original, ladder, limits, call. What is returned ends it in the same commit."""
        message, row, service = exchange.asked, exchange.peer.row, exchange.service
        assert row is not None
        assert service is not None
        rrn, day = self._rrns.next(exchange.received_us)
        request = Request(
            self._catalogue.template(message.template),
            {**exchange.peer.session.implied, **message.values},
            row.facts,
            exchange.received_us,
            day,
            rrn,
            self._pseudonym,
        )
        exchange.request = request
        if message.template in self._may_seal and not _SEALED.isdisjoint(message.values):
            try:
                request = msgspec.structs.replace(request, values=self._keys.opened(row.facts, request.values))
            except (SealBroken, UnicodeDecodeError):
                return Ended(codes.MAC_ERROR, {de.TEXT: "a sealed element does not open"})
            except CustodyError:
                return Ended(codes.KEYS_OUT_OF_USE, {de.TEXT: "the keys of a sealed element are out of use"})
            exchange.request = request
        named = service.original_key(request)
        key = key_of(row.facts.terminal, row.facts.merchant, *named) if named else b""
        about = service.batch_named(request)
        if about is not None:
            exchange.batch = batch_key(row.facts.terminal, row.facts.merchant, about)
            if self._duplicates.runs_in(exchange.batch):
                return Ended(codes.IN_PROGRESS, {})
        try:
            if named:
                request = msgspec.structs.replace(request, original=self._originals.find(key, row.facts))
            if about is not None:
                batch = self._settlements.batch(row.facts.terminal, row.facts.merchant, about)
                request = msgspec.structs.replace(request, batch=batch)
        except DayAbsent:  # what it names was archived, so nothing can be decided about it any more
            return Ended(_NOT_FOUND, {de.TEXT: "archived"})
        exchange.request = request
        failed = None if service.sound(request) else refusal(service.ladder, request)
        if failed is not None:
            return Ended(failed.code, {de.TEXT: failed.name[:64]})
        passed = self._charge(exchange, service.counters(request))
        if passed is not None:
            return Ended(passed.code, {de.TEXT: f"limit {passed.name}"[:64]})
        call = service.call(request)
        if isinstance(call, Iso8583Call) and PIN_BLOCK in call.fields:
            try:
                call = self._pins.translated(request, call, service.destination)
            except PinRefused as refused:
                return Ended(refused.code, {de.TEXT: str(refused)})
        known = self._journal.known(key) if request.original is not None and service.undoes else None
        if isinstance(call, _CALLS):
            if service.accepts:
                return Ended(codes.APPROVED, {}, advice=True)
            if isinstance(call, Iso8583Call) and self._stands_in(exchange, service, request, call):
                return Ended(codes.APPROVED, {de.AUTHORISATION: authorisation_of(rrn)}, advice=True)
            exchange.call = call
            if known is not None and request.original is not None:
                exchange.original, exchange.original_intent = key, known.intent
                exchange.original_state = STATE_OF[request.original.fate]
            return None
        if call.tombstone or call.reverses:
            exchange.original = key  # barred from now on, not only when the journal has it
        settles = None if call.settles is None else (exchange.batch, int(call.settles))
        return Ended(
            call.code,
            call.values,
            tombstone=key if call.tombstone else b"",
            reverses=known.intent if call.reverses and known else 0,
            settles=settles,
        )

    def _stands_in(self, exchange: Exchange, service: Service, request: Request, call: Iso8583Call) -> bool:
        """Approve without the back end, which is away; what that uses of the bank's limits is charged.

        Not with a PIN, which only the back end can verify.
        """
        counters = None if PIN_BLOCK in call.fields else self._stand_in.counters(service, request, call)
        return counters is not None and self._charge(exchange, counters) is None

    def _charge(self, exchange: Exchange, counters: tuple[Counter, ...]) -> Counter | None:
        """Reserve what an exchange uses of limits, further ones included; the one that it would pass, if any."""
        assert exchange.request is not None
        if not counters:
            return None
        charges = self._counters.reserve(exchange.request.business_day, counters)
        if isinstance(charges, Counter):
            return charges
        exchange.charges += charges
        exchange.caps += tuple([counter.cap for counter in counters])
        return None
