"""The session of one connection, without I/O: what may be said when, sequences, and what both ends know.

A terminal connects, signs in, sends requests, signs off or goes. The table below says which message is lawful in which
state; everything else is refused with a code and changes nothing. Both ends run the same table:
``SwitchSession`` judges what arrives, ``TerminalSession`` numbers what leaves and matches what comes back.

A sequence number stands in every message. In one session it only grows; the switch refuses one that does not (replay).
Across sessions the binding, a value that TLS derives for each connection, makes every old signature void.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.history import History
from fengshou.protocol.limits import DELTA_WINDOW
from fengshou.protocol.message import Flag, Message, Value
from fengshou.protocol.templates import ECHO, OFFLINE_UPLOAD, SIGN_IN, SIGN_OFF


class State(Enum):
    __hash__ = object.__hash__  # a member is one object; Enum's own hash of its name is a call in Python

    CONNECTED = "connected"  # TLS is up, nobody has signed in
    SIGNED_IN = "signed in"
    CLOSED = "closed"  # signed off or dropped; nothing is lawful any more


class Event(Enum):
    __hash__ = object.__hash__

    ECHO = "echo"
    SIGN_IN = "sign-in accepted"
    SIGN_OFF = "sign-off"
    REQUEST = "request"
    CLOSE = "close"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.CONNECTED, Event.ECHO): State.CONNECTED,
    (State.CONNECTED, Event.SIGN_IN): State.SIGNED_IN,
    (State.CONNECTED, Event.CLOSE): State.CLOSED,
    (State.SIGNED_IN, Event.ECHO): State.SIGNED_IN,
    (State.SIGNED_IN, Event.SIGN_IN): State.SIGNED_IN,  # a new batch, operator or application without a new connection
    (State.SIGNED_IN, Event.REQUEST): State.SIGNED_IN,
    (State.SIGNED_IN, Event.SIGN_OFF): State.CONNECTED,
    (State.SIGNED_IN, Event.CLOSE): State.CLOSED,
    (State.CLOSED, Event.CLOSE): State.CLOSED,
}


# Asked for each message; CPython 3.11 takes 0.1 µs to find a member by its name in the class.
_CLOSED, _REQUEST = State.CLOSED, Event.REQUEST


class SessionRefusal(Enum):
    """Why the session refuses a message; the value is the response code."""

    NOT_SIGNED_IN = "22"
    REPLAY = "63"
    RESPONSE_UNEXPECTED = "30"
    CLOSED = "96"


class UnlawfulEvent(Exception):
    """The table has no such transition. Ours: the caller asked the session to do what it had refused."""


def event_of(message: Message) -> Event:
    """The event that a request stands for."""
    return _EVENTS.get(message.template, _REQUEST)


_EVENTS = {SIGN_IN.id: Event.SIGN_IN, SIGN_OFF.id: Event.SIGN_OFF, ECHO.id: Event.ECHO}


@dataclass(slots=True)
class SwitchSession:
    """The switch's end of one connection. ``binding`` is the 32-byte exporter value of its TLS channel."""

    binding: bytes
    state: State = State.CONNECTED
    last_sequence: int = 0
    # What the messages of this session do not repeat: terminal, merchant, currency, batch, operator.
    implied: Mapping[int, Value] = field(default_factory=dict)
    # Verified requests, when the sign-in asked for the delta form.
    history: History | None = None

    def refusal(self, message: Message) -> SessionRefusal | None:
        """Judge one arriving message and consume its sequence. None means lawful; the state does not change."""
        if self.state is _CLOSED:
            return SessionRefusal.CLOSED
        if message.is_response:
            return SessionRefusal.RESPONSE_UNEXPECTED
        if message.sequence <= self.last_sequence:
            return SessionRefusal.REPLAY
        self.last_sequence = message.sequence
        return None if self.allows(message) else SessionRefusal.NOT_SIGNED_IN

    def allows(self, message: Message) -> bool:
        """Whether the table has a transition for this request now."""
        return (self.state, event_of(message)) in TRANSITIONS

    def advance(self, event: Event, implied: Mapping[int, Value] | None = None) -> None:
        """Take a transition. Raises UnlawfulEvent and changes nothing when the table has none."""
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            raise UnlawfulEvent(f"{event.value} while {self.state.value}")
        self.state = target
        if implied is not None:
            self.implied = implied


class Codec(Protocol):
    """The face that ``grammar.ReferenceCodec`` and the compiled ``codecs.MessageCodec`` share."""

    def split(self, data: bytes | bytearray | memoryview) -> tuple[list[bytes], int]: ...

    def decode(self, frame: bytes, history: History | None = None) -> Message: ...

    def encode(self, message: Message) -> bytes: ...

    def frame(self, template: int, flags: int, sequence: int, body: bytes) -> bytes: ...

    def encode_body(self, template: int, response: bool, values: Mapping[int, Value]) -> bytes: ...

    def decode_body(self, template: int, response: bool, data: bytes) -> dict[int, Value]: ...

    def decode_items(self, data: bytes) -> tuple[int, list[dict[int, Value]]]: ...

    def canonical(self, template: int, flags: int, sequence: int, values: Mapping[int, Value]) -> bytes: ...

    def digest(self, za: bytes, binding: bytes, message: Message, implied: Mapping[int, Value]) -> bytes: ...

    def pack(self, values: Mapping[int, Value]) -> bytes: ...

    def pack_kept(self, values: Mapping[int, Value], columns: frozenset[int]) -> tuple[bytes, bytes]: ...

    def unpack(self, data: bytes) -> dict[int, Value]: ...


