"""The contract of services: what a package declares so that the switch can serve it without knowing it.

A service is a package that offers an instance of ``Service``. The switch loads it by the dotted name in its
configuration, adds its elements and templates to the grammar and then, for each request of its templates:

    (original, batch) → ladder → counters → call → back end → conclude → event

What is made anew for each request is a ``msgspec.Struct``: making one takes 0.15 µs where a frozen dataclass takes 2.3.

The methods are pure: they read the request and return data. They never wait, log or raise for bad input; bad input is a
rung of the ladder.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import msgspec

from fengshou.protocol.batch import Batch, BatchState
from fengshou.protocol.elements import Element
from fengshou.protocol.message import Value
from fengshou.protocol.templates import Template


@dataclass(frozen=True, slots=True)
class TerminalFacts:
    """What the registry says of a terminal; the five elements that regulation binds, and where it stands."""

    terminal: str
    merchant: str
    acquirer: int
    serial: str
    credit_code: str
    settlement_account: str
    channel: str
    site: str
    town: int


class Fate(Enum):
    """What became of an original transaction."""

    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"
    ACCEPTED = "accepted"  # approved by the switch itself; the back end is yet to be told
    UNKNOWN = "unknown"  # no reply of the back end; a reversal is on its way
    REVERSED = "reversed"


class Original(msgspec.Struct, frozen=True):
    """An earlier transaction that a request refers to, as the journal knows it."""

    template: int
    mti: int
    fate: Fate
    business_day: int  # YYYYMMDD
    received_us: int  # microseconds since 1970-01-01T00:00:00Z
    rrn: int
    values: Mapping[int, Value]
    # What asked the host to move money, as the original's service derives it again; None: there is nothing to undo.
    call: "Iso8583Call | None" = None


class Request(msgspec.Struct, frozen=True):
    """A verified request with everything a service may know. ``values`` is the expanded message."""

    template: Template
    values: Mapping[int, Value]
    terminal: TerminalFacts
    received_us: int  # microseconds since 1970-01-01T00:00:00Z
    business_day: int  # YYYYMMDD
    rrn: int
    pseudonym: Callable[[str], str]  # a stable keyed hash of an identifier, 16 hexadecimal characters
    original: Original | None = None
    batch: Batch | None = None

    def integer(self, key: int) -> int:
        """The integer at ``key``, 0 when the message does not carry it."""
        return self.values.get(key, 0)  # type: ignore[return-value]  # the grammar admits nothing else at such a key

    def string(self, key: int) -> str:
        """The text at ``key``, empty when the message does not carry it."""
        return self.values.get(key, "")  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Rung:
    """One guard of a validation ladder. The first rung whose ``holds`` is false refuses the request with ``code``."""

    name: str
    code: str
    holds: Callable[[Request], bool]


class Counter(msgspec.Struct, frozen=True):
    """A limit per subject and business day: the ``amount`` of all that were not declined adds up to ``cap`` at most.

    ``lasting``: not per day but for ever, as what may be refunded of one purchase.
    """

    name: str
    subject: str  # an identifier; the switch keeps only its keyed hash
    amount: int
    cap: int
    code: str = "61"
    lasting: bool = False


class Iso8583Call(msgspec.Struct, frozen=True):
    """A request to a host that speaks ISO 8583:1987.

    The link adds DE 7, 11 to 13, 32, 37, 41, 42 and 49 unless they are given here.
    """

    mti: int
    fields: Mapping[int, str | bytes]


class JsonCall(msgspec.Struct, frozen=True):
    """A request to a service behind HTTPS with signed JSON bodies."""

    path: str
    body: Mapping[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """An outcome without a back end: the service itself knows the answer."""

    code: str
    values: Mapping[int, Value] = msgspec.field(default_factory=dict)
    tombstone: bool = False  # remember that the original, should it still come, must be refused
    settles: BatchState | None = None  # what the batch that the request names has become by it
    reverses: bool = False  # the switch itself shall reverse the original, which its back end may not know yet


Call = Iso8583Call | JsonCall | Answer


class Reply(msgspec.Struct, frozen=True):
    """What a back end answered: ``code`` of DE 39 or of the JSON body, and all fields or the body itself."""

    code: str
    fields: Mapping[int, str | bytes] = msgspec.field(default_factory=dict)
    body: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Conclusion(msgspec.Struct, frozen=True):
    """The outcome as the terminal will see it: ``code`` and what else the response carries."""

    code: str
    values: Mapping[int, Value] = msgspec.field(default_factory=dict)


class OptionError(ValueError):
    """An option that the configuration gives a service is unknown or unusable. The text names it and says why."""


class Service:
    """Base of all services; a subclass sets the attributes and overrides what differs."""

    name: ClassVar[str]
    templates: ClassVar[tuple[Template, ...]]
    elements: ClassVar[tuple[Element, ...]] = ()
    destination: ClassVar[str]
    # A service whose guards depend on its options sets its own ladder in ``configure``.
    ladder: tuple[Rung, ...] = ()
    # An unknown outcome of a service that moves money is reversed; that of an enquiry is forgotten.
    moves_money: ClassVar[bool] = True
    # A request with an ``original_key`` takes its original back, and when its outcome is unknown the switch itself
    # reverses the original; False: it only refers to it, as a refund does.
    undoes: ClassVar[bool] = True
    # An unknown outcome is not reversed: the call is sent again until it is answered; meanwhile the terminal hears 09.
    repeats: ClassVar[bool] = False
    # What passed the ladder has happened already: it is approved when it is durable, and its back end is told.
    accepts: ClassVar[bool] = False

    def configure(self, options: Mapping[str, Any]) -> None:
        """Take this service's options of the configuration, once and before any request. Raises OptionError."""
        for option in options:
            raise OptionError(f"service {self.name} has no option {option}")

    def sound(self, request: Request) -> bool:
        """Whether every rung of the ladder holds, found out at one look; False: climb it, for it may hold all the same.

        For a scene of which many come; the ladder stays the authority.
        """
        return False

    def counters(self, request: Request) -> tuple[Counter, ...]:
        """The limits that this request uses up."""
        return ()

    def original_key(self, request: Request) -> tuple[int, int] | None:
        """(batch, STAN) of the transaction that this request refers to; None when it stands for itself."""
        return None

    def batch_named(self, request: Request) -> int | None:
        """The batch that this request settles or tells the details of; None when it is about none."""
        return None

    def call(self, request: Request) -> Call:
        """What to ask the back end, or the answer when none need be asked.

        ``request.original`` and ``request.batch`` are filled in, None where the journal does not know them.
        """
        raise NotImplementedError

    def conclude(self, request: Request, reply: Reply) -> Conclusion:
        """The back end's reply in terms of the response template."""
        return Conclusion(reply.code)

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any] | None:
        """What analytics may learn of an approved request: JSON values, no C2 or C3. None for nothing."""
        return None


def refusal(ladder: tuple[Rung, ...], request: Request) -> Rung | None:
    """The first rung that does not hold."""
    for rung in ladder:
        if not rung.holds(request):
            return rung
    return None
