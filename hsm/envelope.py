"""SM2 ciphertexts by their parts: DER of GM/T 0009 section 7.2, C1 C3 C2 of GB/T 32918.4."""

from dataclasses import dataclass
from typing import Any

from asn1crypto import core

from fengshou.hsm.custody import WrappedKeyError


@dataclass(frozen=True, slots=True)
class Envelope:
    """C1 = x || y, C3 the digest, C2 the hidden data, as long as what it hides."""

    x: bytes
    y: bytes
    digest: bytes
    data: bytes


class _Ciphertext(core.Sequence):  # type: ignore[misc]
    _fields: list[Any] = [  # noqa: RUF012
        ("x", core.Integer),
        ("y", core.Integer),
        ("hash", core.OctetString),
        ("cipher", core.OctetString),
    ]


def parse_envelope(der: bytes) -> Envelope:
    """Raises WrappedKeyError: not such a ciphertext. Whether the point is on the curve is for who opens it."""
    try:
        parts = _Ciphertext.load(der, strict=True)
        x, y = (int(parts[name].native).to_bytes(32, "big") for name in ("x", "y"))
        digest, data = bytes(parts["hash"].native), bytes(parts["cipher"].native)
    except (ValueError, TypeError, OverflowError):
        raise WrappedKeyError("not an SM2 envelope") from None
    if len(digest) != 32:
        raise WrappedKeyError("not an SM2 envelope")
    return Envelope(x, y, digest, data)


def dump_envelope(envelope: Envelope) -> bytes:
    x, y = int.from_bytes(envelope.x, "big"), int.from_bytes(envelope.y, "big")
    return bytes(_Ciphertext({"x": x, "y": y, "hash": envelope.digest, "cipher": envelope.data}).dump())
