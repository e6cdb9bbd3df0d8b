"""Each business day gets its file: by itself, once, after a kill too, and not before the day is decided."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fengshou.codecs import sm3
from fengshou.protocol import elements as de
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.journal.store import Entry, Journal
from fengshou.switch.settlement.close import CloseError
from fengshou.switch.settlement.days import file_of, keep_written, missing, write_day
from fengshou.switch.site import make_site
from tests.switch.entries import CODEC, DAY, MERCHANT, TERMINAL, intent, outcome, session
from tests.switch.journals import seal

ACCOUNTS = Path(__file__).parents[2] / "examples" / "accounts.csv"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("days") / "site", ACCOUNTS).folder


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    loaded = load(home / "switch.toml")
    journal = Journal(loaded.path(loaded.config.files.journal))
    yield journal
    journal.close()


def sale(stan: int, day: int) -> Entry:
    entry = intent(stan, day=day, rrn=632_800_000_000 + stan)
    entry.record.clear = CODEC.pack({de.AMOUNT: 100 + stan})
    return entry


async def _until(journal: Journal, home: Path, file: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_written, journal, home, home / "settlement")
        with trio.move_on_after(30):
            while not file.exists():
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


def test_a_day_is_written_by_itself_once_it_is_decided(home: Path, journal: Journal) -> None:
    folder, file = home / "settlement", file_of(home / "settlement", DAY)
    sales = [sale(stan, DAY) for stan in (3, 1, 2)]
    journal.commit([session(), *sales, outcome(sales[0]), outcome(sales[1])])
    journal.commit([session(day=DAY + 1)])
    journal.refresh()
    assert missing(journal, folder) == {}, "not before its lines are sealed"
    trio.run(seal, journal, custody_of(load(home / "switch.toml")))
    assert missing(journal, folder) == {DAY: True}, "a sale is open"
    journal.commit([outcome(sales[2], "51")])
    journal.refresh()
    assert missing(journal, folder) == {DAY: False}
    folder.mkdir()
    (folder / f"day-{DAY}.1.part").write_bytes(b"what a kill left")
    trio.run(_until, journal, home, file)
    lines = file.read_bytes().splitlines(keepends=True)
    assert [line.decode() for line in lines[1:3]] == [
        f"632800000001,{TERMINAL},{MERCHANT},1,1,farm-purchase,debit,101\n",
        f"632800000003,{TERMINAL},{MERCHANT},1,3,farm-purchase,debit,103\n",
    ]
    assert lines[3:] == [b"S," + sm3(b"".join(lines[:3])).hex().encode() + b"\n"]
    before = file.read_bytes()
    command = [sys.executable, "-m", "fengshou.switch", "settle", "close-days", "--home", str(home)]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == ""
    with pytest.raises(CloseError, match="closed already"):
        write_day(folder, DAY, [])
    assert file.read_bytes() == before
    assert not [*folder.glob(f"*{DAY}.[2-9]*.part")]
