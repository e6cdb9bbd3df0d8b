"""Who gives way to whom, and who waits: the attempts of strangers, with Trio's own clock run by hand."""

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fengshou.terminals.accepting import Attempt, Attempts, Turns

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
        assert len(stage.attempts) == MOST
        stage.done.set()
        await wait_all_tasks_blocked()
        assert sorted(stage.ended) == [3, 4, 5]


def test_those_that_wait_for_us_keep_their_places_and_newer_ones_wait_outside() -> None:
    async def main() -> None:
        async with staged() as stage:
            for _ in range(MOST):
                await stage.begin(speaks=True)
            with trio.move_on_after(100 * WITHIN_S) as outside:
                await stage.attempts.room()
            assert outside.cancelled_caught
            assert not stage.refused  # however long that took
            stage.ours.set()
            with trio.fail_after(1):
                await stage.attempts.room()
            assert len(stage.attempts) == MOST

    trio.run(main, clock=MockClock(autojump_threshold=0))


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


def test_turns_go_by_who_came_first_not_by_who_asked_first() -> None:
    async def main() -> list[tuple[int, int]]:
        turns, done = Turns(), list[tuple[int, int]]()

        async def come(place: int) -> None:
            for step in range(2):
                async with turns.take(place):
                    await trio.sleep(1)
                    done.append((place, step))
                await trio.sleep(0.1)  # the other side answers

        async with trio.open_nursery() as nursery:
            for place in range(4):
                nursery.start_soon(come, place)
                await wait_all_tasks_blocked()
        return done

    # Who came first is done first; while its peer answers, the next one has begun.
    done = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert done == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0), (2, 1), (3, 1)]


async def test_a_turn_that_is_given_up_is_passed_on() -> None:
    turns, had = Turns(), []

    async def come(place: int, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            async with turns.take(place):
                had.append(place)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        scopes = [await nursery.start(come, place) for place in range(4)]
        await wait_all_tasks_blocked()
        scopes[2].cancel()  # it waits
        scopes[0].cancel()  # it has its turn, and the one that gets it next gives up at the same moment
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert had == [0, 3]
        nursery.cancel_scope.cancel()
