"""The life of one epoch of a key, as one table.

A key is renewed by a further epoch of the same label. Peers and processes do not change over at one instant, so every
epoch that may be met is accepted (verified, opened, translated from) while only the current one is used to produce
(sign, seal, translate to). Until the old epoch is retired, activating it again rolls the change back.

::

    next ──activate──► current ──superseded──► retiring ──retire──► retired ──► destroyed
      ▲                  │  ▲                     │
      └─────rolled back──┘  └──────activate───────┘
"""

from collections.abc import Mapping
from enum import Enum


class EpochState(Enum):
    NEXT = "next"  # made; peers that are ahead of us may use it already
    CURRENT = "current"
    RETIRING = "retiring"  # peers that are behind us may still use it
    RETIRED = "retired"  # refused; only waits for destruction


class EpochEvent(Enum):
    ACTIVATE = "activate"
    SUPERSEDE = "a later epoch was activated"
    ROLL_BACK = "an earlier epoch was activated again"
    RETIRE = "retire"


TRANSITIONS: Mapping[tuple[EpochState, EpochEvent], EpochState] = {
    (EpochState.NEXT, EpochEvent.ACTIVATE): EpochState.CURRENT,
    (EpochState.RETIRING, EpochEvent.ACTIVATE): EpochState.CURRENT,
    (EpochState.CURRENT, EpochEvent.SUPERSEDE): EpochState.RETIRING,
    (EpochState.CURRENT, EpochEvent.ROLL_BACK): EpochState.NEXT,
    (EpochState.NEXT, EpochEvent.RETIRE): EpochState.RETIRED,  # given up before it was used
    (EpochState.CURRENT, EpochEvent.RETIRE): EpochState.RETIRED,  # compromised, or its owner is gone
    (EpochState.RETIRING, EpochEvent.RETIRE): EpochState.RETIRED,
}

# What an epoch may be used for. Retired ones are good for nothing.
ACCEPTING = frozenset({EpochState.NEXT, EpochState.CURRENT, EpochState.RETIRING})


class UnlawfulEvent(Exception):
    """The table has no such transition; nothing was changed."""


def step(state: EpochState, event: EpochEvent) -> EpochState:
    """The state after ``event``. Raises UnlawfulEvent."""
    target = TRANSITIONS.get((state, event))
    if target is None:
        raise UnlawfulEvent(f"{event.value} while {state.value}")
    return target
