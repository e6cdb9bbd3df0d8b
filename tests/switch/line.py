"""A terminal's connection that says whatever a test wants, byte by byte, and keeps what comes back."""

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from OpenSSL import SSL

from fengshou.codecs import DeltaWriter
from fengshou.hsm.channel import exporter
from fengshou.hsm.x509 import Signer
from fengshou.protocol import elements as de
from fengshou.protocol.message import Message, Value
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import RECEIPT, SIGN_IN
from fengshou.terminals.home import Home
from fengshou.terminals.identity import BATCH_MAX, china_now
from tests.switch.town import Town

_WAIT_S = 15


class Closed(Exception):
    """The switch has ended the connection."""


def dial(town: Town, receive_bytes: int = 0) -> socket.socket:
    """A TCP connection to the switch on which reading waits for a while only."""
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _WAIT_S, 0))
    sock.connect(town.address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Line:
    """One connection over real TLS. Blocking; a context manager."""

    def __init__(
        self, town: Town, terminal: str, *, home: Home | None = None, signer: Signer | None = None,
        context: SSL.Context | None = None, receive_bytes: int = 0, delta: bool = False,
        server_name: str | None = None,
    ) -> None:  # fmt: skip
        """``context`` and ``signer`` other than the home's make an impostor; ``receive_bytes`` is the socket's buffer;
        ``server_name`` is the terminal's id, as it should be, unless another is given, or none at all.

        Raises SSL.Error when there is no channel.
        """
        self.home = home or town.home(terminal)
        self.codec = town.catalogue.codec
        self._grammar = town.catalogue.grammar
        self._in_delta = delta
        self._templates = {template.name: template for template in town.catalogue.grammar.templates.values()}
        self._signer = signer or self.home.signer()
        self.socket = dial(town, receive_bytes)
        self.connection = SSL.Connection(context or self.home.context(), self.socket)
        name = terminal.lower() if server_name is None else server_name
        if name:
            self.connection.set_tlsext_host_name(name.encode())
        self.connection.set_connect_state()
        try:
            self.connection.do_handshake()
        except SSL.Error:
            self.socket.close()
            raise
        self._signed = town.catalogue.signed()
        self.session = self._session_of(self._signer)
        self._answers: dict[int, Message] = {}
        self._receipts: dict[int, Message] = {}
        self._asked_for_proof: set[int] = set()
        self.last_stan = 0
        self.batch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # -- making frames -------------------------------------------------------------------------------------------------

    def message(self, template: str, values: Mapping[int, Value], **flags: bool) -> Message:
        """The next message, numbered and signed. A STAN is filled in where one belongs and none is given."""
        found = self._templates[template]
        filled = dict(values)
        if any(field.key == de.STAN for field in found.request) and de.STAN not in filled:
            self.last_stan += 1
            filled[de.STAN] = self.last_stan
        message, digest = self.session.prepare(found.id, filled, **flags)
        message.signature = self._signer.sign(digest) if digest else b""
        if flags.get("receipt"):
            self._asked_for_proof.add(message.sequence)
        return message

    def shortest(self, message: Message) -> bytes:
        """The frame in which the session itself would send this, in the delta form where that is on."""
        return self.session.frame(message, message.signature)

    def frame(self, template: str, values: Mapping[int, Value], **flags: bool) -> bytes:
        return self.codec.encode(self.message(template, values, **flags))

    def body(self, message: Message) -> bytes:
        """What must be equal byte for byte when a request is answered again."""
        return self.codec.encode_body(message.template, True, message.values)

    def sign_in_values(self, batch: int, **changed: Any) -> dict[int, Value]:
        values = self.home.identity.sign_in_values(china_now(), batch, 1)
        return {**values, **{getattr(de, name): value for name, value in changed.items()}}

    def become(self, signer: Signer) -> None:
        """From now on sign with another key."""
        before, self.session = self.session, self._session_of(signer)
        self.session.implied = before.implied
        self.session._sequence = before._sequence
        self._signer = signer

    def _session_of(self, signer: Signer) -> TerminalSession:
        delta = DeltaWriter(self.codec) if self._in_delta else None
        return TerminalSession(self.codec, exporter(self.connection), signer.public_key.za, self._signed, delta)

    # -- talking -------------------------------------------------------------------------------------------------------

    def post(self, data: bytes) -> None:
        """Send bytes as they are. Raises Closed."""
        try:
            self.connection.sendall(data)
        except SSL.Error as error:
            raise Closed(str(error)) from None

    def answer(self, sequence: int) -> Message:
        """The answer to the message with this sequence; others are kept. Raises Closed."""
        while sequence not in self._answers:
            self._read()
        return self._answers.pop(sequence)

    def answers(self, count: int) -> list[Message]:
        """The next answers, whatever they answer, in the order of their coming. Raises Closed."""
        while len(self._answers) < count:
            self._read()
        return [self._answers.pop(sequence) for sequence in list(self._answers)[:count]]

    def answers_in_order(self, count: int) -> list[Message]:
        """As many answers as come, also such as have the same sequence. Raises Closed."""
        messages: list[Message] = []
        while len(messages) < count:
            messages += self._receive()
        return messages

    def receipt(self, sequence: int) -> Message:
        """The receipt that follows an answer. Raises Closed."""
        while sequence not in self._receipts:
            self._read()
        return self._receipts.pop(sequence)

    def _read(self) -> None:
        for message in self._receive():
            proof = message.template == RECEIPT.id and message.sequence in self._asked_for_proof
            (self._receipts if proof else self._answers)[message.sequence] = message

    def _receive(self) -> list[Message]:
        try:
            data = self.connection.recv(16 * 1024)
        except SSL.WantReadError:
            raise AssertionError(f"the switch is silent for {_WAIT_S} s") from None
        except SSL.Error as error:
            raise Closed(str(error)) from None
        return self.session.receive(data)

    def say(self, frame: bytes, sequence: int) -> Message:
        """Send a frame and wait for the answer with this sequence. Raises Closed."""
        self.post(frame)
        return self.answer(sequence)

    def ask(self, template: str, values: Mapping[int, Value], **flags: bool) -> Message:
        """Send the next message and wait for its answer. Raises Closed."""
        message = self.message(template, values, **flags)
        return self.say(self.codec.encode(message), message.sequence)

    def sign_in(self, **changed: Any) -> Self:
        """Sign in to a batch of which no STAN was used yet."""
        current = self._sign_in(0, changed)
        self.batch = current % BATCH_MAX + 1
        self._sign_in(self.batch, changed)
        return self

    def sign_in_to(self, batch: int) -> Self:
        """Sign in to the batch of an earlier session."""
        self.batch = self._sign_in(batch, {})
        return self

    def _sign_in(self, batch: int, changed: Mapping[str, Any]) -> int:
        request = self.message(SIGN_IN.name, self.sign_in_values(batch, **changed))
        response = self.say(self.codec.encode(request), request.sequence)
        assert code_of(response) == "00", response
        self.session.signed_in(request, response)
        settled = response.values[de.BATCH]
        assert isinstance(settled, int)
        return settled

    def wait_closed(self) -> None:
        """Return when the switch has ended the connection; whatever it still says is kept."""
        with suppress(Closed):
            while True:
                self._read()


def code_of(message: Message) -> str:
    return str(message.values[de.RESPONSE_CODE])
