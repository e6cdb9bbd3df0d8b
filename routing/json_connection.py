"""One connection to a server of signed JSON, one request at a time, over any stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import trio

from fengshou.protocol.signing import DEADLINE_HEADER, SIGNATURE_HEADER
from fengshou.routing.connect import LINK_ERRORS
from fengshou.routing.envelope import BodyMalformed, Envelope, SignatureRefused, decode_body, parse_signature
from fengshou.routing.http import HttpClient, HttpFault

JSON_TYPE = "application/json"
RECEIVE_BYTES = 16 * 1024  # a TLS record


class Fault(Enum):
    """Why an exchange has no answer that counts."""

    LOST = "the connection broke"
    MALFORMED = "the answer is not HTTP/1.1 with a JSON object"
    FORGED = "the answer is not signed by the peer for this request"


class ExchangeFault(Exception):
    """No answer that counts; the request may have had its effect. The connection is of no more use."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """A verified answer: HTTP status and the JSON object."""

    status: int
    body: Mapping[str, Any]


class JsonConnection:
    """The asking end. ``send`` and ``receive`` alternate, or ``call`` does both.

    Receiving may be cancelled and taken up again, which is how an answer after its deadline is still heard.
    """

    def __init__(self, stream: trio.abc.Stream, authority: str, envelope: Envelope, answer_bytes_max: int) -> None:
        self._stream = stream
        self._envelope = envelope
        self._http = HttpClient(authority, answer_bytes_max)
        self._request_signature = b""

    @property
    def reusable(self) -> bool:
        """Another request may be sent."""
        return self._http.reusable

    async def send(self, method: str, target: str, payload: bytes = b"", deadline_ms: int | None = None) -> None:
        """``payload`` is a JSON object; ``deadline_ms`` is how long an answer is waited for.

        Raises ExchangeFault. Cancelled half way, the connection is of no more use.
        """
        self._request_signature = self._envelope.sign_request(method, target, payload)
        headers = {SIGNATURE_HEADER: self._request_signature.hex(), "accept": JSON_TYPE}
        if payload:
            headers["content-type"] = JSON_TYPE
        if deadline_ms is not None:
            headers[DEADLINE_HEADER] = str(deadline_ms)
        try:
            await self._stream.send_all(self._http.request(method, target, headers, payload))
        except LINK_ERRORS as error:
            raise ExchangeFault(Fault.LOST) from error

    async def receive(self) -> JsonAnswer:
        """The answer to what was sent. Raises ExchangeFault."""
        try:
            while (answer := self._http.answer()) is None:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    raise ExchangeFault(Fault.LOST)
                self._http.feed(bytes(data))
            signature = parse_signature(answer.headers.get(SIGNATURE_HEADER.lower()))
            self._envelope.verify_answer(answer.status, self._request_signature, answer.body, signature)
            return JsonAnswer(answer.status, decode_body(answer.body))
        except LINK_ERRORS as error:
            raise ExchangeFault(Fault.LOST) from error
        except SignatureRefused as error:
            raise ExchangeFault(Fault.FORGED) from error
        except (HttpFault, BodyMalformed) as error:
            raise ExchangeFault(Fault.MALFORMED) from error

    async def call(self, method: str, target: str, payload: bytes = b"") -> JsonAnswer:
        """Send and receive. Raises ExchangeFault."""
        await self.send(method, target, payload)
        return await self.receive()

    async def wait_closed(self) -> None:
        """Return when the peer closes, breaks or speaks unasked while nothing is asked. May be cancelled at will."""
        try:
            await self._stream.receive_some(RECEIVE_BYTES)
        except LINK_ERRORS:
            return

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)
