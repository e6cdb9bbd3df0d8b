"""A disk that is full while a day is sealed: nothing is lost, the room that was taken is given back, and it is done by
itself when there is room. The disk is a real limit on the length of any file."""

import logging
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.software import SoftwareCustody, provision
from fengshou.switch.clock import Clock
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.audit import verify_journal
from fengshou.switch.journal.days import prove
from fengshou.switch.journal.store import Journal, JournalError
from fengshou.switch.keeper import Keeper
from fengshou.switch.recording import Recorder
from fengshou.switch.writer import Writer
from tests.switch.entries import DAY, intent, key, open_journal, outcome, session

PAGE = 4096
SALES = 400


@pytest.fixture(scope="module")
def custody(tmp_path_factory: pytest.TempPathFactory) -> SoftwareCustody:
    return provision(tmp_path_factory.mktemp("custody") / "keys")


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


@contextmanager
def room(pages: int) -> Iterator[None]:
    """No file of this process may become longer; the signal that comes with it is ignored."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (pages * PAGE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def day_files(journal: Journal) -> list[str]:
    return sorted(file.name for file in journal.segments.folder.iterdir() if file.name.startswith(str(DAY)))


def test_nothing_is_lost_whatever_does_not_fit(journal: Journal, custody: SoftwareCustody, tmp_path: Path) -> None:
    records, commits = list(journal.records()), list(journal.commits())
    refused = []

    async def seal_in_less_room() -> None:
        writer = Writer(journal, custody)
        writer.start()
        keeper = Keeper(journal, writer, custody)
        for pages in range(2, 200, 6):
            try:
                with room(pages):
                    await keeper.seal()
            except JournalError as error:
                refused.append((pages, str(error)))
                if not journal.days()[0].sealed and str(DAY) in str(error):
                    assert day_files(journal) == [], "the room that it took is given back"
            journal.refresh()
            assert list(journal.records()) == records
            assert journal.known(key(SALES)) is not None
        await writer.stop()

    trio.run(seal_in_less_room)
    journal.refresh()
    assert refused[0][0] == 2
    assert f"{DAY}.mdb cannot be written: " in refused[0][1]
    assert journal.days()[0].sealed
    assert day_files(journal) == [f"{DAY}.mdb"]
    copy = Path(shutil.copy(journal.segments.path(DAY), tmp_path))
    assert prove(copy) == journal.days()[0]
    assert list(journal.commits()) == commits
    finding = verify_journal(journal, Recorder(Catalogue([]), custody, Clock()), [custody.public_key(SWITCH_SIGN)])
    assert finding.good, finding.problems


def test_it_goes_on_by_itself_when_there_is_room(
    journal: Journal, custody: SoftwareCustody, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fengshou.switch.keeper._LOOK_EVERY_S", 0.05)
    records = list(journal.records())

    async def fill_and_clear() -> None:
        writer = Writer(journal, custody)
        writer.start()
        async with trio.open_nursery() as nursery:
            with caplog.at_level(logging.ERROR), room(4):
                nursery.start_soon(Keeper(journal, writer, custody).run)
                while len(caplog.records) < 2:
                    await trio.sleep(0.02)
            assert not journal.days()[0].sealed
            with trio.fail_after(20):
                while not (journal.days()[0].sealed and not journal.untidy):
                    await trio.sleep(0.02)
                    journal.refresh()
            nursery.cancel_scope.cancel()
        await writer.stop()

    trio.run(fill_and_clear)
    said = caplog.records[0].getMessage()
    assert f"{DAY}.mdb cannot be written: " in said
    assert "make room" in said
    assert list(journal.records()) == records
