"""What the store forgets after a year and a month, what it never forgets, and what is said of the forgotten."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
import trio

from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.service import TerminalFacts
from fengshou.switch.clock import Clock, rrn_base
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.journal import find as search
from fengshou.switch.journal.audit import Finding
from fengshou.switch.journal.audit_indexes import Indexes
from fengshou.switch.journal.columns import Wanted
from fengshou.switch.journal.prune import BEGIN, KEPT_DAYS, Place, Pruning
from fengshou.switch.journal.store import Entry, Journal, JournalError, Known, batch_key
from fengshou.switch.journal.tables import BATCH_MAX, Forgotten
from fengshou.switch.keeper import Keeper
from fengshou.switch.originals import Originals
from fengshou.switch.recording import Recorder
from fengshou.switch.settlement.totals import Settlements
from tests.switch.entries import (
    MERCHANT,
    TERMINAL,
    intent,
    key,
    open_journal,
    outcome,
    reversed_by_switch,
    session,
)
from tests.switch.journals import writing

FIRST = date(2026, 11, 24)
LASTING, DAILY = bytes(4) + b"l" * 16, b"d" * 16
CATALOGUE = Catalogue([load_service("fengshou.ext.services.farm_purchase", {})])


def day_after(days: int) -> int:
    day = FIRST + timedelta(days=days)
    return day.year * 10_000 + day.month * 100 + day.day


class Book:
    """A journal in which a terminal trades one batch a day, on the days that are asked for."""

    def __init__(self, folder: Path, custody: SoftwareCustody) -> None:
        self.journal = open_journal(folder)
        self.custody = custody

    def trade(self, days: int, batch: int, *fates: str) -> dict[str, Entry]:
        """A batch of one sale of each fate; its totals come on the next trade."""
        day = day_after(days)
        self.journal.commit([session(batch=batch, day=day)])
        sales = {
            fate: intent(
                stan, batch=batch, day=day, rrn=rrn_base(day) + stan,
                charges=((LASTING, 1), (day.to_bytes(4, "big") + DAILY, 5)),
            )
            for stan, fate in enumerate(fates, 1)
        }  # fmt: skip
        self.journal.refresh()
        self.journal.commit(list(sales.values()))
        for fate, sale in sales.items():
            if fate == "approved":
                self.journal.commit([outcome(sale)])
            elif fate in ("owed", "reversed"):
                self.journal.commit([outcome(sale, "98", owes=sale.record.number)])
            if fate == "reversed":
                self.journal.commit([reversed_by_switch(sale, charges=sale.charges)])
        self.journal.refresh()
        return sales

    def settle(self, days: int, batch: int) -> None:
        totals = intent(900, batch=batch, day=day_after(days), rrn=rrn_base(day_after(days)) + 900)
        end = outcome(totals)
        end.settles = (batch_key(TERMINAL, MERCHANT, batch), 1)
        self.journal.commit([totals, end])
        self.journal.refresh()

    def keep(self) -> None:
        async def main() -> None:
            async with writing(self.journal, self.custody) as writer:
                keeper = Keeper(self.journal, writer, self.custody)
                await keeper.seal()
                await keeper.prune()

        trio.run(main)
        self.journal.refresh()

    def audit(self) -> list[str]:
        finding = Finding()
        Indexes(self.journal, CATALOGUE, Recorder(CATALOGUE, self.custody, Clock()), finding).verify()
        return finding.problems

    def rows(self) -> dict[str, int]:
        with self.journal._env.begin() as txn:
            return {name: txn.stat(db)["entries"] for name, db in self.journal._db.items()}


@pytest.fixture
def book(tmp_path: Path, custody: SoftwareCustody) -> Book:
    return Book(tmp_path, custody)


def test_what_no_rule_can_ask_for_is_forgotten_and_the_rest_is_kept(book: Book) -> None:
    book.trade(0, 1, "approved", "reversed")
    book.settle(0, 1)
    book.trade(1, 2, "approved", "open", "owed")
    book.settle(1, 2)
    book.trade(KEPT_DAYS, 3, "approved")  # a day of which all is kept
    book.settle(KEPT_DAYS, 3)
    book.keep()
    assert [book.journal.known(key(stan, 1)) for stan in (1, 900)] != [None, None], "not a day too early"
    book.trade(KEPT_DAYS + 2, 4, "approved")
    book.keep()
    journal = book.journal
    assert [journal.known(key(stan, 1)) for stan in (1, 900)] == [None, None]
    undone = journal.known(key(2, 1))
    assert undone is not None
    assert undone.intent == 0, "that it was undone is known for ever"
    assert journal.known(key(1, 2)) is None
    for stan in (2, 3):  # what is open or owed
        known = journal.known(key(stan, 2))
        assert known is not None
        assert journal.record(known.intent).stan == stan
        assert journal.charges(known.intent)
    assert [journal.known(key(1, batch)) is not None for batch in (3, 4)] == [True, True]
    assert [journal.forgotten(key(1, batch)) for batch in (1, 2, 3, 4, 5)] == [True, True, False, False, False]
    assert [journal.settlement(batch_key(TERMINAL, MERCHANT, batch))[0] for batch in (1, 2, 3)] == [0, 0, 1]
    assert journal.counter(LASTING) == 7 - 1, "a lasting limit is not forgotten"
    assert journal.counter(day_after(0).to_bytes(4, "big") + DAILY) == 0
    assert journal.counter(day_after(KEPT_DAYS + 2).to_bytes(4, "big") + DAILY) == 5
    assert journal.last_rrn((rrn_base(day_after(KEPT_DAYS + 2))) // 10**8)
    assert book.audit() == []


def test_the_current_batch_is_never_forgotten(book: Book) -> None:
    """A terminal that never settles may still repeat what it asked two years ago."""
    old = book.trade(0, 1, "approved")["approved"].record
    journal = book.journal
    journal.commit([session(day=day_after(2 * KEPT_DAYS))])
    journal.refresh()
    book.keep()
    assert journal.known(key(1, 1)) == Known(old.number, old.number + 1, 0)
    assert not journal.forgotten(key(1, 1))
    assert book.audit() == []


def test_an_outcome_that_came_days_later_is_found_by_the_report_of_its_day(book: Book) -> None:
    sale = book.trade(0, 1, "late")["late"]
    book.trade(1, 2, "approved")
    book.trade(2, 3, "approved")
    book.journal.commit([outcome(sale)])
    book.settle(2, 3)
    book.trade(2 * KEPT_DAYS, 4, "approved")
    book.keep()
    assert book.journal.known(key(1, 2)) is None
    settlements = Settlements(book.journal, CATALOGUE, Recorder(CATALOGUE, book.custody, Clock()))
    for days in range(3):
        counted = [each for each in settlements.days(day_after(days), day_after(days)) if each is not None]
        assert [(each.batch, each.stan) for each in counted if each.stan < 900] == [(days + 1, 1)], days


def test_what_is_forgotten_is_not_taken_for_what_never_came(book: Book) -> None:
    """A reversal of it would get a tombstone and "reversed", though the sale stands."""
    book.trade(0, 1, "approved")
    book.settle(0, 1)
    book.trade(2 * KEPT_DAYS, 2, "approved")
    book.keep()
    recorder = Recorder(CATALOGUE, book.custody, Clock())
    originals = Originals(CATALOGUE, book.journal, Duplicates(book.journal), recorder, str)
    facts = TerminalFacts(TERMINAL, MERCHANT, 0, "", "", "", "", "", 0)
    with pytest.raises(Forgotten, match="batch 1 of TT000001 was too long ago"):
        originals.find(key(1, 1), facts)
    assert originals.find(key(77, 2), facts) is None
    with pytest.raises(Forgotten):
        Settlements(book.journal, CATALOGUE, recorder).batch(TERMINAL, MERCHANT, 1)
    (story,) = search.find(search.Place(book.journal), Wanted(rrn=rrn_base(day_after(0)) + 1)).stories
    assert [record.stan for record in story[-2:]] == [1, 1], "people find it in the file of its day"


@pytest.mark.parametrize("steps", range(1, 6))
def test_killed_between_two_steps_the_next_start_forgets_the_rest(
    book: Book, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fengshou.switch.journal.store._STEP", 3)
    for day in range(4):
        book.trade(day, day + 1, "approved", "reversed")
        book.settle(day, day + 1)
    book.trade(2 * KEPT_DAYS, 5, "approved")
    prune: Callable[..., object] = Journal.prune
    left = steps

    def mortal(journal: Journal, at: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise JournalError("killed")
        return prune(journal, at)

    monkeypatch.setattr(Journal, "prune", mortal)
    with pytest.raises(JournalError, match="killed"):
        book.keep()
    monkeypatch.undo()
    book.journal.close()
    book.journal = open_journal(tmp_path)
    book.keep()
    assert [book.journal.known(key(1, batch)) is None for batch in range(1, 6)] == [True] * 4 + [False]
    assert book.audit() == []


def test_batches_of_before_their_numbers_began_again_are_forgotten_too(book: Book) -> None:
    for days, batch in ((0, BATCH_MAX - 2), (1, BATCH_MAX - 1), (4, BATCH_MAX), (KEPT_DAYS + 2, 1), (KEPT_DAYS + 3, 2)):
        book.trade(days, batch, "approved", "reversed")
        book.settle(days, batch)
    book.keep()
    known = [book.journal.known(key(1, batch)) is not None for batch in (BATCH_MAX - 2, BATCH_MAX - 1, BATCH_MAX, 1, 2)]
    assert known == [False, False, True, True, True]
    book.trade(KEPT_DAYS + 5, 3, "approved")
    book.keep()
    assert book.journal.known(key(1, BATCH_MAX)) is None
    assert book.journal.settlement(batch_key(TERMINAL, MERCHANT, BATCH_MAX)) == (0, ())
    assert book.journal.known(key(1, 1)) is not None
    assert book.audit() == []


def test_a_walk_leaps_over_what_is_too_new(book: Book) -> None:
    """Of a hundred batches that are kept, one row is looked at."""
    book.trade(0, 1, "approved", "reversed")
    book.settle(0, 1)
    for batch in range(2, 102):
        book.trade(KEPT_DAYS + 2, batch, "approved")
        book.settle(KEPT_DAYS + 2, batch)
    book.keep()
    journal = book.journal
    journal.tidy()  # all keys stand in the table
    looked_at: list[bytes] = []
    with journal._env.begin(write=True) as txn:
        walk = Pruning(txn, journal._db, journal.days())
        for table in ("keys", "settlements"):
            rule = walk._rules[table]
            walk._rules[table] = lambda at, value, rule=rule: looked_at.append(at) or rule(at, value)  # type: ignore[misc]
        at: Place | None = BEGIN
        while at is not None:
            at = walk.step(at, 10)
    assert book.rows()["keys"] >= 200
    assert len(looked_at) <= 4


def test_the_store_stays_as_small_as_the_days_that_it_keeps(book: Book) -> None:
    """Six years, a day of trade a month: but for what was undone, and the filters by which a search knows which file to
    open, the store does not grow with the years."""
    sizes = []
    for month in range(72):
        book.trade(month * 30, month + 1, "approved", "reversed")
        book.settle(month * 30, month + 1)
        if month % 24 == 23:
            book.keep()
            sizes.append(book.rows())
    for table in ("records", "columns", "commits", "keys", "charges", "settlements", "counters", "rrns"):
        assert sizes[1][table] == sizes[-1][table], table
    assert sizes[-1]["undone"] == sizes[-1]["days"] == 72
    assert sizes[-1]["filters"] == 2 * 71, "a head and a page for each sealed day"
