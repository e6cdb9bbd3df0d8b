"""A simulated terminal's connection on asyncio: TLS in memory, its bytes straight from and to the socket.

That costs least: one call of the kernel reads whatever has come, one sends whatever is to go, and in between nothing is
a task, a future or a transport. Answers are given to whoever waits for them in the same turn of the loop; what they
then send leaves together.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from OpenSSL import SSL

from fengshou.hsm.channel import ChannelError, check_peer_name, exporter, in_memory, session_of
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import Message
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import ERROR, RECEIPT

# Forty answers; what is more is read in the loop's next turn.
_READ_BYTES = 4 * 1024


class LinkLost(Exception):
    """The connection is gone; what was in flight may have been done or not."""


class Traffic:
    """Bytes of one fleet: frames, and what went through sockets for them."""

    def __init__(self) -> None:
        self.frames_up = self.frames_down = 0
        self.tls_up = self.tls_down = 0
        self.handshake_up = self.handshake_down = 0


class Waiting(Protocol):
    """Who waits for an answer. Exactly one of these is called, once, and may raise nothing."""

    def answered(self, answer: Message) -> None:
        """It is here."""

    def lost(self, reason: str) -> None:
        """It will not come over this connection."""


class Reply:
    """For a task that waits: ``future`` holds the answer or LinkLost."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def answered(self, answer: Message) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def lost(self, reason: str) -> None:
        if not self.future.done():
            self.future.set_exception(LinkLost(reason))
            self.future.exception()  # seen: it need not be waited for


