"""How a terminal reaches its switch: a TCP connection and the channel over it, resumed by ticket where it can be."""

import trio
from OpenSSL import SSL

from fengshou.hsm.channel import TlsStream


class Dialler:
    """One terminal's way to one switch."""

    def __init__(self, address: tuple[str, int], context: SSL.Context, peer_name: str, terminal: str) -> None:
        """``peer_name`` is the DNS name or IP address in the switch's certificate."""
        self._address = address
        self._context = context
        self._peer_name = peer_name
        # It carries the terminal's id: by it the switch finds the worker that has the terminal.
        self._server_name = terminal.lower()
        self._last: TlsStream | None = None

    def use(self, context: SSL.Context) -> None:
        """Connect with another certificate from now on."""
        self._context, self._last = context, None

    async def dial(self) -> TlsStream:
        """A channel. Raises OSError, trio.BrokenResourceError."""
        transport = await trio.open_tcp_stream(*self._address)
        session, self._last = self._last.take_session() if self._last else None, None
        stream = TlsStream.client(
            transport, self._context, self._peer_name, server_name=self._server_name, session=session
        )
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        self._last = stream
        return stream
