"""The embedded analytics store: exactly once, and reports that agree with a calculation by hand."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from fengshou.ext.hosts.analytics import Store
from fengshou.protocol.backend import NotServed

PRODUCTS = {
    "version": 1,
    "products": [
        {
            "id": 1,
            "name": "blueberry",
            "zh": "蓝莓",
            "varieties": [{"id": 1, "name": "Duke", "zh": "公爵"}],
            "grades": [{"grade": 1, "name": "premium", "zh": "特级", "price_low_fen": 1}],
        }
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "products.json").write_bytes(msgspec.json.encode(PRODUCTS))
    made = Store({"database": str(tmp_path / "db"), "products": str(tmp_path / "products.json")})
    yield made
    made.close()


def trade(weight: int = 100, price: int = 2000, **more: Any) -> dict[str, Any]:
    return {
        "kind": "farm-trade", "product": 1, "variety": 1, "grade": 1, "weight_centikg": weight,
        "unit_price_fen": price, "amount_fen": weight * price // 100, "town": 7, "site": "Baoshan-01",
        "farmer": "f" * 16, "buyer": "b" * 16, "lot": "L1", "rrn": "000000000001", "day": 20260601,
        "terminal": "POS00001", "time_us": 1, **more,
    }  # fmt: skip


def trades(store: Store, **arguments: Any) -> int:
    return sum(row["trades"] for row in store.query("prices", arguments))


@pytest.mark.parametrize(
    ("first", "count", "cursor"),
    [
        (1, 5, 5),    # the same batch again
        (1, 3, 5),    # part of it
        (1, 8, 8),    # it and more
        (4, 4, 7),    # overlapping
        (6, 2, 7),    # the next
        (6, 0, 5),    # nothing
        (2, 0, 5),    # nothing, of old
    ],
)  # fmt: skip
def test_what_is_there_is_skipped(store: Store, first: int, count: int, cursor: int) -> None:
    assert store.store(1, [trade()] * 5) == 5
    assert store.store(first, [trade()] * count) == cursor == store.cursor()
    assert trades(store) == cursor


@pytest.mark.parametrize("first", [7, 8, 1000])
def test_a_gap_is_refused_and_changes_nothing(store: Store, first: int) -> None:
    store.store(1, [trade()] * 5)
    with pytest.raises(ValueError, match="events 6 to"):
        store.store(first, [trade()])
    assert (store.cursor(), trades(store)) == (5, 5)


def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    """The trade's figure fits no column: neither its neighbours nor the cursor may be there."""
    with pytest.raises(Exception, match=r"(?i)range|convert|cast"):
        store.store(1, [trade(), trade(price=2**80)])
    assert (store.cursor(), trades(store)) == (0, 0)
    assert store.store(1, [trade()]) == 1


def test_cursor_survives_a_restart(tmp_path: Path) -> None:
    options = {"database": str(tmp_path / "db")}
    first = Store(options)
    first.store(1, [trade()] * 3)
    first.close()
    second = Store(options)
    assert (second.cursor(), second.store(3, [trade()] * 2), trades(second)) == (3, 4, 4)
    second.close()


def test_other_events_and_odd_trades_stop_nothing(store: Store) -> None:
    odd = trade()
    del odd["day"]
    assert store.store(1, [{"kind": "gov-enquiry", "item": 1}, odd, {}, trade()]) == 4
    assert trades(store) == 1


