"""What a terminal asks, what it is answered, and what can stand in the way of an answer."""

from collections.abc import Mapping
from dataclasses import dataclass

from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED, action_of, text_of
from fengshou.protocol.message import Value
from fengshou.protocol.templates import Template
from fengshou.terminals.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Request:
    """A request under its key. The same object sent again is the same transaction."""

    template: Template
    values: Mapping[int, Value]
    batch: int

    @property
    def stan(self) -> int:
        """0 for a template that has none."""
        value = self.values.get(de.STAN, 0)
        assert isinstance(value, int)
        return value


@dataclass(frozen=True, slots=True)
class Response:
    """What the switch answered. ``receipt`` is there when one was asked for and came in time."""

    request: Request
    values: Mapping[int, Value]
    command: int  # see ``protocol.message.COMMANDS``
    body: bytes
    receipt: Receipt | None = None

    @property
    def code(self) -> str:
        value = self.values[de.RESPONSE_CODE]
        assert isinstance(value, str)
        return value

    @property
    def approved(self) -> bool:
        return self.code == APPROVED

    @property
    def action(self) -> str:
        """The action class A to E, see ``protocol.codes``."""
        return action_of(self.code)

    @property
    def rrn(self) -> int | None:
        value = self.values.get(de.RRN)
        assert value is None or isinstance(value, int)
        return value

    @property
    def reason(self) -> str:
        """The switch's own words for the operator, else the meaning of the code."""
        value = self.values.get(de.TEXT)
        return value if isinstance(value, str) and value else self.text()

    def text(self, language: str = "en") -> str:
        """What to show a person, ``en`` or ``zh``."""
        return text_of(self.code, language)


class TerminalError(Exception):
    """Base of what the client raises."""


class Unreachable(TerminalError):
    """No connection to the switch; nothing was sent."""


class SignInRefused(TerminalError):
    """The switch refused the sign-in; ``response`` says why."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.code}: {response.reason}")
        self.response = response


class Unanswered(TerminalError):
    """``request`` was or may have been sent and no answer came: give it to ``retry``."""

    def __init__(self, request: Request, reason: str) -> None:
        super().__init__(reason)
        self.request = request


class BatchClosed(TerminalError):
    """``request`` was made in a batch that is not the session's any more, and so cannot be sent."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"batch {request.batch} is closed")
        self.request = request


class OutcomeUnknown(TerminalError):
    """``request`` may have been done or not. Ask for its receipt later, or have it reversed."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"no answer to batch {request.batch} STAN {request.stan}")
        self.request = request
