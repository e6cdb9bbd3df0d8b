"""One connection of a terminal: what is sent gets its number and signature here, what comes back finds its request."""

from collections.abc import Mapping

import trio

from fengshou.hsm.channel import TlsStream
from fengshou.hsm.x509 import Signer
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import Message, Value
from fengshou.protocol.session import Codec, DeltaForm, TerminalSession
from fengshou.protocol.templates import ERROR, OFFLINE_UPLOAD, RECEIPT

# A TLS record holds at most 16 KiB; asking for more yields no more.
_RECEIVE_BYTES = 16 * 1024
_LOOKS_EVERY_S = 0.01
_GOODBYE_S = 1.0  # for the word that the connection ends, when the switch reads nothing


class LinkLost(Exception):
    """The connection is gone. A request that was on its way may have been done or not."""


class Pending:
    """A request on its way, as the link knows it."""

    def __init__(self, request: Message, *also: int) -> None:
        """``also`` are other templates in which the answer may come."""
        self.request = request
        self._also = also
        self._answered = trio.Event()
        self._receipted = trio.Event()
        self._response: Message | None = None
        self._receipt: Message | None = None
        self._lost = ""

    @property
    def template(self) -> int:
        """That of the answer; 0 while there is none."""
        return self._response.template if self._response else 0

    async def response(self) -> Message:
        """The answer to the request, however long it takes. Raises LinkLost."""
        await self._answered.wait()
        if self._response is None:
            raise LinkLost(self._lost)
        return self._response

    async def receipt(self) -> Message:
        """The receipt that follows an answer, however long it takes. Raises LinkLost."""
        await self._receipted.wait()
        if self._receipt is None:
            raise LinkLost(self._lost)
        return self._receipt

    def take(self, message: Message) -> bool:
        """Whether this is what the request waits for; if so it is kept."""
        if message.template in (self.request.template, ERROR.id, *self._also) and self._response is None:
            self._response = message
            self._answered.set()
        elif message.template == RECEIPT.id and self._receipt is None:
            self._receipt = message
            self._receipted.set()
        else:
            return False
        return True

    def lose(self, reason: str) -> None:
        self._lost = reason
        self._answered.set()
        self._receipted.set()


class Link:
    """A TLS stream to the switch with the session on it."""

    def __init__(
        self,
        stream: TlsStream,
        codec: Codec,
        signer: Signer,
        signed: Mapping[int, bool],
        delta: DeltaForm | None = None,
    ) -> None:
        """``signed`` says of each template id whether its requests are signed; without ``delta`` they go whole."""
        self.session = TerminalSession(codec, stream.binding, signer.public_key.za, signed, delta)
        self.binding = stream.binding
        self.lost = ""  # why the connection is gone; empty while it is up
        self._stream = stream
        self._signer = signer
        self._pending: dict[int, Pending] = {}
        self._reading = trio.CancelScope()

    async def run(self) -> None:
        """Hand out what arrives until the connection ends, for whatever reason."""
        try:
            with self._reading:
                while data := await self._stream.receive_some(_RECEIVE_BYTES):
                    for message in self.session.receive(data):
                        self._dispatch(message)
                self.lose("the switch closed the connection")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.lose(f"the connection broke: {error}")
        except (UntrustedBytesError, LinkLost) as error:
            self.lose(f"the switch does not keep to the protocol: {error}")
        finally:
            self.lose("the terminal stops")
            with trio.move_on_after(_GOODBYE_S, shield=True):
                await self._stream.aclose()

    async def post(
        self, template: int, values: Mapping[int, Value], *, repeat: bool = False, receipt: bool = False
    ) -> Pending:
        """Send one request; one caller at a time, so that sequence numbers leave in order. Raises LinkLost."""
        if self.lost:
            raise LinkLost(self.lost)
        message, digest = self.session.prepare(template, values, repeat=repeat, receipt=receipt)
        frame = self.session.frame(message, self._signer.sign(digest) if digest else b"")
        pending = self._pending[message.sequence] = Pending(message)
        await self._send(frame)
        return pending

    async def post_upload(
        self, template: int, items: bytes, count: int, signature: bytes, *, repeat: bool = False
    ) -> list[Pending]:
        """Send purchases that were signed before, one caller at a time; each is answered for itself. Raises LinkLost.

        An upload that is refused as a whole is answered in its own template, under its first item.
        """
        if self.lost:
            raise LinkLost(self.lost)
        upload = self.session.prepare_upload(items, count, signature, repeat=repeat)
        waiting = [
            Pending(Message(template, upload.flags, upload.sequence + index), OFFLINE_UPLOAD.id)
            for index in range(count)
        ]
        self._pending.update({pending.request.sequence: pending for pending in waiting})
        await self._send(self.session.frame(upload, signature))
        return waiting

    async def _send(self, frame: bytes) -> None:
        sent = False
        try:
            await self._stream.send_all(frame)
            sent = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkLost(f"the connection broke: {error}") from None
        finally:
            if not sent:  # a part of the frame may have left; nothing can follow it
                self.lose("a request was cut off")

    async def quiet(self) -> None:
        """Wait until nothing that was sent waits for its answer."""
        while self._pending:
            await trio.sleep(_LOOKS_EVERY_S)

    def forget(self, pending: Pending) -> None:
        """Nobody waits for this request any more; what still comes for it is dropped."""
        self._pending.pop(pending.request.sequence, None)

    def lose(self, reason: str) -> None:
        """The connection is of no use any more: everyone who waits learns it. The first reason counts."""
        self.lost = self.lost or reason
        for pending in self._pending.values():
            pending.lose(self.lost)
        self._pending.clear()
        self._reading.cancel()

    def _dispatch(self, message: Message) -> None:
        if not message.is_response:
            raise LinkLost("a request came from the switch")
        pending = self._pending.get(message.sequence)
        if pending is not None and not pending.take(message):
            raise LinkLost("an answer of another kind than its request")
