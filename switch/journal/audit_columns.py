"""Columns and filters against the records that they are made of: what a search misses, nobody else would notice."""

from collections.abc import Callable, Iterator, Sequence

from fengshou.hsm.custody import CustodyError
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.switch.journal.audit import Finding
from fengshou.switch.journal.columns import Row, pack_columns
from fengshou.switch.journal.filters import FILTER_KEY, Filters, filter_rows
from fengshou.switch.journal.lines import Lines
from fengshou.switch.recording import Recorder, tags_of

Progress = Callable[[int], object]
Hashes = Callable[[Record], Sequence[bytes]]


def hashes_of(recorder: Recorder, pseudonym: Callable[[str], str]) -> Hashes:
    """The keyed hashes that stand for a record in its row of columns, made again from what it keeps sealed.

    What it gives raises CustodyError, UntrustedBytesError.
    """

    def hashes(record: Record) -> Sequence[bytes]:
        return tags_of(recorder.values(record), pseudonym) if record.kind == RecordKind.INTENT else ()

    return hashes


def verify_columns(
    lines: Lines,
    first: int,
    last: int,
    finding: Finding,
    progress: Progress = lambda records: None,
    hashes: Hashes | None = None,
) -> None:
    """The columns and filters of one file, from record ``first`` to ``last``, against its records.

    Keyed hashes are compared where ``hashes`` makes them again, which takes the journal's keys; those of records whose
    key is gone are counted.
    """
    filters = Filters(lines)
    blocks = filters.blocks(first, last)
    filtered = {block.first: block.pages for block in blocks if block.pages}
    for key in lines.filter_keys(first, last):
        begin, page = FILTER_KEY.unpack(key)
        if page > filtered.get(begin, -1):
            finding.wrong(f"filters: a row of record {begin} belongs to no block")
    at, records = first, lines.records(first)
    of_block: list[tuple[int, bytes]] = []
    for begin, data in lines.columns(first):
        if begin > last:
            break
        leaves = _same(begin - at, data, records)
        if not leaves:
            finding.wrong(f"columns: the row of record {begin} is not what its records say")
            return  # where the next row begins is not known
        if hashes is not None and not _has_hashes(data, leaves, hashes, finding):
            finding.wrong(f"columns: the keyed hashes in the row of record {begin} are not those of its records")
        of_block.append((begin, data))
        count = len(leaves)
        at = begin + count
        progress(count)
        while blocks and at > blocks[0].last:
            block = blocks.pop(0)
            if block.pages and any(lines.filter(key) != page for key, page in filter_rows(of_block)):
                finding.wrong(f"filters: that of the block at record {block.first} is not what its columns say")
            of_block = []
    if at <= last:
        finding.wrong(f"columns: nothing for record {at}")


def _same(gap: int, data: bytes, records: Iterator[tuple[int, bytes]]) -> list[Record]:
    """Those of the next records that a row of columns has; none when it is not theirs."""
    try:
        row = Row(data)
        leaves = [parse_record(leaf) for _, (_, leaf) in zip(range(row.count), records, strict=False)]
    except (ValueError, UntrustedBytesError):
        return []
    return leaves if not gap and len(leaves) == row.count and row.has(pack_columns(leaves)) else []


def _has_hashes(data: bytes, leaves: Sequence[Record], hashes: Hashes, finding: Finding) -> bool:
    expected: list[tuple[int, bytes]] = []
    closed: set[int] = set()
    for index, leaf in enumerate(leaves):
        try:
            expected += [(index, tag) for tag in hashes(leaf)]
        except CustodyError:
            closed.add(index)
        except UntrustedBytesError:
            return False
    finding.unopened += len(closed)
    return [(index, tag) for index, tag in Row(data).tags() if index not in closed] == expected
