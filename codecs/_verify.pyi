"""Many SM2 signatures at once (GB/T 32918.2 section 7), by fixed-base tables of each key.

``PublicKey.verify`` is libcrypto's judgement of one; the two agree on every input, and tests hold them to it.
Verification handles public data only and takes a time that depends on it.
"""

from collections.abc import Iterable

from fengshou.codecs._sm2 import PublicKey

TABLES_MAX_DEFAULT: int

def verify_batch(items: Iterable[tuple[PublicKey, bytes, bytes]]) -> list[bool]:
    """Of each key, digest and signature r || s, whether the signature holds; the GIL is released once for all.

    A digest or signature of a wrong length is False. Raises TypeError for an item that is something else.
    """

def keep_tables(most: int) -> None:
    """Keep at most so many keys' tables, 88 KB each; those not used for longest go. Raises ValueError below 1."""

def tables_kept() -> int:
    """How many tables are in memory."""

def paths() -> list[str]:
    """The ways to compute that this processor has; they agree on every input. The fastest is taken at the start.

    ``portable`` is C for any processor of 64 bits, ``mulx`` is for x86-64 with BMI2 and ADX, ``lanes`` is for AVX-512
    IFMA. ``lanes-in-c`` is the arithmetic of ``lanes`` on any processor, slow, for tests.
    """

def path_taken() -> str:
    """The way that is taken."""

def take_path(name: str) -> None:
    """Compute so from now on; for tests and benchmarks. Raises ValueError for one that this processor has not."""
