"""The pump: all terminal connections in one epoll set, drained in a loop.

A task for each connection costs several times more than the work it does, so after its handshake a connection is
handed to the pump. Trio watches the epoll set itself; ``ready`` gives whatever whole frames have arrived, and that is
one batch of the switch. The pump owns bytes and sockets. It does not know what a frame means.

A peer that reads slowly costs only itself: what it does not take waits in its own bounded outbox, and when that is full
or stands still for too long the connection is closed.
"""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import trio
from OpenSSL import SSL

from fengshou.codecs import MessageCodec
from fengshou.hsm.x509 import Certificate
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.session import Event, State, SwitchSession
from fengshou.terminals.binding import TerminalRow

# The most that one record of TLS carries (RFC 8446 section 5.1). A peer is given one read a round: with much to say it
# takes turns with the others. What is left of a record would not make its socket ready, so a read takes it whole.
_RECORD_BYTES = 16 * 1024
# Connections looked at in one round; bounds a batch and so the time until the first answer of it.
_ROUND_MAX = 512


class Closing(Enum):
    """Why a connection ended; counted by these names."""

    BY_PEER = "closed by peer"
    BROKEN = "connection broken"
    GARBAGE = "frames malformed"
    SLOW_READER = "slow reader"
    SILENT = "never signed in"
    IDLE = "idle"
    SUPERSEDED = "the terminal signed in elsewhere"
    REVOKED = "revoked"
    DRAINED = "switch stopping"


@dataclass(frozen=True, slots=True)
class PumpLimits:
    """``sign_in_s``: how long a connection may stay without a sign-in. Seconds and bytes."""

    sign_in_s: float = 30.0
    idle_s: float = 900.0
    stalled_s: float = 10.0
    outbox_bytes: int = 128 * 1024


class Channel(Protocol):
    """A secure connection on a socket that does not block: pyOpenSSL's, or one with its errors."""

    def recv(self, bufsiz: int, /) -> bytes: ...

    def send(self, buf: bytes | memoryview, /) -> int: ...

    def shutdown(self) -> bool: ...


class Peer:
    """One connection after its handshake."""

    __slots__ = (
        "allowance", "app", "certificate", "closed", "connection", "fd", "heard_at", "inbox", "key_epochs", "outbox",
        "permitted", "pump", "renewal_due", "row", "session", "session_record", "socket", "spent_at", "stalled_at",
    )  # fmt: skip

    def __init__(
        self, pump: "Pump", sock: socket.socket, connection: Channel, certificate: Certificate, binding: bytes
    ) -> None:
        self.pump = pump
        self.socket = sock
        self.fd = sock.fileno()
        self.connection = connection
        self.certificate = certificate
        self.session = SwitchSession(binding)
        self.row: TerminalRow | None = None  # set by a sign-in, with the two below
        self.session_record = 0
        self.app = ("", "")  # id and version
        self.permitted: frozenset[str] = frozenset()  # names of the services that terminal and application allow
        self.renewal_due = False  # it should ask for another certificate
        self.key_epochs: tuple[int, ...] | None = None  # of the working and master key; None: it uses none
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.heard_at = trio.current_time()
        self.stalled_at = 0.0
        self.closed = False
        self.allowance = 0.0  # requests that the terminal may send at once; see switch.admission
        self.spent_at = float("-inf")  # long ago: a new connection may send as much at once as any

    @property
    def terminal(self) -> str:
        """The terminal that signed in, else the one the certificate names."""
        return self.row.facts.terminal if self.row else self.certificate.subject.common_name

    def send(self, data: bytes) -> None:
        """Send now what the socket takes and keep the rest for when it takes more. A closed peer ignores it."""
        if not self.closed:
            self.pump.send(self, data)


class Readiness(Protocol):
    """Which sockets can be read or written now: the face of an epoll set, and how to wait for it."""

    def register(self, fd: int, eventmask: int) -> None: ...

    def modify(self, fd: int, eventmask: int) -> None: ...

    def unregister(self, fd: int) -> None: ...

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]: ...

    def close(self) -> None: ...

    async def wait(self) -> None:
        """Until ``poll`` has something to say."""
        ...


class Epoll:
    """The kernel's. Its methods are taken over as they are: they run for every frame."""

    def __init__(self) -> None:
        epoll = select.epoll()
        self.register, self.modify, self.unregister = epoll.register, epoll.modify, epoll.unregister
        self.poll, self.close = epoll.poll, epoll.close
        self._fd = epoll.fileno()

    async def wait(self) -> None:
        await trio.lowlevel.wait_readable(self._fd)


