"""Reports, indicators and commission: the programme's own numbers as fixtures, to the fen."""

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.codecs import sm3
from fengshou.protocol.batch import Side
from fengshou.switch.settlement.close import CloseError, close_month
from fengshou.switch.settlement.commission import Commission, Rate, RatesError, commissions, load_rates
from fengshou.switch.settlement.reports import Sums, grouped, indicators, total
from fengshou.switch.settlement.totals import Counted

RATES = Path(__file__).parents[2] / "examples/commission.toml"


def counted(
    service: str = "withdrawal", fen: int = 30_000, merchant: str = "M1", side: Side | None = Side.DEBIT
) -> Counted:
    return Counted(20261124, 632800000001, "FS000001", merchant, 7, 1, service, side, fen)


def test_sums_by_group_add_up_to_the_whole() -> None:
    rows = [
        counted(),
        counted("deposit", 12_345, side=Side.CREDIT),
        counted("balance", 0, side=None),
        counted(fen=1, merchant="M2"),
    ]
    sums = grouped(rows, lambda one: (one.merchant,))
    assert sums[("M1",)] == Sums(1, 30_000, 1, 12_345, 1)
    assert (
        total(sums.values())
        == total(grouped(rows, lambda one: (one.service,)).values())
        == Sums(2, 30_001, 1, 12_345, 1)
    )


# fmt: off
INDICATORS = (
    # purchases  fen each        enquiries  counter   fees saved    share
    (2_600,      2_461_538,      0,         None,     6_399_999,    None),   # N5: 64 M yuan settled, 64,000 saved
    (1,          499,            0,         0,        0,            1000),
    (1,          500,            0,         0,        1,            1000),   # half a fen goes up
    (0,          0,              790_000,   464_000,  0,            630),    # N7: 790,000 items, 63 % without a counter
    (0,          0,              0,         0,        0,            None),
)
# fmt: on


@pytest.mark.parametrize(("purchases", "fen", "enquiries", "counter", "saved", "share"), INDICATORS)
def test_indicators(purchases: int, fen: int, enquiries: int, counter: int, saved: int, share: int) -> None:
    sums = {
        ("farm-purchase",): Sums(debits=purchases, debits_fen=purchases * fen),
        ("gov-enquiry",): Sums(enquiries=enquiries),
    }
    found = indicators(sums, counter)
    assert (found.fees_saved_fen, found.substitution_per_mille) == (saved, share)
    assert found.trips_saved == found.served == purchases + enquiries


def test_the_programme_s_year() -> None:
    """N8: 6.7 million yuan of commission in 2021 over some 2,000 terminals, a busy merchant near 3,000 a month."""
    table, rng = load_rates(RATES), Random(2021)

    def month(merchant: str, withdrawals: int, deposits: int, enquiries: int) -> list[Counted]:
        cash = [counted("withdrawal", 1_000 * rng.randint(5, 80), merchant) for _ in range(withdrawals)]
        cash += [counted("deposit", rng.randint(5_000, 200_000), merchant, Side.CREDIT) for _ in range(deposits)]
        return cash + [counted("gov-enquiry", 0, merchant, None) for _ in range(enquiries)]

    (busy,) = commissions(month("BUSY", 1_500, 700, 900), table)
    assert 280_000 <= busy.payable_fen <= 300_000
    (usual,) = commissions(month("USUAL", 160, 90, 110), table)
    year_fen = 12 * (1_990 * usual.payable_fen + 10 * busy.payable_fen)
    assert year_fen >= 670_000_000


# fmt: off
EARNED = (
    # each cap   tiers                           volume   fen      millionths of a fen
    (0,   None,  ((0, 1000),),                   0,       100_000, 100_000_000),
    (20,  None,  ((0, 1000),),                   0,       100_000, 120_000_000),
    (20,  110,   ((0, 1000),),                   0,       100_000, 110_000_000),
    (0,   None,  ((0, 1000), (100_000, 500)),    0,       100_000, 100_000_000),
    (0,   None,  ((0, 1000), (100_000, 500)),    100_000, 100_000, 50_000_000),
    (0,   None,  ((0, 1000), (100_000, 500)),    50_000,  100_000, 75_000_000),   # over the border
    (0,   None,  ((0, 3), (10, 2), (20, 1)),     5,       100,     5 * 3 + 10 * 2 + 85),
    (30,  None,  (),                             0,       0,       30_000_000),
    (0,   None,  ((0, 1),),                      0,       1,       1),
)
# fmt: on


