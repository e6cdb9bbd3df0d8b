"""The second half of the way: from intents to back ends, and from their answers to the terminals."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.record import RecordKind
from fengshou.protocol.service import Conclusion, Reply, Request
from fengshou.protocol.templates import ERROR
from fengshou.protocol.transaction import Duty, Event, Machine, State
from fengshou.routing.destination import Completion, Destination, Failure, Outbound, Trace
from fengshou.switch.conclusions import conclusion_of, event_of, printable
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.exchange import Exchange
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Charges, Entry, Journal
from fengshou.switch.recording import Recorder
from fengshou.terminals.pump import Peer

NO_ROUTE = "92"
# Asked for each request, see ``protocol.session``.
_SEND, _REPLY, _SENT = Event.SEND, Event.REPLY, State.SENT
_RESPONSE, _RECEIPT, _DELTA = int(Flag.RESPONSE), int(Flag.RECEIPT), int(Flag.DELTA)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a service's calls go and how long an answer may take, seconds."""

    destination: Destination
    deadline_s: float


def trace_of(request: Request, *, repeat: bool = False) -> Trace:
    """How a call is identified to its back end; derived from what the journal keeps."""
    return Trace(
        rrn=request.rrn,
        received_us=request.received_us,
        terminal=request.terminal.terminal,
        merchant=request.terminal.merchant,
        acquirer=request.terminal.acquirer,
        repeat=repeat,
    )


