"""A disk that is full while a day is sealed: nothing is lost, the room that was taken is given back, and it is done by
itself when there is room."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fengshou.hsm.software import SoftwareCustody
from fengshou.switch.journal.days import prove
from fengshou.switch.journal.store import Journal, JournalError
from fengshou.switch.keeper import Keeper
from tests.full_disk import full_disk
from tests.switch.entries import DAY, intent, key, open_journal, outcome, session
from tests.switch.journals import audit, writing

PAGE = 4096
SALES = 400


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """One day of sales that is over, and the beginning of the next."""
    journal = open_journal(tmp_path)
    journal.commit([session()])
    for first in range(1, SALES, 20):
        sales = [intent(stan) for stan in range(first, first + 20)]
        journal.refresh()
        journal.commit(sales)
        journal.commit([outcome(sale) for sale in sales])
    journal.commit([session(day=DAY + 1)])
    journal.refresh()
    yield journal
    journal.close()


def day_files(journal: Journal) -> list[str]:
    return sorted(file.name for file in journal.segments.folder.iterdir() if file.name.startswith(str(DAY)))


def test_nothing_is_lost_whatever_does_not_fit(journal: Journal, custody: SoftwareCustody, tmp_path: Path) -> None:
    records, commits = list(journal.records()), list(journal.commits())
    refused = []

    async def seal_in_less_room() -> None:
        async with writing(journal, custody) as writer:
            keeper = Keeper(journal, writer, custody)
            for pages in range(2, 200, 6):
                try:
                    with full_disk(pages * PAGE):
                        await keeper.seal()
                except JournalError as error:
                    refused.append((pages, str(error)))
                    if not journal.days()[0].sealed and str(DAY) in str(error):
                        assert day_files(journal) == [], "the room that it took is given back"
                journal.refresh()
                assert list(journal.records()) == records
                assert journal.known(key(SALES)) is not None

    trio.run(seal_in_less_room)
    journal.refresh()
    assert refused[0][0] == 2
    assert f"{DAY}.mdb cannot be written: " in refused[0][1]
    assert journal.days()[0].sealed
    assert day_files(journal) == [f"{DAY}.mdb"]
    copy = Path(shutil.copy(journal.segments.path(DAY), tmp_path))
    assert prove(copy) == journal.days()[0]
    assert list(journal.commits()) == commits
    finding = audit(journal, custody)
    assert finding.good, finding.problems


def test_it_goes_on_by_itself_when_there_is_room(
    journal: Journal, custody: SoftwareCustody, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fengshou.switch.keeper._LOOK_EVERY_S", 0.05)
    records = list(journal.records())

    async def fill_and_clear() -> None:
        async with writing(journal, custody) as writer, trio.open_nursery() as nursery:
            with caplog.at_level(logging.ERROR), full_disk(4 * PAGE):
                nursery.start_soon(Keeper(journal, writer, custody).run)
                while len(caplog.records) < 2:
                    await trio.sleep(0.02)
            assert not journal.days()[0].sealed
            with trio.fail_after(20):
                while not (journal.days()[0].sealed and not journal.untidy):
                    await trio.sleep(0.02)
                    journal.refresh()
            nursery.cancel_scope.cancel()

    trio.run(fill_and_clear)
    said = caplog.records[0].getMessage()
    assert f"{DAY}.mdb cannot be written: " in said
    assert "make room" in said
    assert list(journal.records()) == records
