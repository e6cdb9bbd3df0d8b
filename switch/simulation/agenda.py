"""What will happen when, and what did: the simulated world's calendar and diary."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from random import Random

import trio

from fengshou.switch.clock import Clock, CutOver

NOON_US = 1_774_238_400_000_000  # 2026-03-23 12:00 in China
_DIARY_MAX = 20_000


class Diary:
    """Every event that can be told of a run, in order; equal runs have equal hashes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.troubles: Counter[str] = Counter()  # faults of the plan that began, by kind
        self.effects: Counter[str] = Counter()  # what they did, by name: a message lost, a commit torn
        self.last_s = 0.0  # when something happened last
        self._hash = hashlib.sha256()

    def note(self, who: str, what: str) -> None:
        self.last_s = trio.current_time()
        line = f"{self.last_s:11.4f} {who:<8} {what}"
        self._hash.update(line.encode() + b"\n")
        if len(self.lines) < _DIARY_MAX:
            self.lines.append(line)

    def effect(self, who: str, what: str) -> None:
        """A fault has done something."""
        self.effects[what] += 1
        self.note(who, what)

    def digest(self) -> str:
        return self._hash.hexdigest()[:32]


class Agenda:
    """Runs actions at their time; those of the same time in the order in which they were entered."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._entered = 0
        self._news = trio.Event()

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self.at(trio.current_time() + delay_s, action)

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        self._entered += 1
        heapq.heappush(self._due, (time_s, self._entered, action))
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._news = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else float("inf")):
                await self._news.wait()
            while self._due and self._due[0][0] <= trio.current_time():
                heapq.heappop(self._due)[2]()


class WallClock(Clock):
    """A machine's idea of the time of day: it jumps, drifts and goes back, while virtual time only goes on."""

    def __init__(self, cut_over: CutOver, cut_over_in_s: float) -> None:
        """It begins so many seconds before a cut-over at midnight."""
        super().__init__(cut_over)
        self.start_us = NOON_US + int((12 * 3600 - cut_over_in_s) * 1e6)
        self.offset_us = 0
        self.drift = 0.0

    def now_us(self) -> int:
        return self.start_us + self.offset_us + int(trio.current_time() * 1e6 * (1.0 + self.drift))


def stream_of_chance(seed: int, purpose: str) -> Random:
    """A generator of its own for each purpose, so that leaving out one fault does not reshuffle everything else."""
    return Random(f"{seed}/{purpose}")
