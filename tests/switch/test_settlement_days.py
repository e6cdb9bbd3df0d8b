"""What counts over days: outcomes after the cut-over, what was taken back later, days that concern nobody any more."""

import pytest

from fengshou.ext.services import farm_purchase, settlement
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState, Line, Side
from fengshou.switch.clock import Clock
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Entry, Journal, batch_key
from fengshou.switch.recording import Recorder
from fengshou.switch.settlement.totals import Settlements
from tests.switch.entries import (
    CODEC,
    MERCHANT,
    TERMINAL,
    intent,
    key,
    outcome,
    reversed_by_switch,
    session,
)

D1, D2, D3 = 20_261_124, 20_261_125, 20_261_126


@pytest.fixture
def settlements(journal: Journal, custody: SoftwareCustody) -> Settlements:
    catalogue = Catalogue([farm_purchase.service, settlement.service])
    return Settlements(journal, catalogue, Recorder(catalogue, custody, Clock()))


def bought(stan: int, fen: int, *, batch: int = 1, day: int = D1) -> Entry:
    entry = intent(stan, batch=batch, day=day, rrn=day * 10_000 + stan)
    entry.record.clear = CODEC.pack({de.AMOUNT: fen})
    return entry


def fen_of(settlements: Settlements, first: int, last: int) -> dict[int, int]:
    return {one.stan: one.fen for one in settlements.days(first, last) if one is not None}


def test_an_outcome_counts_to_its_intent_s_day_whenever_it_comes(journal: Journal, settlements: Settlements) -> None:
    early, late = bought(1, 100), bought(2, 200)
    journal.commit([early, outcome(early), late])
    tomorrow = bought(3, 300, day=D2)
    journal.commit([tomorrow, outcome(late), outcome(tomorrow)])
    after = bought(4, 400, day=D3)
    journal.commit([after, outcome(after)])
    journal.refresh()
    assert fen_of(settlements, D1, D1) == {1: 100, 2: 200}
    assert fen_of(settlements, D2, D2) == {3: 300}
    assert fen_of(settlements, D1, D2) == {1: 100, 2: 200, 3: 300}
    assert fen_of(settlements, D3, D3) == {4: 400}
    assert fen_of(settlements, D3 + 1, D3 + 9) == {}
    # The day's report reads its own lines and the next day's, not the years before or after.
    assert settlements.span(D1, D1).stop <= after.record.number
    assert settlements.span(D3, D3).start == after.record.number


def test_only_approvals_that_stand_count(journal: Journal, settlements: Settlements) -> None:
    good, declined, unknown, undone, owed, open_ = (bought(stan, stan * 100) for stan in range(1, 7))
    journal.commit([good, declined, unknown, undone, owed, open_])
    journal.commit(
        [
            outcome(good),
            outcome(declined, "51"),
            outcome(unknown, "98", owes=unknown.record.number),
            outcome(undone),
            outcome(owed, owes=owed.record.number),
        ]
    )
    journal.commit([reversed_by_switch(undone)])
    journal.refresh()
    assert fen_of(settlements, D1, D1) == {1: 100}
    batch = settlements.batch(TERMINAL, MERCHANT, 1)
    assert batch is not None
    assert (batch.in_flight, batch.lines, batch.state) == (True, [Line(1, Side.DEBIT, 100)], BatchState.OPEN)
    journal.commit([outcome(open_, "91"), reversed_by_switch(owed), reversed_by_switch(unknown)])
    journal.refresh()
    batch = settlements.batch(TERMINAL, MERCHANT, 1)
    assert batch is not None
    assert (batch.in_flight, batch.lines) == (False, [Line(1, Side.DEBIT, 100)])


def test_batches_are_their_own_and_an_unknown_one_is_none(journal: Journal, settlements: Settlements) -> None:
    rows = [bought(stan, 1_000 * batch + stan, batch=batch) for batch in (1, 2, 256) for stan in (1, 2)]
    journal.commit(rows)
    journal.commit([outcome(row) for row in rows])
    journal.refresh()
    for number in (1, 2, 256):
        batch = settlements.batch(TERMINAL, MERCHANT, number)
        assert batch is not None
        assert [line.fen for line in batch.lines] == [1_000 * number + 1, 1_000 * number + 2]
    assert settlements.batch(TERMINAL, MERCHANT, 3) is None
    assert settlements.batch(TERMINAL, "999452007600002", 1) is None


def test_a_tombstone_is_nothing_that_counts(journal: Journal, settlements: Settlements) -> None:
    reversal = bought(9, 100)
    journal.commit([reversal, outcome(reversal, "25", tombstone=key(5))])
    journal.refresh()
    assert fen_of(settlements, D1, D1) == {}
    batch = settlements.batch(TERMINAL, MERCHANT, 1)
    assert batch is not None
    assert (batch.in_flight, list(batch.lines)) == (False, [])


def test_settling_moves_the_terminal_on_once(journal: Journal) -> None:
    """The journal's part: state and details grow, the current batch moves on by the totals alone."""
    named = batch_key(TERMINAL, MERCHANT, 1)
    journal.commit([session(1)])
    for stan, (state, batch_after, told) in enumerate(((2, 2, 1), (2, 2, 2), (3, 2, 3)), 10):
        said = bought(stan, 1)
        end = outcome(said)
        end.settles = named, state
        journal.commit([said, end])
        journal.refresh()
        found, intents = journal.settlement(named)
        assert (found, len(intents), journal.batch(TERMINAL)) == (state, told, batch_after)
    journal.commit([session(1)])  # a sign-in to the closed batch that was already on its way
    journal.refresh()
    assert journal.batch(TERMINAL) == 2
    assert list(journal.settlements()) == [named]
