"""The pieces of which SM2 certificates, requests and lists are made: algorithm names, signatures, dates, extensions."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

from asn1crypto import algos, core, keys, x509

from fengshou.codecs import BadSignature, PublicKey, sm3

# GB/T 33560 and GM/T 0006.
OID_SM2_WITH_SM3 = "1.2.156.10197.1.501"


class CertificateError(Exception):
    """A certificate, request or list is malformed, does not verify, or breaks the rules of its profile."""


class Signer(Protocol):
    """An SM2 key that can be used but need not be seen; ``codecs.PrivateKey`` is one."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, digest: bytes) -> bytes: ...


def extension(kind: str, value: Any, *, critical: bool = False) -> x509.Extension:
    return x509.Extension({"extn_id": kind, "critical": critical, "extn_value": value})


def encode_time(moment: datetime) -> x509.Time:
    # RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
    return x509.Time(name="utc_time" if moment.year < 2050 else "general_time", value=moment)


def sm2_with_sm3() -> algos.SignedDigestAlgorithm:
    return algos.SignedDigestAlgorithm({"algorithm": OID_SM2_WITH_SM3})


def public_key_info(key: PublicKey) -> keys.PublicKeyInfo:
    return keys.PublicKeyInfo.load(key.spki)


def sign(signer: Signer, body: core.Asn1Value) -> bytes:
    signature = signer.sign(sm3(signer.public_key.za + body.dump()))
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    return bytes(algos.DSASignature({"r": r, "s": s}).dump())


def verify(key: PublicKey, body: core.Asn1Value, algorithm: Any, value: core.OctetBitString) -> None:
    if algorithm["algorithm"].dotted != OID_SM2_WITH_SM3:
        raise CertificateError("not signed with SM2 and SM3")
    if value.contents[:1] != b"\x00":  # the count of unused bits: whole bytes, or one signature has several encodings
        raise CertificateError("the signature is not whole bytes")
    pair = algos.DSASignature.load(value.contents[1:], strict=True)
    try:
        signature = b"".join(int(pair[half].native).to_bytes(32, "big") for half in ("r", "s"))
        key.verify(sm3(key.za + body.dump()), signature)
    except (OverflowError, BadSignature):
        raise CertificateError("the signature does not verify") from None


@contextmanager
def untrusted(what: str) -> Iterator[None]:
    """What asn1crypto raises over a stranger's bytes becomes CertificateError; it parses late, so anywhere inside."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # asn1crypto explains itself over several lines; the first one names what is wrong.
        reason = (str(error).splitlines() or ["malformed"])[0]
        raise CertificateError(f"not {what}: {reason}") from None
