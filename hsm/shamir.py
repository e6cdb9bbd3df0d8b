"""Shamir's secret sharing over GF(256): any ``needed`` of the shares give the secret, fewer give nothing at all.

Each byte of the secret is the value at 0 of a random polynomial of its own, of degree ``needed - 1``; share x holds the
values at x. The field is that of AES, x^8 + x^4 + x^3 + x + 1 (FIPS 197 section 4.2). Our own code, because it is one
screen, and the packages that exist bring a format, a word list or a dependency that custodians would have to trust too.

Multiplication runs without tables and branches, so that time and cache say nothing of the secret. A wrong share gives a
wrong secret and no error: whoever combines must hold a check value.
"""

import secrets
from collections.abc import Mapping

SHARES_MAX = 255  # x is a byte, and 0 is where the secret lies


def split(secret: bytes | bytearray | memoryview, needed: int, shares: int) -> dict[int, bytes]:
    """Shares 1 .. ``shares`` by their x, each as long as the secret. Raises ValueError for an impossible quorum."""
    if not 2 <= needed <= shares <= SHARES_MAX:
        raise ValueError(f"{needed} of {shares} is no quorum: 2 <= needed <= shares <= {SHARES_MAX}")
    # The polynomials' coefficients by falling degree, a row for each power; the secret is the last row.
    rows = [secrets.token_bytes(len(secret)) for _ in range(needed - 1)]
    return {x: _evaluate([*rows, bytes(secret)], x) for x in range(1, shares + 1)}


def combine(shares: Mapping[int, bytes]) -> bytearray:
    """The secret of at least as many shares as are needed. Raises ValueError when they cannot belong together."""
    sizes = {len(share) for share in shares.values()}
    if len(shares) < 2 or len(sizes) != 1 or not all(1 <= x <= SHARES_MAX for x in shares):
        raise ValueError("shares are at least two, of one length, numbered 1 to 255")
    secret = bytearray(sizes.pop())
    for x, share in shares.items():
        # Lagrange's polynomial of x, at 0; in this field minus is plus.
        weight = 1
        for other in shares:
            if other != x:
                weight = multiply(weight, multiply(other, invert(other ^ x)))
        for at, value in enumerate(share):
            secret[at] ^= multiply(weight, value)
    return secret


def _evaluate(rows: list[bytes], x: int) -> bytes:
    value = bytearray(len(rows[0]))
    for row in rows:  # Horner's rule
        for at, coefficient in enumerate(row):
            value[at] = multiply(value[at], x) ^ coefficient
    return bytes(value)


def multiply(a: int, b: int) -> int:
    product = 0
    for _ in range(8):
        product ^= -(b & 1) & a
        b >>= 1
        a = (a << 1) ^ (-(a >> 7) & 0x11B)
    return product


def invert(a: int) -> int:
    """a to the power 254, which is 1 / a."""
    result = 1
    for _ in range(7):  # 254 = 2 + 4 + … + 128
        a = multiply(a, a)
        result = multiply(result, a)
    return result
