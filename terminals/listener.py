"""The listener: gives each connection a handshake with a deadline, and hands it to the pump.

Handshakes are the dearest thing a stranger can ask for. Their public-key work is done by one thread, in the order of
arrival, so that a storm of reconnecting terminals takes at most that thread's share of the processor from those that
trade; how many may be under way is bounded, see ``handshakes``.
"""

import logging
import socket
from collections import Counter
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import trio
from OpenSSL import SSL

from fengshou.hsm.channel import (
    ChannelError,
    Fault,
    check_still_valid,
    direct,
    exporter,
    peer_certificate,
    session_reused,
)
from fengshou.terminals.accepting import Source
from fengshou.terminals.handshakes import Handshake, Handshakes
from fengshou.terminals.pump import Pump

logger = logging.getLogger(__name__)

# Of certificates that our authority has issued: each concerns a terminal that an operator knows, so it is logged.
_OURS = frozenset({Fault.EXPIRED, Fault.NOT_YET_VALID, Fault.REVOKED})
_HEARS_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """``handshakes``: how many unfinished at once, of those that wait for us and of those that let us wait;
    ``handshake_s``: how long they may let us wait; ``connections``: how many in all."""

    connections: int = 10_000
    handshakes: int = 4096
    handshake_s: float = 10.0


class Listener:
    """The handshakes on what a source of connections gives."""

    def __init__(
        self,
        source: Source,
        context: Callable[[], SSL.Context],
        pump: Pump,
        limits: ListenerLimits,
        revoked: Callable[[], Set[int]],
    ) -> None:
        """``context`` is asked for each connection, so that new certificates and CRLs count at once, and so is
        ``revoked`` for the serial numbers of certificates that are of no use any more."""
        self._source = source
        self._pump = pump
        self._limits = limits
        self._revoked = revoked
        self._handshakes = Handshakes(context, limits.handshakes, limits.handshake_s)
        self.refused: Counter[str] = Counter()  # by reason
        self.accepted = 0
        self.resumed = 0  # of the handshakes that were done, those that needed no certificates
        self._accepting = trio.CancelScope()

    @property
    def address(self) -> tuple[str, int]:
        return self._source.address

    async def run(self) -> None:
        """Accept until stopped; then the source is closed. Connections that the pump has are not touched."""
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    self._handshakes.start(partial(self._ended, nursery))
                    await self._source.each(self._admit, self._handshakes.room, self.refused)
                    await trio.sleep_forever()  # no more will come, and those that have begun go on
        finally:
            self._handshakes.stop()
            self.close()

    def close(self) -> None:
        """Of a listener that does not run."""
        self._source.close()

    def stop(self) -> None:
        """Take no more connections and drop unfinished handshakes."""
        self._accepting.cancel()

    def _admit(self, sock: socket.socket) -> None:
        if len(self._pump) + len(self._handshakes) >= self._limits.connections:
            self.refused["too many connections"] += 1
            sock.close()
            return
        self.accepted += 1
        try:
            tune(sock)
        except OSError:
            self.refused["connection lost"] += 1
            sock.close()
        else:
            self._handshakes.begin(sock)

    def _ended(self, nursery: trio.Nursery, handshake: Handshake) -> None:
        if isinstance(handshake.failure, str):
            self.refused[handshake.failure] += 1
            handshake.socket.close()
            return
        connection = handshake.connection
        assert connection is not None
        try:
            if handshake.failure is not None:
                raise handshake.failure
            certificate = peer_certificate(connection)
            check_still_valid(certificate, self._revoked(), datetime.now(UTC))
        except ChannelError as error:
            self.refused[error.fault.value] += 1
            if error.fault in _OURS:
                logger.warning("a peer that calls itself %s: %s", _name(connection), error)
                nursery.start_soon(_let_hear, handshake.socket)
            else:
                handshake.socket.close()
        else:
            self._pump.add(handshake.socket, direct(connection), certificate, exporter(connection))
            self.resumed += session_reused(connection)


async def _let_hear(sock: socket.socket) -> None:
    """Let a peer read the alert that says why: in TLS 1.3 it has sent its first request already, and closing a socket
    with unread bytes takes back what the peer has not read yet (RFC 9293 section 3.10.4)."""
    with sock, suppress(OSError), trio.move_on_after(_HEARS_WITHIN_S):
        sock.shutdown(socket.SHUT_WR)
        while True:
            await trio.lowlevel.wait_readable(sock)
            if not sock.recv(4096):
                return


def _name(connection: SSL.Connection) -> str:
    """The server name that a terminal asks for carries its id; nobody has proved it."""
    name = (connection.get_servername() or b"").decode("ascii", "replace")
    return name if name.isalnum() else "nothing"


def tune(sock: socket.socket) -> None:
    """Socket options of a terminal's connection: no Nagle delay; a peer that is gone is noticed within two minutes."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
