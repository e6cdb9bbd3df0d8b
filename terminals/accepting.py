"""Where connections come from, and what strangers have begun but not ended.

A switch of one process accepts on its own socket; a worker gets sockets from its supervisor. Whatever is then done with
a connection before anybody is known to be behind it runs in its own task with a deadline, and only so many of them.
"""

import errno
import math
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

_BACKLOG = 4096
# A handed socket comes with one byte, so that an end of the stream is told from it.
HANDED = b"C"

# Why what strangers have begun is given up; counted by these words.
TIMED_OUT, GAVE_WAY = "handshake timed out", "handshake dropped for a newer one"


Take = Callable[[socket.socket], None]
Room = Callable[[], Awaitable[None]]


class Source(Protocol):
    """Gives connections."""

    address: tuple[str, int]

    async def each(self, take: Take, room: Room, refused: Counter[str]) -> None:
        """Hand every connection to ``take``, as soon as there is ``room``, until cancelled or none can come any more;
        count what could not be."""
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

    async def each(self, take: Take, room: Room, refused: Counter[str]) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                while True:
                    await room()
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

    async def each(self, take: Take, room: Room, refused: Counter[str]) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._line)
            try:
                while True:
                    await room()
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


class Attempt:
    """What somebody has begun. Its time runs while we wait for the other side, not while that waits for us."""

    def __init__(self, attempts: "Attempts", within_s: float) -> None:
        self._attempts = attempts
        self._left_s = within_s
        self.scope = trio.CancelScope(deadline=trio.current_time() + within_s)

    @contextmanager
    def ours(self) -> Iterator[None]:
        """It is our turn to do something: nobody who comes later takes its place meanwhile."""
        self._left_s = self.scope.deadline - trio.current_time()
        self.scope.deadline = math.inf
        try:
            with self._attempts.at_work(self):
                yield
        finally:
            self.scope.deadline = trio.current_time() + self._left_s


class Attempts:
    """Tasks that strangers have begun, each with a deadline. Of those that let us wait there are at most so many: one
    more, and the oldest gives way, so that those which never come to an end cannot keep others out. Those that wait
    for us are served in the order in which they came, and when they are as many, newer ones wait outside."""

    def __init__(self, most: int, within_s: float, refused: Counter[str]) -> None:
        """``refused`` counts those that gave way and those that ran out of time."""
        self._most = most
        self._within_s = within_s
        self._refused = refused
        self._waited_for: dict[Attempt, None] = {}  # oldest first

    def begin(
        self, nursery: trio.Nursery, sock: socket.socket, work: Callable[[socket.socket, Attempt], Awaitable[None]]
    ) -> None:
        """Run ``work`` in a task of its own. It owns the socket once it has started, however it ends."""
        if len(self._waited_for) >= self._most:
            oldest = next(iter(self._waited_for))
            del self._waited_for[oldest]
            oldest.scope.cancel()
            self._refused[GAVE_WAY] += 1
        attempt = Attempt(self, self._within_s)
        self._waited_for[attempt] = None
        nursery.start_soon(self._run, sock, attempt, work)

    @contextmanager
    def at_work(self, attempt: Attempt) -> Iterator[None]:
        """See ``Attempt.ours``."""
        self._waited_for.pop(attempt, None)
        try:
            yield
        finally:
            self._waited_for[attempt] = None

    async def _run(
        self, sock: socket.socket, attempt: Attempt, work: Callable[[socket.socket, Attempt], Awaitable[None]]
    ) -> None:
        try:
            with attempt.scope:
                await work(sock, attempt)
            if attempt.scope.cancelled_caught and attempt.scope.deadline <= trio.current_time():
                self._refused[TIMED_OUT] += 1
        finally:
            self._waited_for.pop(attempt, None)