def test_prices_agree_with_a_calculation_by_hand(store: Store) -> None:
    random = Random(11)
    events = [
        trade(
            random.randint(1, 100_000),
            random.randint(100, 14_000),
            grade=random.randint(1, 3),
            day=20260600 + random.randint(1, 4),
            town=random.randint(1, 3),
            product=random.randint(1, 2),
        )
        for _ in range(500)
    ]
    store.store(1, events)
    rows = store.query("prices", {"by": ["product", "grade", "day"], "town": 2})
    expected: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for event in events:
        if event["town"] == 2:
            expected.setdefault((event["product"], event["grade"], event["day"]), []).append(event)
    assert [(row["product"], row["grade"], row["day"]) for row in rows] == sorted(expected)
    for row in rows:
        group = expected[row["product"], row["grade"], row["day"]]
        weight = sum(event["weight_centikg"] for event in group)
        amount = sum(event["amount_fen"] for event in group)
        prices = [event["unit_price_fen"] for event in group]
        assert row["trades"] == len(group)
        assert (row["weight_centikg"], row["amount_fen"]) == (weight, amount)
        assert (row["lowest_price_fen"], row["highest_price_fen"]) == (min(prices), max(prices))
        assert row["average_price_fen"] == (200 * amount + weight) // (2 * weight)  # half up


def test_average_is_weighted_by_volume(store: Store) -> None:
    store.store(1, [trade(weight=100, price=1000), trade(weight=300, price=2000)])
    (row,) = store.query("prices", {})
    assert row == {
        "product": 1, "product_name": "blueberry", "product_zh": "蓝莓",
        "grade": 1, "grade_name": "premium", "grade_zh": "特级", "day": 20260601,
        "trades": 2, "weight_centikg": 400, "amount_fen": 7000,
        "average_price_fen": 1750, "lowest_price_fen": 1000, "highest_price_fen": 2000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({},                                         4),
        ({"product": 1},                             3),
        ({"grade": 2},                               1),
        ({"variety": 9},                             0),
        ({"town": 8},                                1),
        ({"since": 20260602},                        2),
        ({"until": 20260601},                        2),
        ({"since": 20260602, "until": 20260602},     1),
        ({"by": ["variety", "town"], "product": 1},  3),
    ],
)  # fmt: skip
def test_filters(store: Store, arguments: dict[str, Any], count: int) -> None:
    store.store(1, [trade(), trade(grade=2), trade(day=20260602, town=8), trade(day=20260603, product=2)])
    assert trades(store, **arguments) == count


def test_villages_and_farmers(store: Store) -> None:
    store.store(
        1,
        [
            trade(farmer="a"),
            trade(farmer="a", product=2, day=20260602),
            trade(farmer="c", weight=1000),
            trade(farmer="c", site="Baoshan-02"),
        ],
    )
    villages = store.query("villages", {})
    assert [(row["site"], row["farmers"], row["trades"], row["last_day"]) for row in villages] == [
        ("Baoshan-01", 2, 3, 20260602),
        ("Baoshan-02", 1, 1, 20260601),
    ]
    farmers = store.query("farmers", {})
    assert [(row["farmer"], row["products"], row["amount_fen"]) for row in farmers] == [("c", 1, 22000), ("a", 2, 4000)]


def test_a_trade_of_no_weight_divides_nothing(store: Store) -> None:
    store.store(1, [trade(weight=0)])
    assert store.query("prices", {}) == []


def test_reports_refuse_what_they_do_not_know(store: Store) -> None:
    with pytest.raises(NotServed):
        store.query("secrets", {})
    for arguments in ({"by": ["farmer"]}, {"by": ["day", "day"]}, {"town": "7"}, {"where": "1=1"}):
        with pytest.raises(ValueError, match=r"by|town|where"):
            store.query("prices", arguments)


@pytest.mark.parametrize(("options", "reason"), [({}, "database"), ({"database": "x", "speed": 1}, "speed")])
def test_options_are_named_when_they_are_wrong(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        Store(options)


def test_a_reversed_trade_counts_no_more(store: Store) -> None:
    store.store(1, [trade(rrn="000000000001"), trade(rrn="000000000002"), trade(rrn="000000000003", price=9000)])
    store.store(4, [{"kind": "reversal", "original_rrn": "000000000003", "rrn": "000000000004"}])
    (row,) = store.query("prices", {})
    assert (row["trades"], row["highest_price_fen"]) == (2, 2000)
    assert store.cursor() == 4
