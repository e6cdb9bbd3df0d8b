"""The contract of embedded back ends: applications without sockets.

``fengshou host`` loads one by its dotted name, gives it its options and serves it: ISO 8583 on TCP, JSON over HTTPS
with mutual certificates, or the event stream. A bank's own system replaces the process, not the class.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from fengshou.protocol.day_file import DayRow


class NotServed(Exception):
    """The application has nothing under this path or name; nothing was done."""


Fields = Mapping[int, str | bytes]


class PinRefused(Exception):
    """A PIN is wrong, or cannot be looked at; ``code`` is the answer's DE 39."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class PinVerifier(Protocol):
    """How a host verifies PINs: it keeps an offset for each card, and keys and clear PINs stay in its custody."""

    def verify(self, request: Fields, offset: str) -> None:
        """Check the PIN of a request (DE 52 and 53, DE 2 the card) against an offset. Raises PinRefused."""
        ...


class Iso8583Application(Protocol):
    """A host. Element 0 of a message is its MTI; numeric elements are strings of digits."""

    def answer(self, requests: Sequence[Fields]) -> Sequence[Fields | None]:
        """Answers to requests that arrived together, in their order; None stays silent. Durable when it returns."""
        ...

    def close(self) -> None: ...


class PinBooks(Protocol):
    """What an application's class offers beside, when it verifies PINs; it is made with ``pins``, a PinVerifier."""

    @staticmethod
    def give_pin(options: Mapping[str, Any], card: str, offset: str) -> None:
        """Let a card have the PIN with this offset, by the options of ``host.toml``. The host may be running.

        Raises LookupError: no such card.
        """
        ...


class DayBooks(Protocol):
    """What an application's class offers beside, when what it booked can be compared day by day."""

    @staticmethod
    def day_rows(options: Mapping[str, Any], business_day: int) -> Iterable[DayRow]:
        """What was decided for a business day (YYYYMMDD), by the options of ``host.toml``. The host may be running."""
        ...


class JsonApplication(Protocol):
    """A gateway. Transport checks certificates and signatures; the body's signature is already verified."""

    def answer(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer's body; it holds at least ``code``, a response code.

        Raises NotServed.
        """
        ...

    def close(self) -> None: ...


class EventStore(Protocol):
    """A consumer of analytics events, numbered from 1 without gaps."""

    def cursor(self) -> int:
        """The number of the last event that is durably stored; 0 at first."""
        ...

    def store(self, first: int, events: Sequence[Mapping[str, Any]]) -> int:
        """Store events ``first``, ``first + 1`` … and the new cursor in one transaction; returns the cursor.

        Events at or below the cursor are skipped. Raises ValueError when ``first`` leaves a gap.
        """
        ...

    def query(self, name: str, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Rows of a named report, for example ``prices``.

        Raises NotServed, or ValueError: an argument is wrong, and which.
        """
        ...

    def close(self) -> None: ...
