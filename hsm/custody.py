"""The one interface to keys: by label, never by key bytes.

A label names a key for one purpose (``switch.sign``, ``journal.data`` …); the provider knows its epochs. Every sealed
value and every signature can be traced to the epoch that made it. Providers pass one contract test suite.
"""

from typing import Protocol

from OpenSSL import SSL

from fengshou.codecs import PublicKey

# The switch's keys, each for one use.
SWITCH_SIGN = "switch.sign"  # SM2: journal roots, bodies to back ends
SWITCH_TLS = "switch.tls"  # SM2: the channel, both as server to terminals and as client of back ends
JOURNAL_DATA = "journal.data"  # SM4: C2 data at rest
PSEUDONYM = "pseudonym"  # HMAC-SM3: stable keyed hashes of identifiers


class CustodyError(Exception):
    """A key is missing, unusable or protected badly. The text says which label and what to do, never key material."""


class SealBroken(CustodyError):
    """A sealed value was altered, belongs to another context, or was sealed under a key that is gone."""


class Custody(Protocol):
    """Any thread may call these. CustodyError says that the label has no key, or one of another kind."""

    def public_key(self, label: str) -> PublicKey:
        """The SM2 public key at ``label``."""
        ...

    def sign(self, label: str, digest: bytes) -> bytes:
        """r || s (64 bytes) over a 32-byte digest, which already contains ZA; see ``protocol.signing``."""
        ...

    def mac(self, label: str, data: bytes) -> bytes:
        """HMAC-SM3, 32 bytes (GM/T 0042)."""
        ...

    def seal(self, label: str, data: bytes, context: bytes) -> bytes:
        """SM4-GCM: epoch (1 byte), nonce (12), ciphertext, tag (16). ``context`` is authenticated, not stored."""
        ...

    def open(self, label: str, sealed: bytes, context: bytes) -> bytes:
        """The data that ``seal`` hid. Raises SealBroken."""
        ...

    def arm(self, label: str, context: SSL.Context) -> None:
        """Put the private key at ``label`` into a TLS context. The certificate is the caller's business."""
        ...
