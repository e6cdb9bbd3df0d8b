"""Runs plans, makes failing ones smaller, and tells the story of what is left."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from fengshou.switch.simulation.plan import FAULTS, Plan
from fengshou.switch.simulation.scheduling import run
from fengshou.switch.simulation.secrecy import logged
from fengshou.switch.simulation.town import Keys, Town, problem_of

T = TypeVar("T")

# A folder in memory, where a synced commit costs microseconds; elsewhere the machine's own.
_MEMORY = Path("/dev/shm")  # noqa: S108 only this user's temporary folder is made there
# Runs that making a plan smaller may take.
_TRIES_MAX = 150


@dataclass(slots=True)
class Verdict:
    """One run. ``problem`` is empty when everything held."""

    plan: Plan
    problem: str
    digest: str
    diary: list[str]
    troubles: Counter[str]  # that were brought about, by kind
    effects: Counter[str]  # what they did
    steps: Counter[str]
    transitions: Counter[str]
    lives: int
    seconds: float  # of simulated time

    def story(self) -> list[str]:
        """What a person reads: what was planned, what happened, what is wrong."""
        lines = [f"seed {self.plan.seed}: {self.problem or 'everything held'}", "", "trouble:"]
        lines += [f"  {fault}" for fault in self.plan.faults] or ["  none"]
        for number, deeds in enumerate(self.plan.deeds, 1):
            lines.append(f"TT{number:06d} does:")
            lines += [f"  {deed.at_s:8.2f} s  {deed.kind} ({deed.amount})" for deed in deeds] or ["  nothing"]
        told = [line for line in self.diary if " bytes to " not in line]
        return [*lines, "", "what happened (seconds, who, what):", *(f"  {line}" for line in told)]


@dataclass(slots=True)
class Tally:
    """What many runs add up to."""

    runs: int = 0
    lives: int = 0
    seconds: float = 0.0
    failed: list[Verdict] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    transitions: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        self.runs += 1
        self.lives += verdict.lives
        self.seconds += verdict.seconds
        self.troubles += verdict.troubles
        self.effects += verdict.effects
        self.steps += verdict.steps
        self.transitions.update(verdict.transitions)
        if verdict.problem:
            self.failed.append(verdict)

    @property
    def never(self) -> list[str]:
        """Transitions of the table that no run has taken, and effects of trouble that none has felt."""
        effects = dict.fromkeys(effect for kind in FAULTS.values() for effect in kind.effects)
        return [
            *(f"transition {name}" for name, times in self.transitions.items() if not times),
            *(f"effect {name}" for name in effects if not self.effects[name]),
        ]


class Simulator:
    """Runs plans one after the other in a folder of its own; made by ``simulator``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "made").mkdir()
        self._keys = Keys(folder / "made")

    def run(self, plan: Plan) -> Verdict:
        """One run, from nothing to its verdict."""
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="run-") as folder, logged() as log:
            town = Town(plan, self._keys, Path(folder), log)
            problem = ""
            try:
                run(str(plan.seed), town.run)
            except Exception as error:
                problem = problem_of(error)
            finally:
                town.close()
            return Verdict(
                plan,
                problem,
                town.diary.digest(),
                town.diary.lines,
                town.diary.troubles,
                town.diary.effects,
                town.witness.steps,
                town.process.transitions,
                town.process.lives,
                town.diary.last_s,
            )

    def smallest(self, verdict: Verdict) -> Verdict:
        """A failing run with as little in it as still fails in some way."""
        tries = 0
        smaller = True
        while smaller and tries < _TRIES_MAX:
            smaller = False
            for plan in _smaller(verdict.plan):
                tries += 1
                candidate = self.run(plan)
                if candidate.problem:
                    verdict, smaller = candidate, True
                    break
                if tries >= _TRIES_MAX:
                    break
        return verdict


@contextmanager
def simulator() -> Iterator[Simulator]:
    """A simulator with a temporary folder, in memory where the machine has such a place."""
    place = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place, prefix="fengshou-simulation-") as folder:
        yield Simulator(Path(folder))


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with less in them, the bravest cuts first."""
    yield from _parts(plan.faults, lambda faults: replace(plan, faults=faults))
    for at, deeds in enumerate(plan.deeds):
        if deeds:
            yield from _parts(
                deeds,
                lambda kept, at=at: replace(plan, deeds=(*plan.deeds[:at], kept, *plan.deeds[at + 1 :])),  # type: ignore[misc]
            )


def _parts(whole: tuple[T, ...], make: Callable[[tuple[T, ...]], Plan]) -> Iterator[Plan]:
    size = len(whole)
    while size:
        for at in range(0, len(whole), size):
            yield make(whole[:at] + whole[at + size :])
        size //= 2
