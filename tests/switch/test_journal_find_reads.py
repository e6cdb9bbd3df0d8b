"""What a search reads of a journal of many days: hardly more than what it shows."""

import ctypes
import mmap
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.journal.columns import Wanted
from fengshou.switch.journal.filters import Filters
from fengshou.switch.journal.find import Found, Place, find
from fengshou.switch.journal.lines import Lines
from fengshou.switch.journal.store import Entry, Journal
from fengshou.switch.journal.tables import Day, key_of
from tests.switch.entries import outcome
from tests.switch.journals import seal

DAYS = 16
A_DAY = 1_000  # sales
TERMINALS = 50


def _sale(number: int) -> Entry:
    """``number`` counts through all days; a terminal's STAN too, so that it comes once."""
    day, at = divmod(number, A_DAY)
    record = Record(
        RecordKind.INTENT, 0, 10**15 + number * 10**6, 20_261_201 + day, (6335 + day) * 10**8 + at, 1,
        f"TT{number % TERMINALS:06d}", "999452007600001", 1, number // TERMINALS + 1, content=bytes(32),
        evidence=bytes(96),
    )  # fmt: skip
    return Entry(record, tags=(b"%08d" % (number % 5_000),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, custody: SoftwareCustody) -> Path:
    """All days but the last one are sealed; one late answer came three days after its sale."""
    path = tmp_path_factory.mktemp("days")
    journal = Journal(path / "journal", sync=False)

    answered = None
    for day in range(DAYS):
        for first in range(day * A_DAY, (day + 1) * A_DAY, 250):
            sales = [_sale(number) for number in range(first, first + 250)]
            journal.commit([*sales, *map(outcome, sales)])
            if first == 4 * A_DAY:
                answered = sales[7].record
        if day == 7 and answered:
            late = Record(
                RecordKind.LATE, 0, 10**15 + 8 * A_DAY * 10**6 - 1, 20_261_208, answered.rrn, 1, answered.terminal,
                answered.merchant, answered.batch, answered.stan, refers=answered.number, code="00", content=bytes(32),
            )  # fmt: skip
            journal.commit([Entry(late)])
    trio.run(seal, journal, custody)
    journal.close()
    return path / "journal"


class _Counted(Place):
    """Counts what is asked of the files."""

    def __init__(self, source: Journal) -> None:
        super().__init__(source)
        self.days_opened: set[int] = set()
        self.count: Counter[str] = Counter()

    def lines(self, day: Day) -> Lines:
        self.days_opened.add(day.day)
        lines = super().lines(day)
        return _CountedLines(lines.txn, lines._db, self.count)

    @property
    def filters(self) -> Filters:
        assert isinstance(self._source, Journal)
        store = self._source.store
        return Filters(_CountedLines(store.txn, store._db, self.count))


class _CountedLines(Lines):
    def __init__(self, txn: object, tables: object, count: Counter[str]) -> None:
        super().__init__(txn, tables)  # type: ignore[arg-type]
        self._count = count

    def record(self, number: int) -> bytes | None:
        self._count["records"] += 1
        return super().record(number)

    def filter(self, key: bytes) -> bytes | None:
        self._count["filter pages"] += 1
        return super().filter(key)

    def columns(self, first: int) -> Iterator[tuple[int, bytes]]:
        for row in super().columns(first):
            self._count["rows of columns"] += 1
            yield row


def _search(folder: Path, wanted: Wanted, since_us: int = 0, until_us: int = 1 << 62) -> tuple[Found, _Counted]:
    journal = Journal(folder, read_only=True)
    try:
        place = _Counted(journal)
        return find(place, wanted, since_us=since_us, until_us=until_us), place
    finally:
        journal.close()


SOUGHT = 9 * A_DAY + 321
NEVER = b"not here"


@pytest.mark.parametrize(
    ("wanted", "stories", "opened", "pages"),
    [
        # A page of a filter for each day in question; a second one for each story whose other records are looked for.
        pytest.param(Wanted(rrn=_sale(SOUGHT).record.rrn), 1, 1, 2 * DAYS, id="RRN"),
        pytest.param(Wanted(terminal="TT000021", stan=SOUGHT // TERMINALS + 1), 1, 1, 3 * DAYS, id="terminal and STAN"),
        pytest.param(Wanted(tag=_sale(SOUGHT).tags[0]), 3, 3, 4 * DAYS, id="card"),
        pytest.param(Wanted(tag=NEVER), 0, 0, DAYS, id="card that never was there"),
    ],
)
def test_only_the_days_are_opened_that_have_it(
    folder: Path, wanted: Wanted, stories: int, opened: int, pages: int
) -> None:
    found, place = _search(folder, wanted)
    assert [len(story) for story in found.stories] == [2] * stories
    # Besides, the last day, which has no filter yet, and one day in a hundred for nothing.
    assert len(place.days_opened) <= opened + 1 + 1
    assert place.count["filter pages"] <= pages + 10
    assert place.count["rows of columns"] <= 2 * 4 * len(place.days_opened)
    assert place.count["records"] <= 2 * stories


def test_by_time_few_records_are_read_in_vain(folder: Path) -> None:
    at = _sale(SOUGHT).record.time_us
    found, place = _search(folder, Wanted(), since_us=at, until_us=at + 1)
    assert [[record.stan for record in story] for story in found.stories] == [[SOUGHT // TERMINALS + 1] * 2]
    assert len(place.days_opened) <= 3
    assert place.count["records"] <= 2 * A_DAY  # half of the day has other times than the row in question


def test_a_story_that_goes_on_days_later_is_whole(folder: Path) -> None:
    record = _sale(4 * A_DAY + 7).record
    for wanted in (Wanted(rrn=record.rrn), Wanted(terminal=record.terminal, stan=record.stan)):
        found, place = _search(folder, wanted)
        assert [[part.kind for part in story] for story in found.stories] == [
            [RecordKind.INTENT, RecordKind.OUTCOME, RecordKind.LATE]
        ]
        assert len(place.days_opened) <= 4


def test_an_absent_day_that_has_more_of_a_story_is_named(folder: Path) -> None:
    record = _sale(4 * A_DAY + 7).record
    away = folder / "20261208.mdb"
    away.rename(folder / "archived")
    try:
        found, _ = _search(folder, Wanted(rrn=record.rrn))
    finally:
        (folder / "archived").rename(away)
    assert [len(story) for story in found.stories] == [2]
    assert found.absent == [20_261_208]


@pytest.fixture
def forgotten(folder: Path) -> list[Path]:
    """The journal's files, of which the system's cache has nothing."""
    files = list(folder.glob("*.mdb"))
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(map(_cached, files)):
        pytest.skip("a temporary folder in memory is never read from a disk: set TMPDIR to a folder on one")
    return files


def test_a_search_takes_what_it_asks_for_from_the_disk(folder: Path, forgotten: list[Path]) -> None:
    found, _ = _search(folder, Wanted(terminal="TT000021", stan=SOUGHT // TERMINALS + 1))
    assert len(found.stories) == 1
    assert sum(map(_cached, forgotten)) < 250  # 1 MB, of 17


def test_so_does_a_switch_that_is_asked_about_an_old_transaction(folder: Path, forgotten: list[Path]) -> None:
    """Each of the few pages is waited for by everything else that the switch does."""
    was = _sale(SOUGHT).record
    journal = Journal(folder)
    try:
        before = sum(map(_cached, forgotten))
        known = journal.known(key_of(was.terminal, was.merchant, was.batch, was.stan))
        assert known is not None
        assert journal.record(known.intent).rrn == was.rrn
        assert sum(map(_cached, forgotten)) - before < 30
    finally:
        journal.close()


def _cached(file: Path) -> int:
    """How many pages of a file are in the system's cache, see mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = -(-file.stat().st_size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.byref(first), ctypes.c_size_t(len(mapped)), resident)
        del first  # the map cannot be closed while something points into it
    assert not failed
    return sum(page & 1 for page in resident)
