"""Signs what we say over HTTPS and checks what the peer says: the SM2 signatures of ``protocol.signing``."""

from collections.abc import Callable, Iterable
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

    def __init__(
        self, custody: Custody, label: str, peers: Iterable[PublicKey],
        look_again: Callable[[], Iterable[PublicKey] | None] = lambda: None,
    ) -> None:  # fmt: skip
        """``label`` names our signing key in ``custody``; ``peers`` are the keys of all current epochs of the peer.

        ``look_again`` is asked when a signature is of none of them: the peer may have a new key. None: nothing new.
        """
        self._custody = custody
        self._label = label
        self.peers = tuple(peers)
        self._look_again = look_again
        if not self.peers:
            raise ValueError("no peer key: nothing could ever be verified")

    def _sign(self, message: bytes) -> bytes:
        epoch = self._custody.key(self._label).epoch  # asked for once: digest and signature must be of the same key
        za = self._custody.public_key(self._label, epoch).za
        return self._custody.sign(self._label, sm3(za + message), epoch)

    def _verify(self, message: bytes, signature: bytes) -> None:
        if _fits_one(self.peers, message, signature):
            return
        again = tuple(self._look_again() or ())
        if again:
            self.peers = again
            if _fits_one(again, message, signature):
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


def _fits_one(keys: Iterable[PublicKey], message: bytes, signature: bytes) -> bool:
    for key in keys:
        try:
            key.verify(sm3(key.za + message), signature)
        except BadSignature:
            continue
        return True
    return False
