"""The server end of ISO 8583 links: what the process of an embedded host runs.

It runs on uvloop because that is the cheapest way to serve bytes to one application. Requests of all connections that
arrived while the application was at work are its next batch; it works in one thread of its own, so that its disk never
stops the reading. Network management (0800 and 0820) is answered here; the application sees business only.
"""

import asyncio
import signal
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import structlog
import uvloop

from fengshou.hsm.custody import CustodyError
from fengshou.protocol.backend import Fields, Iso8583Application
from fengshou.protocol.codes import MAC_ERROR, UNSUPPORTED
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.iso8583 import KEY_CHANGE, Codec, HostFormat
from fengshou.protocol.iso8583_mac import SECURITY_CONTROL
from fengshou.routing.iso8583_mac import codecs_for_batches
from fengshou.routing.iso8583_wire import drain, is_network, is_request, network_answer, refusal
from fengshou.routing.zone_keys import ZoneHost

# The most requests in one call of the application: bounds how long the first of them waits for the last.
BATCH_MAX = 1024

# Requests that wait for the application. Beyond it nothing more is read, so the callers' own bounds take effect.
WAITING_MAX = 8192
assert WAITING_MAX > BATCH_MAX

# How long a stop waits for peers to take their last answers.
FLUSH_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


class Iso8583Server:
    """Serves one application on one address."""

    def __init__(
        self,
        application: Iso8583Application,
        host_format: HostFormat,
        zone: ZoneHost | None = None,
        mac: bool = False,
    ) -> None:
        """``zone`` takes the keys that the peer brings; without one it is told that keys are not supported.

        With ``mac`` a message whose MAC does not hold is answered A0 and nothing is done.
        """
        self._application = application
        self._zone = zone
        self._codec_for_batch = codecs_for_batches(host_format, zone if mac else None)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="application")
        self._connections: set[_Connection] = set()
        self._waiting: list[tuple[_Connection, Fields]] = []
        self._work = asyncio.Event()
        self._paused = False  # too many wait; nothing is read
        self._stopping = False
        self.malformed = self.forged = 0

    async def serve(
        self, host: str, port: int, on_ready: Callable[[tuple[str, int]], None], stop: asyncio.Event
    ) -> None:
        """Listen until ``stop`` is set, then answer what has arrived, and close the application.

        ``port`` 0 takes a free one; ``on_ready`` learns the address. Raises OSError when it cannot listen.
        """
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: _Connection(self, self._codec_for_batch), host, port)
        answering = asyncio.create_task(self._answer_batches())
        try:
            address = listener.sockets[0].getsockname()
            on_ready((address[0], address[1]))
            await stop.wait()
        finally:
            listener.close()
            self._stopping = True
            self._work.set()
            for connection in self._connections:
                connection.pause()
            await answering
            await self._close_connections()
            self._worker.shutdown()
            self._application.close()

    def opened(self, connection: "_Connection") -> None:
        self._connections.add(connection)

    def closed(self, connection: "_Connection") -> None:
        self._connections.discard(connection)

    def answer_network(self, request: Fields) -> dict[int, str | bytes]:
        if request.get(70) == KEY_CHANGE:
            return network_answer(request, self._zone.take(request) if self._zone else {39: UNSUPPORTED})
        return network_answer(request)

    def take(self, connection: "_Connection", requests: Sequence[Fields]) -> None:
        """Requests that one read brought."""
        self._waiting.extend((connection, fields) for fields in requests)
        self._work.set()
        if len(self._waiting) > WAITING_MAX and not self._paused:
            self._paused = True
            for each in self._connections:
                each.pause()

    async def _answer_batches(self) -> None:
        """Whatever has gathered is the next batch, until a stop and nothing waits."""
        while self._waiting or not self._stopping:
            if not self._waiting:
                self._work.clear()
                await self._work.wait()
                continue
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            await self._answer(batch)
            if self._paused and not self._stopping and len(self._waiting) <= WAITING_MAX - BATCH_MAX:
                self._paused = False
                for connection in self._connections:
                    connection.resume()

    async def _answer(self, batch: Sequence[tuple["_Connection", Fields]]) -> None:
        requests = [fields for _, fields in batch]
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._worker, self._application.answer, requests)
            frames = self._frames_by_connection(batch, answers)
        except Exception:
            # Nothing is known to be done. Silence lets the callers find out by reversal; an answer would be a guess.
            log.exception("the application failed; a batch stays unanswered", requests=len(requests))
            return
        for connection, parts in frames.items():
            connection.write(b"".join(parts))

    def _frames_by_connection(
        self, batch: Sequence[tuple["_Connection", Fields]], answers: Sequence[Fields | None]
    ) -> Mapping["_Connection", list[bytes]]:
        frames: defaultdict[_Connection, list[bytes]] = defaultdict(list)
        codec = self._codec_for_batch()
        for (connection, request), answer in zip(batch, answers, strict=True):
            if answer is not None:
                frames[connection].append(codec.frame(_under_same_keys(request, answer)))
        return frames

    async def _close_connections(self) -> None:
        closing = list(self._connections)
        for connection in closing:
            connection.close()
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await asyncio.gather(*(connection.gone.wait() for connection in closing))
        except TimeoutError:
            for connection in closing:
                connection.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, server: Iso8583Server, codec_for_batch: Callable[[], Codec]) -> None:
        self._server = server
        self._codec_for_batch = codec_for_batch
        self._buffer = bytearray()
        self._full = False  # the peer does not take its answers
        self._transport: asyncio.Transport
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the face without the base class
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        requests: list[Fields] = []
        codec = self._codec_for_batch()
        try:
            for fields in drain(codec, self._buffer, self._refuse):
                if not is_request(fields):
                    continue  # an answer to nothing we asked
                if is_network(fields):
                    self.write(codec.frame(self._server.answer_network(fields)))
                else:
                    requests.append(fields)
        except UntrustedBytesError as fault:
            self._server.malformed += 1
            log.warning("a peer is not understood and is let go", fault=str(fault))
            self._transport.close()
        if requests:
            self._server.take(self, requests)

    def _refuse(self, forged: Fields) -> None:
        """Not the application's business. The answer is authentic, as far as the request names a key that is known."""
        self._server.forged += 1
        if not is_request(forged):
            return
        log.warning("a message was altered on its way, or comes from a stranger")
        try:
            self.write(self._codec_for_batch().frame(_under_same_keys(forged, refusal(forged, MAC_ERROR))))
        except CustodyError:
            self._transport.close()

    def pause_writing(self) -> None:
        self._full = True
        self.pause()

    def resume_writing(self) -> None:
        self._full = False
        self.resume()

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._full and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close when all that was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


def _under_same_keys(request: Fields, answer: Fields) -> Fields:
    """An answer says which keys its request named, so that both are of one epoch."""
    control = request.get(SECURITY_CONTROL)
    return answer if control is None else {**answer, SECURITY_CONTROL: control}


def run_iso8583_server(
    application: Iso8583Application,
    host: str,
    port: int,
    on_ready: Callable[[tuple[str, int]], None],
    *,
    host_format: HostFormat | None = None,
    zone: ZoneHost | None = None,
    mac: bool = False,
) -> None:
    """Serve in this process until SIGTERM or SIGINT, then end in good order: every request that arrived is answered.

    ``port`` 0 takes a free one; ``on_ready`` learns the address. Raises OSError when it cannot listen.
    """

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Iso8583Server(application, host_format or HostFormat(), zone, mac).serve(host, port, on_ready, stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
