"""What each scene asks of its back end, what it makes of the reply, and what analytics learns."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fengshou.ext.services.core_banking import MalformedAmounts, amounts_of
from fengshou.ext.services.farm_purchase import FarmPurchase
from fengshou.ext.services.withdrawal import Withdrawal
from fengshou.protocol import elements as de
from fengshou.protocol.elements import Privacy
from fengshou.protocol.service import Conclusion, Iso8583Call, JsonCall, OptionError, Reply, Request, Service
from fengshou.protocol.templates import Grammar

Ask = Callable[..., Request]

CARD = "9156004000000079191"
FARMER = "9156001001000079192"
SHOP = "9020000000104729"

GOODS = "FARM 1.1.2 12050*4000"
OUT, IN = "CASH OUT BA12", "CASH IN BA12"
READ, ACCOUNT, OWN = {"pan": CARD, "entry_mode": 52}, {"pan": None, "to_account": FARMER}, {"pan": None}

# fmt: off
CALLS = (
    # scene            change   DE 3      DE 4            DE 2  DE 102  DE 103  DE 48
    ("farm-purchase",  {},      "000000", "000000482000", None, SHOP,   FARMER, GOODS),
    ("farm-purchase",  READ,    "000000", "000000482000", CARD, None,   FARMER, GOODS),
    ("withdrawal",     {},      "010000", "000000030000", CARD, None,   SHOP,   OUT),
    ("deposit",        {},      "210000", "000000012345", CARD, SHOP,   None,   IN),
    ("deposit",        ACCOUNT, "210000", "000000012345", None, SHOP,   FARMER, IN),
    ("transfer",       {},      "400000", "000000012345", CARD, CARD,   FARMER, "TRANSFER"),
    ("transfer",       OWN,     "400000", "000000012345", None, SHOP,   FARMER, "TRANSFER"),
    ("balance",        {},      "310000", None,           CARD, None,   None,   "BALANCE"),
    ("balance",        OWN,     "310000", None,           None, SHOP,   None,   "BALANCE"),
)
# fmt: on


@pytest.mark.parametrize(("scene", "change", "code", "amount", "card", "payer", "payee", "text"), CALLS)
def test_host_call(
    services: Mapping[str, Service],
    ask: Ask,
    scene: str,
    change: dict[str, Any],
    code: str,
    amount: str | None,
    card: str | None,
    payer: str | None,
    payee: str | None,
    text: str,
) -> None:
    call = services[scene].call(ask(scene, **change))
    assert isinstance(call, Iso8583Call)
    expected = {
        2: card, 3: code, 4: amount, 12: "093005", 13: "0612", 15: "0609", 25: "00", 48: text, 102: payer, 103: payee,
    }  # fmt: skip
    fields = dict(call.fields)
    assert len(str(fields.pop(22))) == 3
    assert call.mti == 200
    assert fields == {number: value for number, value in expected.items() if value is not None}


# fmt: off
BALANCES = (
    # DE 54                                               ledger     available
    ("1001156C000000012345" + "1002156C000000010000",     12_345,    10_000),
    ("1002156C000000010000" + "1001156C000000012345",     12_345,    10_000),
    ("1001156D000000000500",                              -500,      None),
    ("1002156C000000000000",                              None,      0),
    ("1001840C000000099900" + "1002156C000000000001",     None,      1),
)
NO_BALANCES = (
    "", "1001156C00000001234", "1001156X000000012345", "1001156C00000001234x", "1001840C000000012345",
    "1099156C000000012345", "1001156C0000000１2345", None, b"1001156C000000012345",
)
# fmt: on


@pytest.mark.parametrize(("text", "ledger", "available"), BALANCES)
def test_balance_of_the_reply(
    services: Mapping[str, Service], ask: Ask, text: str, ledger: int | None, available: int | None
) -> None:
    conclusion = services["balance"].conclude(ask("balance"), Reply("00", {38: "A1B2C3", 54: text}))
    assert conclusion.code == "00"
    assert conclusion.values.get(de.LEDGER_BALANCE) == ledger
    assert conclusion.values.get(de.AVAILABLE_BALANCE) == available
    assert conclusion.values[de.AUTHORISATION] == "A1B2C3"


@pytest.mark.parametrize("text", NO_BALANCES)
def test_an_approval_without_a_balance_is_an_invalid_reply(
    services: Mapping[str, Service], ask: Ask, text: str | bytes | None
) -> None:
    fields = {} if text is None else {54: text}
    assert services["balance"].conclude(ask("balance"), Reply("00", fields)) == Conclusion("20")


def test_amounts_refuse_half_an_entry() -> None:
    with pytest.raises(MalformedAmounts):
        amounts_of("1001156C000000012345" + "1002")


@pytest.mark.parametrize("scene", ["farm-purchase", "withdrawal", "deposit", "transfer", "reversal", "balance"])
@pytest.mark.parametrize("code", ["51", "14", "42", "62", "Z9"])
def test_a_declined_reply_is_passed_on_bare(services: Mapping[str, Service], ask: Ask, scene: str, code: str) -> None:
    reply = Reply(code, {38: "A1B2C3", 54: "1001156C000000012345"})
    assert services[scene].conclude(ask(scene), reply) == Conclusion(code)


@pytest.mark.parametrize("scene", ["farm-purchase", "withdrawal", "deposit", "transfer", "reversal"])
@pytest.mark.parametrize(
    ("field", "printed"),
    [("A1B2C3", "A1B2C3"), ("12345", None), ("12345\x07", None), ("一二三四五六", None), (b"123456", None)],
)
def test_authorisation(
    services: Mapping[str, Service], ask: Ask, scene: str, field: str | bytes, printed: str | None
) -> None:
    conclusion = services[scene].conclude(ask(scene), Reply("00", {38: field}))
    assert conclusion.code == "00"
    assert conclusion.values.get(de.AUTHORISATION) == printed


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, {"item": 1, "domain": 1, "subject": "990211197001010010"}),
        ({"period": 202_512}, {"item": 1, "domain": 1, "subject": "990211197001010010", "period": 202_512}),
    ],
)
def test_enquiry_call(services: Mapping[str, Service], ask: Ask, change: dict[str, Any], body: dict[str, Any]) -> None:
    assert services["gov-enquiry"].call(ask("gov-enquiry", **change)) == JsonCall("/v1/enquiry", body)


# fmt: off
ENQUIRY_REPLIES = (
    # code  body                       code shown  text shown
    ("00",  {"reply": "已缴费12个月"},   "00",       "已缴费12个月"),
    ("00",  {"reply": "答" * 341},      "00",       "答" * 341),
    ("00",  {"reply": "答" * 342},      "20",       None),  # 1,026 bytes
    ("00",  {"reply": ""},             "20",       None),
    ("00",  {"reply": 12},             "20",       None),
    ("00",  {"reply": "\ud800"},       "20",       None),
    ("00",  {},                        "20",       None),
    ("25",  {"reply": "查无此人"},       "25",       None),
    ("40",  {},                        "40",       None),
)
# fmt: on


@pytest.mark.parametrize(("code", "body", "shown", "text"), ENQUIRY_REPLIES)
def test_enquiry_reply(
    services: Mapping[str, Service], ask: Ask, code: str, body: dict[str, Any], shown: str, text: str | None
) -> None:
    conclusion = services["gov-enquiry"].conclude(ask("gov-enquiry"), Reply(code, body=body))
    assert (conclusion.code, conclusion.values.get(de.REPLY)) == (shown, text)


def test_only_withdrawals_and_offline_sales_are_counted(services: Mapping[str, Service], ask: Ask) -> None:
    for name, service in services.items():
        counters = service.counters(ask(name))
        if name == "offline-sale":  # test_followers
            continue
        if name != "withdrawal":
            assert counters == ()
            continue
        (counter,) = counters
        assert (counter.subject, counter.amount, counter.cap, counter.code) == (CARD, 30_000, 100_000, "61")


TRADE = {
    "kind": "farm-trade",
    "day": 20260612,
    "product": 1,
    "variety": 1,
    "grade": 2,
    "weight_centikg": 12_050,
    "unit_price_fen": 4_000,
    "amount_fen": 482_000,
    "town": 1,
    "site": "BA12",
    "lot": "",
}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({}, {}),
        ({"town": 5, "lot": "BA-0612-07"}, {"town": 5, "lot": "BA-0612-07"}),
        ({"pan": CARD, "entry_mode": 52}, {"buyer": CARD}),
        ({"local_date": 616}, {"day": 20260616}),  # the last day that a clock may be ahead
        ({"local_date": 617}, {"day": 20250617}),
    ],
)
def test_trade_event(
    services: Mapping[str, Service], ask: Ask, change: dict[str, Any], difference: dict[str, Any]
) -> None:
    request = ask("farm-purchase", **change)
    buyer = difference.pop("buyer", SHOP)
    event = services["farm-purchase"].event(request, Conclusion("00"))
    assert event == {
        **TRADE,
        **difference,
        "buyer": request.pseudonym(buyer),
        "farmer": request.pseudonym(FARMER),
    }


def test_no_event_holds_what_identifies_a_person(services: Mapping[str, Service], ask: Ask, grammar: Grammar) -> None:
    for name, service in services.items():
        request = ask(name)
        text = json.dumps(service.event(request, Conclusion("00")))
        for key, value in request.values.items():
            if grammar.elements[key].privacy is not Privacy.C1:
                assert str(value) not in text, name
        assert SHOP not in text, name


# fmt: off
OPTIONS = (
    # scene            options                                names
    ("farm-purchase",  {"dictionry": "x.json"},               "dictionry"),
    ("farm-purchase",  {"dictionary": 1},                     "dictionary"),
    ("farm-purchase",  {"dictionary": "/nowhere/x.json"},     "/nowhere/x.json: No such file"),
    ("withdrawal",     {"daily_cap_fen": 200_001},            "daily_cap_fen"),
    ("withdrawal",     {"daily_cap_fen": 999},                "daily_cap_fen"),
    ("withdrawal",     {"daily_cap_fen": "100000"},           "daily_cap_fen"),
    ("withdrawal",     {"daily_cap": 100_000},                "daily_cap"),
    ("deposit",        {"limit": 1},                          "deposit has no option limit"),
    ("transfer",       {"limit": 1},                          "transfer: Object contains unknown field `limit`"),
    ("balance",        {"limit": 1},                          "balance: Object contains unknown field `limit`"),
    ("reversal",       {"limit": 1},                          "reversal has no option limit"),
    ("gov-enquiry",    {"limit": 1},                          "gov-enquiry has no option limit"),
)
# fmt: on


@pytest.mark.parametrize(("scene", "options", "named"), OPTIONS)
def test_a_wrong_option_is_named(
    services: Mapping[str, Service], scene: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(OptionError, match=named) as caught:
        type(services[scene])().configure(options)
    assert scene in str(caught.value)


def test_withdrawal_cap_is_configured(ask: Ask) -> None:
    service = Withdrawal()
    service.configure({"daily_cap_fen": 200_000})
    assert service.counters(ask("withdrawal"))[0].cap == 200_000


def test_purchase_takes_the_banks_own_dictionary(ask: Ask, tmp_path: Any) -> None:
    path = tmp_path / "products.json"
    fuji = {"id": 1, "name": "Fuji", "zh": "红富士"}
    first = {"grade": 1, "name": "first", "zh": "一级", "price_low_fen": 1, "price_high_fen": 999}
    apple = {"id": 9, "name": "apple", "zh": "苹果", "varieties": [fuji], "grades": [first]}
    path.write_text(json.dumps({"version": 7, "about": "apples only", "products": [apple]}), encoding="utf-8")
    service = FarmPurchase()
    service.configure({"dictionary": str(path)})
    apples = ask("farm-purchase", product=9, grade=1, weight=100, unit_price=500, amount=500)
    blueberries = ask("farm-purchase")
    assert [all(rung.holds(request) for rung in service.ladder) for request in (apples, blueberries)] == [True, False]
