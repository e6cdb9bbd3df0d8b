"""A destination that speaks signed JSON over HTTPS: a pool of connections, each with one call at a time.

A call is taken by a free connection or waits, most urgent first; one that has waited past its deadline never left and
says so. Each connection is one Trio task for its whole life: idle, it listens for the peer's closing and is woken by
cancelling that; busy, it sends, hears the answer and takes the next call.
"""

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import count
from math import inf
from random import Random

import msgspec
import trio

from fengshou.protocol.codes import CODES
from fengshou.protocol.service import JsonCall, Reply
from fengshou.routing.connect import LINK_ERRORS, Backoff, Connect
from fengshou.routing.destination import Completion, Failure, Outbound, Sink, Trace
from fengshou.routing.envelope import Envelope
from fengshou.routing.json_connection import ExchangeFault, Fault, JsonAnswer, JsonConnection

# RFC 9112 section 3.2.1, origin-form.
_TARGET = re.compile(r"/[!-~]*")

BEIJING = timezone(timedelta(hours=8))

CONNECT_TIMEOUT_S = 10.0
# An answer of the government gateway is below 4 KiB; room for other back ends.
ANSWER_BYTES_MAX = 64 * 1024


class Unsendable(Exception):
    """A call that JSON over HTTP cannot carry; the fault of the service that made it."""


