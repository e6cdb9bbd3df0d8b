"""Unfinished handshakes: one thread and one epoll set for all of them.

A handshake is one to three milliseconds of public-key work in two steps, and that needs no GIL. The thread takes the
steps in the order in which their connections came; while there is none it waits in the set. The loop hears of a
connection again when its handshake has ended, and of all that have ended meanwhile at once. With a task for each
connection and a wake-up for each step this took 0.8 ms more of CPU for each of them (decision 9).
"""

import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush

import trio
from OpenSSL import SSL

from fengshou.hsm.channel import ChannelError, explain
from fengshou.terminals.accepting import GAVE_WAY, TIMED_OUT

logger = logging.getLogger(__name__)

FAILED = "handshake failed here"
# Late by so much is a deadline noticed.
_TICK_S = 0.25
# So long does a storm gather what has ended before the loop hears of it. The sign-ins of all of them are then one batch
# and one commit, which for each alone took 0.3 ms of CPU more; in a storm that lasts seconds nobody notices the wait.
_GATHER_S = 0.1


class Handshake:
    """One connection until it is secure or given up. ``failure``: what the peer did wrong, or in words why we gave up;
    None when the channel is there."""

    __slots__ = ("connection", "deadline", "failure", "fd", "left_s", "place", "socket")

    def __init__(self, sock: socket.socket, place: int, within_s: float) -> None:
        self.socket = sock
        self.fd = sock.fileno()
        self.place = place  # how many came before
        self.left_s = within_s  # for which it may yet let us wait
        self.deadline = 0.0
        self.connection: SSL.Connection | None = None  # the silent cost no TLS state
        self.failure: ChannelError | str | None = None

    def __lt__(self, other: "Handshake") -> bool:
        return self.place < other.place


class Handshakes:
    """Those that strangers have begun. Of those that let us wait there are at most so many: one more, and the oldest
    gives way, so that those which never come to an end cannot keep others out. Those that wait for us are served in the
    order in which they came, however many steps they have had already: else the last steps of the first would wait
    behind the first steps of the last. When they are as many, newer ones wait outside."""

    def __init__(self, context: Callable[[], SSL.Context], most: int, within_s: float) -> None:
        """``within_s``: how long a peer may let us wait in all; our own time does not count."""
        self._context = context
        self._most = most
        self._within_s = within_s
        self._begun = self._ended_count = 0
        self._outside = trio.Event()
        self._on_ended: Callable[[Handshake], None] = lambda ended: None
        self._token: trio.lowlevel.TrioToken | None = None
        # Between the threads; every operation on them is one under the GIL.
        self._arrived: deque[Handshake] = deque()
        self._ended: deque[Handshake] = deque()
        self._told = self._crowded = self._stopping = False
        # The thread's own.
        self._epoll = select.epoll()
        self._wake = -1  # an eventfd, by which the thread hears that it should stop
        self._theirs: dict[int, Handshake] = {}  # those that let us wait, by descriptor, the oldest first
        self._ours: list[Handshake] = []  # those that wait for us, a heap
        self._thread = threading.Thread(target=self._work, name="handshakes", daemon=True)

    def __len__(self) -> int:
        return self._begun - self._ended_count

    # -- in the loop ---------------------------------------------------------------------------------------------------

    def start(self, on_ended: Callable[[Handshake], None]) -> None:
        """``on_ended`` is called in this thread for each handshake that ends, and owns its socket from then on."""
        self._on_ended = on_ended
        self._token = trio.lowlevel.current_trio_token()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread.start()

    def stop(self) -> None:
        """Drop what has not ended. Called after ``start``."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)
        for handshake in (*self._arrived, *self._theirs.values(), *self._ours, *self._ended):
            handshake.socket.close()
        self._ended.clear()  # the loop may have been told of them already

    async def room(self) -> None:
        """Until another one may come; those that have begun go on first."""
        await trio.lowlevel.checkpoint()
        self._crowded = True  # first: else the last of a crowd could go between the look and the wait
        while len(self._ours) >= self._most:
            self._outside = trio.Event()
            await self._outside.wait()
            self._crowded = True
        self._crowded = False

    def begin(self, sock: socket.socket) -> None:
        """It is non-blocking, and ours until it has ended."""
        handshake = Handshake(sock, self._begun, self._within_s)
        self._begun += 1
        self._arrived.append(handshake)
        with suppress(OSError):  # no room for another one in the system: it will time out
            self._epoll.register(handshake.fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _tell(self) -> None:
        self._told = False
        if self._crowded:
            self._crowded = False
            self._outside.set()
        while self._ended:
            self._ended_count += 1
            self._on_ended(self._ended.popleft())

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        look_at = tell_by = 0.0
        while not self._stopping:
            ready = self._epoll.poll(0 if self._ours else _TICK_S)
            now = time.monotonic()
            while self._arrived:
                self._let_wait(self._arrived.popleft(), now)
            for fd, _ in ready:
                if handshake := self._theirs.pop(fd, None):
                    handshake.left_s = handshake.deadline - now
                    heappush(self._ours, handshake)
            while len(self._theirs) > self._most:
                self._end(next(iter(self._theirs.values())), GAVE_WAY)
            if now >= look_at:
                look_at = now + _TICK_S
                for handshake in [late for late in self._theirs.values() if late.deadline < now]:
                    self._end(handshake, TIMED_OUT)
            if self._ours:
                self._step(heappop(self._ours))
            if not self._ended:
                tell_by = now + _GATHER_S
            elif not self._ours or now >= tell_by:
                self._call()
            if self._crowded and len(self._ours) < self._most:
                self._call()

    def _call(self) -> None:
        """The loop."""
        if not self._told:
            self._told = True
            assert self._token is not None
            self._token.run_sync_soon(self._tell)

    def _step(self, handshake: Handshake) -> None:
        try:
            if handshake.connection is None:
                handshake.connection = SSL.Connection(self._context(), handshake.socket)
                handshake.connection.set_accept_state()
            handshake.connection.do_handshake()
        except SSL.WantReadError:
            self._watch(handshake, select.EPOLLIN)
        except SSL.WantWriteError:
            self._watch(handshake, select.EPOLLOUT)
        except SSL.Error as error:
            assert handshake.connection is not None
            self._end(handshake, explain(handshake.connection, error))
        except Exception:  # one that cannot be served must not end the others
            logger.exception("a handshake failed")
            self._end(handshake, FAILED)
        else:
            self._end(handshake, None)

    def _watch(self, handshake: Handshake, event: int) -> None:
        self._let_wait(handshake, time.monotonic())
        self._epoll.modify(handshake.fd, event | select.EPOLLONESHOT)

    def _let_wait(self, handshake: Handshake, now: float) -> None:
        handshake.deadline = now + handshake.left_s
        self._theirs[handshake.fd] = handshake

    def _end(self, handshake: Handshake, failure: ChannelError | str | None) -> None:
        self._theirs.pop(handshake.fd, None)
        with suppress(OSError):  # it never had room, see ``begin``
            self._epoll.unregister(handshake.fd)
        handshake.failure = failure
        self._ended.append(handshake)
