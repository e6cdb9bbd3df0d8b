"""The second half of the way: from intents to back ends, and from their answers to the terminals."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import trio

from fengshou.protocol import codes
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.record import RecordKind
from fengshou.protocol.service import Conclusion, Reply, Request, Service
from fengshou.protocol.templates import ERROR
from fengshou.protocol.transaction import Event
from fengshou.routing.destination import Completion, Destination, Failure, Outbound, Trace
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.exchange import Exchange
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal import Charges, Entry, Journal
from fengshou.switch.recording import Recorder
from fengshou.terminals.pump import Peer

logger = logging.getLogger(__name__)

NO_ROUTE = "92"
INVALID_RESPONSE = "20"


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
        owe: Callable[[int], None],
        receipts_later: Callable[[Sequence[tuple[Exchange, int]]], None],
    ) -> None:
        """``owe`` is told of every intent that owes its back end a reversal, once that is durable; ``receipts_later``
        of the exchanges that were answered and want a receipt for the record given."""
        self._codec = catalogue.codec
        self._journal = journal
        self._recorder = recorder
        self._duplicates = duplicates
        self._routes = routes
        self._owe = owe
        self._receipts_later = receipts_later
        self.answered: Counter[str] = Counter()  # by response code

    # -- to the back ends --------------------------------------------------------------------------------------------

    def route(self, exchanges: Iterable[Exchange]) -> list[Completion]:
        """Hand durable intents to their destinations; returns those that have none, already completed."""
        now = trio.current_time()
        calls: defaultdict[str, list[Outbound]] = defaultdict(list)
        unrouted = []
        for exchange in exchanges:
            assert exchange.service is not None
            assert exchange.request is not None
            assert exchange.call is not None
            name = exchange.service.destination
            route = self._routes.get(name)
            outbound = Outbound(
                exchange, exchange.call, trace_of(exchange.request), now + (route.deadline_s if route else 0.0)
            )
            if route is None:
                unrouted.append(Completion(outbound, Reply(NO_ROUTE)))
            else:
                exchange.advance(Event.SEND)
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
                assert exchange.intent is not None
                code = completion.result.code if isinstance(completion.result, Reply) else completion.result.value
                entries.append(
                    Entry(self._recorder.follow_up(RecordKind.LATE, exchange.intent.record, _printable(code)))
                )
                continue
            entries.append(self._end(exchange, completion.result))
            ended.append(exchange)
        return ended, entries

    def _end(self, exchange: Exchange, result: Reply | Failure) -> Entry:
        service, request, intent = exchange.service, exchange.request, exchange.intent
        assert service is not None
        assert request is not None
        assert intent is not None
        if isinstance(result, Reply):
            conclusion = self._conclusion(service, request, result)
        else:
            conclusion = Conclusion(result.value)
        # A host that does not know what it did (class E) is as good as one that did not answer.
        unknown = service.moves_money and codes.action_of(conclusion.code) == "E"
        if unknown:
            exchange.end(Conclusion(codes.UNKNOWN_OUTCOME), Event.LOSE)
            owes = exchange.original_intent or intent.record.number
            return self._recorder.outcome(exchange, owes=owes)
        exchange.end(conclusion)
        if not exchange.approved:
            return self._recorder.outcome(exchange, gives_back=exchange.charges)
        given_back: Charges = self._journal.charges(exchange.original_intent) if exchange.original_intent else ()
        return self._recorder.outcome(exchange, gives_back=given_back, event=self._event(service, request, conclusion))

    def _conclusion(self, service: Service, request: Request, reply: Reply) -> Conclusion:
        try:
            conclusion = service.conclude(request, reply)
            self._codec.encode_body(request.template.id, True, {39 << 8: conclusion.code, **conclusion.values})
        except Exception:
            logger.exception("service %s cannot make sense of a back end's reply", service.name)
            return Conclusion(INVALID_RESPONSE)
        return conclusion

    def _event(self, service: Service, request: Request, conclusion: Conclusion) -> bytes:
        try:
            event = service.event(request, conclusion)
        except Exception:
            logger.exception("service %s cannot tell analytics of a request", service.name)
            return b""
        if event is None:
            return b""
        return msgspec.json.encode(
            {
                "rrn": f"{request.rrn:012d}",
                "day": request.business_day,
                "terminal": request.terminal.terminal,
                "time_us": request.received_us,
                **event,
            }
        )

    def durable(self, exchanges: Iterable[Exchange]) -> None:
        """Outcomes are in the journal: their keys are answered from there now, and debts are paid."""
        for exchange in exchanges:
            self._duplicates.finish(exchange)
            if exchange.outcome is not None and exchange.outcome.owes:
                self._owe(exchange.outcome.owes)

    # -- to the terminals --------------------------------------------------------------------------------------------

    def answer(self, exchanges: Sequence[Exchange]) -> None:
        """Encode and send; all answers to one terminal go as one write."""
        frames: defaultdict[Peer, list[bytes]] = defaultdict(list)
        receipts: list[tuple[Exchange, int]] = []
        for exchange in exchanges:
            assert exchange.conclusion is not None
            self.answered[exchange.conclusion.code] += 1
            asked = exchange.message
            template = asked.template if asked else ERROR.id
            receipt = bool(asked and asked.flags & Flag.RECEIPT) and self._proof(exchange)
            flags = Flag.RESPONSE | exchange.command | (Flag.RECEIPT if receipt else 0)
            if exchange.grants_delta:
                flags |= Flag.DELTA
            frames[exchange.peer].append(
                self._codec.encode(Message(template, flags, exchange.sequence, exchange.values))
            )
            if receipt:
                receipts.append((exchange, receipt))
        for peer, parts in frames.items():
            peer.send(b"".join(parts) if len(parts) > 1 else parts[0])
        if receipts:
            self._receipts_later(receipts)

    @staticmethod
    def _proof(exchange: Exchange) -> int:
        """The record that a receipt would prove; 0 when nothing was journalled as an outcome."""
        return exchange.outcome.record.number if exchange.outcome else exchange.replayed


def _printable(code: str) -> str:
    return code if len(code) == 2 and code.isascii() and code.isprintable() else INVALID_RESPONSE
