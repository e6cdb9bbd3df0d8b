"""Every rung of every scene: one row each, and the rung that must refuse it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.ext.services import rungs
from fengshou.protocol import limits
from fengshou.protocol.codes import CODES
from fengshou.protocol.money import amount_of
from fengshou.protocol.service import Request, Service, refusal

Ask = Callable[..., Request]

SELF = "9020000000104729"
CARD = "9156004000000079191"
PIN = bytes(range(16))

# fmt: off
REFUSED = (
    # scene            change                                    code  rung
    ("farm-purchase",  {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("farm-purchase",  {"local_time": 240_000},                  "30", "local time and date exist"),
    ("farm-purchase",  {"local_time": 236_000},                  "30", "local time and date exist"),
    ("farm-purchase",  {"local_date": 230},                      "30", "local time and date exist"),
    ("farm-purchase",  {"local_date": 0},                        "30", "local time and date exist"),
    ("farm-purchase",  {"entry_mode": 999},                      "30", "entry mode is known"),
    ("farm-purchase",  {"entry_mode": 50},                       "30", "entry mode is known"),
    ("farm-purchase",  {"product": 99},                          "12", "product is in the dictionary"),
    ("farm-purchase",  {"product": 0},                           "12", "product is in the dictionary"),
    ("farm-purchase",  {"variety": 6},                           "12", "variety is one of the product's"),
    ("farm-purchase",  {"product": 2, "variety": 5},             "12", "variety is one of the product's"),
    ("farm-purchase",  {"grade": 6},                             "12", "grade is one of the product's"),
    ("farm-purchase",  {"amount": 0},                            "13", "amount is more than zero"),
    ("farm-purchase",  {"weight": 0, "amount": 0},               "13", "amount is more than zero"),
    ("farm-purchase",  {"amount": 482_001},                      "13", "weight × price = amount"),
    ("farm-purchase",  {"amount": 481_999},                      "13", "weight × price = amount"),
    ("farm-purchase",  {"weight": 0},                            "13", "weight × price = amount"),
    ("farm-purchase",  {"weight": 100, "unit_price": 2_399, "amount": 2_399},
                                                                 "61", "price is in the band of product and grade"),
    ("farm-purchase",  {"weight": 100, "unit_price": 10_501, "amount": 10_501},
                                                                 "61", "price is in the band of product and grade"),
    ("farm-purchase",  {"pan": CARD[:-1] + "2", "entry_mode": 52}, "14", "card number has its check digit"),
    ("farm-purchase",  {"pan": "18", "entry_mode": 52},          "14", "card number has its check digit"),
    ("farm-purchase",  {"pan": CARD},                            "12", "the card was read, not keyed"),
    ("farm-purchase",  {"to_account": SELF},                     "12", "payer and payee are two"),
    ("farm-purchase",  {"pan": CARD, "entry_mode": 52, "to_account": CARD},
                                                                 "12", "payer and payee are two"),
    ("withdrawal",     {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("withdrawal",     {"local_date": 1_301},                    "30", "local time and date exist"),
    ("withdrawal",     {"entry_mode": 0},                        "30", "entry mode is known"),
    ("withdrawal",     {"amount": 0},                            "13", "amount is more than zero"),
    ("withdrawal",     {"amount": 999},                          "13", "amount is a multiple of CNY 10"),
    ("withdrawal",     {"amount": 10_500},                       "13", "amount is a multiple of CNY 10"),
    ("withdrawal",     {"pan": CARD[:-1] + "2"},                 "14", "card number has its check digit"),
    ("withdrawal",     {"entry_mode": 12},                       "12", "the card was read, not keyed"),
    ("withdrawal",     {"entry_mode": 51, "pin_block": PIN},     "30", "a PIN has a card and a key"),
    ("withdrawal",     {"pin_block": PIN, "key_epoch": 1},       "30", "a PIN has a card and a key"),
    ("deposit",        {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("deposit",        {"local_time": 1_260},                    "30", "local time and date exist"),
    ("deposit",        {"entry_mode": 222},                      "30", "entry mode is known"),
    ("deposit",        {"pan": None},                            "30", "either a card or an account receives"),
    ("deposit",        {"to_account": "12345678"},               "30", "either a card or an account receives"),
    ("deposit",        {"amount": 0},                            "13", "amount is more than zero"),
    ("deposit",        {"pan": CARD[:-1] + "2"},                 "14", "card number has its check digit"),
    ("deposit",        {"pan": None, "to_account": SELF},        "12", "the point does not pay itself"),
    ("transfer",       {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("transfer",       {"local_date": 432},                      "30", "local time and date exist"),
    ("transfer",       {"entry_mode": 53},                       "30", "entry mode is known"),
    ("transfer",       {"amount": 0},                            "13", "amount is more than zero"),
    ("transfer",       {"pan": CARD[:-1] + "2"},                 "14", "card number has its check digit"),
    ("transfer",       {"entry_mode": 11},                       "12", "the card was read, not keyed"),
    ("transfer",       {"pan": None, "entry_mode": 51, "pin_block": PIN, "key_epoch": 1},
                                                                 "30", "a PIN has a card and a key"),
    ("transfer",       {"to_account": CARD},                     "12", "payer and payee are two"),
    ("transfer",       {"pan": None, "to_account": SELF},        "12", "payer and payee are two"),
    ("balance",        {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("balance",        {"local_time": 235_960},                  "30", "local time and date exist"),
    ("balance",        {"entry_mode": 31},                       "30", "entry mode is known"),
    ("balance",        {"pan": CARD[:-1] + "2"},                 "14", "card number has its check digit"),
    ("balance",        {"entry_mode": 12},                       "12", "the card was read, not keyed"),
    ("balance",        {"entry_mode": 51, "pin_block": PIN, "key_epoch": 0}, "30", "a PIN has a card and a key"),
    ("reversal",       {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("reversal",       {"local_date": 631},                      "30", "local time and date exist"),
    ("reversal",       {"amount": 0},                            "13", "amount is more than zero"),
    ("reversal",       {"response_code": "51"},                  "30", "reason is known"),
    ("reversal",       {"original_stan": 12},                    "12", "the original is another message"),
    ("gov-enquiry",    {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("gov-enquiry",    {"local_date": 1_232},                    "30", "local time and date exist"),
    ("gov-enquiry",    {"item": 0},                              "40", "an item is named"),
    ("gov-enquiry",    {"domain": 0},                            "40", "domain is known"),
    ("gov-enquiry",    {"domain": 9},                            "40", "domain is known"),
    ("gov-enquiry",    {"subject": ""},                          "30", "a subject is named"),
    ("gov-enquiry",    {"subject": " 　"},                        "30", "a subject is named"),
    ("gov-enquiry",    {"period": 0},                            "30", "period is a year or a month"),
    ("gov-enquiry",    {"period": 1899},                         "30", "period is a year or a month"),
    ("gov-enquiry",    {"period": 202_500},                      "30", "period is a year or a month"),
    ("gov-enquiry",    {"period": 202_513},                      "30", "period is a year or a month"),
    ("settlement",     {"stan": 0},                              "30", "STAN is 1 .. 999999"),
    ("settlement",     {"local_time": 126_000},                  "30", "local time and date exist"),
    ("settlement",     {"original_batch": 0},                    "30", "a batch is named"),
    ("settlement",     {"template": 1, "original_batch": 0},     "30", "a batch is named"),
    ("settlement",     {"template": 1, "message_number": 0},     "30", "the message is one of those that it counts"),
    ("settlement",     {"template": 1, "message_number": 3},     "30", "the message is one of those that it counts"),
    ("settlement",     {"template": 1, "details": b"\x80"},      "30", "details can be read"),
)

LAWFUL = (
    # scene            change                                    why
    ("farm-purchase",  {},                                       "the terminal's own account pays"),
    ("farm-purchase",  {"pan": CARD, "entry_mode": 52},          "a card pays"),
    ("farm-purchase",  {"town": 8, "lot": "BA-0612-07"},         "in the next town, with a lot"),
    ("farm-purchase",  {"weight": 33, "unit_price": 3_333, "amount": 1_100}, "1099.89 fen"),
    ("farm-purchase",  {"weight": 50, "unit_price": 2_401, "amount": 1_201}, "1200.5 fen: half a fen goes up"),
    ("farm-purchase",  {"weight": 100, "unit_price": 2_400, "amount": 2_400}, "the low end of the band"),
    ("farm-purchase",  {"weight": 100, "unit_price": 10_500, "amount": 10_500}, "the high end of the band"),
    ("farm-purchase",  {"local_date": 229, "local_time": 0},     "29 February, midnight"),
    ("farm-purchase",  {"to_account": "12345678"},               "an account without a check digit"),
    ("withdrawal",     {"amount": 1_000},                        "one note"),
    ("withdrawal",     {"entry_mode": 21},                       "magnetic stripe with PIN"),
    ("withdrawal",     {"entry_mode": 72},                       "contactless"),
    ("deposit",        {"entry_mode": 12},                       "a keyed card receives"),
    ("deposit",        {"pan": None, "to_account": "12345678"},  "an account receives"),
    ("transfer",       {},                                       "from a card"),
    ("transfer",       {"entry_mode": 51, "pin_block": PIN, "key_epoch": 1}, "with its PIN"),
    ("transfer",       {"pan": None},                            "from the terminal's own account"),
    ("balance",        {},                                       "of a card"),
    ("balance",        {"pan": None, "entry_mode": 12},          "of the terminal's own account"),
    ("reversal",       {},                                       "no response"),
    ("reversal",       {"response_code": "06"},                  "another reason"),
    ("reversal",       {"original_stan": 12, "original_batch": 6}, "the same STAN in the batch before"),
    ("gov-enquiry",    {},                                       "no period"),
    ("gov-enquiry",    {"period": 2025},                         "a year"),
    ("gov-enquiry",    {"period": 202_512},                      "a month"),
    ("gov-enquiry",    {"item": 1023, "domain": 8},              "the last item, tax"),
    ("settlement",     {},                                       "totals"),
    ("settlement",     {"debits": 0, "debits_amount": 0, "credits": 0, "credits_amount": 0}, "of an empty batch"),
    ("settlement",     {"template": 1},                          "the first of two messages"),
    ("settlement",     {"template": 1, "details": b"", "last_message": 1}, "nothing at all"),
)
# fmt: on


@pytest.mark.parametrize(("scene", "change", "code", "rung"), REFUSED)
def test_refused(
    services: Mapping[str, Service], ask: Ask, scene: str, change: dict[str, Any], code: str, rung: str
) -> None:
    request = ask(scene, **change)
    found = refusal(services[scene].ladder, request)
    assert found is not None
    assert (found.code, found.name) == (code, rung)
    assert not services[scene].sound(request)


@pytest.mark.parametrize(("scene", "change", "why"), LAWFUL)
def test_lawful(services: Mapping[str, Service], ask: Ask, scene: str, change: dict[str, Any], why: str) -> None:
    assert refusal(services[scene].ladder, ask(scene, **change)) is None


def test_every_rung_has_a_row_and_a_registered_code(services: Mapping[str, Service]) -> None:
    rows = {(scene, rung) for scene, _, _, rung in REFUSED}
    scenes = {scene for scene, *_ in REFUSED}  # the others: test_followers
    assert rows == {(name, rung.name) for name in scenes for rung in services[name].ladder}
    assert {rung.code for service in services.values() for rung in service.ladder} <= CODES.keys()


# Good values, their neighbours, and what no scene takes.
CHANGES = {
    "product": st.integers(0, 8), "variety": st.integers(0, 8), "grade": st.integers(0, 6),
    "weight": st.sampled_from((0, 1, 50, 12_050)), "unit_price": st.integers(1, 12_000),
    "amount": st.sampled_from((0, 482_000)), "stan": st.integers(0, 2), "local_time": st.integers(0, 250_000),
    "local_date": st.integers(0, 1_300), "entry_mode": st.integers(0, 999), "to_account": st.sampled_from((SELF, CARD)),
    "pan": st.sampled_from((None, "", CARD, CARD[:-1] + "2")), "settles": st.booleans(),
}  # fmt: skip


@pytest.mark.parametrize("scene", ["farm-purchase"])
@given(st.fixed_dictionaries({}, optional=CHANGES))
def test_what_is_sound_at_one_look_climbs_the_ladder(
    services: Mapping[str, Service], ask: Ask, scene: str, change: dict[str, Any]
) -> None:
    if change.pop("settles", False) and "amount" not in change:  # the amount that weight and price ask for
        change["amount"] = amount_of(change.get("weight", 12_050), change.get("unit_price", 4_000))
    request = ask(scene, **change)
    holds = refusal(services[scene].ladder, request) is None
    assert services[scene].sound(request) == (holds and change.get("pan") is None)


@given(
    weight=st.integers(1, limits.WEIGHT_CENTIKG_MAX),
    price=st.integers(1, limits.UNIT_PRICE_FEN_MAX),
)
def test_amount_is_the_nearest_fen_and_half_goes_up(weight: int, price: int) -> None:
    error = 100 * amount_of(weight, price) - weight * price
    assert -50 < error <= 50


@given(
    weight=st.integers(1, 1_000_000),
    price=st.integers(2_400, 10_500),
    error=st.integers(-1_000, 1_000).filter(bool),
)
def test_no_other_amount_passes(services: Mapping[str, Service], ask: Ask, weight: int, price: int, error: int) -> None:
    ladder = services["farm-purchase"].ladder
    amount = amount_of(weight, price)
    assert refusal(ladder, ask("farm-purchase", weight=weight, unit_price=price, amount=amount)) is None
    if amount + error > 0:
        found = refusal(ladder, ask("farm-purchase", weight=weight, unit_price=price, amount=amount + error))
        assert found is not None
        assert found.code == "13"


@given(st.integers(0, 235_959), st.integers(0, 1_231))
def test_clock_readings_are_those_of_a_leap_year(hhmmss: int, mmdd: int) -> None:
    try:
        datetime.strptime(f"2024{mmdd:04d}{hhmmss:06d}", "%Y%m%d%H%M%S")
        lawful = True
    except ValueError:
        lawful = False
    assert rungs.is_clock_reading(hhmmss, mmdd) == lawful


@pytest.mark.parametrize("scene", ["withdrawal", "transfer", "balance", "preauthorisation"])
def test_a_bank_may_want_the_pin_of_every_card(ask: Ask, scene: str) -> None:
    service = type(import_module(f"fengshou.ext.services.{scene}").service)()
    card = {"pan": CARD, "entry_mode": 52, "amount": 30_000, "stan": 7, "local_time": 1, "local_date": 320}
    assert refusal(service.ladder, ask(scene, **card)) is None
    service.configure({"pin": "required"})
    found = refusal(service.ladder, ask(scene, **card))
    assert found is not None
    assert (found.code, found.name) == ("99", "a card pays with its PIN")
    entered = {**card, "entry_mode": 51, "pin_block": PIN, "key_epoch": 1}
    assert refusal(service.ladder, ask(scene, **entered)) is None
    if scene in ("transfer", "balance"):
        assert refusal(service.ladder, ask(scene, pan=None, entry_mode=12)) is None, "the point's own account has none"
