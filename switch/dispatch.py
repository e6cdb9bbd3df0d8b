"""Brings each connection to the worker that has its terminal.

The supervisor accepts, looks at the server name in the ClientHello without taking it out of the socket, and hands the
socket over; what follows is between the terminal and its worker. A connection that names no terminal goes to the first
worker, which refuses its sign-in unless the terminal is its own.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import trio

from fengshou.switch.affinity import worker_of
from fengshou.terminals.accepting import Attempt, Attempts, Source
from fengshou.terminals.client_hello import bytes_wanted, server_name
from fengshou.terminals.listener import ListenerLimits


class Recipient(Protocol):
    """A worker, as far as connections are concerned."""

    async def hand(self, sock: socket.socket) -> None:
        """Give it a connection, as soon as it is there. Raises OSError."""
        ...


class Dispatcher:
    """The accepting end of a switch with several workers."""

    def __init__(self, source: Source, workers: Sequence[Recipient], limits: ListenerLimits) -> None:
        """Of the limits, ``handshakes`` bounds those that have not said their name, and those that wait for one worker;
        ``handshake_s`` the time of both."""
        self._source = source
        self._workers = workers
        self._waiting = [0] * len(workers)  # connections that could not be handed yet
        self._most, self._within_s = limits.handshakes, limits.handshake_s
        self.refused: Counter[str] = Counter()  # by reason
        self._attempts = Attempts(limits.handshakes, limits.handshake_s, self.refused)
        self._accepting = trio.CancelScope()

    async def run(self) -> None:
        """Accept until stopped; then the source is closed."""
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    await self._source.each(
                        lambda sock: self._attempts.begin(nursery, sock, self._dispatch),
                        trio.lowlevel.checkpoint,  # who waits for one worker must not keep those of another out
                        self.refused,
                    )
        finally:
            self._source.close()

    def stop(self) -> None:
        self._accepting.cancel()

    async def _dispatch(self, sock: socket.socket, attempt: Attempt) -> None:
        with sock:  # the worker has its own descriptor by then
            try:
                sock.setblocking(False)
                name = server_name(await greeting(sock))
                worker = worker_of(name, len(self._workers)) if name else 0
                if self._waiting[worker] >= self._most:
                    self.refused["worker busy"] += 1
                    return
                self._waiting[worker] += 1
                try:
                    with attempt.ours(), trio.fail_after(self._within_s):
                        await self._workers[worker].hand(sock)
                finally:
                    self._waiting[worker] -= 1
            except trio.TooSlowError:
                self.refused["worker busy"] += 1
            except OSError:
                self.refused["connection lost"] += 1


async def greeting(sock: socket.socket) -> bytes:
    """The first TLS record of a peer as far as a server name may be in it; it stays in the socket. Raises OSError."""
    wanted = bytes_wanted(b"")
    while True:
        # Wakes up when so much has come, not for every byte of somebody who sends slowly (SO_RCVLOWAT, socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
        await trio.lowlevel.wait_readable(sock)
        untrusted = sock.recv(wanted, socket.MSG_PEEK)
        if len(untrusted) < wanted and bytes_wanted(untrusted):
            raise ConnectionResetError("the peer ended before its first record did")
        wanted = bytes_wanted(untrusted)
        if wanted <= len(untrusted):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return untrusted
