"""One request on its way through the switch: what each step has found out, and how it ended."""

import msgspec

from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_NONE, Flag, Message, Value
from fengshou.protocol.service import Conclusion, Iso8583Call, JsonCall, Request, Service
from fengshou.protocol.templates import SIGN_IN
from fengshou.protocol.transaction import Event, Machine, State
from fengshou.switch.journal.store import Charges, Entry
from fengshou.terminals.pump import Peer

_APPROVE, _DECLINE = Event.APPROVE, Event.DECLINE  # asked for each request, see ``protocol.session``

# In the place of the request that a frame without meaning should have been. No template has this id.
UNREADABLE = Message(0, 0, 0)


class Exchange(msgspec.Struct, eq=False):
    """The steps of the pipeline fill this in from top to bottom; ``conclusion`` ends it: until then it is open.

    What each step asks of each exchange is a field and not a property, which costs CPython 3.11 three times as much.
    """

    peer: Peer
    frame: bytes
    received_us: int
    arrived: float  # by Trio's clock; from it deadlines count
    machine: Machine
    asked: Message = UNREADABLE  # the request
    sequence: int = 0  # of the answer: the request's, or what can be read of it when it has no meaning
    digest: bytes = b""  # e, what the terminal signed
    evidence: bytes = b""  # what the journal keeps of the signature: e || r || s, or what proves an item of an upload
    service: Service | None = None
    stated: bytes = b""  # template and body: equal for the same request under any sequence and session
    content: bytes = b""  # SM3 of that
    key: bytes = b""
    request: Request | None = None
    call: Iso8583Call | JsonCall | None = None
    charges: Charges = ()
    caps: tuple[int, ...] = ()  # of the counters that it charges
    original: bytes = b""  # key of the transaction that this one is about to reverse, or to bar
    original_intent: int = 0  # and its record; 0 when it never came
    batch: bytes = b""  # key of the batch that this one settles or tells the details of
    original_state: State = State.TOMBSTONE  # in which it was found
    intent: Entry | None = None
    state: State = State.RECEIVED
    conclusion: Conclusion | None = None
    ending: Event = Event.DECLINE  # what happens to the intent when its conclusion is durable
    outcome: Entry | None = None  # what the journal says of the end
    # The whole response: its values, or its body as the journal has its digest.
    response: dict[int, Value] | bytes = b""
    command: int = COMMAND_NONE
    reason: str = ""  # of a refusal for the record: for the journal and the operator
    replayed: int = 0  # record of the outcome that is given again

    def advance(self, event: Event) -> None:
        """Take a transition of the transaction table."""
        self.state = self.machine.step(self.state, event)

    def refuse(self, code: str, reason: str = "", command: int = COMMAND_NONE) -> None:
        """End it before it became an intent, for the record. ``reason`` holds no value of the message."""
        self.advance(Event.REFUSE)
        self.response = {de.RESPONSE_CODE: code}
        self.conclusion = Conclusion(code)
        self.command = command
        self.reason = reason

    def shed(self, code: str) -> None:
        """End it without a trace: there is too much, or it is on its way already. Nothing is done for it."""
        self.advance(Event.REFUSE)
        self.answer_now({de.RESPONSE_CODE: code})

    def begin_again(self) -> None:
        """Its intent was not written, and is to be made anew: nothing that follows from it has happened."""
        self.request = self.call = self.intent = self.outcome = self.conclusion = None
        self.charges = self.caps = ()
        self.original, self.original_intent, self.original_state, self.batch = b"", 0, State.TOMBSTONE, b""
        self.ending, self.response = Event.DECLINE, b""

    def answer_now(self, values: dict[int, Value]) -> None:
        """The switch itself knows the answer."""
        self.response = values
        self.conclusion = Conclusion(str(values[de.RESPONSE_CODE]))

    def replay(self, values: dict[int, Value], outcome: int) -> None:
        """The same request was answered before; ``outcome`` is the record that says so."""
        self.answer_now(values)
        self.replayed = outcome

    def conclude(self, conclusion: Conclusion, ending: Event | None = None) -> None:
        """Say how an intent ends; without ``ending`` the code says whether it is approved."""
        self.conclusion = conclusion
        self.ending = ending or (_APPROVE if conclusion.code == codes.APPROVED else _DECLINE)

    def settle(self) -> None:
        """The conclusion is durable: now it is the end, of this intent and, where it was undone, of the original."""
        self.advance(self.ending)
        if self.approved and self.original_intent:
            self.machine.step(self.original_state, Event.REVERSE)

    @property
    def in_delta(self) -> bool:
        """It came as a difference to an earlier request."""
        return bool(self.frame[1] & Flag.DELTA) and self.asked.template != SIGN_IN.id

    @property
    def grants_delta(self) -> bool:
        """A sign-in that asked for the delta form was accepted."""
        return self.asked.template == SIGN_IN.id and bool(self.asked.flags & Flag.DELTA) and self.approved

    @property
    def approved(self) -> bool:
        return self.conclusion is not None and self.conclusion.code == codes.APPROVED
