"""Set pieces: what seldom comes together by chance is put together, and only its details are drawn.

Some steps of a transaction are a race that random trouble seldom runs: an answer that comes after its deadline and
before the end of the commit that says so, two refunds of one account that are both late. More than half of the
seeds have one of these scenes; the rest of their day is as any other, with less trouble.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from fengshou.switch.simulation.deeds import Deed

# Kind, when, for how long (seconds), strength, and the await at which a life ends.
Mishap = tuple[str, float, float, float, int]


@dataclass(frozen=True, slots=True)
class Scene:
    days: tuple[tuple[Deed, ...], ...]  # by terminal
    mishaps: tuple[Mishap, ...]


def _day(*deeds: tuple[float, str, int]) -> tuple[Deed, ...]:
    return tuple(Deed(*deed) for deed in sorted(deeds))


def _refunds(chance: Random, at_s: float) -> list[tuple[Deed, ...]]:
    """Three purchases and their refunds; the farmer may have drawn what he was paid meanwhile, and cannot pay back."""
    drawn = [(3.0, "farmers-cash", 20)] if chance.random() < 0.5 else []
    refunded = ((1.0, "farm-purchase", 5), (at_s, "refund", 2))
    return [_day(*refunded, *drawn), _day(*refunded), _day(*refunded)]


def _one_of(chance: Random, *kinds: str) -> tuple[str, int]:
    return chance.choice(kinds), chance.randint(12, 20)


# Approved or not, advised or asked, money or none.
_ANYTHING = (
    "farm-purchase", "farmers-cash", "balance", "strangers-balance", "offline-sale", "disputed-sale", "gov-enquiry",
)  # fmt: skip


def late_for_long(chance: Random) -> Scene:
    """Every answer of the host comes late, also those to reversals, advices and repeats."""
    first = _one_of(chance, "offline-sale", "disputed-sale", "farm-purchase", "farmers-cash")
    days = [*_refunds(chance, 6.2), _day((1.0, "balance", 1), (6.1, *first))]
    return Scene(tuple(days), (("host-late", 6.0, chance.choice((6.0, 22.0)), 1.0, chance.randrange(2)),))


def late_once(chance: Random) -> Scene:
    """The first answers come late, and what the switch does about it is answered at once."""
    days = [_day((3.0, *_one_of(chance, *_ANYTHING))) for _ in range(3)]
    return Scene(tuple(days), (("host-late", 2.9, chance.choice((0.5, 6.0)), 1.0, chance.randrange(2)),))


def done_behind(chance: Random) -> Scene:
    """The host does what it has reversed before, and says so: when that reversal is answered, or is still on its way
    and the switch dies."""
    days = [_day((3.0, *_one_of(chance, "farm-purchase", "withdrawal", "preauthorisation"))) for _ in range(2)]
    behind = (chance.choice(("host-behind", "host-foreign", "host-foreign")), 2.9, 3.0, 1.0, 0)
    if chance.random() < 0.5:
        return Scene(tuple(days), (behind,))
    kill = ("kill", chance.uniform(11.0, 12.5), 0.0, 1.0, chance.randrange(1, 4))
    return Scene(tuple(days), (behind, ("host-mute", 7.9, 0.6, 1.0, 0), kill))


def late_and_slow(chance: Random) -> Scene:
    """Answers come about their deadline, while the outcome of an enquiry elsewhere is on its way to a slow disk."""
    begin = (1.0, "balance", 1)
    days = [_day(begin, (3.0, *_one_of(chance, "farm-purchase", "farmers-cash"))) for _ in range(3)]
    days.append(_day(begin, (3.3, "gov-enquiry", 1)))
    return Scene(tuple(days), (("host-late", 2.9, 3.0, 1.0, 0), ("disk-slow", 3.2, 9.0, 2.0, 0)))


def late_at_rest(chance: Random) -> Scene:
    """What is owed has been asked for so often in vain that it rests for long, and then the answer comes."""
    kind = chance.choice(("refund", "refund", "offline-sale", "disputed-sale", "farm-purchase"))
    day = _day((1.0, "farm-purchase", 5), (3.0, kind, 2))
    return Scene((day,), (("host-mute", 2.9, 15.2, 1.0, 0), ("host-late", 18.1, 4.0, 1.0, 0)))


def killed_between(chance: Random) -> Scene:
    """The switch dies while the host works on something that is not reversed, but sent again."""
    days = _refunds(chance, 6.0)
    trouble = chance.choice(("host-frozen", "host-mute", "host-unsure", "host-busy"))
    return Scene(
        tuple(days),
        ((trouble, 5.9, chance.choice((2.0, 9.0)), 1.0, 0), ("kill", 6.2, 0.0, 1.0, chance.randrange(1, 60))),
    )


def unsure(chance: Random) -> Scene:
    """The host does not know what it did, for refunds and for everything else."""
    days = [*_refunds(chance, 6.0), _day((6.0, *_one_of(chance, *_ANYTHING)))]
    return Scene(tuple(days), (("host-unsure", 5.9, chance.choice((0.5, 8.0)), 1.0, 0),))


def crowded(chance: Random) -> Scene:
    """Debts and trade want the few places at the host at once."""
    days = [_day((2.0, *_one_of(chance, *_ANYTHING)), (2.5, "offline-sale", 3)) for _ in range(4)]
    rushes = [("overload", 2.1 + number * chance.uniform(5.0, 5.4), 0.0, 1.0, number) for number in range(4)]
    return Scene(tuple(days), (("host-mute", 1.9, 20.0, 1.0, 0), *rushes))


def taken_back_untold(chance: Random) -> Scene:
    """What the host has not been told, or is just being told, is taken back."""
    kind = chance.choice(("offline-sale", "farm-purchase"))
    away = chance.choice(("host-kill", "host-frozen", "host-mute"))
    days = [_day((3.0, kind, 5), (chance.uniform(3.2, 9.0), chance.choice(("reversal", "void")), 1)) for _ in range(2)]
    return Scene(tuple(days), ((away, 2.5, chance.choice((4.0, 12.0)), 1.0, 0),))


def day_change(chance: Random) -> Scene:
    """Refunds of yesterday's purchases go on for more than one business day."""
    days = _refunds(chance, 6.0)
    return Scene(
        tuple(days),
        (("host-kill", 6.05, 15.0, 1.0, 0), *(("clock-jump", at, 0.0, 1.0, 0) for at in (5.0, 9.0, 11.0, 13.0))),
    )


SCENES: Mapping[str, tuple[int, Callable[[Random], Scene]]] = {
    "late for long": (6, late_for_long),
    "late once": (2, late_once),
    "done behind": (4, done_behind),
    "late and slow": (4, late_and_slow),
    "late at rest": (6, late_at_rest),
    "killed between": (2, killed_between),
    "unsure": (2, unsure),
    "crowded": (2, crowded),
    "taken back untold": (2, taken_back_untold),
    "day change": (1, day_change),
}


def draw(chance: Random) -> Scene:
    (drawn,) = chance.choices([scene for _, scene in SCENES.values()], [weight for weight, _ in SCENES.values()])
    return drawn(chance)
