"""SM3 (GB/T 32905), over the system's libcrypto. Every function may be called from any thread."""

from collections.abc import Iterable

def sm3(data: bytes) -> bytes:
    """The digest, 32 bytes (GB/T 32905)."""

def sm3_many(items: Iterable[bytes]) -> list[bytes]:
    """The digest of each item, with one release of the GIL for all."""

def hmac_sm3(key: bytes, data: bytes) -> bytes:
    """The authentication code, 32 bytes (GM/T 0042)."""
