"""Bloom filters in pages: whether a value may stand among many, by reading one page (Bloom 1970; Putze et al. 2007).

A value's bits all lie on one page, which its hash chooses, so a question reads one page of the disk, however large the
filter is. A filter says "no" with certainty and "perhaps" wrongly in about one of a hundred questions. This is the
readable twin of ``codecs.Bloom``, which fills the pages; questions are asked here.

    hash     FNV-1a (64 bits) over a column's number (1 byte) and the value, then the finaliser of MurmurHash3
    page     the hash's high 32 bits, scaled to the number of pages
    bits     two of 15 bits from its low end, four from a second finaliser over hash + 2^64/phi, each scaled to a page
"""

from collections.abc import Sequence
from dataclasses import dataclass

# One row of an LMDB table on one overflow page: 4,096 bytes less its head of 16.
PAGE_BYTES = 4080
_PAGE_BITS = PAGE_BYTES * 8
_SLOTS = 6
# Of a page, for each value that a filter is made for: about 1 % of answers are "perhaps" for nothing.
BITS_A_VALUE = 10

_MASK = (1 << 64) - 1
_FNV_BASE, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_GOLDEN = 0x9E3779B97F4A7C15


def pages_for(values: int) -> int:
    """How many pages a filter for so many values has."""
    return max(1, -(-values * BITS_A_VALUE // _PAGE_BITS))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bits of a value are."""

    page: int
    bits: tuple[int, ...]

    def may_be_in(self, page: bytes) -> bool:
        """Whether all bits stand in the page's bytes; damage to the page's length counts as perhaps."""
        return len(page) != PAGE_BYTES or all(page[bit >> 3] >> (bit & 7) & 1 for bit in self.bits)


def place(column: int, value: bytes, pages: int) -> Place:
    """Where a value of a column stands in a filter of so many pages."""
    first = _FNV_BASE
    for byte in (column, *value):
        first = (first ^ byte) * _FNV_PRIME & _MASK
    first = _finalised(first)
    second = _finalised(first + _GOLDEN & _MASK)
    slots = [first & 0x7FFF, first >> 15 & 0x7FFF, *(second >> 15 * at & 0x7FFF for at in range(_SLOTS - 2))]
    return Place((first >> 32) * pages >> 32, tuple(slot * _PAGE_BITS >> 15 for slot in slots))


def filter_of(values: Sequence[tuple[int, bytes]], pages: int) -> list[bytes]:
    """The pages of a filter that holds these values, each with its column."""
    filled = [bytearray(PAGE_BYTES) for _ in range(pages)]
    for column, value in values:
        where = place(column, value, pages)
        for bit in where.bits:
            filled[where.page][bit >> 3] |= 1 << (bit & 7)
    return [bytes(page) for page in filled]


def _finalised(word: int) -> int:
    """fmix64 of MurmurHash3 (Appleby), public domain."""
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & _MASK
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return word ^ word >> 33
