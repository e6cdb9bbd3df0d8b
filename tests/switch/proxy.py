"""A TCP proxy between real processes that delays, holds and breaks what goes through it."""

import socket
import struct
from random import Random

import trio


class Proxy:
    """Listens on a port of localhost and connects each connection to another one."""

    def __init__(self, target: int, chance: Random) -> None:
        self._target = target
        self._chance = chance
        self._listeners: list[trio.SocketListener] = []
        self._pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = set()
        self._flows = trio.Event()
        self._flows.set()
        self.delay_s = 0.0

    @property
    def port(self) -> int:
        port: int = self._listeners[0].socket.getsockname()[1]
        return port

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._connection, self._listeners)
            task_status.started()

    def hold(self) -> None:
        """Nothing passes, in either direction, until ``let_go``; nobody is told."""
        if self._flows.is_set():
            self._flows = trio.Event()

    def let_go(self) -> None:
        self._flows.set()

    def break_all(self) -> None:
        """Every connection is reset, wherever its bytes are."""
        for pair in self._pairs:
            for stream in pair:
                # SO_LINGER with 0: close sends RST and drops what is unsent.
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.socket.close()

    async def _connection(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self._target)
            except OSError:
                return
            async with server:
                pair = (client, server)
                self._pairs.add(pair)
                try:
                    async with trio.open_nursery() as nursery:
                        for source, sink in (pair, (server, client)):
                            nursery.start_soon(self._pass_on, source, sink, nursery.cancel_scope)
                finally:
                    self._pairs.discard(pair)

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            # Pieces of any size: frames arrive cut anywhere.
            while data := await source.receive_some(self._chance.choice((7, 100, 16_384))):
                await self._flows.wait()
                if self.delay_s:
                    await trio.sleep(self._chance.uniform(0.0, self.delay_s))
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        both.cancel()
