"""The life of a transaction, as one table.

An intent is durable before a back end hears of it, an outcome before the terminal does. A transaction whose outcome is
not known (no reply, lost link, a switch that died) is answered 98 and owes its back end a reversal, which is sent until
it is answered; a reply that comes after that changes nothing, because the reversal undoes whatever it says.

::

    received ──► journalled ──► sent ──► approved ──► reversed   (by the terminal's own reversal)
        │             │           ├────► declined
        └► refused    └► declined └────► unknown ───► reversed   (by the reversal that the switch owes)
"""

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    RECEIVED = "received"
    REFUSED = "refused"  # never an intent: bad signature, session, service, key
    JOURNALLED = "journalled"  # the intent is durable, nothing has left this machine
    SENT = "sent"  # a back end may have it
    APPROVED = "approved"
    DECLINED = "declined"
    UNKNOWN = "unknown"  # a reversal is owed
    REVERSED = "reversed"


class Event(Enum):
    REFUSE = "refuse"
    JOURNAL = "intent durable"
    SEND = "handed to a link"
    APPROVE = "back end approved"
    DECLINE = "back end declined, or nothing was sent"
    LOSE = "no reply"
    LATE_REPLY = "reply after the outcome was given up"
    REVERSE = "reversal answered"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.RECEIVED, Event.REFUSE): State.REFUSED,
    (State.RECEIVED, Event.JOURNAL): State.JOURNALLED,
    (State.JOURNALLED, Event.SEND): State.SENT,
    (State.JOURNALLED, Event.APPROVE): State.APPROVED,  # the service answers by itself
    (State.JOURNALLED, Event.DECLINE): State.DECLINED,  # no link, no route, a rung of the ladder
    (State.JOURNALLED, Event.LOSE): State.UNKNOWN,  # found open at a restart: it may have been sent
    (State.SENT, Event.APPROVE): State.APPROVED,
    (State.SENT, Event.DECLINE): State.DECLINED,
    (State.SENT, Event.LOSE): State.UNKNOWN,
    (State.UNKNOWN, Event.LATE_REPLY): State.UNKNOWN,
    (State.UNKNOWN, Event.REVERSE): State.REVERSED,
    (State.REVERSED, Event.LATE_REPLY): State.REVERSED,
    (State.APPROVED, Event.REVERSE): State.REVERSED,
}


class UnlawfulEvent(Exception):
    """The table has no such transition; nothing was changed."""


def step(state: State, event: Event) -> State:
    """The state after ``event``. Raises UnlawfulEvent."""
    target = TRANSITIONS.get((state, event))
    if target is None:
        raise UnlawfulEvent(f"{event.value} while {state.value}")
    return target