class Sender:
    """The steps ``route``, ``conclude`` and ``answer``."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        recorder: Recorder,
        duplicates: Duplicates,
        routes: Mapping[str, Route],
        owe: Callable[[int, Duty], None],
        reversal: Callable[[int], State | None],
        receipts_later: Callable[[Sequence[tuple[Exchange, int]]], None],
        machine: Machine,
        deadlines_s: Mapping[str, float],
        notice: Callable[[Peer], int],
    ) -> None:
        """``owe`` is told of each intent whose back end is owed something, once that is durable; ``reversal`` says how
        far that of an intent is, see ``Forwarder.reversal``; ``receipts_later`` is told of the exchanges that were
        answered and want a receipt for the record given; ``deadlines_s`` are of services, by name, where they are
        shorter than that of the route; ``notice`` is the command that a peer should hear of when its answer carries
        none."""
        self._codec = catalogue.codec
        self._journal = journal
        self._recorder = recorder
        self._duplicates = duplicates
        self._routes = routes
        self._owe = owe
        self._reversal = reversal
        self._receipts_later = receipts_later
        self._machine = machine
        self._deadlines_s = deadlines_s
        self._notice = notice
        self.answered: Counter[str] = Counter()  # by response code

    # -- to the back ends --------------------------------------------------------------------------------------------

    def route(self, exchanges: Iterable[Exchange]) -> list[Completion]:
        """Hand durable intents to their destinations; returns those that have none, already completed."""
        calls: defaultdict[str, list[Outbound]] = defaultdict(list)
        unrouted = []
        for exchange in exchanges:
            assert exchange.service is not None
            assert exchange.request is not None
            assert exchange.call is not None
            name = exchange.service.destination
            route = self._routes.get(name)
            wait_s = route.deadline_s if route else 0.0
            wait_s = min(wait_s, self._deadlines_s.get(exchange.service.name, wait_s))
            outbound = Outbound(exchange, exchange.call, trace_of(exchange.request), exchange.arrived + wait_s)
            if route is None:
                unrouted.append(Completion(outbound, Reply(NO_ROUTE)))
            else:
                exchange.advance(_SEND)
                calls[name].append(outbound)
        for name, batch in calls.items():
            self._routes[name].destination.submit(batch)
        return unrouted

    # -- from the back ends -----------------------------------------------------------------------------------------

    def conclude(self, completions: Iterable[Completion]) -> tuple[list[Exchange], list[Entry]]:
        """What became of the exchanges, and the entries that must be durable before anyone hears of it."""
        ended: list[Exchange] = []
        entries: list[Entry] = []
        for completion in completions:
            exchange: Exchange = completion.outbound.token
            if completion.late:
                entries.append(self._late(exchange, completion.result))
            else:
                entries += self._end(exchange, completion.result)
                ended.append(exchange)
        return ended, entries

    def _late(self, exchange: Exchange, result: Reply | Failure) -> Entry:
        """A reply after the outcome was given up. An approval owes another reversal than the one that is owed already,
        on its way or done, see ``forwarding``."""
        assert exchange.intent is not None
        was = exchange.intent.record
        code = printable(result.code if isinstance(result, Reply) else result.value)
        event = Event.LATE_APPROVAL if code == codes.APPROVED else Event.LATE_DECLINE
        before = self._reversal(was.number)
        if before is None:
            known = self._journal.known(exchange.key)
            reversed_already = known is not None and known.undone_by and self._journal.duty(was.number) is None
            before = State.REVERSED if reversed_already else exchange.state
        exchange.state = self._machine.step(before, event)
        again = event is Event.LATE_APPROVAL and exchange.state in (State.REVERSAL_DUE, State.REVERSAL_SENT)
        return Entry(self._recorder.follow_up(RecordKind.LATE, was, code), owes=was.number if again else 0)

    def _end(self, exchange: Exchange, result: Reply | Failure) -> list[Entry]:
        service, request, intent = exchange.service, exchange.request, exchange.intent
        assert service is not None
        assert request is not None
        assert intent is not None
        if isinstance(result, Reply):
            exchange.advance(_REPLY if exchange.state is _SENT else Event.UNSENT)
            conclusion = conclusion_of(service, request, result, self._codec)
        else:
            exchange.advance(Event.LOSE if result is Failure.UNKNOWN else Event.UNSENT)
            conclusion = Conclusion(result.value)
        # A host that does not know what it did (class E) is as good as one that did not answer.
        unknown = service.moves_money and codes.action_of(conclusion.code) == "E"
        if unknown and service.repeats:
            exchange.conclude(Conclusion(codes.IN_PROGRESS), Event.KEEP)
            exchange.response = {de.RESPONSE_CODE: codes.IN_PROGRESS}
            return []
        if unknown:
            # A reversal or void that is not answered is taken over: from now on the switch reverses the original.
            taken_over = exchange.original_intent
            exchange.conclude(Conclusion(codes.UNKNOWN_OUTCOME), Event.DECLINE if taken_over else Event.OWE)
            return [self._recorder.outcome(exchange, owes=taken_over or intent.record.number)]
        exchange.conclude(conclusion)
        if not exchange.approved:
            return [self._recorder.outcome(exchange, gives_back=exchange.charges)]
        given_back: Charges = self._journal.charges(exchange.original_intent) if exchange.original_intent else ()
        return [self._recorder.outcome(exchange, gives_back=given_back, event=event_of(service, request, conclusion))]

    def durable(self, exchanges: Iterable[Exchange]) -> None:
        """Outcomes are in the journal: their keys are answered from there now, and debts are paid."""
        for exchange in exchanges:
            assert exchange.intent is not None
            exchange.settle()
            self._duplicates.finish(exchange)
            if exchange.outcome is None:
                self._owe(exchange.intent.record.number, Duty.REPEAT)
            elif exchange.outcome.owes:
                if exchange.original_intent:
                    self._machine.step(exchange.original_state, Event.OWE)
                self._owe(exchange.outcome.owes, Duty.REVERSAL)

    def owe_late(self, entries: Iterable[Entry]) -> None:
        """Late approvals are in the journal: what they owe is owed."""
        for entry in entries:
            if entry.owes and entry.record.kind == RecordKind.LATE:
                self._owe(entry.owes, Duty.REVERSAL)

    # -- to the terminals --------------------------------------------------------------------------------------------

    def answer(self, exchanges: Sequence[Exchange]) -> None:
        """Encode and send; all answers to one terminal go as one write."""
        frames: defaultdict[Peer, list[bytes]] = defaultdict(list)
        receipts: list[tuple[Exchange, int]] = []
        for exchange in exchanges:
            assert exchange.conclusion is not None
            self.answered[exchange.conclusion.code] += 1
            asked, peer = exchange.asked, exchange.peer
            flags = _RESPONSE | (exchange.command or self._notice(peer))
            if asked.flags & _RECEIPT and (proof := self._proof(exchange)):
                receipts.append((exchange, proof))
                flags |= _RECEIPT
            if asked.flags & _DELTA and exchange.grants_delta:
                flags |= _DELTA
            frames[peer].append(self._frame(asked.template or ERROR.id, flags, exchange))
        for peer, parts in frames.items():
            peer.send(b"".join(parts) if len(parts) > 1 else parts[0])
        if receipts:
            self._receipts_later(receipts)

    def _frame(self, template: int, flags: int, exchange: Exchange) -> bytes:
        response = exchange.response
        if isinstance(response, bytes):
            return self._codec.frame(template, flags, exchange.sequence, response)
        return self._codec.encode(Message(template, flags, exchange.sequence, response))

    @staticmethod
    def _proof(exchange: Exchange) -> int:
        """The record that a receipt would prove; 0 when nothing was journalled as an outcome."""
        return exchange.outcome.record.number if exchange.outcome else exchange.replayed
