"""What a seed means: who does what when, and what goes wrong when. A plan is data, so that it can be made smaller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from fengshou.switch.simulation.agenda import stream_of_chance
from fengshou.switch.simulation.deeds import DEEDS, Deed
from fengshou.switch.simulation.scenes import Scene, draw

TERMINALS_MAX = 4
# How often a seed has a scene.
_SCENE = 0.6


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of trouble: its weight in the draw, and what the diary counts when it has done something."""

    weight: int
    effects: tuple[str, ...]


FAULTS: Mapping[str, Kind] = {
    # between two machines; odds and sizes are for each message
    "message-loss": Kind(2, ("message lost",)),
    "message-delay": Kind(3, ("message delayed",)),
    "message-twice": Kind(2, ("message twice",)),
    "message-overtaken": Kind(2, ("message overtaken",)),
    "partition": Kind(3, ("message held back",)),  # both ways
    "partition-one-way": Kind(3, ("message held back",)),
    "partition-terminal": Kind(2, ("message held back",)),
    "slow-reader": Kind(1, ("message trickled",)),  # a terminal that takes some bytes a second
    "reset": Kind(2, ("reset in mid-frame",)),
    "half-open": Kind(2, ("half-open",)),
    # the core-banking host
    "host-deaf": Kind(2, ("host deaf",)),
    "host-mute": Kind(3, ("host mute",)),
    "host-late": Kind(5, ("host late",)),
    "host-twice": Kind(2, ("host answers twice",)),
    "host-garbled": Kind(2, ("host answers wrong fields",)),
    "host-unsure": Kind(3, ("host unsure",)),  # does it or not, and says that it does not know
    "host-busy": Kind(2, ("host busy",)),
    "host-behind": Kind(1, ("host works behind",)),  # it does a request long after, though it was reversed meanwhile
    "host-foreign": Kind(1, ("host works behind and answers from memory",)),  # and a repeated reversal does nothing
    "host-frozen": Kind(2, ("host frozen",)),
    "host-kill": Kind(4, ("host restarted", "host lost its memory")),
    "office-kill": Kind(2, ("office restarted",)),  # government or analytics
    # the switch's process
    "kill": Kind(6, ("killed",)),  # at any await
    "kill-at-start": Kind(2, ("killed while starting",)),  # again while it recovers
    "pause": Kind(3, ("stood still",)),  # no task of it runs, and time goes on
    # its disk
    "disk-error": Kind(2, ("disk error",)),
    "disk-full": Kind(2, ("disk full",)),
    "disk-slow": Kind(3, ("disk slow",)),
    "power": Kind(4, ("commit torn", "unsynced writes lost", "power lost behind a commit")),  # in a commit
    # its idea of the time
    "clock-jump": Kind(2, ("clock jumped",)),
    "clock-back": Kind(2, ("clock went back",)),
    "clock-drift": Kind(1, ("clock drifted",)),
    # those who use it and those who run it
    "overload": Kind(2, ("request shed",)),
    "terminal-power": Kind(2, ("terminal lost its power",)),
    "key-renewal": Kind(2, ("journal key rotated", "signing key rotated")),
    "registry": Kind(2, ("registry changed",)),
    "barred": Kind(1, ("terminal barred",)),
    "configuration": Kind(2, ("configuration reloaded",)),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One trouble: ``strength`` from 0 to 1 is odds or size, ``step`` the await at which a life ends."""

    kind: str
    at_s: float
    for_s: float
    strength: float
    who: int
    step: int

    def __str__(self) -> str:
        return f"{self.at_s:8.2f} s  {self.kind}, {self.for_s:.1f} s, strength {self.strength}"


@dataclass(frozen=True, slots=True)
class Plan:
    """``cut_over_in_s``: seconds from the beginning to the next cut-over of the business day."""

    seed: int
    deeds: tuple[tuple[Deed, ...], ...]  # by terminal
    faults: tuple[Fault, ...]
    seconds: float
    cut_over_in_s: float = 8 * 3600.0

    @property
    def size(self) -> int:
        return len(self.faults) + sum(map(len, self.deeds))


def plan(seed: int, kinds: frozenset[str] | None = None, seconds: float = 30.0) -> Plan:
    """The plan of a seed. ``kinds`` limits the faults; ``seconds`` is how long there is trade and trouble."""
    chance = stream_of_chance(seed, "plan")
    scene = draw(chance) if chance.random() < _SCENE else Scene((), ())
    deeds = [*scene.days, *(_day(chance, seconds) for _ in range(chance.randint(1, 4)))][:TERMINALS_MAX]
    moments = [deed.at_s for day in deeds for deed in day]
    permitted = {name: kind.weight for name, kind in FAULTS.items() if kinds is None or name in kinds}
    faults = [
        Fault(kind, at, for_s, size, step, step) for kind, at, for_s, size, step in scene.mishaps if kind in permitted
    ]
    most = 3 if scene.days else 12
    for _ in range(max(1, round(seconds / 30 * chance.randint(1, most))) if permitted else 0):
        (name,) = chance.choices(list(permitted), list(permitted.values()))
        faults.append(_fault(chance, name, moments, seconds))
    cut_over_in_s = chance.uniform(-10.0, seconds + 10.0) if chance.random() < 0.4 else 8 * 3600.0
    return Plan(seed, tuple(deeds), tuple(sorted(faults, key=lambda fault: fault.at_s)), seconds, cut_over_in_s)


def _day(chance: Random, seconds: float) -> tuple[Deed, ...]:
    """What one terminal does."""
    times = sorted(chance.uniform(0.0, seconds) for _ in range(max(2, round(seconds / 30 * chance.randint(4, 16)))))
    kinds = chance.choices(list(DEEDS), list(DEEDS.values()), k=len(times))
    return tuple(Deed(at, kind, chance.randint(1, 20)) for at, kind in zip(times, kinds, strict=True))


def _fault(chance: Random, name: str, moments: Sequence[float], seconds: float) -> Fault:
    """Trouble about the time of some deed, since trouble in an idle hour finds nobody."""
    for_s = chance.choice((0.3, 1.0, 4.0, 12.0)) * chance.uniform(0.5, 1.5)
    at_s = chance.choice(moments) - chance.uniform(-0.1, min(for_s, 2.0))
    return Fault(
        name, min(max(0.0, at_s), seconds * 0.95), for_s, chance.choice((0.2, 0.5, 1.0)), chance.randrange(24),
        chance.randrange(1, 120),
    )  # fmt: skip
