"""What a request may wait for in the switch: its own back end and the disk, and nothing else.

In simulated time computing takes none, so whatever else takes time is a queue behind somebody else's trouble. The watch
stands at the doors of one life, at the pump and at each destination, and holds against each other when a request
could first be read, when it was handed to its back end and came back, and when it was answered. From the time between
it takes what its back end took, while the disk worked, and while the process stood still: nothing may be left. It also
holds the bounds of everything that queues.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from fengshou.codecs import MessageCodec
from fengshou.protocol import elements as de
from fengshou.protocol.message import Message
from fengshou.routing.destination import Completion, Destination, Outbound, Sink
from fengshou.switch.exchange import Exchange
from fengshou.switch.inbound import sequence_of
from fengshou.switch.outbound import Route
from fengshou.switch.simulation.disk import Disk
from fengshou.switch.simulation.network import Readiness, Socket
from fengshou.switch.simulation.scheduling import Life
from fengshou.terminals.pump import Closing, Peer, Pump, PumpLimits

# Rounding of sums of floating-point times.
_NOTHING_S = 1e-6


@dataclass(slots=True)
class _Stay:
    """A request in the switch. ``excused_s`` is what the clocks of disk and process said when it could be read."""

    since_s: float
    excused_s: float
    handed_s: float = 0.0
    deadline_s: float = 0.0
    at_back_end_s: float = 0.0


class Watch:
    """Of one life of the switch."""

    def __init__(self, disk: Disk, life: Life, fail: Callable[[str], None], in_flight_max: int) -> None:
        self._disk = disk
        self._life = life
        self._fail = fail
        self._in_flight_max = in_flight_max
        self._in_flight = 0  # requests that are at back ends
        self._stays: dict[tuple[Peer, int], _Stay] = {}

    def _excused_s(self) -> float:
        return self._disk.busy_s + self._life.stood_still_s

    def arrived(self, peer: Peer, sequence: int, since_s: float, excused_s: float) -> None:
        self._stays[peer, sequence] = _Stay(since_s, excused_s)

    def moment(self) -> tuple[float, float]:
        """What ``arrived`` is told later of what can be read from now on."""
        return trio.current_time(), self._excused_s()

    def handed(self, outbound: Outbound) -> None:
        stay = self._stay(outbound)
        if stay is not None:
            stay.handed_s = trio.current_time()
            stay.deadline_s = max(outbound.deadline, stay.handed_s)  # the disk may have taken longer than all of it
            self._in_flight += 1
            self.bounded("requests in flight", self._in_flight, self._in_flight_max)

    def came_back(self, completion: Completion, name: str) -> None:
        stay = self._stay(completion.outbound)
        if stay is None or completion.late:
            return
        self._in_flight -= 1
        now = trio.current_time()
        stay.at_back_end_s = now - stay.handed_s
        if now > stay.deadline_s + self._life.stood_still_s + _NOTHING_S:
            self._fail(f"a call to {name} came back {now - stay.deadline_s:.3f} s after its deadline")

    def _stay(self, outbound: Outbound) -> _Stay | None:
        exchange = outbound.token
        if not isinstance(exchange, Exchange):
            return None
        return self._stays.get((exchange.peer, exchange.sequence))

    def answered(self, peer: Peer, answer: Message) -> None:
        """Receipts that follow an answer under its sequence are not waited for."""
        stay = self._stays.pop((peer, answer.sequence), None)
        if stay is None:
            return
        idle_s = trio.current_time() - stay.since_s - stay.at_back_end_s - (self._excused_s() - stay.excused_s)
        if idle_s > _NOTHING_S:
            code = str(answer.values.get(de.RESPONSE_CODE))
            self._fail(
                f"{peer.terminal} waited {idle_s:.3f} s for the answer {code} to message {answer.sequence}, "
                "and neither its back end nor the disk was what it waited for"
            )

    def bounded(self, what: str, size: int, most: int) -> None:
        if size > most:
            self._fail(f"{what}: {size}, and {most} is the bound")


class WatchedPump(Pump):
    """A pump that tells the watch who came and who was answered."""

    def __init__(
        self, codec: MessageCodec, limits: PumpLimits, on_closed: Callable[[Peer, Closing], None],
        readiness: Readiness, watch: Watch,
    ) -> None:  # fmt: skip
        super().__init__(codec, limits, on_closed, readiness)
        self._outbox_max = limits.outbox_bytes
        self._watch = watch
        self._answers = codec

    async def ready(self) -> list[tuple[Peer, bytes]]:
        arrivals = await super().ready()
        for peer, frame in arrivals:
            ends = peer.connection
            assert isinstance(ends, Socket)
            self._watch.arrived(peer, sequence_of(frame), *ends.readable)
        return arrivals

    def send(self, peer: Peer, data: bytes) -> None:
        frames, _ = self._answers.split(data)
        for frame in frames:
            self._watch.answered(peer, self._answers.decode(frame))
        super().send(peer, data)
        self._watch.bounded("bytes in an outbox", len(peer.outbox), self._outbox_max)


class WatchedDestination:
    """A destination that tells the watch what it was handed and when that came back."""

    def __init__(self, destination: Destination, watch: Watch) -> None:
        self.name = destination.name
        self._destination = destination
        self._watch = watch

    @property
    def up(self) -> bool:
        return self._destination.up

    @property
    def in_flight(self) -> int:
        return self._destination.in_flight

    def submit(self, calls: Sequence[Outbound]) -> None:
        for outbound in calls:
            self._watch.handed(outbound)
        self._destination.submit(calls)

    async def run(self, sink: Sink) -> None:
        def watched(completions: Sequence[Completion]) -> None:
            for completion in completions:
                self._watch.came_back(completion, self.name)
            sink(completions)

        await self._destination.run(watched)


def watched(route: Route, watch: Watch) -> Route:
    return Route(WatchedDestination(route.destination, watch), route.deadline_s)
