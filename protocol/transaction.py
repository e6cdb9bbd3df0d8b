"""The life of a transaction, as one table. Every event in every state is a transition or a refusal with a name.

An intent is durable before a back end hears of it, an outcome before the terminal does. What may have been done and is
not known (no reply, lost link, a switch that died) is answered 98 and owes its back end a reversal, which is sent until
it is answered; an approval that comes after that is reversed again. What the switch approved by itself (offline sale,
stand-in) owes its back end an advice. A refund has no reversal: its call is sent again until it is answered.

::

    received ─► journalled ─► sent ─► answered ─► approved ──► reversed     (by the terminal's own reversal or void)
       │            │           │         └─────► declined
       ├► refused   │           └► timed out ───► reversal due ⇄ reversal sent ─► reversed
       └► tombstone │                     └─────► repeat due ─► sent
                    └► advice due ⇄ advice sent ─► approved, or disputed when the back end will not have it

A tombstone is a transaction that was reversed before it came: should it still come, it is refused.
"""

from collections.abc import Mapping
from enum import Enum


class _Placed(Enum):
    """``place`` is the member's own in its class. Looking up by it costs a tenth of hashing the member."""

    def __init__(self, value: str) -> None:
        self.place = len(type(self).__members__)


class State(_Placed):
    RECEIVED = "received"
    REFUSED = "refused"  # never an intent: bad signature, session, service, key
    TOMBSTONE = "tombstone"  # never an intent: its reversal came first
    JOURNALLED = "journalled"  # the intent is durable, nothing has left this machine
    SENT = "sent"  # a back end may have it
    ANSWERED = "answered"  # the back end has answered, or the link says that nothing was sent; not durable yet
    TIMED_OUT = "timed out"  # no answer, and it may have been done; not durable yet
    APPROVED = "approved"
    DECLINED = "declined"
    REVERSAL_DUE = "reversal due"
    REVERSAL_SENT = "reversal sent"
    REVERSED = "reversed"
    ADVICE_DUE = "advice due"  # approved by the switch, the back end does not know yet
    ADVICE_SENT = "advice sent"
    DISPUTED = "disputed"  # approved by the switch, refused by the back end: for people to settle
    REPEAT_DUE = "repeat due"  # without an outcome, and to be sent again


class Event(_Placed):
    REFUSE = "refuse"
    BAR = "reversal before the original"
    JOURNAL = "intent durable"
    SEND = "handed to a link"
    REPLY = "reply"
    UNSENT = "never left this machine"
    LOSE = "no reply"
    APPROVE = "approval durable"
    DECLINE = "decline durable"
    OWE = "reversal owed"
    ACCEPT = "approved without the back end"
    KEEP = "to be sent again"
    REVERSE = "reversal answered"
    ADVISE = "advice accepted"
    DISPUTE = "advice refused"
    LATE_APPROVAL = "late approval"
    LATE_DECLINE = "late decline"


S, E = State, Event

TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (S.RECEIVED, E.REFUSE): S.REFUSED,
    (S.RECEIVED, E.BAR): S.TOMBSTONE,
    (S.TOMBSTONE, E.REFUSE): S.TOMBSTONE,  # the original, after all
    (S.RECEIVED, E.JOURNAL): S.JOURNALLED,
    (S.JOURNALLED, E.SEND): S.SENT,
    (S.JOURNALLED, E.UNSENT): S.ANSWERED,  # no route
    (S.JOURNALLED, E.APPROVE): S.APPROVED,  # the service answers by itself
    (S.JOURNALLED, E.DECLINE): S.DECLINED,  # a rung of the ladder; an enquiry that a restart found open
    (S.JOURNALLED, E.ACCEPT): S.ADVICE_DUE,
    (S.JOURNALLED, E.OWE): S.REVERSAL_DUE,  # a restart found it open: it may have been sent
    (S.JOURNALLED, E.KEEP): S.REPEAT_DUE,  # a restart found it open
    (S.SENT, E.REPLY): S.ANSWERED,
    (S.SENT, E.UNSENT): S.ANSWERED,
    (S.SENT, E.LOSE): S.TIMED_OUT,
    (S.ANSWERED, E.APPROVE): S.APPROVED,
    (S.ANSWERED, E.DECLINE): S.DECLINED,
    (S.ANSWERED, E.OWE): S.REVERSAL_DUE,  # the back end says that it does not know what it did
    (S.ANSWERED, E.KEEP): S.REPEAT_DUE,
    (S.TIMED_OUT, E.OWE): S.REVERSAL_DUE,
    (S.TIMED_OUT, E.KEEP): S.REPEAT_DUE,
    (S.TIMED_OUT, E.DECLINE): S.DECLINED,  # an enquiry
    (S.TIMED_OUT, E.LATE_APPROVAL): S.TIMED_OUT,
    (S.TIMED_OUT, E.LATE_DECLINE): S.TIMED_OUT,
    (S.DECLINED, E.LATE_APPROVAL): S.DECLINED,  # an enquiry: it has moved nothing
    (S.DECLINED, E.LATE_DECLINE): S.DECLINED,
    (S.APPROVED, E.REVERSE): S.REVERSED,
    (S.APPROVED, E.OWE): S.REVERSAL_DUE,  # the terminal's reversal was not answered
    (S.REVERSAL_DUE, E.SEND): S.REVERSAL_SENT,
    (S.REVERSAL_DUE, E.REVERSE): S.REVERSED,  # a late answer to an earlier attempt
    (S.REVERSAL_DUE, E.LATE_APPROVAL): S.REVERSAL_DUE,
    (S.REVERSAL_DUE, E.LATE_DECLINE): S.REVERSAL_DUE,
    (S.REVERSAL_SENT, E.REVERSE): S.REVERSED,
    (S.REVERSAL_SENT, E.LOSE): S.REVERSAL_DUE,
    (S.REVERSAL_SENT, E.UNSENT): S.REVERSAL_DUE,
    (S.REVERSAL_SENT, E.REPLY): S.REVERSAL_DUE,  # an answer that ends nothing
    (S.REVERSAL_SENT, E.LATE_APPROVAL): S.REVERSAL_SENT,
    (S.REVERSAL_SENT, E.LATE_DECLINE): S.REVERSAL_SENT,
    (S.REVERSED, E.LATE_APPROVAL): S.REVERSAL_DUE,  # the back end did it after it had reversed it
    (S.REVERSED, E.LATE_DECLINE): S.REVERSED,
    (S.ADVICE_DUE, E.SEND): S.ADVICE_SENT,
    (S.ADVICE_DUE, E.OWE): S.REVERSAL_DUE,  # the terminal takes back what the back end may not know
    (S.ADVICE_DUE, E.ADVISE): S.APPROVED,  # a late answer to an earlier attempt
    (S.ADVICE_DUE, E.DISPUTE): S.DISPUTED,
    (S.ADVICE_SENT, E.ADVISE): S.APPROVED,
    (S.ADVICE_SENT, E.DISPUTE): S.DISPUTED,
    (S.ADVICE_SENT, E.OWE): S.REVERSAL_DUE,
    (S.ADVICE_SENT, E.LOSE): S.ADVICE_DUE,
    (S.ADVICE_SENT, E.UNSENT): S.ADVICE_DUE,
    (S.ADVICE_SENT, E.REPLY): S.ADVICE_DUE,
    (S.REPEAT_DUE, E.SEND): S.SENT,
    (S.REPEAT_DUE, E.REPLY): S.ANSWERED,  # a late answer to an earlier attempt
    (S.REPEAT_DUE, E.LATE_APPROVAL): S.REPEAT_DUE,  # the repeat will hear the same
    (S.REPEAT_DUE, E.LATE_DECLINE): S.REPEAT_DUE,
}


class Refusal(Enum):
    """Why an event cannot happen in a state."""

    NO_INTENT = "there is no durable intent"
    NEVER_BEGAN = "it never became an intent"
    INTENT_STANDS = "the intent is durable"
    NOTHING_SENT = "nothing was sent"
    IN_FLIGHT = "it is in flight"
    NO_OUTCOME = "it has no outcome"
    OUTCOME_KNOWN = "what the back end did is known"
    OUTCOME_UNKNOWN = "what the back end did is not known"
    OUTCOME_STANDS = "it has its outcome"
    ANOTHER_OWED = "the back end is owed something else"
    NOTHING_OWED = "the back end is owed nothing"


_BEFORE = {E.REFUSE, E.BAR, E.JOURNAL}
_TRAVEL = {E.SEND, E.REPLY, E.UNSENT, E.LOSE}
_END = {E.APPROVE, E.DECLINE, E.ACCEPT, E.OWE, E.KEEP}
_LATE = {E.LATE_APPROVAL, E.LATE_DECLINE}

