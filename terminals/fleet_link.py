"""A simulated terminal's connection on asyncio: TLS through memory BIOs inside a protocol, which costs least."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from OpenSSL import SSL

from fengshou.hsm.channel import ChannelError, check_peer_name, exporter, session_of
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import Message
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import ERROR, RECEIPT

# A TLS record holds at most 16 KiB; asking for more yields no more, and a larger buffer costs an allocation of its own.
_BYTES = 16 * 1024


class LinkLost(Exception):
    """The connection is gone; what was in flight may have been done or not."""


class Traffic:
    """Bytes of one fleet: frames, and what TLS made of them."""

    def __init__(self) -> None:
        self.frames_up = self.frames_down = 0
        self.tls_up = self.tls_down = 0
        self.handshake_up = self.handshake_down = 0


class FleetLink(asyncio.Protocol):
    """One connection. ``established`` completes when the channel is up; ``session`` exists from then on."""

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
        self._peer_name = peer_name
        self._make_session = make_session
        self._traffic = traffic
        self._transport: asyncio.Transport | None = None
        self.established: asyncio.Future[TerminalSession] = asyncio.get_running_loop().create_future()
        self.session: TerminalSession | None = None
        self.binding = b""
        self.lost = ""
        self._responses: dict[int, tuple[int, asyncio.Future[Message]]] = {}
        self._receipts: dict[int, asyncio.Future[Message]] = {}

    def prepare(self) -> None:
        """Make the key shares and the ClientHello before there is a connection, which then sends them at once."""
        with suppress(SSL.WantReadError):
            self._tls.do_handshake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self._handshake()

    def data_received(self, data: bytes) -> None:
        self._tls.bio_write(data)
        self._traffic.tls_down += len(data)
        try:
            if self.session is None:
                self._traffic.handshake_down += len(data)
                self._handshake()
            if self.session is not None:
                self._read(self.session)
        except (SSL.Error, ChannelError) as error:
            self._abort(f"the channel broke: {error!r}")
        except UntrustedBytesError as error:
            self._abort(f"the switch does not keep to the protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "the switch closed the connection")

    # The fleet's side

    def post(self, message: Message, frame: bytes, *, receipt: bool = False) -> asyncio.Future[Message]:
        """Send one frame; the future holds its answer or LinkLost."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        if self.lost:
            answer.set_exception(LinkLost(self.lost))
            return answer
        self._responses[message.sequence] = message.template, answer
        if receipt:
            self._receipts[message.sequence] = asyncio.get_running_loop().create_future()
        self._traffic.frames_up += len(frame)
        self._tls.send(frame)
        self._flush()
        return answer

    def receipt(self, sequence: int) -> "asyncio.Future[Message]":
        """The receipt that follows the answer to a request that was posted with ``receipt``."""
        return self._receipts[sequence]

    def forget(self, sequence: int) -> None:
        """Nobody waits any more for the answer or the receipt of this request."""
        self._responses.pop(sequence, None)
        self._receipts.pop(sequence, None)

    def close(self, reason: str) -> None:
        if not self.lost:
            try:
                self._tls.shutdown()
                self._flush()
            except SSL.Error:
                pass  # the channel was not up
            self._abort(reason)

    def cut(self, reason: str) -> None:
        """Lose the connection as a radio link is lost: without a word to the switch."""
        self._fail(reason)
        if self._transport is not None:
            self._transport.abort()

    def take_session(self) -> SSL.Session | None:
        """What a later connection resumes by; of a connection that is lost or closed."""
        return session_of(self._tls)

    # Inside

    def _handshake(self) -> None:
        try:
            self._tls.do_handshake()
            check_peer_name(self._tls, self._peer_name)
            self.binding = exporter(self._tls)
            self.session = self._make_session(self.binding)
            self._traffic.handshake_up += self._flush()
            self.established.set_result(self.session)
        except SSL.WantReadError:
            self._traffic.handshake_up += self._flush()
        except (SSL.Error, ChannelError) as error:
            self._flush()
            self._abort(f"no channel: {error!r}")

    def _read(self, session: TerminalSession) -> None:
        parts = []
        closed = False
        try:
            while True:
                parts.append(self._tls.recv(_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            closed = True
        data = b"".join(parts)
        self._traffic.frames_down += len(data)
        for message in session.receive(data):
            self._dispatch(message)
        self._flush()
        if closed:
            self._abort("the switch closed the channel")

    def _dispatch(self, message: Message) -> None:
        template, waiting = self._responses.get(message.sequence, (0, None))
        if message.template in (template, ERROR.id):
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif message.template == RECEIPT.id:
            receipt = self._receipts.get(message.sequence)
            if receipt is not None and not receipt.done():
                receipt.set_result(message)

    def _flush(self) -> int:
        """Hand the transport what TLS wants to send; returns how many bytes."""
        size = 0
        with suppress(SSL.WantReadError):  # nothing
            more = True
            while more:
                data = self._tls.bio_read(_BYTES)
                more = len(data) == _BYTES
                size += len(data)
                if self._transport is not None:
                    self._transport.write(data)
        self._traffic.tls_up += size
        return size

    def _abort(self, reason: str) -> None:
        self._fail(reason)
        if self._transport is not None:
            self._transport.close()

    def _fail(self, reason: str) -> None:
        self.lost = self.lost or reason
        if not self.established.done():
            self.established.set_exception(LinkLost(self.lost))
            self.established.exception()  # seen: it need not be waited for, and so below
        for future in (*(future for _, future in self._responses.values()), *self._receipts.values()):
            if not future.done():
                future.set_exception(LinkLost(self.lost))
                future.exception()
        self._responses.clear()
