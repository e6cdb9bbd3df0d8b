"""Items of an offline upload: packed by one writer, read by two readers, and what each costs in bytes."""

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fengshou.codecs import DeltaWriter, MessageCodec
from fengshou.ext.services import balance
from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.protocol import elements as de
from fengshou.protocol import offline
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.limits import OFFLINE_ITEMS_MAX
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.money import amount_of
from fengshou.protocol.templates import OFFLINE_UPLOAD, Grammar
from fengshou.terminals.trades import read_trades

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/purchases.csv"
GRAMMAR = Grammar((), (FARM_PURCHASE, *balance.service.templates))
REFERENCE, COMPILED = ReferenceCodec(GRAMMAR), MessageCodec(GRAMMAR)
BY_TERMINAL: defaultdict[str, list[dict[int, Any]]] = defaultdict(list)
for _trade in read_trades(EXAMPLES, "farm-purchase"):
    _stan = len(BY_TERMINAL[_trade.terminal]) + 1
    BY_TERMINAL[_trade.terminal].append({de.STAN: _stan, **_trade.values})


def pack(items: list[dict[int, Any]]) -> bytes:
    return offline.pack_items(COMPILED, DeltaWriter(COMPILED), FARM_PURCHASE.id, items)


def frame_bytes(items: list[dict[int, Any]]) -> int:
    return len(
        COMPILED.encode(Message(OFFLINE_UPLOAD.id, Flag.SIGNED, 200, {de.OFFLINE_ITEMS: pack(items)}, bytes(64)))
    )


def outcome(codec: Any, data: bytes) -> tuple[str, str]:
    try:
        return "returned", repr(codec.decode_items(data))
    except UntrustedBytesError as error:
        return error.error.name, error.field


@pytest.mark.parametrize("codec", [REFERENCE, COMPILED])
@pytest.mark.parametrize("count", [1, 2, 7, OFFLINE_ITEMS_MAX])
def test_what_is_packed_is_read_again(codec: Any, count: int) -> None:
    for items in BY_TERMINAL.values():
        assert codec.decode_items(pack(items[:count])) == (FARM_PURCHASE.id, items[:count])


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(BY_TERMINAL)), st.integers(0, 60), st.integers(1, 6), st.integers(0, 2**32))
def test_bent_items_are_judged_alike(terminal: str, start: int, count: int, seed: int) -> None:
    draw, packed = random.Random(seed), pack(BY_TERMINAL[terminal][start : start + count])
    for _ in range(10):
        bent = bytearray(packed)
        for _ in range(draw.randint(1, 3)):
            bent[draw.randrange(len(bent))] ^= 1 << draw.randrange(8)
        cut = bytes(bent[: draw.randrange(len(bent) + 1)]) if draw.random() < 0.3 else bytes(bent)
        expected = outcome(REFERENCE, cut)
        assert outcome(COMPILED, cut) == expected


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", WireError.TRUNCATED),
        (b"\x3e", WireError.UNKNOWN_TEMPLATE),
        (b"\xff", WireError.UNKNOWN_TEMPLATE),
        (b"\x04\x00", WireError.FORM_UNSUPPORTED),
        (b"\x01", WireError.TRUNCATED),
    ],
)
def test_each_refusal_has_its_name(data: bytes, error: WireError) -> None:
    for codec in (REFERENCE, COMPILED):
        assert outcome(codec, data)[0] == error.name


def test_an_upload_holds_so_many_items_and_no_more() -> None:
    items = BY_TERMINAL["FS000001"]
    with pytest.raises(ValueError, match=r"1 \.\. 20"):
        pack(items[: OFFLINE_ITEMS_MAX + 1])
    with pytest.raises(ValueError, match=r"1 \.\. 20"):
        pack([])
    full = pack([items[0]] * OFFLINE_ITEMS_MAX)
    same = full[len(pack([items[0]] * (OFFLINE_ITEMS_MAX - 1))) :]
    for codec in (REFERENCE, COMPILED):
        assert outcome(codec, full + same) == ("TRAILING_BYTES", "")


def test_what_has_no_time_of_day_cannot_be_among_others() -> None:
    first, second = BY_TERMINAL["FS000001"][:2]
    with pytest.raises(ValueError, match="time of day"):
        pack([first, {**second, de.LOCAL_TIME: 99}])


# What it saves -------------------------------------------------------------------------------------------------------


def test_a_morning_of_twenty_deliveries_takes_14_bytes_each_with_the_signature() -> None:
    """One point, one kind of goods, five farmers who come again and again: what a store of an hour or two is like."""
    draw = random.Random(20)
    farmers = [f"91560010040011{number:05d}" for number in (18785, 55433, 15838, 82137, 23757)]
    items, second = [], 6 * 3600
    for stan in range(1, OFFLINE_ITEMS_MAX + 1):
        second += draw.randint(120, 600)
        weight = draw.randint(500, 16_000)
        items.append(
            {
                de.AMOUNT: amount_of(weight, 9_650),
                de.STAN: stan,
                de.LOCAL_TIME: second // 3600 * 10_000 + second // 60 % 60 * 100 + second % 60,
                de.LOCAL_DATE: 612,
                de.ENTRY_MODE: 12,
                de.PRODUCT: 1,
                de.VARIETY: 3,
                de.GRADE: 2,
                de.WEIGHT: weight,
                de.UNIT_PRICE: 9_650,
                de.TO_ACCOUNT: draw.choice(farmers),
            }
        )
    assert frame_bytes(items) <= 14 * OFFLINE_ITEMS_MAX
    assert COMPILED.decode_items(pack(items)) == (FARM_PURCHASE.id, items)


def test_twenty_purchases_of_the_season_take_23_bytes_each_with_the_signature() -> None:
    """Twenty in a row of one terminal lie days apart, with new farmers and lots all the time."""
    sizes = [
        frame_bytes(items[at : at + OFFLINE_ITEMS_MAX]) / OFFLINE_ITEMS_MAX
        for items in BY_TERMINAL.values()
        for at in range(0, len(items) - OFFLINE_ITEMS_MAX + 1, OFFLINE_ITEMS_MAX)
    ]
    assert sum(sizes) / len(sizes) < 23
    assert max(sizes) < 26
