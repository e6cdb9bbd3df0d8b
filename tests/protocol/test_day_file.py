"""Day files: whole or refused, whatever happened to them on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.protocol.day_file import STATES, DayFile, DayFileError, DayRow, day_file_lines, read_day_file

ROWS = (
    DayRow(632800000001, "FS000001", "00", 482_000, "posted"),
    DayRow(632800000002, "FS000002", "01", 30_000, "reversed"),
    DayRow(632800000003, "FS000002", "31", 0, "posted"),
    DayRow(632800000004, "FS000003", "21", 12_345, "declined"),
)
FILE = b"".join(day_file_lines("core-banking", 20261124, ROWS))

TERMINAL = st.text("ABCDEFXYZ0123456789", min_size=1, max_size=8)
ROW = st.builds(
    DayRow,
    st.integers(0, 10**12 - 1),
    TERMINAL,
    st.sampled_from(("00", "01", "21", "31", "40")),
    st.integers(0, 10**15),
    st.sampled_from(STATES),
)


def test_the_form_stands_as_documented() -> None:
    lines = FILE.decode().splitlines()
    assert lines[0] == "H,1,core-banking,20261124"
    assert lines[1] == "D,632800000001,FS000001,00,482000,posted"
    assert lines[-2] == "T,4,1,482000"
    assert len(lines[-1]) == 66


@given(st.lists(ROW, unique_by=lambda row: row.rrn))
def test_what_is_written_is_read(rows: list[DayRow]) -> None:
    lines = list(day_file_lines("core-banking", 20261124, rows))
    file = read_day_file(lines)
    assert file == DayFile("core-banking", 20261124, tuple(rows))
    assert sum(file.posted.values()) == sum(row.fen for row in rows if row.moved_money)


@given(st.integers(0, len(FILE) - 1), st.integers(0, 7))
def test_no_bit_of_a_file_can_change(at: int, bit: int) -> None:
    altered = bytearray(FILE)
    altered[at] ^= 1 << bit
    with pytest.raises(DayFileError):
        read_day_file(bytes(altered).splitlines(keepends=True))


@given(st.integers(0, len(FILE) - 2))
def test_a_cut_file_is_refused(size: int) -> None:
    with pytest.raises(DayFileError):
        read_day_file(FILE[:size].splitlines(keepends=True))


LINES = FILE.splitlines(keepends=True)

# fmt: off
TAMPERED = (
    # lines                                          what the error names
    ([*LINES, b"\n"],                                "line 8"),
    ([*LINES, LINES[-1]],                            "line 8"),
    (LINES[1:],                                      "line 1"),
    ([LINES[0], *LINES[2:]],                         "line 6"),
    ([LINES[0], LINES[2], LINES[1], *LINES[3:]],     "line 7"),
    ([*LINES[:2], LINES[1], *LINES[2:]],             "line 8"),
    ([],                                             "cut"),
)
# fmt: on


@pytest.mark.parametrize(("lines", "named"), TAMPERED)
def test_lines_that_were_moved_are_named(lines: list[bytes], named: str) -> None:
    with pytest.raises(DayFileError, match=named):
        read_day_file(lines)


@pytest.mark.parametrize("row", [DayRow(1, "A,B", "00", 1, "posted"), DayRow(-1, "A", "00", 1, "posted")])
def test_what_the_form_cannot_carry_is_not_written(row: DayRow) -> None:
    with pytest.raises(DayFileError):
        list(day_file_lines("core-banking", 20261124, [row]))