# For each state: events and why they are refused there; the last row of a state takes all others.
_REFUSED: Mapping[State, tuple[tuple[set[Event], Refusal], ...]] = {
    S.RECEIVED: ((set(E), Refusal.NO_INTENT),),
    S.REFUSED: ((set(E), Refusal.NEVER_BEGAN),),
    S.TOMBSTONE: ((set(E), Refusal.NEVER_BEGAN),),
    S.JOURNALLED: ((_TRAVEL | _LATE, Refusal.NOTHING_SENT), (set(E), Refusal.NO_OUTCOME)),
    S.SENT: ((_TRAVEL | _END | _LATE, Refusal.IN_FLIGHT), (set(E), Refusal.NO_OUTCOME)),
    S.ANSWERED: ((_TRAVEL | _END | _LATE, Refusal.OUTCOME_KNOWN), (set(E), Refusal.NO_OUTCOME)),
    S.TIMED_OUT: ((_TRAVEL | _END | _LATE, Refusal.OUTCOME_UNKNOWN), (set(E), Refusal.NO_OUTCOME)),
    S.APPROVED: ((_TRAVEL | _END | _LATE, Refusal.OUTCOME_STANDS), (set(E), Refusal.NOTHING_OWED)),
    S.DECLINED: ((_TRAVEL | _END, Refusal.OUTCOME_STANDS), (set(E), Refusal.NOTHING_OWED)),
    S.REVERSED: ((_TRAVEL | _END, Refusal.OUTCOME_STANDS), (set(E), Refusal.NOTHING_OWED)),
    S.DISPUTED: ((_TRAVEL | _END | _LATE, Refusal.OUTCOME_STANDS), (set(E), Refusal.NOTHING_OWED)),
    S.REVERSAL_DUE: (
        ({E.REPLY, E.UNSENT, E.LOSE}, Refusal.NOTHING_SENT),
        (_END, Refusal.OUTCOME_STANDS),
        (set(E), Refusal.ANOTHER_OWED),
    ),
    S.REVERSAL_SENT: (({E.SEND}, Refusal.IN_FLIGHT), (_END, Refusal.OUTCOME_STANDS), (set(E), Refusal.ANOTHER_OWED)),
    S.ADVICE_DUE: (
        ({E.REPLY, E.UNSENT, E.LOSE}, Refusal.NOTHING_SENT),
        (_END | _LATE, Refusal.OUTCOME_STANDS),
        (set(E), Refusal.ANOTHER_OWED),
    ),
    S.ADVICE_SENT: (
        ({E.SEND}, Refusal.IN_FLIGHT),
        (_END | _LATE, Refusal.OUTCOME_STANDS),
        (set(E), Refusal.ANOTHER_OWED),
    ),
    S.REPEAT_DUE: ((_TRAVEL, Refusal.NOTHING_SENT), (set(E), Refusal.NO_OUTCOME)),
}


def _verdict(state: State, event: Event) -> State | Refusal:
    if target := TRANSITIONS.get((state, event)):
        return target
    if event in _BEFORE and state not in (S.RECEIVED, S.REFUSED, S.TOMBSTONE):
        return Refusal.INTENT_STANDS
    return next(refusal for events, refusal in _REFUSED[state] if event in events)


# Total: what each event means in each state.
TABLE: Mapping[tuple[State, Event], State | Refusal] = {
    (state, event): _verdict(state, event) for state in State for event in Event
}


_CELLS = list(TABLE.values())  # by place of state and event
_EVENTS = len(Event)


class UnlawfulEvent(Exception):
    """The table refuses the event; nothing was changed. ``refusal`` says why."""

    def __init__(self, state: State, event: Event, refusal: Refusal) -> None:
        super().__init__(f"{event.value} while {state.value}: {refusal.value}")
        self.refusal = refusal


class Machine:
    """Takes transitions and counts them. One for a switch; it holds no transaction's state."""

    def __init__(self) -> None:
        self._taken = [0] * len(_CELLS)

    def step(self, state: State, event: Event) -> State:
        """The state after ``event``. Raises UnlawfulEvent."""
        cell = state.place * _EVENTS + event.place
        target = _CELLS[cell]
        if type(target) is Refusal:  # a tenth of isinstance, which asks Enum's metaclass
            raise UnlawfulEvent(state, event, target)
        self._taken[cell] += 1
        assert type(target) is State
        return target

    @property
    def taken(self) -> dict[tuple[State, Event], int]:
        """How often each transition was taken; those that never were are left out."""
        return {at: times for at, times in zip(TABLE, self._taken, strict=True) if times}

    def counts(self) -> dict[str, int]:
        """How often each transition was taken, also those that never were, by «state: event»."""
        taken = self.taken
        return {f"{at[0].value}: {at[1].value}": taken.get(at, 0) for at in TRANSITIONS}


class Duty(Enum):
    """What the switch owes a back end, and sends until it is answered. The value is how the journal keeps it."""

    REVERSAL = b"R"  # of what may have been done
    ADVICE = b"A"  # of what the switch approved by itself
    REPEAT = b""  # of a call without an outcome; the open intent itself is the debt


DUE: Mapping[Duty, State] = {
    Duty.REVERSAL: S.REVERSAL_DUE,
    Duty.ADVICE: S.ADVICE_DUE,
    Duty.REPEAT: S.REPEAT_DUE,
}
