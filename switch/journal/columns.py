"""The journal's index for people: what they search for, a column each, scanned rather than looked up.

One row stands for a run of consecutive records: a commit's, or some thousands in the file of a sealed day. Written once
and in order, a row costs a commit next to nothing, where a tree for each thing one may ask would cost a random page a
record; and a scan passes a million records in some milliseconds, because each column is searched as one string.

    records (4) earliest latest (8) | RRN (8 each) | terminal (8 each) | STAN (4 each) | tags: index (4), hash (8) …

Earliest and latest are the records' times. ``filters`` tells which rows need not be scanned.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fengshou.codecs import Bloom, pack_row
from fengshou.protocol.bloom import Place, place
from fengshou.protocol.record import Record
from fengshou.switch.journal.tables import TAG_BYTES, U32, U64, Entry

_HEAD = struct.Struct(">IQQ")
_WIDTHS = (8, 8, 4)
_COLUMNS_BYTES = sum(_WIDTHS)
_TAG = U32.size + TAG_BYTES
RRN, TERMINAL, STAN = range(3)
_TERMINAL_STAN, _TAGS = 3, 4  # what filters have besides: these two side by side; keyed hashes


def pack_entries(entries: Sequence[Entry]) -> bytes:
    """The row of the entries of a commit."""
    tags = [U32.pack(at) + tag for at, entry in enumerate(entries) for tag in entry.tags]
    return b"".join((pack_row([entry.record for entry in entries]), *tags))


def pack_columns(records: Sequence[Record]) -> bytes:
    """The row of these records without its tags, which no record has: the readable twin of ``codecs.pack_row``."""
    times = [record.time_us for record in records]
    count = len(records)
    return b"".join(
        (
            _HEAD.pack(count, min(times), max(times)),
            struct.pack(f">{count}Q", *[record.rrn for record in records]),
            "".join([record.terminal.ljust(8) for record in records]).encode(),
            struct.pack(f">{count}I", *[record.stan for record in records]),
        )
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for; all that is given must hold. ``tag`` is the keyed hash of a card or account."""

    rrn: int = 0
    terminal: str = ""
    stan: int = 0
    tag: bytes = b""

    def needles(self) -> list[tuple[int, bytes]]:
        """Column and value, the most selective first."""
        found = []
        if self.rrn:
            found.append((RRN, U64.pack(self.rrn)))
        if self.stan:
            found.append((STAN, U32.pack(self.stan)))
        if self.terminal:
            found.append((TERMINAL, self.terminal.encode().ljust(8)))
        return found

    def places(self, pages: int) -> Iterator[Place]:
        """Where in a filter of so many pages all that is wanted must stand, the most selective first: each is a page
        to read, and the first "no" is enough."""
        if self.tag:
            yield place(_TAGS, self.tag, pages)
        if self.terminal and self.stan:
            yield place(_TERMINAL_STAN, self.terminal.encode().ljust(8) + U32.pack(self.stan), pages)
        for column, value in self.needles():
            yield place(column, value, pages)


class Row:
    """One row, read."""

    __slots__ = ("_data", "count", "earliest", "latest")

    def __init__(self, data: bytes) -> None:
        """Raises ValueError when the row is damaged."""
        self._data = data
        head: tuple[int, int, int] = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (0, 0, 0)
        self.count, self.earliest, self.latest = head
        rest = len(data) - _HEAD.size - self.count * _COLUMNS_BYTES
        if not self.count or rest < 0 or rest % _TAG:
            raise ValueError("a row of the columns is damaged")

    def _begin(self, column: int) -> int:
        return _HEAD.size + self.count * sum(_WIDTHS[:column])

    def column(self, column: int) -> bytes:
        begin = self._begin(column)
        return self._data[begin : begin + self.count * _WIDTHS[column]]

    def tags(self) -> Iterator[tuple[int, bytes]]:
        """Index in the row and keyed hash."""
        data = self._data
        for at in range(self._begin(len(_WIDTHS)), len(data), _TAG):
            yield U32.unpack_from(data, at)[0], data[at + U32.size : at + _TAG]

    def has(self, columns: bytes) -> bool:
        """Whether it has these columns (``pack_columns``)."""
        return self._data.startswith(columns) and self._begin(len(_WIDTHS)) == len(columns)

    def at(self, column: int, index: int) -> bytes:
        begin = self._begin(column) + index * _WIDTHS[column]
        return self._data[begin : begin + _WIDTHS[column]]

    @property
    def values(self) -> int:
        """About how many different values the row brings to a filter: a transaction's RRN, STAN and STAN of its
        terminal, which stand in two records mostly; and each hash."""
        return self.count * 3 // 2 + (len(self._data) - self._begin(len(_WIDTHS))) // _TAG

    def fill(self, bloom: Bloom) -> None:
        """Bring everything that can be looked for to a filter."""
        for column, width in enumerate(_WIDTHS):
            bloom.add_column(column, self._data, self._begin(column), width, width, self.count)
        bloom.add_pairs(
            _TERMINAL_STAN, self._data, self._begin(TERMINAL), _WIDTHS[TERMINAL], self._begin(STAN), _WIDTHS[STAN],
            self.count,
        )  # fmt: skip
        tags = self._begin(len(_WIDTHS))
        bloom.add_column(_TAGS, self._data, tags + U32.size, TAG_BYTES, _TAG, (len(self._data) - tags) // _TAG)

    def matches(self, wanted: Wanted) -> list[int]:
        """The indices of all records of the row that have everything that is wanted."""
        needles = wanted.needles()
        if wanted.tag:
            found = self._tagged(wanted.tag)
        elif needles:
            column, needle = needles.pop(0)
            found = self._places(needle, self._begin(column), self.count, _WIDTHS[column])
        else:
            found = list(range(self.count))
        return [index for index in found if all(self.at(column, index) == needle for column, needle in needles)]

    def _tagged(self, tag: bytes) -> list[int]:
        begin = self._begin(len(_WIDTHS))
        count = (len(self._data) - begin) // _TAG
        places = self._places(tag, begin + U32.size, count, _TAG)
        return sorted({U32.unpack_from(self._data, begin + place * _TAG)[0] for place in places})

    def _places(self, needle: bytes, begin: int, count: int, stride: int) -> list[int]:
        """Where ``needle`` stands, at whole strides only."""
        found, end = [], begin + count * stride
        at = self._data.find(needle, begin, end)
        while at >= 0:
            index, odd = divmod(at - begin, stride)
            if not odd:
                found.append(index)
            at = self._data.find(needle, at + 1, end)
        return found


def join(rows: Sequence[Row]) -> bytes:
    """One row in the place of several that follow each other."""
    tags, before = [], 0
    for row in rows:
        tags += [U32.pack(before + index) + tag for index, tag in row.tags()]
        before += row.count
    head = _HEAD.pack(before, min(row.earliest for row in rows), max(row.latest for row in rows))
    return b"".join((head, *(row.column(name) for name in range(len(_WIDTHS)) for row in rows), *tags))