@pytest.mark.parametrize(("each", "cap", "tiers", "volume", "fen", "micro"), EARNED)
def test_earned(
    each: int, cap: int | None, tiers: tuple[tuple[int, int], ...], volume: int, fen: int, micro: int
) -> None:
    assert Rate(each, cap, tiers).earned(volume, fen) == micro


@given(st.lists(st.integers(1, 10_000_000), max_size=40), st.lists(st.integers(1, 50_000_000), max_size=4, unique=True))
def test_a_month_is_rounded_once_and_does_not_depend_on_how_it_is_cut(amounts: list[int], starts: list[int]) -> None:
    """The sum over transactions is the tiers' integral over the volume, exactly."""
    tiers = tuple((start, 1_200 - 200 * index) for index, start in enumerate(sorted({0, *starts})))
    rate, volume, micro = Rate(0, None, tiers), 0, 0
    for fen in amounts:
        micro += rate.earned(volume, fen)
        volume += fen
    assert micro == rate.earned(0, volume)
    exact = sum(
        (Decimal(min(volume, end) - start) * ppm / 1_000_000)
        for (start, ppm), end in zip(tiers, [*(start for start, _ in tiers[1:]), volume], strict=True)
        if volume > start
    )
    assert (micro + 500_000) // 1_000_000 == int(Decimal(exact).quantize(Decimal(1), ROUND_HALF_UP))


# fmt: off
UNUSABLE = (
    # what is wrong                                                                       what is named
    ('[[rate]]\nservice = "a"\neach = "1"\n[[rate]]\nservice = "a"',                      "stands twice"),
    ('[[rate]]\nservice = "a"\neach = "0.001"',                                           "parts of a fen"),
    ('[[rate]]\nservice = "a"\neach = "-1"',                                              "not a number"),
    ('[[rate]]\nservice = "a"\neach = 0.2',                                               "rate"),
    ('[[rate]]\nservice = "a"\ntier = [{ from = "5", per-mille = "1" }]',                 "begin at 0"),
    ('[[rate]]\nservice = "a"\ntier = [{ from = "0", per-mille = "1" }, { from = "0", per-mille = "2" }]', "ascend"),
    ('[[rate]]\nservice = "a"\nbonus = "1"',                                              "bonus"),
    ('monthly-cap = "1"',                                                                 "rate"),
    ('rate',                                                                              "rates.toml"),
)
# fmt: on


@pytest.mark.parametrize(("text", "named"), UNUSABLE)
def test_an_unusable_rate_table_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "rates.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(RatesError, match=named):
        load_rates(file)


def test_services_without_a_rate_earn_nothing_and_the_month_is_capped() -> None:
    table = load_rates(RATES)
    rows = [counted("settlement"), *[counted("withdrawal", 200_000) for _ in range(2_000)]]
    (one,) = commissions(rows, table)
    assert (one.transactions, one.volume_fen) == (2_000, 400_000_000)
    assert (one.earned_fen, one.payable_fen) == (150 * 300 + 1_850 * 250, 300_000)


def test_a_month_is_closed_once_and_only_when_it_is_over(tmp_path: Path) -> None:
    earned = [Commission("M1", 3, 90_000, 120, 120), Commission("M2", 1, 5, 0, 0)]
    with pytest.raises(CloseError, match="not over"):
        close_month(tmp_path, 202611, 20261130, earned)
    file = close_month(tmp_path, 202611, 20261201, earned)
    before, _, seal = file.read_bytes().rpartition(b"S,")
    assert seal.decode().strip() == sm3(before).hex()
    assert before.decode().splitlines()[1:] == ["M1,3,90000,120,120", "M2,1,5,0,0"]
    with pytest.raises(CloseError, match="closed already"):
        close_month(tmp_path, 202611, 20261201, [])
    assert file.read_bytes() == before + b"S," + seal
