"""The business day over its boundary: in the clock's rule, in numbers that it gives, and in a running switch."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.protocol import elements as de
from fengshou.switch.clock import Clock, CutOver, local_time, rrn_base
from fengshou.switch.journal.store import Journal
from fengshou.switch.rrn import RrnSource
from tests.switch.line import Line, code_of
from tests.switch.town import TERMINALS, Town, purchase, withdrawal


def moment(text: str) -> int:
    """Microseconds of a moment in China."""
    china = datetime.fromisoformat(text).replace(tzinfo=UTC) - timedelta(hours=8)
    return round(china.timestamp() * 1_000_000)


# fmt: off
DAYS = (
    # cut-over  moment in China               business day
    (0,         "2026-06-01 00:00:00.000000", 20260601),
    (0,         "2026-06-01 23:59:59.999999", 20260601),
    (0,         "2026-12-31 23:59:59.999999", 20261231),
    (0,         "2027-01-01 00:00:00.000000", 20270101),
    (23 * 60,   "2026-06-01 22:59:59.999999", 20260601),
    (23 * 60,   "2026-06-01 23:00:00.000000", 20260602),
    (23 * 60,   "2026-06-02 22:59:59.999999", 20260602),
    (23 * 60,   "2028-02-28 23:00:00.000000", 20280229),
    (23 * 60,   "2026-12-31 23:30:00.000000", 20270101),
    (12 * 60,   "2026-06-01 12:00:00.000000", 20260602),
    (12 * 60,   "2026-06-01 11:59:59.999999", 20260601),
    (150,       "2026-06-02 02:29:59.999999", 20260601),
    (150,       "2026-06-02 02:30:00.000000", 20260602),
)

WINDOW = (
    # moment in China               withdrawal  balance
    ("2026-06-01 22:58:59.999999",  False,      False),
    ("2026-06-01 22:59:00.000000",  True,       False),
    ("2026-06-01 22:59:59.999999",  True,       False),
    ("2026-06-01 23:00:00.000000",  True,       False),
    ("2026-06-01 23:01:59.999999",  True,       False),
    ("2026-06-01 23:02:00.000000",  False,      False),
    ("2026-06-02 11:00:00.000000",  False,      False),
)
# fmt: on


@pytest.mark.parametrize(("minute", "when", "day"), DAYS)
def test_business_day(minute: int, when: str, day: int) -> None:
    assert Clock(CutOver(minute)).business_day(moment(when)) == day


@given(st.integers(0, 1439), st.lists(st.integers(0, 4_000_000_000_000_000), min_size=2, max_size=20))
def test_a_day_is_remembered_only_for_as_long_as_it_lasts(minute: int, moments: list[int]) -> None:
    """One clock asked in any order says what a fresh clock says; days last 24 hours and follow each other."""
    clock = Clock(CutOver(minute))
    for now_us in moments:
        day = clock.business_day(now_us)
        assert day == Clock(CutOver(minute)).business_day(now_us)
        assert Clock(CutOver(minute)).business_day(now_us + 86_400_000_000) > day
        calendar = local_time(now_us)
        assert abs(day - (calendar.year * 10_000 + calendar.month * 100 + calendar.day)) <= 8870  # never two days off


@pytest.mark.parametrize(("when", "withdrawals", "balances"), WINDOW)
def test_window(when: str, withdrawals: bool, balances: bool) -> None:
    clock = Clock(CutOver(23 * 60, before_s=60, after_s=120, services=frozenset(("withdrawal",))))
    assert clock.is_cutting_over("withdrawal", moment(when)) is withdrawals
    assert clock.is_cutting_over("balance", moment(when)) is balances


def test_numbers_go_on_when_the_clock_steps_back_over_midnight(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", map_bytes=1 << 24)
    try:
        rrns = RrnSource(journal, Clock())
        before, after = moment("2026-06-01 23:59:59"), moment("2026-06-02 00:00:01")
        given_out = [rrns.next(now) for now in (before, before, after, before, after, after, before)]
        assert len(set(given_out)) == len(given_out)
        assert [day for _, day in given_out].count(20260601) == 4
        assert all(rrn_base(day) < rrn < rrn_base(day) + 10**8 for rrn, day in given_out)
    finally:
        journal.close()


def _soon() -> tuple[str, datetime]:
    """A cut-over in the minute that follows, as the configuration writes it."""
    now = datetime.now(UTC) + timedelta(hours=8)
    return f"{now:%H:%M}", now


def test_a_running_switch_counts_to_the_day_of_its_cut_over(
    fresh_town: Callable[..., AbstractContextManager[Town]],
) -> None:
    """Cut over at this very minute, with an hour's window for withdrawals: trade goes on, withdrawals wait."""
    time, now = _soon()
    with fresh_town(cut_over={"time": time, "before-s": 3600, "after-s": 3600, "services": ["withdrawal"]}) as town:
        day = Clock(CutOver(now.hour * 60 + now.minute)).business_day(moment(f"{now:%Y-%m-%d %H:%M}:30"))
        with Line(town, TERMINALS[0]).sign_in() as line:
            asked = line.message("withdrawal", withdrawal())
            assert code_of(line.say(line.codec.encode(asked), asked.sequence)) == "90"
            answer = line.ask("farm-purchase", purchase())
            assert (code_of(answer), answer.values[de.SETTLEMENT_DATE]) == ("00", day % 10_000)
            refused = line.last_stan
        records = town.records()
        assert refused not in {record.stan for record in records if record.template == asked.template}
        assert {record.business_day for record in records} == {day}
        books = town.books()["transactions"]
        assert len(books) == 1
        town.require_truth()
