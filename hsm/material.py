"""What software computes with: an SM2 key in libcrypto's memory, or the bytes of a symmetric key on a locked page."""

from fengshou.codecs import BadKey, PrivateKey, hmac_sm3, sm3
from fengshou.hsm import sm4
from fengshou.hsm.custody import CustodyError, Kind
from fengshou.hsm.memory import Secret, wipe

Material = PrivateKey | Secret

SM2_KINDS = frozenset({Kind.SM2, Kind.ENVELOPE})
SYMMETRIC_KINDS = frozenset(Kind) - SM2_KINDS


def key_bytes(kind: Kind) -> int:
    """How long a symmetric key of this kind is. HMAC-SM3 keys are as long as the digest (RFC 2104 section 3)."""
    return 32 if kind is Kind.HMAC else sm4.KEY_BYTES


def generate(kind: Kind) -> Material:
    return PrivateKey.generate() if kind in SM2_KINDS else Secret.random(key_bytes(kind))


def check_value(kind: Kind, material: Material) -> bytes:
    """As ``custody.KeyInfo`` says."""
    if isinstance(material, PrivateKey):
        return sm3(material.public_key.point)[: sm4.CHECK_VALUE_BYTES]
    if kind is Kind.HMAC:
        return hmac_sm3(bytes(material.view), bytes(sm4.BLOCK_BYTES))[: sm4.CHECK_VALUE_BYTES]
    return sm4.check_value(material.view)


def to_bytes(material: Material) -> bytearray:
    """The key in clear, to be sealed; wipe it."""
    return bytearray(material.to_scalar() if isinstance(material, PrivateKey) else material.view)


def from_bytes(kind: Kind, data: bytes | bytearray | memoryview) -> Material:
    """What ``to_bytes`` wrote; wipes ``data`` when it is a bytearray. Raises CustodyError when it is no such key."""
    try:
        if kind in SM2_KINDS:
            return PrivateKey.from_scalar(data)
        if len(data) != key_bytes(kind):
            raise CustodyError(f"a key of kind {kind.name} has {key_bytes(kind)} bytes")
        return Secret(data)
    except BadKey:
        raise CustodyError("the scalar of an SM2 key is out of range") from None
    finally:
        if isinstance(data, bytearray):
            wipe(data)
