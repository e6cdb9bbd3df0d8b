"""TLS over any Trio stream, through memory BIOs."""

import trio
from OpenSSL import SSL

from fengshou.hsm._connection import (
    ChannelError,
    Fault,
    check_peer_name,
    explain,
    exporter,
    is_address,
    peer_certificate,
    session_of,
)
from fengshou.hsm._openssl import session_reused
from fengshou.hsm.x509 import Certificate

_RECORD_BYTES = 16 * 1024  # RFC 8446 section 5.1: the most that one record carries
_TRANSPORT_BYTES = 64 * 1024
# How much is encrypted before it is handed to the transport: few calls, yet bounded memory.
_ENCRYPT_BYTES = 8 * _RECORD_BYTES


class _OneAtATime:
    """Refuses a second task instead of letting it wait, as Trio's own streams do."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(self._message)
        self._taken = True

    def __exit__(self, *_exception: object) -> None:
        self._taken = False


class TlsStream(trio.abc.Stream):
    """A mutually authenticated channel. Call ``do_handshake`` first, under the caller's deadline.

    One task may send while another receives; two that do the same at once get ``trio.BusyResourceError``. A send that
    was cancelled or failed leaves the channel unusable, as part of a record may be on its way. ``ChannelError`` is what
    the peer did wrong; an end without the peer's close_notify is one, because anybody on the path can cut.
    """

    def __init__(self, transport: trio.abc.Stream, connection: SSL.Connection, peer_name: str = "") -> None:
        """Use ``server`` or ``client``."""
        self.transport = transport
        self._connection = connection
        self._peer_name = peer_name
        self._established = False
        self._closed = False
        self._broken = False
        # Both directions can have bytes to send: a receiver answers key updates. Records must leave in order.
        self._flushing = trio.StrictFIFOLock()
        self._send_conflict = _OneAtATime("another task is sending on this channel")
        self._receive_conflict = _OneAtATime("another task is receiving from this channel")

    @classmethod
    def server(cls, transport: trio.abc.Stream, context: SSL.Context) -> "TlsStream":
        """The accepting end."""
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        return cls(transport, connection)

    @classmethod
    def client(
        cls,
        transport: trio.abc.Stream,
        context: SSL.Context,
        peer_name: str,
        *,
        server_name: str = "",
        session: SSL.Session | None = None,
    ) -> "TlsStream":
        """The connecting end. ``peer_name`` is the DNS name or IP address that the server's certificate must have.

        ``server_name`` is what the client asks for (SNI) when that differs: a terminal puts its own id in front, so
        that a balancer can route by it. ``session`` of an earlier channel saves certificates and signatures, if the
        server still takes it.
        """
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        asked = server_name or peer_name
        if not is_address(asked):  # RFC 6066 section 3: literal addresses are not permitted
            connection.set_tlsext_host_name(asked.encode("ascii"))
        if session is not None:
            connection.set_session(session)
        return cls(transport, connection, peer_name)

    @property
    def binding(self) -> bytes:
        """See ``exporter``."""
        self._check_established()
        return exporter(self._connection)

    @property
    def peer(self) -> Certificate:
        """See ``peer_certificate``."""
        self._check_established()
        return peer_certificate(self._connection)

    @property
    def resumed(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        self._check_established()
        return session_reused(self._connection)

    def take_session(self) -> SSL.Session | None:
        """See ``session_of``. The channel is of no use afterwards."""
        self._broken = True
        return session_of(self._connection)

    @property
    def group(self) -> str:
        """The group that was negotiated, as OpenSSL names it."""
        self._check_established()
        return self._connection.get_group_name() or ""

    async def do_handshake(self) -> None:
        """Authenticate both ends. Raises ChannelError; the transport is then of no further use.

        A client returns before the server has judged its certificate (RFC 8446 section 2): a refusal arrives with the
        first ``receive_some``.
        """
        with self._send_conflict, self._receive_conflict:
            self._check_usable()
            while not self._established:
                try:
                    self._connection.do_handshake()
                except SSL.WantReadError:
                    await self._flush()
                    await self._feed()
                except SSL.Error as error:
                    raise await self._fail(error) from None
                else:
                    await self._flush()
                    if self._peer_name:
                        self._check_name()
                    self._established = True
            await trio.lowlevel.checkpoint()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._send_conflict:
            self._check_usable()
            self._check_established()
            await trio.lowlevel.checkpoint()
            with memoryview(data) as view:
                for start in range(0, len(view), _ENCRYPT_BYTES):
                    self._encrypt(view[start : start + _ENCRYPT_BYTES])
                    await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        with self._send_conflict:
            self._check_usable()
            await self.transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receive_conflict:
            self._check_usable()
            self._check_established()
            await trio.lowlevel.checkpoint()
            while True:
                try:
                    return self._connection.recv(max_bytes or _RECORD_BYTES)
                except SSL.ZeroReturnError:
                    return b""
                except SSL.WantReadError:
                    await self._flush()
                    await self._feed()
                except SSL.Error as error:
                    raise await self._fail(error) from None

    async def aclose(self) -> None:
        """Say close_notify, if the channel is whole, and close the transport without waiting for the peer's."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        if self._established and not self._broken:
            try:
                self._connection.shutdown()
                await self._flush()
            except (SSL.Error, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the peer or the transport went first: there is nobody left to tell
            except BaseException:
                await trio.aclose_forcefully(self.transport)
                raise
            await self.transport.aclose()
        else:
            await trio.aclose_forcefully(self.transport)
            await trio.lowlevel.checkpoint()

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        if self._broken:
            raise trio.BrokenResourceError("an earlier failure or cancellation broke this channel")

    def _check_established(self) -> None:
        if not self._established:
            raise RuntimeError("the handshake of this channel is not done")

    def _check_name(self) -> None:
        try:
            check_peer_name(self._connection, self._peer_name)
        except ChannelError:
            self._broken = True
            raise

    def _encrypt(self, view: memoryview) -> None:
        while len(view):
            try:
                view = view[self._connection.send(view) :]
            except SSL.Error as error:
                self._broken = True
                raise explain(self._connection, error) from None

    async def _feed(self) -> None:
        """Give the TLS engine what the transport has, or the news that nothing more will come."""
        try:
            data = await self.transport.receive_some(_TRANSPORT_BYTES)
        except trio.BrokenResourceError:
            self._broken = True
            raise ChannelError(Fault.VANISHED) from None
        if data:
            self._connection.bio_write(data)
        elif self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        else:
            self._connection.bio_shutdown()

    async def _flush(self) -> None:
        """Hand the transport what the TLS engine wants to send."""
        async with self._flushing:
            data = self._drain()
            if data:
                try:
                    await self.transport.send_all(data)
                except trio.BrokenResourceError:
                    self._broken = True
                    raise ChannelError(Fault.VANISHED) from None
                except BaseException:
                    self._broken = True
                    raise

    def _drain(self) -> bytes:
        parts = []
        while True:
            try:
                parts.append(self._connection.bio_read(_TRANSPORT_BYTES))
            except SSL.WantReadError:
                return b"".join(parts)

    async def _fail(self, error: SSL.Error) -> ChannelError:
        """Tell the peer why (the alert is ready in the engine) if it still listens, and name the fault."""
        failure = explain(self._connection, error)
        try:
            if failure.fault is not Fault.VANISHED:
                await self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._broken = True
        return failure
