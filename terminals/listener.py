"""The listener: accepts connections, gives each a handshake with a deadline, and hands it to the pump.

Handshakes are the dearest thing a stranger can ask for. Each runs in its own task, with a deadline and a bound on how
many may be under way; when the bound is reached the oldest unfinished one is dropped, so that connections which never
speak cannot keep others out. Its public-key work is done by one thread, in the order of arrival, so that a storm of
reconnecting terminals takes at most that thread's share of the processor from those that trade.
"""

import errno
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio
from OpenSSL import SSL

from fengshou.hsm.channel import ChannelError, exporter, handshake, peer_certificate
from fengshou.terminals.pump import Pump

_BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """``handshakes``: how many unfinished at once; ``connections``: how many in all."""

    connections: int = 10_000
    handshakes: int = 1024
    handshake_s: float = 10.0


class Listener:
    """A bound TCP socket and the handshakes on it."""

    def __init__(
        self,
        host: str,
        port: int,
        context: Callable[[], SSL.Context],
        pump: Pump,
        limits: ListenerLimits,
    ) -> None:
        """Bind. ``context`` is asked for each connection, so that new certificates and CRLs count at once.

        Raises OSError when the address cannot be bound.
        """
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setblocking(False)
        try:
            self._socket.bind((host, port))
            self._socket.listen(_BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self._context = context
        self._pump = pump
        self._limits = limits
        self._unfinished: dict[int, trio.CancelScope] = {}  # oldest first
        self._one_at_a_time = trio.CapacityLimiter(1)
        self.refused: Counter[str] = Counter()  # by reason
        self.accepted = 0
        self._accepting = trio.CancelScope()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def run(self) -> None:
        """Accept until stopped; then the socket is closed. Connections that the pump has are not touched."""
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    await self._accept(nursery)
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Take no more connections and drop unfinished handshakes."""
        self._accepting.cancel()

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                while True:
                    sock, _ = self._socket.accept()
                    self._admit(sock, nursery)
            except BlockingIOError:
                continue
            except OSError as error:
                self.refused[f"accept: {errno.errorcode.get(error.errno or 0, 'error')}"] += 1
                await trio.sleep(0.1)  # out of descriptors, or a connection that died in the queue

    def _admit(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        if len(self._pump) + len(self._unfinished) >= self._limits.connections:
            self.refused["too many connections"] += 1
            sock.close()
            return
        if len(self._unfinished) >= self._limits.handshakes:
            oldest = next(iter(self._unfinished))
            self._unfinished.pop(oldest).cancel()
            self.refused["handshake dropped for a newer one"] += 1
        self.accepted += 1
        scope = trio.CancelScope(deadline=trio.current_time() + self._limits.handshake_s)
        self._unfinished[sock.fileno()] = scope
        nursery.start_soon(self._handshake, sock, scope)

    async def _handshake(self, sock: socket.socket, scope: trio.CancelScope) -> None:
        fd = sock.fileno()
        handed_over = False
        try:
            with scope:
                tune(sock)
                await trio.lowlevel.wait_readable(sock)  # the silent cost no TLS state
                connection = SSL.Connection(self._context(), sock)
                connection.set_accept_state()
                await handshake(connection, sock, self._one_at_a_time)
                self._pump.add(sock, connection, peer_certificate(connection), exporter(connection))
                handed_over = True
            if scope.cancelled_caught and scope.deadline <= trio.current_time():
                self.refused["handshake timed out"] += 1
        except ChannelError as error:
            self.refused[error.fault.value] += 1
        except OSError:
            self.refused["connection lost"] += 1
        finally:
            if self._unfinished.get(fd) is scope:
                del self._unfinished[fd]
            if not handed_over:
                sock.close()


def tune(sock: socket.socket) -> None:
    """Socket options of a terminal's connection: no Nagle delay; a peer that is gone is noticed within two minutes."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
