"""Is the end of the journal what was promised to be durable? Asked before LMDB follows anything in the file.

A disk that obeys the sync of each commit never gives a reason to ask. One that does not can lose any of the pages that
were written last: then the newest header's records are missing, older pages stand where newer ones should, or the file
ends early. So a start proves the last commits from their bytes, and reads every small table to its end.
"""

from itertools import islice
from pathlib import Path

from fengshou.codecs import merkle_root, sm3
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import Commit, Record, RecordKind, parse_commit, parse_record
from fengshou.switch.journal.pages import PageDamaged, Pages
from fengshou.switch.journal.tables import FORMAT_VERSION, KEYED, PAIR, U64, JournalTorn, key_of

# Commits that are proven, and the records that are enough: more than a disk holds back, less than a start would notice.
_COMMITS = 64
_RECORDS = 1024
_SMALL = ("days", "undone", "rrns", "open", "due", "batches", "forgotten", "held", "settlements", "meta")


def prove_end(file: Path, *, whole: bool) -> None:
    """Raises JournalTorn, OSError. Not ``whole``: only that the file is one and as long as it says.

    A file that is not there, or of another format, is for others to judge.
    """
    if not file.exists() or not file.stat().st_size:
        return
    try:
        with Pages(file) as pages:
            if not pages.both_metas:
                raise _Torn("one of its two meta pages is damaged")
            if not whole:
                return
            found = pages.get("meta", b"format")
            if found == FORMAT_VERSION:
                _prove(pages)
            elif found is None and pages.entries("commits"):
                raise _Torn("the table meta lost its rows")
    except (PageDamaged, UntrustedBytesError) as error:
        raise JournalTorn(file, str(error)) from error
    except _Torn as error:
        raise JournalTorn(file, str(error)) from error


class _Torn(Exception):
    pass


def _prove(pages: Pages) -> None:
    for table in _SMALL:
        if pages.count(table) != pages.entries(table):
            raise _Torn(f"table {table} does not have the rows that it says")
    _prove_events(pages)
    keyed = min((U64.unpack(value)[0] for key, value in pages.walk("meta") if key.startswith(KEYED)), default=0)
    after: Commit | None = None
    records = 0
    for key, value in islice(pages.backwards("commits"), _COMMITS):
        header = parse_commit(value)
        if U64.unpack(key)[0] != header.first_record:
            raise _Torn(f"commit {header.number} stands in a wrong place")
        if after is None:
            _nothing_behind(pages, header)
        elif after.previous != sm3(value) or after.first_record != header.first_record + header.records:
            raise _Torn(f"commit {after.number} does not follow commit {header.number}")
        _prove_records(pages, header, keyed)
        after, records = header, records + header.records
        if records >= _RECORDS:
            return


def _prove_events(pages: Pages) -> None:
    """The number of the last event is that of its row. Rows follow each other, or lie further apart after a repair."""
    count = pages.entries("events")
    if not count:
        return
    first, last = next(pages.walk("events"), None), next(pages.backwards("events"), None)
    if first is None or last is None or U64.unpack(last[0])[0] - U64.unpack(first[0])[0] + 1 < count:
        raise _Torn("the events do not end where they say")


def _nothing_behind(pages: Pages, header: Commit) -> None:
    last = next(pages.backwards("records"), None)
    if last is None or U64.unpack(last[0])[0] != header.first_record + header.records - 1:
        raise _Torn(f"the records do not end with commit {header.number}")


def _prove_records(pages: Pages, header: Commit, keyed: int) -> None:
    leaves = []
    for number in range(header.first_record, header.first_record + header.records):
        leaf = pages.get("records", U64.pack(number))
        if leaf is None:
            raise _Torn(f"record {number} of commit {header.number} is missing")
        leaves.append(leaf)
    if merkle_root(leaves) != header.root:
        raise _Torn(f"commit {header.number} has other records than it was sealed with")
    if pages.get("columns", U64.pack(header.first_record)) is None:
        raise _Torn(f"commit {header.number} has no columns")
    for record in map(parse_record, leaves):
        if record.number < keyed:
            _prove_key(pages, record)


def _prove_key(pages: Pages, record: Record) -> None:
    """The table of keys knows an intent and its outcome, once it was told."""
    if record.kind not in (RecordKind.INTENT, RecordKind.OUTCOME):
        return
    value = pages.get("keys", key_of(record.terminal, record.merchant, record.batch, record.stan))
    intent, outcome = PAIR.unpack(value) if value else (0, 0)
    if record.number not in (intent, outcome):
        raise _Torn(f"the keys do not know record {record.number}")
