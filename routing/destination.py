"""What the pipeline knows of a back end: hand over calls in batches, get each back once.

A destination never waits when calls are handed to it and never queues without bound: a call that cannot be taken comes
back at once as a failure. Completions come in batches, whatever is ready, to the sink that was given at start. Nothing
here knows what a transaction is.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec

from fengshou.protocol.service import Iso8583Call, JsonCall, Reply


class Failure(Enum):
    """Why there is no reply; the value is the response code.

    The difference between UNKNOWN and the others is the difference between a reversal and nothing to undo.
    """

    UNAVAILABLE = "91"  # never left this machine: no link is up
    BUSY = "96"  # never left this machine: as many calls as allowed are in flight, or it was not sent in time
    UNSENDABLE = "30"  # never left this machine: the back end's format cannot carry a value of it
    UNKNOWN = "98"  # may have arrived: the deadline passed or the link broke after sending


class Trace(msgspec.Struct, frozen=True):
    """How a call is identified to the back end. Derived from the journal alone, so that a restart derives the same.

    The host's STAN is the last six digits of the RRN; its transmission time (DE 7) is ``received_us`` in UTC+8, unless
    the call itself says them.
    """

    rrn: int  # 12 digits
    received_us: int  # microseconds since 1970-01-01T00:00:00Z
    terminal: str  # 8 characters
    merchant: str  # 15 characters
    acquirer: int
    currency: int = 156
    repeat: bool = False  # the same call may have been sent before


class Outbound(msgspec.Struct, eq=False):
    """One call on its way. ``token`` is the sender's own and comes back untouched; ``deadline`` is of Trio's clock."""

    token: Any
    call: Iso8583Call | JsonCall
    trace: Trace
    deadline: float


class Completion(msgspec.Struct, frozen=True, eq=False):
    """The end of a call: exactly one for each Outbound, unless ``late``: a reply after UNKNOWN was reported."""

    outbound: Outbound
    result: Reply | Failure
    late: bool = False


Sink = Callable[[Sequence[Completion]], None]


class Destination(Protocol):
    name: str

    @property
    def up(self) -> bool:
        """A call handed over now would be sent."""
        ...

    @property
    def in_flight(self) -> int: ...

    def submit(self, calls: Sequence[Outbound]) -> None:
        """Take calls, all at once and without waiting. Each completes through the sink, by its deadline."""
        ...

    async def run(self, sink: Sink) -> None:
        """Keep the links up until cancelled. Calls still open then complete as UNKNOWN."""
        ...
