"""One run of Trio that the same seed repeats exactly: virtual time, seeded order of tasks, and lives that can end.

Trio sorts the tasks of a tick by age and shuffles them by a generator of its own when
``_ALLOW_DETERMINISTIC_SCHEDULING`` is set; that switch is there for property tests, and this is one. With the clock
jumping to the next deadline whenever all tasks wait, nothing depends on the machine any more: no thread, no descriptor
and no wall clock may be used below.
"""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

import trio
import trio.testing
from trio._core import _run as internals  # the only place where Trio's order can be seeded

T = TypeVar("T")


class Killed(BaseException):
    """The process whose code is running does not exist any more."""


class Life:
    """One process from its start to its end. ``kill`` ends it between two steps of its tasks, whatever they wait for.

    What the life owns in the outside world (connections, tickets at the disk) is let go by ``on_death``; no ``finally``
    of it reaches anybody after that.
    """

    def __init__(self) -> None:
        self.alive = True
        self.steps = 0
        self.dies_at_step = 0  # 0: never
        self._stands_still = False
        self._stands_since = 0.0
        self._stood_still_s = 0.0
        self._parked: list[trio.lowlevel.Task] = []  # tasks that would run
        self.on_death: list[Callable[[], None]] = []
        self.scope = trio.CancelScope()

    def kill(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.go_on()
        for let_go in self.on_death:
            let_go()
        self.scope.cancel()

    def stand_still(self) -> None:
        """No task of this process runs until ``go_on``; time, network and everybody else go on without it."""
        if not self.alive or self._stands_still:
            return
        self._stands_still, self._stands_since = True, trio.current_time()
        queue = internals.GLOBAL_RUN_CONTEXT.runner.runq
        self._parked += [task for task in queue if task.context.get(LIFE) is self]
        others = [task for task in queue if task.context.get(LIFE) is not self]
        queue.clear()
        queue.extend(others)

    def go_on(self) -> None:
        """Everything that has become ready meanwhile runs now."""
        self._stood_still_s, self._stands_still = self.stood_still_s, False
        parked, self._parked = self._parked, []
        internals.GLOBAL_RUN_CONTEXT.runner.runq.extend(parked)

    @property
    def stood_still_s(self) -> float:
        """For how long it has stood still until now, all in all."""
        return self._stood_still_s + (trio.current_time() - self._stands_since if self._stands_still else 0.0)

    def park(self, task: trio.lowlevel.Task) -> None:
        """Take a task that was just scheduled out of Trio's queue, if this process stands still."""
        if self._stands_still:
            last = internals.GLOBAL_RUN_CONTEXT.runner.runq.pop()
            assert last is task
            self._parked.append(task)

    async def run(self, main: Callable[[], Awaitable[None]]) -> bool:
        """Live until ``main`` ends (True) or the life is killed (False)."""
        LIFE.set(self)
        try:
            with self.scope:
                await main()
        except BaseException:
            if self.alive:
                raise
            # What a dead process meant to do on its way out is of no interest to anybody.
            logging.getLogger(__name__).debug("died", exc_info=True)
            if self.scope.cancel_called:
                await trio.lowlevel.checkpoint()
        return self.alive


LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)


class _Steps(trio.abc.Instrument):
    """Counts the steps of each life's tasks, ends a life at the step at which it is to end, and parks its tasks."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        life = task.context.get(LIFE)
        if life is not None and life.alive:
            life.steps += 1
            if life.steps == life.dies_at_step:
                life.kill()

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        life = task.context.get(LIFE)
        if life is not None:
            life.park(task)


def run(seed: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` in virtual time that begins at 0, with tasks in the order that ``seed`` gives."""
    before = internals._ALLOW_DETERMINISTIC_SCHEDULING
    state = internals._r.getstate()
    internals._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    internals._r.seed(seed)
    try:
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[_Steps()])
    finally:
        internals._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        internals._r.setstate(state)
