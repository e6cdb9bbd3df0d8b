"""The records of a commit in one compiled pass, against the readable twin that says what the bytes are."""

import struct
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.codecs import _records, pack_records, pack_row
from fengshou.protocol.record import RECORD, Record, RecordKind, parse_record
from fengshou.switch.journal import columns

RECORD_OF_ALL = Record(
    RecordKind.OUTCOME, 2**64 - 1, 2**64 - 2, 2**32 - 1, 2**64 - 3, 255, "T2345678", "M23456789012345", 2**32 - 2,
    2**32 - 3, 2**64 - 4, "ZZ", bytes(range(32)), b"e" * 255, b"c" * 65_535, b"s" * 65_535,
)  # fmt: skip


def ascii_of(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(max_codepoint=127), max_size=size)


records = st.builds(
    Record,
    kind=st.sampled_from(RecordKind),
    number=st.integers(0, 2**64 - 1),
    time_us=st.integers(0, 2**64 - 1),
    business_day=st.integers(0, 2**32 - 1),
    rrn=st.integers(0, 2**64 - 1),
    template=st.integers(0, 255),
    terminal=ascii_of(8),
    merchant=ascii_of(15),
    batch=st.integers(0, 2**32 - 1),
    stan=st.integers(0, 2**32 - 1),
    refers=st.integers(0, 2**64 - 1),
    code=st.text("0123456789AZ ", min_size=2, max_size=2),
    content=st.binary(min_size=32, max_size=32),
    evidence=st.binary(max_size=255),
    clear=st.binary(max_size=600),
    sealed=st.binary(max_size=600),
)


def test_the_compiled_module_is_loaded() -> None:
    assert _records.__file__ is not None
    assert _records.__file__.endswith(tuple(EXTENSION_SUFFIXES))


@given(st.lists(records, max_size=5))
def test_records_are_packed_as_the_twin_packs_them(some: list[Record]) -> None:
    assert pack_records(some) == [record.to_bytes() for record in some]


@given(st.lists(records, min_size=1, max_size=5))
def test_columns_are_packed_as_the_twin_packs_them(some: list[Record]) -> None:
    assert pack_row(some) == columns.pack_columns(some)


def test_every_column_holds_its_largest_value() -> None:
    (packed,) = pack_records([RECORD_OF_ALL])
    assert packed == RECORD_OF_ALL.to_bytes()
    assert parse_record(packed) == RECORD_OF_ALL
    assert RECORD.parse(packed).sealed == RECORD_OF_ALL.sealed


# fmt: off
UNFIT: list[tuple[str, Any]] = [
    ("kind",         256),
    ("number",       2**64),
    ("time_us",      -1),
    ("business_day", 2**32),
    ("rrn",          2**64),
    ("template",     256),
    ("batch",        2**32),
    ("stan",         -1),
    ("refers",       2**64),
    ("terminal",     "终端"),
    ("merchant",     "商户"),
    ("code",         "é0"),
    ("evidence",     bytes(256)),
    ("clear",        bytes(65_536)),
    ("sealed",       bytes(65_536)),
    ("number",       "1"),
    ("terminal",     1),
    ("content",      None),
    ("evidence",     None),
    ("sealed",       "text"),
]
# fmt: on


@pytest.mark.parametrize(("field", "value"), UNFIT)
def test_what_a_column_cannot_hold_is_refused_by_both(field: str, value: Any) -> None:
    record = msgspec.structs.replace(RECORD_OF_ALL, **{field: value})
    with pytest.raises((ValueError, TypeError, AttributeError, struct.error)):
        record.to_bytes()
    with pytest.raises((ValueError, OverflowError, TypeError)):
        pack_records([RECORD_OF_ALL, record])


@pytest.mark.parametrize("wrong", [{"terminal": "T23456789"}, {"merchant": "M234567890123456"}, {"content": bytes(31)}])
def test_what_the_twin_would_cut_or_fill_up_is_refused(wrong: dict[str, Any]) -> None:
    """A record is hashed and signed: nothing in it may be less than was said."""
    with pytest.raises((ValueError, TypeError), match="bytes"):
        pack_records([msgspec.structs.replace(RECORD_OF_ALL, **wrong)])


@pytest.mark.parametrize("stranger", [None, RECORD_OF_ALL.to_bytes(), object()])
def test_only_records_are_packed(stranger: Any) -> None:
    for pack in (pack_records, pack_row):
        with pytest.raises(TypeError):
            pack([stranger])


def test_no_row_stands_for_nothing() -> None:
    for pack in (pack_row, columns.pack_columns):
        with pytest.raises(ValueError, match=r"one|empty"):
            pack([])
