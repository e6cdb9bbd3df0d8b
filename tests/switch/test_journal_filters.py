"""Finding among many: filters deny nothing that is there, and spare the scan of nearly all that is not."""

from collections.abc import Iterator

import pytest
import trio

from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.journal.columns import Wanted
from fengshou.switch.journal.filters import BLOCK, Filters
from fengshou.switch.journal.find import Place, find
from fengshou.switch.journal.store import Entry, Journal
from fengshou.switch.keeper import Keeper
from tests.switch.entries import outcome
from tests.switch.journals import writing

DAYS = (20_261_124, 20_261_125)
MANY = BLOCK * 11 // 20 // 1000 * 1000  # sales of a day, each of two records


def _plain(number: int, day: int) -> Entry:
    """A sale with no evidence, so that many are made in a moment."""
    terminal = f"TT{number % 50:06d}"
    record = Record(
        RecordKind.INTENT, 0, 10**15 + number, day, (6328 if day == DAYS[0] else 6329) * 10**8 + number, 1, terminal,
        "999452007600001", 1, number, content=bytes(32),
    )  # fmt: skip
    return Entry(record, tags=(b"%08d" % number,))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, custody: SoftwareCustody) -> Iterator[Journal]:
    """Two days of 1.1 blocks each, the first one sealed, the second one filtered as far as it goes."""
    journal = Journal(tmp_path_factory.mktemp("many"), sync=False)
    for day in DAYS:
        for first in range(1, MANY, 1000):
            sales = [_plain(number, day) for number in range(first, first + 1000)]
            journal.commit([*sales, *map(outcome, sales)])

    async def keep() -> None:
        async with writing(journal, custody) as writer:
            keeper = Keeper(journal, writer, custody)
            await keeper.seal()
            await keeper.filter()

    trio.run(keep)
    journal.refresh()
    yield journal
    journal.close()


def test_filters_cover_all_full_blocks(many: Journal) -> None:
    """A sealed day has them for all of it; of the day that goes on, the last part is scanned."""
    first, second = many.days()
    sealed = Filters(many.lines_of(first)).blocks(first.first_record, first.last_record)
    assert [bool(block.pages) for block in sealed] == [True, True]
    last = many.next_record - 1
    live = Filters(many.lines_of(second)).blocks(second.first_record, last)
    assert [bool(block.pages) for block in live] == [True, False]
    for blocks, start, end in ((sealed, first.first_record, first.last_record), (live, second.first_record, last)):
        assert [block.first for block in blocks] == [start, *(block.last + 1 for block in blocks[:-1])]
        assert blocks[-1].last == end
    assert sealed[0].earliest == first.earliest_us == 10**15 + 1


@pytest.mark.parametrize("day", [0, 1], ids=["sealed", "in the store"])
@pytest.mark.parametrize("number", [1, BLOCK // 2, BLOCK // 2 + 1, MANY])
def test_behind_filters_everything_is_found(many: Journal, day: int, number: int) -> None:
    record = _plain(number, DAYS[day]).record
    for wanted, times in (
        (Wanted(rrn=record.rrn), 1),
        (Wanted(tag=b"%08d" % number), 2),
        (Wanted(stan=number, terminal=record.terminal), 2),
    ):
        found = find(Place(many), wanted)
        assert record.rrn in [story[0].rrn for story in found.stories]
        assert [len(story) for story in found.stories] == [2] * times
    by_time = find(Place(many), Wanted(), since_us=record.time_us, until_us=record.time_us + 1)
    assert [story[0].stan for story in by_time.stories] == [number, number]


def test_filters_spare_the_scan(many: Journal) -> None:
    """What is in no block: nearly no row of columns is read, whatever is asked for."""
    first, _ = many.days()
    lines = many.lines_of(first)
    blocks = Filters(lines).blocks(first.first_record, first.last_record)
    strange = [Wanted(rrn=7 + n) for n in range(50)] + [Wanted(tag=b"?%07d" % n) for n in range(50)]
    strange += [Wanted(terminal="TT000001", stan=50 * n + 2) for n in range(1, 50)]
    perhaps = sum(Filters(lines).may_have(block, wanted) for block in blocks for wanted in strange)
    assert perhaps < len(strange) * len(blocks) // 10
