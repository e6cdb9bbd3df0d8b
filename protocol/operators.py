"""Operators of the delta form: how an element of a request follows from an earlier request of the session.

They stand beside a template as data (``Template.operators``); an element without one is COPY. The wire form that they
make is read and written in ``delta``. The idea is that of FAST, the FIX protocol's adaptation for streaming (FAST
Specification 1.1, section 6.3).
"""

from enum import Enum

from fengshou.protocol.elements import Kind


class Operator(Enum):
    """What an element is when nothing is said of it, and the form in which something else is said."""

    PLAIN = "plain"  # always said: the value
    CLOCK = "clock"  # always said: seconds since the base's time of day, as z
    COPY = "copy"  # the base's; else the value
    DELTA = "delta"  # the base's; else the difference to it, as z
    INCREMENT = "increment"  # the base's plus the distance of the two sequences; else the value
    DERIVED = "derived"  # weight × unit price, rounded to the fen; else the value
    TAIL = "tail"  # the base's; else that of another request, or the base's head and a new tail, or the value


# Nothing needs to be said: they take no bit.
ALWAYS_SAID = (Operator.PLAIN, Operator.CLOCK)

# An optional element may be missing in the base, and then nothing can be added to it.
FOR_OPTIONAL = (Operator.COPY, Operator.TAIL)

KINDS = {
    Operator.PLAIN: tuple(Kind),
    Operator.CLOCK: (Kind.N,),
    Operator.COPY: tuple(Kind),
    Operator.DELTA: (Kind.N,),
    Operator.INCREMENT: (Kind.N,),
    Operator.DERIVED: (Kind.N,),
    Operator.TAIL: (Kind.D, Kind.ANS),
}
