"""Signs what we say over HTTPS and checks what the peer says: the SM2 signatures of ``protocol.signing``."""

from collections.abc import Iterable
from typing import Any

import msgspec

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm.custody import Custody
from fengshou.protocol.limits import SIGNATURE_BYTES
from fengshou.protocol.signing import json_answer_message, json_request_message


class SignatureRefused(Exception):
    """A signature is missing, malformed, or not one of a known peer over this content."""


def parse_signature(header: str | None) -> bytes:
    """r || s from the signature header. Raises SignatureRefused."""
    try:
        signature = bytes.fromhex(header or "")
    except ValueError:
        signature = b""
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureRefused("signature missing or malformed")
    return signature


class BodyMalformed(Exception):
    """A body is not a JSON object in UTF-8."""


def decode_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a peer's body. Raises BodyMalformed."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BodyMalformed("not a JSON object") from error


class Envelope:
    """One side of a signed conversation: our key, and the keys that the other side may sign with."""

    def __init__(self, custody: Custody, label: str, peers: Iterable[PublicKey]) -> None:
        """``label`` names our signing key in ``custody``; ``peers`` are the keys of all current epochs of the peer."""
        self._custody = custody
        self._label = label
        self.peers = tuple(peers)
        if not self.peers:
            raise ValueError("no peer key: nothing could ever be verified")

    def _sign(self, message: bytes) -> bytes:
        za = self._custody.public_key(self._label).za
        return self._custody.sign(self._label, sm3(za + message))

    def _verify(self, message: bytes, signature: bytes) -> None:
        for key in self.peers:
            try:
                key.verify(sm3(key.za + message), signature)
            except BadSignature:
                continue
            return
        raise SignatureRefused("signature of no known peer over this content")

    def sign_request(self, method: str, target: str, body: bytes) -> bytes:
        return self._sign(json_request_message(method, target, sm3(body)))

    def verify_request(self, method: str, target: str, body: bytes, signature: bytes) -> None:
        """Raises SignatureRefused."""
        self._verify(json_request_message(method, target, sm3(body)), signature)

    def sign_answer(self, status: int, request_signature: bytes, body: bytes) -> bytes:
        return self._sign(json_answer_message(status, request_signature, sm3(body)))

    def verify_answer(self, status: int, request_signature: bytes, body: bytes, signature: bytes) -> None:
        """Raises SignatureRefused, also for a true answer to any other request."""
        self._verify(json_answer_message(status, request_signature, sm3(body)), signature)
