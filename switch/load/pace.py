"""How much of its own speed a core had while something was measured on it.

A virtual core shares its processor with strangers, and one that rests often may run at half its speed; so the same code
takes up to twice the CPU time from one minute to the next, and nothing in /proc says so. A fixed piece of work
that is done on the same core meanwhile slows as everything else there does. Its speed, as a share of what it reaches
there undisturbed, is the core's pace; CPU time × pace is what it would have been on the core alone.

This file is the program of the process on the core too, so it imports the standard library only. The process takes 1 to
2 % of the core: two pieces of work of some 0.2 ms each, of which the second counts, every 30 ms.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import fmean
from typing import Self

_EVERY_S = 0.03
_FIRST_LOOKS = 300  # in the second before the first window, when the core should have nothing else to do
_FIRST_EVERY_S = 0.003
_INPUT = 0  # read without a buffer, in which select would not see what has come already


class Pace:
    """Of one window, once it is over."""

    def __init__(self, own: Sequence[float]) -> None:
        self._own = own  # the speed of each core undisturbed, as far as it is known: it may still grow
        self.speeds: list[float] = []  # the mean in the window, a core each; empty when it is not known

    @property
    def share(self) -> float | None:
        """Of the cores' own speed; None when it could not be measured."""
        if not self.speeds:
            return None
        return fmean(speed / own for speed, own in zip(self.speeds, self._own, strict=True))


class CoreProbe:
    """Watches the pace of some cores with a process on each. Leaving the block ends them; so does our own end.

    What is measured must not fail because of it: a core that we may not use, or a clock of CPU time that stands
    still between ticks, makes the pace unknown.
    """

    def __init__(self, cores: Collection[int]) -> None:
        """Blocks for about a second, to see how fast the cores are. Of no cores the pace is not known."""
        self._processes = [_started(core) for core in cores]
        self.own = [0.0] * len(cores)  # pieces of work in a second of CPU time, undisturbed as far as it was seen
        self._heard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.communicate()

    @contextmanager
    def window(self) -> Iterator[Pace]:
        """The pace while the block runs."""
        pace = Pace(self.own)
        self._tell()
        try:
            yield pace
        finally:
            self._tell()
            pace.speeds = self._heard()

    def _tell(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(b"\n")
                process.stdin.flush()

    def _heard(self) -> list[float]:
        """The mean speed on each core, or nothing when one has not told it."""
        means = []
        for at, process in enumerate(self._processes):
            assert process.stdout is not None
            told = [float(speed) for speed in process.stdout.readline().split()]
            if told:
                means.append(told[0])
                self.own[at] = max(self.own[at], told[1])
        return means if len(means) == len(self._processes) else []


UNWATCHED = CoreProbe(())


def core_of(pids: Iterable[int]) -> int | None:
    """The one core on which all threads of these processes stay; None where there are more. Raises OSError."""
    threads = (int(thread) for pid in pids for thread in os.listdir(f"/proc/{pid}/task"))
    cores = set().union(*map(os.sched_getaffinity, threads))
    return cores.pop() if len(cores) == 1 else None


# -- the process on the core -------------------------------------------------------------------------------------------


def _started(core: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(core)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for whoever started us; our input ends then
    )


def _work() -> None:
    """What a Python program does most: small objects, a dict, text."""
    kept = {}
    for number in range(1500):
        kept[number & 255] = number, str(number)


def _speed() -> float:
    """Pieces of work in a second of CPU time. Raises ZeroDivisionError where the clock is coarser than the work."""
    _work()  # brings code and data back into the caches, which others have used meanwhile
    begun = time.thread_time_ns()
    _work()
    return 1e9 / (time.thread_time_ns() - begun)


def _tell_of(speeds: Sequence[float]) -> None:
    """The mean, and what the best tenth reached: the least of them, because the very best is luck.

    It is the mean of speeds, not the speed of the mean time: CPU time counts by the speed of its own moment.
    """
    print(fmean(speeds), sorted(speeds)[len(speeds) * 9 // 10], flush=True)


def _watch(core: int) -> None:
    """Tell of the first looks, then of each window, which a byte of input begins and another ends."""
    os.sched_setaffinity(0, {core})
    first = []
    for _ in range(_FIRST_LOOKS):
        first.append(_speed())
        time.sleep(_FIRST_EVERY_S)
    _tell_of(first)
    while os.read(_INPUT, 1):
        speeds = [_speed()]
        while not select.select([_INPUT], [], [], _EVERY_S)[0]:
            speeds.append(_speed())
        if os.read(_INPUT, 1):
            _tell_of(speeds)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