def payload_of(call: JsonCall, trace: Trace) -> bytes:
    """The call's body with its trace. The trace wins: it is the key by which the back end tells a repeat.

    Raises Unsendable.
    """
    received = datetime.fromtimestamp(trace.received_us // 1_000_000, BEIJING)
    if not _TARGET.fullmatch(call.path):
        raise Unsendable("the path is not one of a request line")
    body = {
        **call.body,
        "rrn": f"{trace.rrn:012d}",
        "terminal": trace.terminal,
        "merchant": trace.merchant,
        "received": received.replace(microsecond=trace.received_us % 1_000_000).isoformat(timespec="microseconds"),
        "repeat": trace.repeat,
    }
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unsendable("the body is not JSON") from error


def _result(answer: JsonAnswer) -> Reply | Failure:
    """What an answer says of the call. After a server's own failure (5xx) only the server knows what it did.

    503 is the exception: the server was too busy to begin.
    """
    code = answer.body.get("code")
    if not isinstance(code, str) or code not in CODES or (answer.status >= 500 and answer.status != 503):
        return Failure.UNKNOWN
    return Reply(code, body=answer.body)


@dataclass(order=True, slots=True)
class _Waiting:
    """A call that no connection has taken yet; the most urgent comes first."""

    deadline: float
    order: int
    outbound: Outbound = field(compare=False)
    path: str = field(compare=False)
    payload: bytes = field(compare=False)


class JsonLink:
    """A ``Destination`` for calls of kind ``JsonCall``. The counters are for metrics; they only grow."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        authority: str,
        envelope: Envelope,
        random: Random,
        *,
        connections: int = 4,
        waiting_max: int = 256,
        late_wait_s: float = 5.0,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        """``waiting_max`` bounds the calls that no connection is free for; beyond it they fail as BUSY.

        ``late_wait_s`` is how long a connection listens on for an answer that missed its deadline, unless others wait.
        """
        self.name = name
        self._connect = connect
        self._authority = authority
        self._envelope = envelope
        self._random = random
        self._connections = connections
        self._waiting_max = waiting_max
        self._late_wait_s = late_wait_s
        self._answer_bytes_max = answer_bytes_max
        self._order = count()
        self._waiting: list[_Waiting] = []  # a heap
        self._idle: list[trio.CancelScope] = []  # connections with nothing to do
        self._lagging: list[trio.CancelScope] = []  # connections that listen for an answer after its deadline
        self._up = 0
        self._busy = 0
        self._completed: list[Completion] = []
        self._work = trio.Event()  # set when completions are ready or the most urgent deadline changed
        self.sent = self.answered = self.timed_out = self.late = 0
        self.lost = self.malformed = self.forged = self.connects = self.connect_failures = 0

    @property
    def up(self) -> bool:
        return self._up > 0

    @property
    def in_flight(self) -> int:
        return len(self._waiting) + self._busy

    def submit(self, calls: Sequence[Outbound]) -> None:
        for outbound in calls:
            if not self._up:
                self._complete(outbound, Failure.UNAVAILABLE)
            elif self.in_flight >= self._waiting_max + self._up:
                self._complete(outbound, Failure.BUSY)
            else:
                self._queue(outbound)
        self._work.set()
        self._rouse()

    def _queue(self, outbound: Outbound) -> None:
        call = outbound.call
        assert isinstance(call, JsonCall)
        try:
            payload = payload_of(call, outbound.trace)
        except Unsendable:
            self._complete(outbound, Failure.UNSENDABLE)
        else:
            waiting = _Waiting(outbound.deadline, next(self._order), outbound, call.path, payload)
            heapq.heappush(self._waiting, waiting)

    async def run(self, sink: Sink) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._connections):
                    nursery.start_soon(self._keep_connected)
                await self._watch(sink)
        finally:
            self._fail_waiting()
            self._flush(sink)

    def _complete(self, outbound: Outbound, result: Reply | Failure, *, late: bool = False) -> None:
        self._completed.append(Completion(outbound, result, late))
        self._work.set()

    def _flush(self, sink: Sink) -> None:
        completed, self._completed = self._completed, []
        if completed:
            sink(completed)

    def _fail_waiting(self) -> None:
        """No connection is left for those that wait, and they never left this machine."""
        for waiting in self._waiting:
            self._complete(waiting.outbound, Failure.UNAVAILABLE)
        self._waiting.clear()

    def _rouse(self) -> None:
        """Give those that wait the idle connections, then those that only listen for late answers."""
        for _ in range(len(self._waiting)):
            for scopes in (self._idle, self._lagging):
                if scopes:
                    scopes.pop().cancel()
                    break

    async def _watch(self, sink: Sink) -> None:
        """Deliver what is complete and end the wait of calls whose deadline passes, whichever comes first."""
        while True:
            self._flush(sink)
            self._work = trio.Event()
            with trio.move_on_at(self._waiting[0].deadline if self._waiting else inf):
                await self._work.wait()
            while self._waiting and self._waiting[0].deadline <= trio.current_time():
                self._complete(heapq.heappop(self._waiting).outbound, Failure.BUSY)

    async def _keep_connected(self) -> None:
        backoff = Backoff(self._random)
        while True:
            try:
                with trio.fail_after(CONNECT_TIMEOUT_S):
                    stream = await self._connect()
            except LINK_ERRORS:
                self.connect_failures += 1
            else:
                self.connects += 1
                connection = JsonConnection(stream, self._authority, self._envelope, self._answer_bytes_max)
                began, answered = trio.current_time(), self.answered
                self._up += 1
                try:
                    await self._serve(connection)
                finally:
                    self._up -= 1
                    if not self._up:
                        self._fail_waiting()
                    self._rouse()
                    await connection.aclose()
                if self.answered > answered or trio.current_time() - began > backoff.longest_s:
                    backoff.reset()
            await trio.sleep(backoff.next_s())

    async def _serve(self, connection: JsonConnection) -> None:
        """Carry calls until the connection is of no more use."""
        while connection.reusable:
            if not self._waiting:
                with trio.CancelScope() as scope:
                    self._idle.append(scope)
                    try:
                        await connection.wait_closed()
                        return
                    finally:
                        if scope in self._idle:
                            self._idle.remove(scope)
                continue
            waiting = heapq.heappop(self._waiting)
            if waiting.deadline <= trio.current_time():
                self._complete(waiting.outbound, Failure.BUSY)
                continue
            try:
                await self._carry(connection, waiting)
            except ExchangeFault as fault:
                match fault.fault:
                    case Fault.LOST:
                        self.lost += 1
                    case Fault.MALFORMED:
                        self.malformed += 1
                    case Fault.FORGED:
                        self.forged += 1
                return

    async def _carry(self, connection: JsonConnection, call: _Waiting) -> None:
        """One call to its one completion, whatever happens, and to its late answer when there is one."""
        result: Reply | Failure = Failure.UNKNOWN
        self._busy += 1
        self.sent += 1
        try:
            with trio.CancelScope(deadline=call.deadline) as scope:
                left_ms = int((call.deadline - trio.current_time()) * 1000)
                await connection.send("POST", call.path, call.payload, max(left_ms, 0))
                result = _result(await connection.receive())
                self.answered += 1
        finally:
            self._busy -= 1
            self._complete(call.outbound, result)
        if scope.cancelled_caught:
            self.timed_out += 1
            await self._listen_late(connection, call.outbound)

    async def _listen_late(self, connection: JsonConnection, outbound: Outbound) -> None:
        if self._waiting:
            return
        with trio.move_on_after(self._late_wait_s) as scope:
            self._lagging.append(scope)
            try:
                result = _result(await connection.receive())
            finally:
                if scope in self._lagging:
                    self._lagging.remove(scope)
            if isinstance(result, Reply):
                self.late += 1
                self._complete(outbound, result, late=True)
