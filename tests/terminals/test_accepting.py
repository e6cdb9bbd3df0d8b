"""Who gives way to whom, and who waits: the attempts of strangers, with Trio's own clock run by hand."""

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fengshou.terminals.accepting import Attempt, Attempts

MOST, WITHIN_S = 3, 10.0


class Stage:
    """Attempts whose work is to wait until they are told to go on: for the peer, or in our own queue."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.refused: Counter[str] = Counter()
        self.attempts = Attempts(MOST, WITHIN_S, self.refused)
        self.ours, self.done = trio.Event(), trio.Event()
        self.ended: list[int] = []
        self._nursery = nursery
        self._begun = 0

    async def begin(self, *, speaks: bool) -> None:
        number = self._begun = self._begun + 1

        async def work(sock: socket.socket, attempt: Attempt) -> None:
            with sock:
                if speaks:
                    with attempt.ours():
                        await self.ours.wait()
                await self.done.wait()
                self.ended.append(number)

        self.attempts.begin(self._nursery, socket.socket(), work)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        yield stage
        nursery.cancel_scope.cancel()


async def test_of_those_that_let_us_wait_the_oldest_gives_way() -> None:
    async with staged() as stage:
        for _ in range(MOST + 2):
            await stage.begin(speaks=False)
        assert stage.refused == {"handshake dropped for a newer one": 2}
        stage.done.set()
        await wait_all_tasks_blocked()
        assert sorted(stage.ended) == [3, 4, 5]


async def test_those_that_wait_for_us_keep_their_places() -> None:
    async with staged() as stage:
        for _ in range(2 * MOST):
            await stage.begin(speaks=True)
        assert not stage.refused
        stage.ours.set()
        stage.done.set()
        await wait_all_tasks_blocked()
        assert len(stage.ended) == 2 * MOST


def test_time_runs_while_we_wait_for_the_other_side_only() -> None:
    clock = MockClock()

    async def main() -> None:
        async with staged() as stage:
            await stage.begin(speaks=True)
            clock.jump(3 * WITHIN_S)
            stage.ours.set()
            await wait_all_tasks_blocked()
            clock.jump(0.9 * WITHIN_S)
            await wait_all_tasks_blocked()
            assert not stage.refused
            clock.jump(0.2 * WITHIN_S)
            await wait_all_tasks_blocked()
            assert stage.refused == {"handshake timed out": 1}

    trio.run(main, clock=clock)
