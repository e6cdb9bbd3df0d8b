"""SM2 signatures (GB/T 32918.2), over the system's libcrypto.

Every function may be called from any thread. The GIL is free while a curve is at work.
"""

from typing import Self

class BadSignature(Exception):
    """A signature does not fit its key and digest, or is not 64 bytes with r and s in 1 .. n-1."""

class BadKey(ValueError):
    """Bytes are no key: a wrong form, a point off the curve, a scalar outside 1 .. n-2."""

def za(point: bytes, signer_id: bytes = ...) -> bytes:
    """The hash that ties a signature to its signer and curve, 32 bytes (GB/T 32918.2 section 5.5).

    ``point`` is 04 || x || y; ``signer_id`` is by default that of GM/T 0009. Whether the point is on the curve is not
    looked at: make a ``PublicKey`` for that. Raises BadKey for another form of point.
    """

class PublicKey:
    """An SM2 public key. Equal and hashed by its point; can be pickled."""

    def __new__(cls, data: bytes) -> Self:
        """From 04 || x || y (65 bytes) or from a SubjectPublicKeyInfo (DER). Raises BadKey.

        The DER form is the one that GM/T 0015 certificates hold: named curve, uncompressed point.
        """

    @property
    def point(self) -> bytes:
        """04 || x || y."""

    @property
    def za(self) -> bytes:
        """``za`` of this key with the identity of GM/T 0009, computed once."""

    @property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo, DER."""

    def verify(self, digest: bytes, signature: bytes) -> None:
        """Check r || s (64 bytes) over e = SM3(ZA || M), 32 bytes. Raises BadSignature."""

class PrivateKey:
    """An SM2 private key in libcrypto's memory, which wipes it. Made by the static methods; cannot be pickled."""

    @staticmethod
    def generate() -> PrivateKey:
        """A new key from libcrypto's generator for private values."""

    @staticmethod
    def from_scalar(scalar: bytes | bytearray | memoryview) -> PrivateKey:
        """From 32 bytes, big-endian, 1 .. n-2. Give a bytearray and wipe it afterwards. Raises BadKey."""

    @staticmethod
    def from_pkcs8(der: bytes | bytearray | memoryview) -> PrivateKey:
        """From an unencrypted PKCS#8 structure, DER; its public key is not trusted but computed. Raises BadKey."""

    @property
    def public_key(self) -> PublicKey: ...
    def to_scalar(self) -> bytes:
        """The scalar in clear. Python cannot wipe it: for wrapping inside ``hsm``, nowhere else."""

    def to_pkcs8(self) -> bytes:
        """PKCS#8 in clear, DER. The same caution holds."""

    def sign(self, digest: bytes) -> bytes:
        """r || s (64 bytes) over e = SM3(ZA || M), 32 bytes, in constant time. Raises ValueError for another length."""
