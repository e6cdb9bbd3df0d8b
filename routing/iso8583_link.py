"""A destination that speaks ISO 8583:1987 over TCP: several lines to a host, many calls in flight on each.

A batch of calls goes out on the line with the least to do, in one send; an answer may come on any line. A call that may
have left this machine and has no answer is UNKNOWN, whether its deadline passed or its line broke; one that certainly
did not leave is told apart, because there is nothing to reverse.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from random import Random

import trio

from fengshou.hsm.custody import CustodyError
from fengshou.protocol.backend import Fields
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.iso8583 import Codec, HostFormat
from fengshou.protocol.service import Iso8583Call, Reply
from fengshou.routing.connect import LINK_ERRORS, Backoff, Connect
from fengshou.routing.deadlines import NEVER
from fengshou.routing.destination import Completion, Failure, Outbound, Sink
from fengshou.routing.iso8583_line import Line, LineSettings, SignOnRefused
from fengshou.routing.iso8583_mac import codecs_for_batches
from fengshou.routing.iso8583_matching import Flight, InFlight, request_fields
from fengshou.routing.zone_keys import ZoneKeys

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0

# STAN, RRN and terminal: what a host repeats in its answer.
MATCH_FIELDS = (11, 37, 41)

# Calls given up but remembered for their late answers: about a second of full load.
LATE_MAX = 16_384


def _wall_us() -> int:
    return time.time_ns() // 1000


class Iso8583Link:
    """A ``Destination`` for calls of kind ``Iso8583Call``. The counters are for metrics; they only grow."""

    def __init__(
        self,
        name: str,
        connects: Sequence[Connect],
        host_format: HostFormat,
        random: Random,
        *,
        in_flight_max: int = 4096,
        match_fields: tuple[int, ...] = MATCH_FIELDS,
        late_max: int = LATE_MAX,
        line: LineSettings | None = None,
        zone: ZoneKeys | None = None,
        mac: bool = False,
        now_us: Callable[[], int] = _wall_us,
    ) -> None:
        """A line for each of ``connects``, to one address or several. ``now_us`` dates sign-on and echo (DE 7).

        Beyond ``in_flight_max`` open calls the next fails as BUSY. ``zone`` are the keys that are shared with the host;
        with ``mac`` every message bears a MAC under one of them, and an answer whose MAC does not hold never came.
        """
        self.name = name
        self._connects = connects
        self._codec_for_batch = codecs_for_batches(host_format, zone if mac else None)
        self._random = random
        self._in_flight_max = in_flight_max
        self._line_settings = line or LineSettings()
        self.zone = zone
        self._now_us = now_us
        self._lines: list[Line] = []
        self._in_flight = InFlight(match_fields, late_max)
        self._completed: list[Completion] = []
        self._work = trio.Event()  # set when completions are ready or an earlier deadline came
        self._sleeps_until = NEVER
        self._sent_by_closed_lines = 0
        self.answered = self.timed_out = self.late = self.unmatched = 0
        self.forged = 0
        self.lost = self.malformed = self.connects = self.connect_failures = 0

    @property
    def up(self) -> bool:
        return any(line.up for line in self._lines)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def sent(self) -> int:
        return self._sent_by_closed_lines + sum(line.sent for line in self._lines)

    def keys_changed(self) -> None:
        """Custody may have a key that the host does not have yet."""
        for line in self._lines:
            line.keys_changed()

    def submit(self, calls: Sequence[Outbound]) -> None:
        lines = [line for line in self._lines if line.up]
        if lines:
            line = min(lines, key=lambda line: line.load)
            codec, now = self._codec_for_batch(), trio.current_time()
            for outbound in calls:
                failure = self._refusal(outbound, line, codec, now)
                if failure is not None:
                    self._complete(outbound, failure)
            line.flush()
        else:
            for outbound in calls:
                self._complete(outbound, Failure.UNAVAILABLE)
        if self._completed or self._in_flight.next_due() < self._sleeps_until:
            self._work.set()

    async def run(self, sink: Sink) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for connect in self._connects:
                    nursery.start_soon(self._keep_up, connect, sink)
                await self._watch(sink)
        finally:
            self._flush(sink)

    def _refusal(self, outbound: Outbound, line: Line, codec: Codec, now: float) -> Failure | None:
        """Hand the call to the line, or say why it cannot be taken."""
        call = outbound.call
        assert isinstance(call, Iso8583Call), "the rules route only such calls here"
        if len(self._in_flight) >= self._in_flight_max or outbound.deadline <= now:
            return Failure.BUSY
        fields = request_fields(call, outbound.trace)
        try:
            frame = codec.frame(fields)
        except UntrustedBytesError:
            return Failure.UNSENDABLE
        except CustodyError:
            return Failure.UNAVAILABLE
        flight = self._in_flight.add(fields, frame, outbound, line)
        if flight is None:
            return Failure.BUSY
        line.put(flight)
        return None

    async def _watch(self, sink: Sink) -> None:
        """Deliver refusals and end the wait of overdue calls, whichever comes first."""
        while True:
            self._expire()
            self._flush(sink)
            self._work = trio.Event()
            self._sleeps_until = self._in_flight.next_due()
            with trio.move_on_at(self._sleeps_until):
                await self._work.wait()

    def _expire(self) -> None:
        for flight in self._in_flight.expire(trio.current_time()):
            if flight.sent:
                self.timed_out += 1
            self._give_up(flight, unsent=Failure.BUSY)

    async def _keep_up(self, connect: Connect, sink: Sink) -> None:
        """One line, again and again."""
        backoff = Backoff(self._random)
        while True:
            try:
                with trio.fail_after(CONNECT_TIMEOUT_S):
                    stream = await connect()
            except LINK_ERRORS:
                self.connect_failures += 1
            else:
                self.connects += 1
                began, answered = trio.current_time(), self.answered
                await self._carry(stream, sink)
                if self.answered > answered or trio.current_time() - began > backoff.longest_s:
                    backoff.reset()
            await trio.sleep(backoff.next_s())

    async def _carry(self, stream: trio.abc.Stream, sink: Sink) -> None:
        """Use a connection until it breaks."""
        line = Line(
            stream,
            self._codec_for_batch,
            self._line_settings,
            self._now_us,
            lambda fields: self._receive(fields, sink),
            self._forged,
            self.zone,
        )
        self._lines.append(line)
        try:
            await line.run()
        finally:
            self._lines.remove(line)
            self._sent_by_closed_lines += line.sent
            self.lost += 1
            self.malformed += isinstance(line.fault, UntrustedBytesError)
            if isinstance(line.fault, SignOnRefused):
                logger.error("back end %s: %s", self.name, line.fault)
            for flight in self._in_flight.lose(line):
                self._give_up(flight, unsent=Failure.UNAVAILABLE)
            self._flush(sink)

    def _receive(self, messages: Iterable[Fields], sink: Sink) -> None:
        """The answers of one read, to the sink at once."""
        for fields in messages:
            code = fields.get(39)
            if not isinstance(code, str) or (taken := self._in_flight.take(fields)) is None:
                self.unmatched += 1
            elif isinstance(taken, Flight):
                self.answered += 1
                self._put_down(taken)
                self._complete(taken.outbound, Reply(code, fields))
            else:
                self.late += 1
                self._complete(taken, Reply(code, fields), late=True)
        self._flush(sink)

    def _forged(self, fields: Fields) -> None:
        """Whoever made it, the host did not: its call goes on waiting."""
        self.forged += 1

    def _give_up(self, flight: Flight, *, unsent: Failure) -> None:
        self._put_down(flight)
        self._complete(flight.outbound, Failure.UNKNOWN if flight.sent else unsent)

    def _put_down(self, flight: Flight) -> None:
        assert isinstance(flight.line, Line)
        flight.line.load -= 1

    def _complete(self, outbound: Outbound, result: Reply | Failure, *, late: bool = False) -> None:
        self._completed.append(Completion(outbound, result, late))

    def _flush(self, sink: Sink) -> None:
        completed, self._completed = self._completed, []
        if completed:
            sink(completed)
