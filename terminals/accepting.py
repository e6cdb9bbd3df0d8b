"""Where connections come from, and what strangers have begun but not ended.

A switch of one process accepts on its own socket; a worker gets sockets from its supervisor. Whatever is then done with
a connection before anybody is known to be behind it runs in its own task with a deadline, and only so many of them.
"""

import errno
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

_BACKLOG = 4096
# A handed socket comes with one byte, so that an end of the stream is told from it.
HANDED = b"C"


class Source(Protocol):
    """Gives connections."""

    address: tuple[str, int]

    async def each(self, take: Callable[[socket.socket], None], refused: Counter[str]) -> None:
        """Hand every connection to ``take`` until cancelled or none can come any more; count what could not be."""
        ...

    def close(self) -> None: ...


class Bound:
    """A TCP socket that listens."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError when the address cannot be bound."""
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
        host, port = self._socket.getsockname()[:2]
        self.address = host, port

    async def each(self, take: Callable[[socket.socket], None], refused: Counter[str]) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                while True:
                    sock, _ = self._socket.accept()
                    take(sock)
            except BlockingIOError:
                continue
            except OSError as error:
                refused[f"accept: {errno.errorcode.get(error.errno or 0, 'error')}"] += 1
                await trio.sleep(0.1)  # out of descriptors, or a connection that died in the queue

    def close(self) -> None:
        self._socket.close()


class Handed:
    """Connections that another process has accepted, over the Unix socket between the two (SCM_RIGHTS, unix(7))."""

    def __init__(self, line: socket.socket, address: tuple[str, int]) -> None:
        self._line = line
        self.address = address

    async def each(self, take: Callable[[socket.socket], None], refused: Counter[str]) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._line)
            try:
                while True:
                    message, descriptors, flags, _ = socket.recv_fds(
                        self._line, len(HANDED), 1, socket.MSG_CMSG_CLOEXEC
                    )
                    if not message:
                        return  # whoever accepts is gone
                    if flags & socket.MSG_CTRUNC:
                        refused["accept: EMFILE"] += 1
                    for descriptor in descriptors:
                        take(socket.socket(fileno=descriptor))
            except BlockingIOError:
                continue

    def close(self) -> None:
        """The line is somebody else's."""


class Unfinished:
    """Tasks that strangers have begun, each with a deadline. One too many, and the oldest gives way, so that those
    which never come to an end cannot keep others out."""

    def __init__(self, most: int, within_s: float, refused: Counter[str], name: str) -> None:
        """``refused`` counts those that gave way and those that ran out of time, by ``name``."""
        self._most = most
        self._within_s = within_s
        self._refused = refused
        self._name = name
        self._scopes: dict[socket.socket, trio.CancelScope] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._scopes)

    def begin(
        self, nursery: trio.Nursery, sock: socket.socket, work: Callable[[socket.socket], Awaitable[None]]
    ) -> None:
        """Run ``work`` in a task of its own. It owns the socket once it has started, however it ends."""
        if len(self._scopes) >= self._most:
            self._scopes.pop(next(iter(self._scopes))).cancel()
            self._refused[f"{self._name} dropped for a newer one"] += 1
        scope = self._scopes[sock] = trio.CancelScope(deadline=trio.current_time() + self._within_s)
        nursery.start_soon(self._run, sock, scope, work)

    async def _run(
        self, sock: socket.socket, scope: trio.CancelScope, work: Callable[[socket.socket], Awaitable[None]]
    ) -> None:
        try:
            with scope:
                await work(sock)
            if scope.cancelled_caught and scope.deadline <= trio.current_time():
                self._refused[f"{self._name} timed out"] += 1
        finally:
            self._scopes.pop(sock, None)