class FleetLink:
    """One connection. After ``connect`` it has a ``session`` and a ``binding``."""

    def __init__(
        self, context: SSL.Context, peer_name: str, server_name: str, make_session: Callable[[bytes], TerminalSession],
        traffic: Traffic, session: SSL.Session | None = None,
    ) -> None:  # fmt: skip
        """``session`` of an earlier connection saves certificates and signatures, if the switch still takes it."""
        self._tls = SSL.Connection(context, None)
        self._tls.set_connect_state()
        self._tls.set_tlsext_host_name(server_name.encode("ascii"))
        if session is not None:
            self._tls.set_session(session)
        self._channel = in_memory(self._tls)
        self._peer_name = peer_name
        self._make_session = make_session
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._established: asyncio.Future[TerminalSession] = self._loop.create_future()
        self.session: TerminalSession | None = None
        self.binding = b""
        self.lost = ""
        self.sequence = 0  # of what was sent last
        self._reading = False  # what is sent meanwhile leaves together
        self._outbox = b""  # what the socket had no room for
        self._waiting: dict[int, tuple[int, float, Waiting]] = {}  # by sequence, oldest first: template, since when
        self._receipts: dict[int, Reply] = {}

    # The fleet's side

    def prepare(self) -> None:
        """Make the key shares and the ClientHello before there is a connection, which then sends them at once."""
        with suppress(SSL.WantReadError):
            self._tls.do_handshake()

    async def connect(self, host: str, port: int) -> TerminalSession:
        """The session, once the channel is up. Raises OSError when nobody listens, LinkLost when it fails."""
        try:
            self._socket = await _connected(self._loop, host, port)
            self._loop.add_reader(self._socket.fileno(), self._readable)
            self._handshake()
            return await self._established
        finally:
            if self.session is None:
                self._abort("there is no channel")

    def send(self, message: Message, frame: bytes, waiting: Waiting, *, receipt: bool = False) -> None:
        """Send one frame; ``waiting`` is told its answer. With ``receipt`` a receipt follows that, see ``receipt``."""
        if self.lost:
            waiting.lost(self.lost)
            return
        self.sequence = message.sequence
        self._waiting[message.sequence] = message.template, time.perf_counter(), waiting
        if receipt:
            self._receipts[message.sequence] = Reply()
        self._traffic.frames_up += len(frame)
        self._channel.send(frame)
        if not self._reading:
            self._flush()

    def post(self, message: Message, frame: bytes, *, receipt: bool = False) -> asyncio.Future[Message]:
        """Send one frame; the future holds its answer or LinkLost."""
        reply = Reply()
        self.send(message, frame, reply, receipt=receipt)
        return reply.future

    def receipt(self, sequence: int) -> asyncio.Future[Message]:
        """The receipt that follows the answer to a request that was sent with ``receipt``."""
        return self._receipts[sequence].future

    def forget(self, sequence: int) -> None:
        """Nobody waits any more for the answer or the receipt of this request."""
        self._waiting.pop(sequence, None)
        self._receipts.pop(sequence, None)

    def waiting_since(self, before: float) -> list[tuple[int, Waiting]]:
        """Sequence and who waits, of what was sent before this reading of ``time.perf_counter`` and has no answer."""
        found = []
        for sequence, (_, since, waiting) in self._waiting.items():
            if since >= before:
                break
            found.append((sequence, waiting))
        return found

    def close(self, reason: str) -> None:
        if not self.lost:
            with suppress(SSL.Error):  # the channel was not up
                self._tls.shutdown()
                self._flush()
            self._abort(reason)

    def cut(self, reason: str) -> None:
        """Lose the connection as a radio link is lost: without a word to the switch."""
        self._abort(reason)

    def take_session(self) -> SSL.Session | None:
        """What a later connection resumes by; of a connection that is lost or closed."""
        return session_of(self._tls)

    # The socket's side

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._abort(str(error))
            return
        if not data:
            self._abort("the switch closed the connection")
            return
        self._traffic.tls_down += len(data)
        self._channel.put(data)
        if self.session is None:
            self._traffic.handshake_down += len(data)
            self._handshake()
        if self.session is not None:
            self._read(self.session)

    def _handshake(self) -> None:
        before = self._traffic.tls_up
        try:
            self._tls.do_handshake()
            check_peer_name(self._tls, self._peer_name)
            self.binding = exporter(self._tls)
            self.session = self._make_session(self.binding)
        except SSL.WantReadError:
            pass
        except (SSL.Error, ChannelError) as error:
            self._flush()
            self._abort(f"no channel: {error!r}")
        self._flush()
        self._traffic.handshake_up += self._traffic.tls_up - before
        if self.session is not None and not self._established.done():
            self._established.set_result(self.session)

    def _read(self, session: TerminalSession) -> None:
        try:
            data = self._channel.read()
            messages = session.receive(data)
        except SSL.Error as error:
            self._abort(f"the channel broke: {error!r}")
            return
        except UntrustedBytesError as error:
            self._abort(f"the switch does not keep to the protocol: {error}")
            return
        self._traffic.frames_down += len(data)
        self._reading = True
        for message in messages:
            self._dispatch(message)
        self._reading = False
        self._flush()
        if self._channel.closed:
            self._abort("the switch closed the channel")

    def _dispatch(self, message: Message) -> None:
        template, _, waiting = self._waiting.get(message.sequence, (0, 0.0, None))
        if waiting is not None and message.template in (template, ERROR.id):
            del self._waiting[message.sequence]
            waiting.answered(message)
        elif message.template == RECEIPT.id and (receipt := self._receipts.get(message.sequence)) is not None:
            receipt.answered(message)

    def _flush(self) -> None:
        """Let the socket have what TLS wants to send."""
        data = self._channel.take()
        if self._outbox:
            self._outbox += data
        elif data:
            self._give(data)

    def _give(self, data: bytes) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._abort(str(error))
            return
        self._traffic.tls_up += sent
        if sent < len(data):
            self._outbox = data[sent:]
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        assert self._socket is not None
        self._loop.remove_writer(self._socket.fileno())
        data, self._outbox = self._outbox, b""
        self._give(data)

    def _abort(self, reason: str) -> None:
        """The connection is gone, and all who wait hear it. The first reason counts."""
        self.lost = self.lost or reason
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if not self._established.done():
            self._established.set_exception(LinkLost(self.lost))
            self._established.exception()  # seen: it need not be waited for
        waiting, self._waiting = self._waiting, {}
        for _, _, who in waiting.values():
            who.lost(self.lost)
        for receipt in self._receipts.values():
            receipt.lost(self.lost)


async def _connected(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A socket on the first address that answers. Raises OSError."""
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for place, (family, kind, protocol, _, address) in enumerate(found, 1):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(opened, address)
            return opened
        except BaseException as error:
            opened.close()
            if place == len(found) or not isinstance(error, OSError):
                raise
    raise OSError(f"{host} has no address")