class DeltaForm(Protocol):
    """The face that ``delta.ReferenceDeltaWriter`` and the compiled ``codecs.DeltaWriter`` share."""

    def clear(self) -> None: ...

    def writes(self, template: int) -> bool: ...

    def keep(self, message: Message) -> None: ...

    def frame(self, message: Message) -> bytes | None: ...

    def body(self, message: Message) -> bytes | None: ...


class TerminalSession:
    """The terminal's end of one connection.

    Sending takes two steps, because a secure medium signs in between: ``prepare`` numbers the message and gives the
    digest to sign, ``frame`` puts the signature on. ``receive`` turns bytes into responses.

    With ``delta`` the session asks for the delta form at each sign-in, and when it is granted ``frame`` uses it
    wherever it is shorter.
    """

    def __init__(
        self,
        codec: Codec,
        binding: bytes,
        za: bytes,
        signed: Mapping[int, bool],
        delta: DeltaForm | None = None,
    ) -> None:
        """``za`` is that of the terminal's key; ``signed`` says of each template id whether its requests are signed."""
        self._codec = codec
        self._binding = binding
        self._za = za
        self._signed = signed
        self._sequence = 0
        self._buffer = bytearray()
        self._delta = delta
        self._delta_granted = False
        self._unanswered: dict[int, Message] = {}  # requests that may serve as bases once they are answered
        self.implied: Mapping[int, Value] = {}

    def prepare(
        self, template: int, values: Mapping[int, Value], *, repeat: bool = False, receipt: bool = False
    ) -> tuple[Message, bytes]:
        """The next message and the digest that its signature must cover; an unsigned template's digest is empty."""
        self._sequence += 1
        flags = (Flag.REPEAT if repeat else 0) | (Flag.RECEIPT if receipt else 0)
        if not self._signed[template]:
            return Message(template, flags, self._sequence, dict(values)), b""
        if self._delta is not None and template == SIGN_IN.id:
            flags |= Flag.DELTA
        message = Message(template, flags | Flag.SIGNED, self._sequence, dict(values))
        implied = {} if template == SIGN_IN.id else self.implied
        return message, self._codec.digest(self._za, self._binding, message, implied)

    def prepare_upload(self, items: bytes, count: int, signature: bytes, *, repeat: bool = False) -> Message:
        """The next upload of purchases that were signed before, see ``offline``; ``count`` sequences are its own."""
        flags = Flag.SIGNED | (Flag.REPEAT if repeat else 0)
        message = Message(OFFLINE_UPLOAD.id, flags, self._sequence + 1, {de.OFFLINE_ITEMS: items}, signature)
        self._sequence += count
        return message

    def frame(self, message: Message, signature: bytes = b"") -> bytes:
        """The bytes to send. Raises UntrustedBytesError when a value is outside the grammar."""
        message.signature = signature
        whole = self._codec.encode(message)
        if self._delta is None or not self._delta_granted or not self._delta.writes(message.template):
            return whole
        self._unanswered[message.sequence] = message
        self._unanswered.pop(message.sequence - DELTA_WINDOW, None)
        difference = self._delta.frame(message)
        return difference if difference is not None and len(difference) < len(whole) else whole

    def signed_in(self, request: Message, response: Message) -> None:
        """Remember what a successful sign-in settled; later messages imply it."""
        if self._delta is not None:
            self._delta.clear()
            self._unanswered.clear()
        values = request.values
        self.implied = {
            de.TERMINAL: values[de.TERMINAL],
            de.MERCHANT: values[de.MERCHANT],
            de.CURRENCY: values[de.CURRENCY],
            de.BATCH: response.values.get(de.BATCH, values[de.BATCH]),
            de.OPERATOR: values[de.OPERATOR],
        }

    def receive(self, data: bytes) -> list[Message]:
        """The responses that are complete with these bytes. Raises UntrustedBytesError."""
        self._buffer += data
        frames, used = self._codec.split(self._buffer)
        del self._buffer[:used]
        messages = [self._codec.decode(frame) for frame in frames]
        if self._delta is not None:
            for message in messages:
                self._learn(message, self._delta)
        return messages

    def _learn(self, response: Message, delta: DeltaForm) -> None:
        """What a response says of the delta form: whether it is on, which request is a base, that bases are lost."""
        request = self._unanswered.pop(response.sequence, None)
        if response.template == SIGN_IN.id:
            self._delta_granted = bool(response.flags & Flag.DELTA)
        elif response.values.get(de.RESPONSE_CODE) == codes.RESYNC:
            delta.clear()
        elif request is not None and response.template == request.template and de.RRN in response.values:
            delta.keep(request)
