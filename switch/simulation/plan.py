"""What a seed means: who does what when, and what goes wrong when. A plan is data, so that it can be made smaller."""

from collections.abc import Mapping
from dataclasses import dataclass

from fengshou.switch.simulation.agenda import stream_of_chance
from fengshou.switch.simulation.terminal import Deed

# Every kind of trouble, with its weight in the draw.
FAULTS: Mapping[str, int] = {
    "message-loss": 2,  # on the way to or from the host
    "message-delay": 2,
    "message-twice": 2,
    "message-overtaken": 2,
    "partition": 2,  # switch and host, both ways
    "partition-one-way": 3,
    "partition-terminal": 2,
    "slow-reader": 1,  # a terminal that takes some bytes a second
    "reset": 2,  # a connection breaks in the middle of a frame
    "half-open": 2,
    "host-deaf": 2,
    "host-mute": 3,
    "host-late": 3,
    "host-twice": 2,
    "host-garbled": 2,
    "host-frozen": 2,
    "host-kill": 3,
    "kill": 6,  # of the switch, at any await
    "kill-at-start": 2,  # again while it recovers
    "pause": 1,
    "disk-error": 2,
    "disk-full": 2,
    "disk-slow": 3,
    "power": 4,  # lost in the middle of a commit
    "clock-jump": 2,
    "clock-back": 2,
    "clock-drift": 1,
    "overload": 2,
    "terminal-power": 2,
    "key-renewal": 1,
    "registry": 2,
}
DEEDS: Mapping[str, int] = {
    "farm-purchase": 8,
    "withdrawal": 3,
    "deposit": 2,
    "transfer": 2,
    "balance": 1,
    "reversal": 4,
    "repeat": 2,
    "conflict": 1,
    "forgery": 1,
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
    seed: int
    deeds: tuple[tuple[Deed, ...], ...]  # by terminal
    faults: tuple[Fault, ...]
    seconds: float

    @property
    def size(self) -> int:
        return len(self.faults) + sum(map(len, self.deeds))


def plan(seed: int, kinds: frozenset[str] | None = None, seconds: float = 30.0) -> Plan:
    """The plan of a seed. ``kinds`` limits the faults; ``seconds`` is how long there is trade and trouble."""
    chance = stream_of_chance(seed, "plan")
    deeds = []
    for _ in range(chance.randint(1, 4)):
        times = sorted(chance.uniform(0.0, seconds) for _ in range(max(2, round(seconds / 30 * chance.randint(4, 16)))))
        kinds_of_deeds = chance.choices(list(DEEDS), list(DEEDS.values()), k=len(times))
        deeds.append(
            tuple(Deed(at, kind, chance.randint(1, 20)) for at, kind in zip(times, kinds_of_deeds, strict=True))
        )
    permitted = {kind: weight for kind, weight in FAULTS.items() if kinds is None or kind in kinds}
    faults = []
    for _ in range(max(1, round(seconds / 30 * chance.randint(2, 12))) if permitted else 0):
        (kind,) = chance.choices(list(permitted), list(permitted.values()))
        faults.append(
            Fault(
                kind,
                chance.uniform(0.0, seconds * 0.95),
                chance.choice((0.3, 1.0, 4.0, 12.0)) * chance.uniform(0.5, 1.5),
                chance.choice((0.2, 0.5, 1.0)),
                chance.randrange(4),
                chance.randrange(1, 120),
            )
        )
    return Plan(seed, tuple(deeds), tuple(sorted(faults, key=lambda fault: fault.at_s)), seconds)
