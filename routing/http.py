"""HTTP/1.1 without I/O: both ends of a connection that carries one small request at a time (RFC 9112 by h11).

Bytes go in, whole messages come out, bounded in size. The shells are ``json_connection`` and ``json_server``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import h11

# Our header blocks are below 400 bytes; a foreign gateway may add cookies and traces.
HEADER_BYTES_MAX = 16 * 1024

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """``headers`` has lower-case names; of a repeated header the last one."""

    method: str
    target: str
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    headers: Headers
    body: bytes


class HttpFault(Exception):
    """The peer broke HTTP or a limit. ``status`` is what a server says to it. The text never holds its bytes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _headers(raw: h11.Request | h11.Response) -> dict[str, str]:
    return {name.decode("ascii"): value.decode("latin-1") for name, value in raw.headers}


class _End:
    """What both ends share: reading one message of bounded size."""

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], body_bytes_max: int) -> None:
        self._http = h11.Connection(our_role=role, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._body_bytes_max = body_bytes_max
        self._head: h11.Request | h11.Response | None = None
        self._body = bytearray()

    @property
    def reusable(self) -> bool:
        """The next exchange may follow on this connection."""
        return self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE

    def feed(self, data: bytes) -> None:
        """Bytes of the peer; none at all mean that it will send no more. Raises HttpFault."""
        try:
            self._http.receive_data(data)
        except h11.RemoteProtocolError as fault:
            raise HttpFault(400, "bytes after the end") from fault

    def _read(self) -> bool:
        """Whether a message is complete in ``_head`` and ``_body``."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as fault:
                raise HttpFault(fault.error_status_hint, "not HTTP/1.1") from fault
            match event:
                case h11.Request() | h11.Response():
                    self._head = event
                    self._body.clear()
                    # A declared length is refused before the body is read; h11 has checked that it is a number.
                    if int(_headers(event).get("content-length", "0")) > self._body_bytes_max:
                        raise HttpFault(413, "body too long")
                case h11.Data():
                    self._body += event.data
                    if len(self._body) > self._body_bytes_max:
                        raise HttpFault(413, "body too long")
                case h11.EndOfMessage():
                    return True
                case h11.InformationalResponse():
                    continue
                case h11.ConnectionClosed():
                    raise HttpFault(400, "closed before a message")
                case _:  # NEED_DATA, or PAUSED behind an exchange that is not over
                    return False

    def _next_cycle(self) -> None:
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()


class HttpClient(_End):
    """The asking end."""

    def __init__(self, authority: str, answer_bytes_max: int) -> None:
        """``authority`` is the Host header, name and port of the server."""
        super().__init__(h11.CLIENT, answer_bytes_max)
        self._authority = authority

    def request(self, method: str, target: str, headers: Headers, body: bytes) -> bytes:
        """The bytes of the next request; the exchange before it is over."""
        head = {"host": self._authority, **headers, "content-length": str(len(body))}
        return b"".join(
            self._http.send(event) or b""
            for event in (
                h11.Request(method=method, target=target, headers=list(head.items())),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
        )

    def answer(self) -> HttpAnswer | None:
        """The answer when it is complete. Raises HttpFault."""
        if not self._read():
            return None
        assert isinstance(self._head, h11.Response)
        answer = HttpAnswer(self._head.status_code, _headers(self._head), bytes(self._body))
        self._next_cycle()
        return answer


class HttpServer(_End):
    """The answering end."""

    def __init__(self, request_bytes_max: int) -> None:
        super().__init__(h11.SERVER, request_bytes_max)

    def request(self) -> HttpRequest | None:
        """The next request when it is complete. Raises HttpFault."""
        if not self._read():
            return None
        assert isinstance(self._head, h11.Request)
        method, target = self._head.method.decode("ascii"), self._head.target.decode("ascii")
        return HttpRequest(method, target, _headers(self._head), bytes(self._body))

    def answer(self, status: int, headers: Headers, body: bytes, *, last: bool) -> bytes:
        """The bytes of an answer; empty when the peer is past hearing one. ``last`` closes the connection after it."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        head = {**headers, "content-length": str(len(body))}
        if last:
            head["connection"] = "close"
        data = b"".join(
            self._http.send(event) or b""
            for event in (
                h11.Response(status_code=status, headers=list(head.items())),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
        )
        self._next_cycle()
        return data
