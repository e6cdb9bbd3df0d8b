"""The day file: what a host booked on one business day, in a form that proves itself whole.

CSV in ASCII, lines end in LF; the first column says what a line is::

    H,1,core-banking,20261124                       version, host, business day
    D,632800000017,FS000001,00,482000,posted        RRN, terminal, kind (DE 3, two digits), fen, state
    T,1,1,482000                                    lines D, how many of them are posted, their fen
    S,4a1e…                                         SM3 of all bytes before this line, hexadecimal
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

VERSION = 1
POSTED = "posted"
STATES = (POSTED, "reversed", "declined")

_HEADER = re.compile(r"H,1,([a-z0-9-]{1,32}),([0-9]{8})")
_ROW = re.compile(r"D,([0-9]{12}),([!-+\--~ ]{1,8}),([0-9]{2}),([0-9]{1,16}),([a-z]{1,16})")
_TRAILER = re.compile(r"T,([0-9]{1,10}),([0-9]{1,10}),([0-9]{1,18})")
_DIGEST = re.compile(r"S,([0-9a-f]{64})")


class DayFileError(ValueError):
    """The file is cut, altered or not of this form; the text names the line."""


@dataclass(frozen=True, slots=True)
class DayRow:
    """One request that a host decided. ``kind`` is the first two digits of DE 3; ``state`` as the books have it now."""

    rrn: int
    terminal: str
    kind: str
    fen: int
    state: str

    @property
    def moved_money(self) -> bool:
        """It stands in the books, and is no enquiry (30 to 39)."""
        return self.state == POSTED and not self.kind.startswith("3")


@dataclass(frozen=True, slots=True)
class DayFile:
    host: str
    business_day: int  # YYYYMMDD
    rows: tuple[DayRow, ...]

    @property
    def posted(self) -> dict[int, int]:
        """Fen by RRN of all that moved money."""
        return {row.rrn: row.fen for row in self.rows if row.moved_money}


def day_file_lines(host: str, business_day: int, rows: Iterable[DayRow]) -> Iterator[bytes]:
    """The lines of a file, each with its end. Raises DayFileError for a value that the form cannot carry."""
    digest = hashlib.new("sm3")
    count, posted, fen = 0, 0, 0

    def line(text: str) -> bytes:
        data = text.encode("ascii") + b"\n"
        digest.update(data)
        return data

    yield line(f"H,{VERSION},{host},{business_day:08d}")
    for row in rows:
        text = f"D,{row.rrn:012d},{row.terminal},{row.kind},{row.fen},{row.state}"
        if not _ROW.fullmatch(text):
            raise DayFileError(f"RRN {row.rrn:012d} cannot be written: {text!r}")
        count += 1
        if row.moved_money:
            posted, fen = posted + 1, fen + row.fen
        yield line(text)
    yield line(f"T,{count},{posted},{fen}")
    yield f"S,{digest.hexdigest()}\n".encode("ascii")


def read_day_file(untrusted: Iterable[bytes]) -> DayFile:
    """The file in these lines. Raises DayFileError: nothing of a file that is not whole may be used."""
    digest = hashlib.new("sm3")
    header, rows, trailer, whole = None, [], None, None
    for number, data in enumerate(untrusted, 1):
        text = data.removesuffix(b"\n").decode("ascii", errors="replace")
        if whole is not None:
            raise DayFileError(f"line {number}: nothing may follow the digest")
        if header is None:
            header = _match(_HEADER, text, number)
        elif trailer is not None:
            if _match(_DIGEST, text, number)[1] != digest.hexdigest():
                raise DayFileError(f"line {number}: the digest is another: the file was altered")
            whole = DayFile(header[1], int(header[2]), tuple(rows))
            _check(whole, trailer, number - 1)
        elif text.startswith("T"):
            trailer = _match(_TRAILER, text, number)
        else:
            row = _match(_ROW, text, number)
            rows.append(DayRow(int(row[1]), row[2], row[3], int(row[4]), row[5]))
        digest.update(data)
    if whole is None:
        raise DayFileError("the file ends before its digest: it is cut")
    return whole


def _match(form: re.Pattern[str], text: str, number: int) -> re.Match[str]:
    match = form.fullmatch(text)
    if match is None:
        raise DayFileError(f"line {number}: {text[:40]!r} is not what stands there")
    return match


def _check(file: DayFile, trailer: re.Match[str], number: int) -> None:
    found = (len(file.rows), len(file.posted), sum(file.posted.values()))
    if tuple(map(int, trailer.groups())) != found:
        raise DayFileError(f"line {number}: the file holds {found[0]} lines, {found[1]} posted, {found[2]} fen")