class Pump:
    """Owns the peers and their sockets."""

    def __init__(
        self,
        codec: MessageCodec,
        limits: PumpLimits,
        on_closed: Callable[[Peer, Closing], None],
        readiness: Readiness | None = None,
    ) -> None:
        """``readiness`` knows the peers' sockets; the kernel's unless they are simulated."""
        self._codec = codec
        self._limits = limits
        self._on_closed = on_closed
        self._epoll = readiness or Epoll()
        self._peers: dict[int, Peer] = {}
        self._halted = False
        self._waiting = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers.values()))

    def add(self, sock: socket.socket, connection: Channel, certificate: Certificate, binding: bytes) -> Peer:
        """Take over a connection whose handshake is done."""
        peer = Peer(self, sock, connection, certificate, binding)
        self._peers[peer.fd] = peer
        self._epoll.register(peer.fd, select.EPOLLIN)
        return peer

    async def ready(self) -> list[tuple[Peer, bytes]]:
        """The frames that have arrived, without their lengths: at least one. An empty list: the pump was halted."""
        while not self._halted:
            with trio.CancelScope() as self._waiting:
                await self._epoll.wait()
            arrivals = self._round()
            if arrivals:
                return arrivals
        return []

    def halt(self) -> None:
        """Read no more; ``ready`` ends. Answers can still be sent."""
        self._halted = True
        self._waiting.cancel()

    def _round(self) -> list[tuple[Peer, bytes]]:
        arrivals: list[tuple[Peer, bytes]] = []
        now = trio.current_time()
        for fd, events in self._epoll.poll(0, _ROUND_MAX):
            peer = self._peers.get(fd)
            if peer is None:
                continue
            if events & select.EPOLLOUT:
                self._flush(peer)
            if events & ~select.EPOLLOUT and not peer.closed:
                self._receive(peer, arrivals, now)
        return arrivals

    def _receive(self, peer: Peer, arrivals: list[tuple[Peer, bytes]], now: float) -> None:
        try:
            data = peer.connection.recv(_RECORD_BYTES)
        except (SSL.WantReadError, SSL.WantWriteError):
            return  # part of a record; the rest will wake us
        except SSL.ZeroReturnError:
            return self.close(peer, Closing.BY_PEER)
        except SSL.Error:
            return self.close(peer, Closing.BROKEN)
        peer.heard_at = now
        if peer.inbox:
            peer.inbox += data
            data = bytes(peer.inbox)
        try:
            frames, used = self._codec.split(data)
        except UntrustedBytesError:
            return self.close(peer, Closing.GARBAGE)  # where the next frame begins is lost
        if used < len(data) or peer.inbox:
            peer.inbox = bytearray(memoryview(data)[used:])
        arrivals.extend([(peer, frame) for frame in frames])
        return None

    def send(self, peer: Peer, data: bytes) -> None:
        """See ``Peer.send``."""
        if peer.outbox:
            peer.outbox += data
            if len(peer.outbox) > self._limits.outbox_bytes:
                self.close(peer, Closing.SLOW_READER)
            return
        self._write(peer, data)

    def _flush(self, peer: Peer) -> None:
        waiting, peer.outbox = bytes(peer.outbox), bytearray()
        self._write(peer, waiting)
        if not peer.outbox and not peer.closed:
            self._epoll.modify(peer.fd, select.EPOLLIN)

    def _write(self, peer: Peer, data: bytes) -> None:
        """Write until all is gone or the socket is full; then the rest waits for EPOLLOUT."""
        sent = 0
        try:
            while sent < len(data):
                sent += peer.connection.send(memoryview(data)[sent:] if sent else data)
        except (SSL.WantWriteError, SSL.WantReadError):
            peer.outbox = bytearray(data[sent:])
            peer.stalled_at = trio.current_time()
            self._epoll.modify(peer.fd, select.EPOLLIN | select.EPOLLOUT)
        except SSL.Error:
            self.close(peer, Closing.BROKEN)

    def close(self, peer: Peer, why: Closing) -> None:
        """End a connection; what waits in its outbox is lost."""
        if peer.closed:
            return
        peer.closed = True
        peer.session.advance(Event.CLOSE)
        del self._peers[peer.fd]
        with suppress(OSError):
            self._epoll.unregister(peer.fd)
        with suppress(SSL.Error):
            peer.connection.shutdown()  # close_notify, if the socket takes it
        peer.socket.close()
        self._on_closed(peer, why)

    async def sweep(self) -> None:
        """Close what is silent, idle or stalled, once a second, until cancelled."""
        while True:
            await trio.sleep(1)
            now = trio.current_time()
            for peer in self:
                if peer.outbox and now - peer.stalled_at > self._limits.stalled_s:
                    self.close(peer, Closing.SLOW_READER)
                elif peer.session.state is State.CONNECTED and now - peer.heard_at > self._limits.sign_in_s:
                    self.close(peer, Closing.SILENT)
                elif now - peer.heard_at > self._limits.idle_s:
                    self.close(peer, Closing.IDLE)

    def shut(self, why: Closing = Closing.DRAINED) -> None:
        """Close every connection and the set itself."""
        for peer in self:
            self.close(peer, why)
        self._epoll.close()
