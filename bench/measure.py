"""How much CPU a piece of code takes; how a measurement may end, and what whoever waits for it is told."""

import time
from collections.abc import Callable

Tell = Callable[[str], None]  # what is being done now

_ROUNDS = 5


class BenchFailed(Exception):
    """A run came to an end that makes its figures worthless; the text says which."""


def cpu_us(work: Callable[[], object], seconds: float, messages: int = 1) -> float:
    """Microseconds of this process's CPU for each of the ``messages`` that one call of ``work`` handles.

    The least of several rounds, which together take ``seconds``: what disturbs a round only ever adds.
    """
    calls = 1
    while (spent := _spent(work, calls)) < seconds / _ROUNDS / 4:
        calls = max(2 * calls, round(calls * seconds / _ROUNDS / max(spent, 1e-6) / 2))
    return min(_spent(work, calls) for _ in range(_ROUNDS)) / calls / messages * 1e6


def _spent(work: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        work()
    return time.process_time() - start
