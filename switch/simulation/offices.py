"""Back ends that speak signed JSON: the real servers and applications, as machines that die and start again.

What happens to a message on the way is the network's; an office itself only works, is away, or has lost its memory.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import trio

from fengshou.codecs import PublicKey
from fengshou.hsm.custody import SWITCH_SIGN, Custody
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.backend import EventStore
from fengshou.protocol.epoch import ACCEPTING
from fengshou.routing.envelope import Envelope
from fengshou.routing.json_server import Body, Handler, JsonServer
from fengshou.switch.simulation.network import Connection, Network, Stream

GOVERNMENT, ANALYTICS = "government", "analytics"
OFFICE_SIGN = "office.sign"


class Office:
    """One machine. What its application has stored outlives ``kill``."""

    def __init__(
        self, name: str, network: Network, custody: SoftwareCustody, switch: Custody, chance: Random,
        open_handler: Callable[[], Handler],
    ) -> None:  # fmt: skip
        """``open_handler`` starts the application over what is stored; ``switch`` has the keys of its peer."""
        self.name = name
        self._network = network
        self._envelope = Envelope(custody, OFFICE_SIGN, signers(switch), lambda: signers(switch))
        self._chance = chance
        self._open_handler = open_handler
        self._handler: Handler | None = None
        self._server: JsonServer | None = None
        self._conversations: list[trio.CancelScope] = []
        self._arrivals, self._accepted = trio.open_memory_channel[Stream](1000)

    def start(self) -> None:
        if self._handler is None:
            if self._server is not None:
                self._network.fault("office restarted")
            self._handler = self._open_handler()
            self._server = JsonServer(self._handler, _as_it_is, self._envelope, aside=self._work)
            self._network.listen(self.name, self._accept)

    def kill(self) -> None:
        """Requests that it had read and not answered are gone, whether they were done or not."""
        if self._handler is not None:
            self._network.ignore(self.name)
            self._network.drop(self.name)
            for conversation in list(self._conversations):
                conversation.cancel()
            self._handler.close()
            self._handler = None

    def _accept(self, connection: Connection) -> None:
        self._arrivals.send_nowait(Stream(connection.up, connection.down, connection.binding))

    async def serve(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            async for stream in self._accepted:
                if self._handler is not None and self._server is not None:
                    nursery.start_soon(self._converse, self._server, stream)

    async def _converse(self, server: JsonServer, stream: Stream) -> None:
        with trio.CancelScope() as conversation:
            self._conversations.append(conversation)
            try:
                await server.converse(stream)
            finally:
                self._conversations.remove(conversation)

    async def _work(self, call: Callable[[], Body]) -> Body:
        await trio.sleep(self._chance.uniform(0.001, 0.02))
        answer = call()
        await trio.sleep(self._chance.uniform(0.001, 0.01))
        return answer


class KeptStore:
    """An analytics store that shows what it took: event by number."""

    def __init__(self, store: EventStore, told: dict[int, Mapping[str, Any]]) -> None:
        self._store = store
        self._told = told
        self.cursor, self.query, self.close = store.cursor, store.query, store.close

    def store(self, first: int, events: Sequence[Mapping[str, Any]]) -> int:
        before = len(self._told)
        after = self._store.store(first, events)
        self._told.update((number, event) for number, event in enumerate(events, first) if before < number <= after)
        return after


def signers(switch: Custody) -> list[PublicKey]:
    """Every key that the switch signs with or has signed with."""
    epochs = [info.epoch for info in switch.inventory() if info.label == SWITCH_SIGN and info.state in ACCEPTING]
    return [switch.public_key(SWITCH_SIGN, epoch) for epoch in epochs]


async def _as_it_is(stream: trio.abc.Stream) -> trio.abc.Stream:
    """In the simulation the channel is the network's: it has no handshake of its own."""
    return stream
