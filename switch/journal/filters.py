"""Which rows of columns need not be scanned: a filter over each block of some ten thousand records.

A block is a run of commits of one business day. Its filter says of an RRN, a terminal, a STAN or a keyed hash that no
record of the block has it; and between which moments its records were written. So a search among millions of records
reads a page a block (``protocol.bloom``) and scans the blocks that may have what is wanted. A filter follows from the
columns and is made a while after its records; what has none yet is scanned.

    head     records (4) earliest latest (8 each) pages (2), at block's first record (8) and page 0 (2)
    pages    at first record (8) and page 1 … (2)
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fengshou.codecs import Bloom
from fengshou.protocol.bloom import Place, pages_for
from fengshou.switch.journal.columns import Row, Wanted
from fengshou.switch.journal.lines import Lines

# Records a block at least: the page that is read of each filter against the columns that a false "perhaps" scans.
BLOCK = 1 << 16

_FOR_EVER = (1 << 64) - 1

_HEAD = struct.Struct(">IQQH")
FILTER_KEY = struct.Struct(">QH")

Rows = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Block:
    """Records from ``first`` to ``last``. ``pages`` 0: it has no filter, and its times are not known."""

    first: int
    last: int
    earliest: int = 0
    latest: int = _FOR_EVER
    pages: int = 0


def filter_rows(columns: Iterable[tuple[int, bytes]]) -> Rows:
    """The rows of the table ``filters`` for one block, from its rows of columns: first record and bytes each.

    Raises ValueError for a damaged row.
    """
    rows = [(first, Row(data)) for first, data in columns]
    records = sum(row.count for _, row in rows)
    bloom = Bloom(pages_for(sum(row.values for _, row in rows)))
    for _, row in rows:
        row.fill(bloom)
    first, pages = rows[0][0], bloom.pages()
    earliest, latest = min(row.earliest for _, row in rows), max(row.latest for _, row in rows)
    head = (FILTER_KEY.pack(first, 0), _HEAD.pack(records, earliest, latest, len(pages)))
    return [head, *((FILTER_KEY.pack(first, number), page) for number, page in enumerate(pages, 1))]


def blocks_of(columns: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Rows of columns, a list for each block of ``BLOCK`` records or more; the last one may be shorter."""
    rows: list[tuple[int, bytes]] = []
    records = 0
    for first, data in columns:
        rows.append((first, data))
        records += Row(data).count
        if records >= BLOCK:
            yield rows
            rows, records = [], 0
    if rows:
        yield rows


def _bare(first: int, last: int) -> list[Block]:
    """Blocks without filters."""
    return [Block(at, min(at + BLOCK - 1, last)) for at in range(first, last + 1, BLOCK)]


class Filters:
    """Reads the filters of one file."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def blocks(self, first: int, last: int) -> list[Block]:
        """The records from ``first`` to ``last`` in blocks, in order; between filters stand blocks without one."""
        found: list[Block] = []
        at = first
        for block in self._heads(first, last):
            found += _bare(at, block.first - 1)
            found.append(block)
            at = block.last + 1
        return found + _bare(at, last)

    def end(self, first: int) -> int:
        """The first record from ``first`` on behind which there is no filter."""
        return max((block.last + 1 for block in self._heads(first, _FOR_EVER)), default=first)

    def may_have(self, block: Block, wanted: Wanted) -> bool:
        """Whether a record of the block may have all that is wanted."""
        return not block.pages or all(self._stands(block, where) for where in wanted.places(block.pages))

    def _stands(self, block: Block, where: Place) -> bool:
        page = self._lines.filter(FILTER_KEY.pack(block.first, where.page + 1))
        return page is None or where.may_be_in(page)

    def _heads(self, first: int, last: int) -> Iterator[Block]:
        key = FILTER_KEY.pack(first, 0)
        while (row := self._lines.filter_from(key)) is not None:
            number, page = FILTER_KEY.unpack(row[0])
            if number > last:
                return
            if page or len(row[1]) != _HEAD.size:  # damage: what follows is scanned until the next head
                key = FILTER_KEY.pack(number + 1, 0)
                continue
            records, earliest, latest, pages = _HEAD.unpack(row[1])
            yield Block(number, number + records - 1, earliest, latest, pages)
            key = FILTER_KEY.pack(number + 1, 0)
