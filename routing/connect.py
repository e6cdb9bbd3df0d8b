"""How links to back ends come up: what can fail on the way, and how long to wait before trying again."""

import socket
from collections.abc import Awaitable, Callable
from random import Random

import trio
from OpenSSL import SSL

from fengshou.hsm.channel import TlsStream

# Gives a stream that is ready for the first byte: connected and, where the link is TLS, with the handshake done.
Connect = Callable[[], Awaitable[trio.abc.Stream]]

# Makes an accepted stream ready for the first byte.
Accept = Callable[[trio.abc.Stream], Awaitable[trio.abc.Stream]]

# What a network and a peer do to a link (a ChannelError is a BrokenResourceError). Anything else that is raised is a
# fault of ours and must not be swallowed.
LINK_ERRORS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


def tcp_connect(host: str, port: int) -> Connect:
    """Connect in the clear, for a host on the bank's own network. No Nagle delay: a batch is one write."""

    async def connect() -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    return connect


def tls_connect(host: str, port: int, context: SSL.Context, peer_name: str) -> Connect:
    """Connect over the security channel. ``peer_name`` is the name or address in the server's certificate."""

    async def connect() -> trio.abc.Stream:
        stream = TlsStream.client(await trio.open_tcp_stream(host, port), context, peer_name)
        return await _with_handshake(stream)

    return connect


def tls_accept(context: SSL.Context) -> Accept:
    """Accept over the security channel."""

    async def accept(raw: trio.abc.Stream) -> trio.abc.Stream:
        return await _with_handshake(TlsStream.server(raw, context))

    return accept


async def _with_handshake(stream: TlsStream) -> TlsStream:
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class Backoff:
    """Delays between attempts: doubling up to a bound, each drawn from its upper half.

    The draw keeps links that broke together from coming back together; the half keeps it from being no delay at all.
    """

    def __init__(self, random: Random, first_s: float = 0.1, longest_s: float = 10.0) -> None:
        self._random = random
        self._first_s = first_s
        self.longest_s = longest_s
        self._bound_s = first_s

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        bound_s, self._bound_s = self._bound_s, min(self._bound_s * 2, self.longest_s)
        return bound_s * (0.5 + self._random.random() / 2)

    def reset(self) -> None:
        """The link proved useful: begin again with the shortest delay."""
        self._bound_s = self._first_s
