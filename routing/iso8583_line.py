"""One connection to an ISO 8583 host: sign-on, batches out and in, echo when nothing is heard, sign-off.

Three Trio tasks: one sends whatever has gathered, one receives, one signs on and then keeps watch. What goes wrong in
any of them ends the line; who opened it decides what becomes of its calls.

A batch of calls does not wait for the task that sends: while that one has nothing to do and the stream is a plain
socket, the system is given the batch at once. It saves two rounds of the event loop, 28 µs a batch.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from fengshou.hsm.custody import CustodyError, KeyInfo
from fengshou.protocol.backend import Fields
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.epoch import EpochState
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.iso8583 import ECHO, KEY_CHANGE, MTI, SIGN_OFF, SIGN_ON, Codec, transmission_time
from fengshou.routing.connect import LINK_ERRORS
from fengshou.routing.iso8583_matching import Flight
from fengshou.routing.iso8583_wire import READ_BYTES, drain, is_network, is_request, network_answer
from fengshou.routing.zone_keys import ZoneKeys

logger = logging.getLogger(__name__)

# How long an orderly end may take; a host that does not read is left without a word.
SIGN_OFF_TIMEOUT_S = 1.0


class SignOnRefused(ConnectionError):
    """The host answered the sign-on with a code other than 00, or does not take a key."""


@dataclass(frozen=True, slots=True)
class LineSettings:
    echo_idle_s: float = 30.0  # an echo is sent when nothing was heard for so long
    network_timeout_s: float = 10.0  # for the host's answer to sign-on or echo


class Line:
    def __init__(
        self,
        stream: trio.abc.Stream,
        codec_for_batch: Callable[[], Codec],
        settings: LineSettings,
        now_us: Callable[[], int],
        receive: Callable[[Sequence[Fields]], None],
        forged: Callable[[Fields], None],
        zone: ZoneKeys | None = None,
    ) -> None:
        """``receive`` gets the messages of one read that are not network management. ``now_us`` is a wall clock.

        ``codec_for_batch`` gives what encodes and decodes them; ``forged`` gets those whose MAC does not hold; ``zone``
        are the keys that the host must have before a call.
        """
        self.up = False
        self.load = 0  # calls in flight; kept by who hands them over
        self.sent = 0
        self.fault: Exception | None = None
        self._stream = stream
        self._codec_for_batch = codec_for_batch
        self._settings = settings
        self._now_us = now_us
        self._receive_messages = receive
        self._forged = forged
        self._zone = zone
        self._brought: set[tuple[str, int]] = set()  # keys that the host has from this line
        self._news = trio.Event()
        self._control: list[bytes] = []
        self._flights: list[Flight] = []
        self._work = trio.Event()
        self._mid_send = False
        self._rest = b""  # what was gathered and not taken
        self._heard_at = trio.current_time()
        self._stan = 0
        self._network_answer = trio.Event()
        self._network_reply: Fields = {}

    def put(self, flight: Flight) -> None:
        """Take a call, which leaves with the next ``flush``; the destination bounds what gathers."""
        self._flights.append(flight)
        self.load += 1

    def flush(self) -> None:
        """Send what was put. Never waits: what the system does not take now, the task that sends gives it later."""
        if isinstance(self._stream, trio.SocketStream) and not self._mid_send and not self._rest:
            data = self._gather()
            try:
                taken = os.write(self._stream.socket.fileno(), data)
            except OSError:  # it takes nothing now; or it is broken, which the task finds out
                taken = 0
            self._rest = data[taken:]
        if self._rest or self._flights:
            self._work.set()

    async def run(self) -> None:
        """Carry calls until the line breaks, and then say why in ``fault``; or until cancelled, and then sign off."""
        try:
            async with trio.open_nursery() as nursery:
                for task in (self._receive, self._send, self._watch):
                    nursery.start_soon(self._until_broken, task, nursery.cancel_scope)
        finally:
            signed_on, self.up = self.up, False
            with trio.move_on_after(SIGN_OFF_TIMEOUT_S, shield=True):
                if signed_on and self.fault is None and not self._mid_send and not self._rest:
                    await self._sign_off()
                await self._stream.aclose()

    async def _until_broken(self, task: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        try:
            await task()
        except (*LINK_ERRORS, UntrustedBytesError) as fault:
            self.fault = self.fault or fault
            scope.cancel()

    async def _send(self) -> None:
        while True:
            if not self._rest and not self._control and not self._flights:
                self._work = trio.Event()
                await self._work.wait()
            data, self._rest = self._rest + self._gather(), b""
            self._mid_send = True
            await self._stream.send_all(data)
            self._mid_send = False

    def _gather(self) -> bytes:
        """The frames of all that is to leave now."""
        frames, self._control = self._control, []
        flights, self._flights = self._flights, []
        for flight in flights:
            if flight.open:
                flight.sent = True
                frames.append(flight.frame)
                self.sent += 1
        return b"".join(frames)

    async def _receive(self) -> None:
        buffer = bytearray()
        while True:
            data = await self._read()
            if not data:
                raise trio.BrokenResourceError("the host closed the connection")
            self._heard_at = trio.current_time()
            buffer += data
            messages: list[Fields] = []
            try:
                for fields in drain(self._codec_for_batch(), buffer, self._forged):
                    if is_network(fields):
                        self._hear_network(fields)
                    else:
                        messages.append(fields)
            finally:
                if messages:
                    self._receive_messages(messages)

    async def _read(self) -> bytes | bytearray:
        """What has come; nothing when the host has closed the connection."""
        if not isinstance(self._stream, trio.SocketStream):
            return await self._stream.receive_some(READ_BYTES)
        # Trio's own asks the system before it waits too, and goes through more coroutines: 20 µs a batch more.
        while True:
            await trio.lowlevel.wait_readable(self._stream.socket)
            with suppress(BlockingIOError):
                return os.read(self._stream.socket.fileno(), READ_BYTES)

    async def _watch(self) -> None:
        code = (await self._ask(SIGN_ON)).get(39)
        if code != APPROVED:
            raise SignOnRefused(f"the host answered the sign-on with {code!r}")
        await self._bring_keys()
        self.up = True
        while True:
            with trio.move_on_at(self._heard_at + self._settings.echo_idle_s):
                await self._news.wait()
            if self._news.is_set():
                self._news = trio.Event()
                await self._bring_keys()
            if trio.current_time() >= self._heard_at + self._settings.echo_idle_s:
                await self._ask(ECHO)

    def keys_changed(self) -> None:
        """Custody may have a key that the host does not have yet."""
        self._news.set()

    async def _bring_keys(self) -> None:
        """Every key that the host did not get on this line. Raises SignOnRefused: it does not take one that is in use.

        One that waits to be used and is not taken is brought again some time; until then nobody makes it current.
        """
        if self._zone is None:
            return
        for key in self._zone.accepted():
            if (key.label, key.epoch) not in self._brought:
                refused = await self._bring_key(self._zone, key)
                if refused and key.state is EpochState.NEXT:
                    logger.warning("%s", refused)
                elif refused:
                    raise SignOnRefused(refused)
                else:
                    self._brought.add((key.label, key.epoch))

    async def _bring_key(self, zone: ZoneKeys, key: KeyInfo) -> str:
        """Why the host does not have it now; empty when it has."""
        try:
            answer = await self._ask(KEY_CHANGE, zone.change(key))
        except CustodyError as error:  # retired at this moment, or custody is away
            return str(error)
        if zone.hear(key, answer):
            return ""
        return f"the host answered epoch {key.epoch} of {key.label} with {answer.get(39)!r}"

    async def _ask(self, network_code: str, more: Fields | None = None) -> Fields:
        """Send a 0800 and give its answer. Raises trio.TooSlowError."""
        self._control.append(self._network_request(network_code, more or {}))
        self._network_answer = trio.Event()
        self._work.set()
        with trio.fail_after(self._settings.network_timeout_s):
            await self._network_answer.wait()
        return self._network_reply

    def _network_request(self, network_code: str, more: Fields) -> bytes:
        self._stan = self._stan % 999_999 + 1
        return self._codec_for_batch().frame(
            {MTI: "0800", 7: transmission_time(self._now_us()), 11: f"{self._stan:06d}", 70: network_code, **more}
        )

    def _hear_network(self, fields: Fields) -> None:
        if is_request(fields):  # hosts send echoes of their own
            self._control.append(self._codec_for_batch().frame(network_answer(fields)))
            self._work.set()
        elif fields.get(11) == f"{self._stan:06d}":
            self._network_reply = fields
            self._network_answer.set()

    async def _sign_off(self) -> None:
        try:
            await self._stream.send_all(self._network_request(SIGN_OFF, {}))
        except LINK_ERRORS as fault:
            self.fault = fault
