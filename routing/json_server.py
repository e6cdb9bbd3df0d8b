"""Serves an application as signed JSON over HTTPS: the other end of ``json_link``, in a process of its own.

The application sees a request only when its signature holds, one at a time, in a worker thread, so that its synced
writes do not stop the reading. Every answer to a request that bears a signature is signed and bound to that request;
what precedes one (bytes that are not HTTP) is answered unsigned and closed.
"""

import signal
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Protocol

import msgspec
import structlog
import trio

from fengshou.protocol.backend import JsonApplication, NotServed
from fengshou.protocol.signing import DEADLINE_HEADER, SIGNATURE_HEADER
from fengshou.routing.connect import LINK_ERRORS, Accept
from fengshou.routing.envelope import BodyMalformed, Envelope, SignatureRefused, decode_body, parse_signature
from fengshou.routing.http import HttpFault, HttpRequest, HttpServer
from fengshou.routing.json_connection import JSON_TYPE, RECEIVE_BYTES

Body = Mapping[str, Any]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server bears. The times are seconds."""

    connections: int = 256
    request_bytes: int = 4 * 1024 * 1024  # 256 events of analytics with room to spare
    handshake_s: float = 10.0
    idle_s: float = 600.0  # between requests; a pool keeps its connections
    request_s: float = 10.0  # from the first byte of a request to its last
    send_s: float = 10.0
    drain_s: float = 10.0  # for the requests under way at SIGTERM


class Refusal(Exception):
    """The request is refused with an HTTP status and a response code; nothing was done."""

    def __init__(self, status: int, code: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        return {"code": self.code, "error": str(self)}


class Handler(Protocol):
    """What the server serves. ``answer`` runs in one worker thread, never twice at once."""

    def answer(self, method: str, path: str, body: Body) -> Body:
        """Raises Refusal."""
        ...

    def close(self) -> None: ...


class ApplicationHandler:
    """A ``JsonApplication`` behind POST."""

    def __init__(self, application: JsonApplication) -> None:
        self._application = application
        self.close = application.close

    def answer(self, method: str, path: str, body: Body) -> Body:
        if method != "POST":
            raise Refusal(405, "40", "only POST is served", {"allow": "POST"})
        try:
            return self._application.answer(path, body)
        except NotServed as error:
            raise Refusal(404, "40", "nothing is at this path") from error


class JsonServer:
    """One listening server. The counters are for metrics; they only grow."""

    def __init__(
        self,
        handler: Handler,
        accept: Accept,
        envelope: Envelope,
        limits: Limits | None = None,
        aside: Callable[[Callable[[], Body]], Awaitable[Body]] = trio.to_thread.run_sync,
    ) -> None:
        """``aside`` runs the application while others are heard: in a thread, unless a simulation has its own way."""
        self._handler = handler
        self._aside = aside
        self._accept = accept
        self._envelope = envelope
        self._limits = limits or Limits()
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._idle: set[trio.CancelScope] = set()
        self._draining = False
        self._accepting = trio.CancelScope()
        self._life = trio.CancelScope()
        self.open = self.accepted = self.crowded_out = self.handshakes_failed = 0
        self.answered = self.refused = self.failed = 0

    async def serve(
        self,
        host: str,
        port: int,
        *,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``drain`` is called or the caller cancels. Port 0 takes a free one; the status is the address."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        with self._life:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    task_status.started(listeners[0].socket.getsockname()[:2])
                    await trio.serve_listeners(self.converse, listeners, handler_nursery=connections)

    def drain(self) -> None:
        """Accept nothing more, close what is idle, let requests under way end within ``drain_s``."""
        self._draining = True
        self._accepting.cancel()
        self._life.deadline = trio.current_time() + self._limits.drain_s
        for scope in self._idle:
            scope.cancel()

    async def converse(self, raw: trio.abc.Stream) -> None:
        """One connection from its first byte to its last. What its peer does ends here."""
        if self.open >= self._limits.connections:
            self.crowded_out += 1
            await trio.aclose_forcefully(raw)
            return
        self.open += 1
        self.accepted += 1
        stream = raw
        try:
            try:
                with trio.fail_after(self._limits.handshake_s):
                    stream = await self._accept(raw)
            except LINK_ERRORS:
                self.handshakes_failed += 1
                return
            try:
                await self._requests(stream)
                with trio.move_on_after(self._limits.send_s):
                    await stream.aclose()
            except LINK_ERRORS:
                return
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _requests(self, stream: trio.abc.Stream) -> None:
        http = HttpServer(self._limits.request_bytes)
        last = False
        while not last:
            try:
                request = await self._next_request(stream, http)
            except HttpFault as fault:
                # There may be no whole request, hence no signature to bind an answer to.
                self.refused += 1
                body = msgspec.json.encode(Refusal(fault.status, "30", str(fault)).body)
                await self._send(stream, http.answer(fault.status, {"content-type": JSON_TYPE}, body, last=True))
                return
            if request is None:
                return
            status, headers, body = await self._answer(request)
            last = self._draining
            await self._send(stream, http.answer(status, headers, body, last=last))
            last = last or not http.reusable

    async def _next_request(self, stream: trio.abc.Stream, http: HttpServer) -> HttpRequest | None:
        """The next request; None when there will be none. Raises HttpFault."""
        request = http.request()
        if request is None:
            first = b""
            with trio.move_on_after(self._limits.idle_s) as idle:
                self._idle.add(idle)
                try:
                    first = bytes(await stream.receive_some(RECEIVE_BYTES))
                finally:
                    self._idle.discard(idle)
            if not first:
                return None
            http.feed(first)
            request = http.request()
        with trio.move_on_after(self._limits.request_s):
            while request is None:
                http.feed(bytes(await stream.receive_some(RECEIVE_BYTES)))
                request = http.request()
        if request is None:
            raise HttpFault(408, "request not complete in time")
        return request

    async def _send(self, stream: trio.abc.Stream, data: bytes) -> None:
        with trio.fail_after(self._limits.send_s):
            await stream.send_all(data)

    async def _answer(self, request: HttpRequest) -> tuple[int, dict[str, str], bytes]:
        headers = {"content-type": JSON_TYPE}
        try:
            signature = parse_signature(request.headers.get(SIGNATURE_HEADER.lower()))
        except SignatureRefused as error:
            self.refused += 1
            return 401, headers, msgspec.json.encode(Refusal(401, "63", str(error)).body)
        try:
            status, body = 200, await self._apply(request, signature)
        except Refusal as refusal:
            self.refused += 1
            headers |= refusal.headers
            status, body = refusal.status, msgspec.json.encode(refusal.body)
        headers[SIGNATURE_HEADER] = self._envelope.sign_answer(status, signature, body).hex()
        return status, headers, body

    @asynccontextmanager
    async def _turn(self, request: HttpRequest) -> AsyncIterator[None]:
        """One request at a time. Raises Refusal when its sender has stopped waiting before its turn came."""
        text = request.headers.get(DEADLINE_HEADER.lower(), "")
        wait_s = int(text) / 1000 if text.isascii() and text.isdecimal() and len(text) < 10 else inf
        with trio.move_on_after(wait_s) as waiting:
            await self._one_at_a_time.acquire()
        if waiting.cancelled_caught:
            raise Refusal(503, "96", "its sender has stopped waiting; nothing was done")
        try:
            yield
        finally:
            self._one_at_a_time.release()

    async def _apply(self, request: HttpRequest, signature: bytes) -> bytes:
        """The application's answer. Raises Refusal, of status 500 when the application failed."""
        try:
            self._envelope.verify_request(request.method, request.target, request.body, signature)
            body = decode_body(request.body) if request.body else {}
        except SignatureRefused as error:
            raise Refusal(401, "63", str(error)) from error
        except BodyMalformed as error:
            raise Refusal(400, "30", str(error)) from error
        call = partial(self._handler.answer, request.method, request.target, body)
        try:
            async with self._turn(request):
                answer = msgspec.json.encode(await self._aside(call))
        except Refusal:
            raise
        except Exception as error:
            # One request that the application cannot bear must not end the service of all others.
            self.failed += 1
            # Where, not what: the text of an error and the values of a frame may identify a person.
            *_, frame = traceback.extract_tb(error.__traceback__)
            _log.error("application failed", error=type(error).__name__, at=f"{frame.filename}:{frame.lineno}")
            raise Refusal(500, "06", "the application failed; the outcome is unknown") from error
        self.answered += 1
        return answer


def run_json_server(
    handler: Handler,
    host: str,
    port: int,
    *,
    accept: Accept,
    envelope: Envelope,
    on_ready: Callable[[tuple[str, int]], None],
    limits: Limits | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and close the application. The main of a back end's process."""
    server = JsonServer(handler, accept, envelope, limits)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                on_ready(await nursery.start(server.serve, host, port))
                async for _ in signals:
                    break
            server.drain()

    try:
        trio.run(main)
    finally:
        handler.close()
