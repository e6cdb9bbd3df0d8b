"""SM2 and SM3 as the switch uses them, beside another implementation and beside P-256, what other countries use."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Any

import gmssl_pyx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from gmssl import sm2 as gmssl_sm2
from gmssl import sm3 as gmssl_sm3

from bench import purchase
from bench.figures import Figure
from bench.measure import cpu_us
from fengshou.codecs import MessageCodec, PrivateKey, PublicKey, sm3, verify_batch
from fengshou.codecs._verify import path_taken

_BATCH = 64


# As many terminals as a worker keeps tables for, near enough: their tables are in no cache.
_KEYS = 2000
_SIZES = (1, 4, 16, 64)

# 40,000 a second, or 150,000 where the processor multiplies eight lanes of 52 bits at once; and 100,000 with many keys.
_IN_LANES = path_taken() == "lanes"
_AIMS_US = {
    "verify.batch": 1e6 / (150_000 if _IN_LANES else 40_000),
    f"verify.keys.{_SIZES[-1]}": 1e6 / (150_000 if _IN_LANES else 100_000),
}


def gmssl_of(key: PrivateKey) -> Any:
    peer = gmssl_sm2.CryptSM2(key.to_scalar().hex(), "")
    peer.public_key = key.public_key.point[1:].hex()  # the constructor strips leading 0 and 4 of the point
    return peer


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to measure; a call of ``run`` does it ``count`` times."""

    key: str
    what: str
    run: Callable[[], object]
    peer: str = ""
    count: int = 1


def keys_in_turn(digest: bytes) -> list[Work]:
    """Batches of several sizes, in which no key comes again before all others have."""
    signed: list[tuple[PublicKey, bytes, bytes]] = []
    for _ in range(_KEYS):
        key = PrivateKey.generate()
        signed.append((key.public_key, digest, key.sign(digest)))
    assert all(verify_batch(signed))
    Random(_KEYS).shuffle(signed)

    def of(size: int) -> Work:
        batches = cycle([signed[at : at + size] for at in range(0, _KEYS - size + 1, size)])
        what = f"SM2 verify, {_KEYS:,} keys in turn, in a batch of {size}"
        return Work(f"verify.keys.{size}", what, lambda: verify_batch(next(batches)), "verify", size)

    return [of(size) for size in _SIZES]


def works() -> list[Work]:
    codec = MessageCodec(purchase.GRAMMAR)
    sample, binding = purchase.message(), bytes(32)
    key = PrivateKey.generate()
    public = key.public_key
    za = public.za
    digest = codec.digest(za, binding, sample, purchase.IMPLIED)
    signature = key.sign(digest)
    batch = [(public, digest, signature)] * _BATCH
    assert all(verify_batch(batch))

    gmssl = gmssl_of(key)
    nonce, signed = sm3(digest).hex(), signature.hex()
    assert gmssl.verify(signed, digest)

    gmssl_key = public.point[1:]
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    assert gmssl_pyx.sm2_verify_sm3_digest(gmssl_key, digest, der)

    p256 = ec.generate_private_key(ec.SECP256R1())
    p256_public, algorithm = p256.public_key(), ec.ECDSA(hashes.SHA256())
    p256_signature = p256.sign(digest, algorithm)

    data = bytes(range(256))
    return [
        Work("verify", "SM2 verify, one, libcrypto", lambda: public.verify(digest, signature), "p256.verify"),
        Work("verify.batch", f"SM2 verify, in a batch of {_BATCH}", lambda: verify_batch(batch), "verify", _BATCH),
        *keys_in_turn(digest),
        Work("verify.gmssl", "SM2 verify, gmssl", lambda: gmssl.verify(signed, digest), "verify"),
        Work(
            "verify.gmssl-pyx",
            "SM2 verify, GmSSL by gmssl-pyx",
            lambda: gmssl_pyx.sm2_verify_sm3_digest(gmssl_key, digest, der),
            "verify.batch",
        ),
        Work("p256.verify", "P-256 verify", lambda: p256_public.verify(p256_signature, digest, algorithm)),
        Work("sign", "SM2 sign", lambda: key.sign(digest), "p256.sign"),
        Work("sign.gmssl", "SM2 sign, gmssl", lambda: gmssl.sign(digest, nonce), "sign"),
        Work("p256.sign", "P-256 sign", lambda: p256.sign(digest, algorithm)),
        Work("digest", "digest that is signed", lambda: codec.digest(za, binding, sample, purchase.IMPLIED)),
        Work("sm3", "SM3 of 256 bytes", lambda: sm3(data), "sha256"),
        Work("sm3.gmssl", "SM3 of 256 bytes, gmssl", lambda: gmssl_sm3.sm3_hash(list(data)), "sm3"),
        Work("sm3.gmssl-pyx", "SM3 of 256 bytes, gmssl-pyx", lambda: gmssl_pyx.sm3_hash(data), "sm3"),
        Work("sha256", "SHA-256 of 256 bytes, hashlib", lambda: hashlib.sha256(data).digest()),
    ]


def figures(seconds: float) -> list[Figure]:
    return [
        Figure(
            key=f"signature.{work.key}.cpu",
            what=work.what,
            value=cpu_us(work.run, seconds, work.count),
            unit="µs",
            peer=f"signature.{work.peer}.cpu" if work.peer else "",
            aim=_AIMS_US.get(work.key),
        )
        for work in works()
    ]
