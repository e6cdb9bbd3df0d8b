"""Filters: the compiled twin and the readable one fill the same pages, and what was added is never denied."""

from importlib.machinery import EXTENSION_SUFFIXES
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.codecs import Bloom, _bloom
from fengshou.protocol.bloom import PAGE_BYTES, filter_of, pages_for, place

VALUES = st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=50)


def test_the_compiled_twin_is_loaded() -> None:
    assert _bloom.__file__ is not None
    assert _bloom.__file__.endswith(tuple(EXTENSION_SUFFIXES))


@given(values=VALUES, column=st.integers(0, 255), pages=st.integers(1, 50), gap=st.integers(0, 5))
def test_the_twins_fill_the_same_pages(values: list[bytes], column: int, pages: int, gap: int) -> None:
    bloom = Bloom(pages)
    bloom.add_column(column, b"head" + b"".join(value + bytes(gap) for value in values), 4, 8, 8 + gap, len(values))
    assert bloom.pages() == filter_of([(column, value) for value in values], pages)


@given(values=VALUES)
def test_a_pair_is_its_two_values_side_by_side(values: list[bytes]) -> None:
    """A pair of 6 and 2 bytes out of two columns."""
    left, right = (b"".join(value[part] for value in values) for part in (slice(0, 6), slice(6, 8)))
    bloom = Bloom(3)
    bloom.add_pairs(7, left + right, 0, 6, len(left), 2, len(values))
    assert bloom.pages() == filter_of([(7, value) for value in values], 3)


def test_what_is_there_is_never_denied_and_what_is_not_nearly_always() -> None:
    chance = Random(1)
    values = [chance.randbytes(8) for _ in range(30_000)]
    bloom = Bloom(pages_for(len(values)))
    bloom.add_column(1, b"".join(values), 0, 8, 8, len(values))
    pages = bloom.pages()

    def perhaps(column: int, value: bytes) -> bool:
        where = place(column, value, len(pages))
        return where.may_be_in(pages[where.page])

    assert all(perhaps(1, value) for value in values)
    assert sum(perhaps(1, chance.randbytes(8)) for _ in range(3000)) < 90
    assert sum(perhaps(2, value) for value in values[:3000]) < 90, "of another column"


@pytest.mark.parametrize(
    ("begin", "width", "stride", "count"), [(-1, 8, 8, 1), (0, 8, 8, 3), (17, 8, 8, 1), (0, -8, 8, 1), (9, 8, -8, 2)]
)
def test_values_outside_of_the_data_are_refused(begin: int, width: int, stride: int, count: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        Bloom(1).add_column(0, bytes(20), begin, width, stride, count)
    with pytest.raises(ValueError, match="outside"):
        Bloom(1).add_pairs(0, bytes(20), begin, width, 0, stride, count)


def test_a_page_of_a_wrong_length_denies_nothing() -> None:
    where = place(1, b"value", 1)
    assert not where.may_be_in(bytes(PAGE_BYTES))
    assert where.may_be_in(bytes(PAGE_BYTES - 1))
    with pytest.raises(ValueError, match="a page at least"):
        Bloom(0)
