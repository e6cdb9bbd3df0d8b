"""Voids, refunds, completions, releases, offline sales: which original may be followed, and what the host is asked."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from fengshou.ext.services.following import NAMES_ANOTHER
from fengshou.ext.services.rungs import AMOUNT_GIVEN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.service import Answer, Counter, Fate, Iso8583Call, Original, Request, Service, refusal

Ask = Callable[..., Request]

TODAY, A_MONTH_AGO = 20260609, 20260510
RRN = 616_000_987_654

# What each follows: scene, template, MTI.
FOLLOWED = {
    "void": ("farm-purchase", 1, 200),
    "refund": ("farm-purchase", 1, 200),
    "completion": ("preauthorisation", 12, 100),
    "preauthorisation-void": ("preauthorisation", 12, 100),
}


def original_for(scene: str, services: Mapping[str, Service], ask: Ask, of: str = "", **changes: Any) -> Original:
    """An approved original of the same terminal, batch and day. ``of`` is another scene than the right one."""
    followed, template, mti = FOLLOWED[scene]
    request = ask(of or followed)
    call = services[of or followed].call(request)
    template = request.template.id if of else template
    known = Original(
        template, request.template.mti if of else mti, Fate.APPROVED, TODAY, 1_781_022_605_000_000, RRN,
        request.values, call if isinstance(call, Iso8583Call) else None,
    )  # fmt: skip
    return replace(known, **changes)


# fmt: off
REFUSED = (
    # scene                   original                       request                code  why
    ("void",                  None,                          {},                    "25", "unknown"),
    ("void",                  {"fate": Fate.OPEN},           {},                    "09", "in flight"),
    ("void",                  {"call": None},                {},                    "12", "an enquiry"),
    ("void",                  {"of": "preauthorisation"},    {},                    "12", "its own scene"),
    ("void",                  {"fate": Fate.REVERSED},       {},                    "25", "reversed"),
    ("void",                  {"business_day": A_MONTH_AGO}, {},                    "25", "another day"),
    ("void",                  {},                            {"original_batch": 6}, "25", "another batch"),
    ("void",                  {"fate": Fate.DECLINED},       {},                    "01", "declined"),
    ("void",                  {},                            {"amount": 481_999},   "64", "in part"),
    ("void",                  {},                            {"amount": 0},         "13", "nothing"),
    ("void",                  {},                            {"stan": 11},          "12", "itself"),
    ("refund",                None,                          {},                    "25", "unknown"),
    ("refund",                {"fate": Fate.OPEN},           {},                    "09", "in flight"),
    ("refund",                {"fate": Fate.ACCEPTED},       {},                    "09", "not there yet"),
    ("refund",                {"of": "withdrawal"},          {},                    "12", "no purchase"),
    ("refund",                {"of": "preauthorisation"},    {},                    "12", "no purchase"),
    ("refund",                {"fate": Fate.REVERSED},       {},                    "25", "reversed"),
    ("refund",                {"fate": Fate.UNKNOWN},        {},                    "25", "about to be"),
    ("refund",                {"fate": Fate.DECLINED},       {},                    "01", "declined"),
    ("completion",            None,                          {},                    "25", "unknown"),
    ("completion",            {"of": "farm-purchase"},       {},                    "12", "no hold"),
    ("completion",            {"fate": Fate.REVERSED},       {},                    "25", "let go"),
    ("completion",            {"fate": Fate.UNKNOWN},        {},                    "25", "about to be"),
    ("completion",            {"fate": Fate.DECLINED},       {},                    "01", "declined"),
    ("completion",            {"business_day": 20260509},    {},                    "25", "31 days"),
    ("completion",            {},                            {"amount": 57_501},    "64", "115.002 %"),
    ("preauthorisation-void", {"of": "farm-purchase"},       {},                    "12", "no hold"),
    ("preauthorisation-void", {"fate": Fate.REVERSED},       {},                    "25", "let go"),
    ("preauthorisation-void", {"fate": Fate.DECLINED},       {},                    "01", "declined"),
    ("preauthorisation-void", {},                            {"amount": 49_999},    "64", "in part"),
)
GOOD = (
    # scene                   original                                    request
    ("void",               {},                                      {}),
    ("void",               {"of": "withdrawal"},                    {"amount": 30_000}),
    ("refund",             {"business_day": A_MONTH_AGO},           {"amount": 1}),
    ("completion",         {"business_day": A_MONTH_AGO},           {"amount": 57_500}),
    ("completion",         {},                                      {"amount": 1}),
    ("preauthorisation-void", {"business_day": A_MONTH_AGO},           {}),
)
# fmt: on


def follower(
    services: Mapping[str, Service], ask: Ask, scene: str, original: Mapping[str, Any] | None, **request: Any
) -> Request:
    known = None if original is None else original_for(scene, services, ask, **original)
    return ask(scene, original=known, **request)


@pytest.mark.parametrize(("scene", "original", "request_", "code", "why"), REFUSED)
def test_refused(
    services: Mapping[str, Service],
    ask: Ask,
    scene: str,
    original: dict[str, Any] | None,
    request_: dict[str, Any],
    code: str,
    why: str,
) -> None:
    failed = refusal(services[scene].ladder, follower(services, ask, scene, original, **request_))
    assert failed is not None, why
    assert failed.code == code, (why, failed.name)


def test_every_rung_about_an_original_has_a_row(services: Mapping[str, Service], ask: Ask) -> None:
    named = set()
    for scene, original, request_, _, _ in REFUSED:
        failed = refusal(services[scene].ladder, follower(services, ask, scene, original, **request_))
        assert failed is not None
        named.add(failed.name)
    shared = {rung.name for rung in (*WELL_FORMED, AMOUNT_GIVEN, NAMES_ANOTHER)}
    assert named | shared == {rung.name for scene in FOLLOWED for rung in services[scene].ladder}


@pytest.mark.parametrize(("scene", "original", "request_"), GOOD)
def test_good(
    services: Mapping[str, Service], ask: Ask, scene: str, original: dict[str, Any], request_: dict[str, Any]
) -> None:
    request = follower(services, ask, scene, original, **request_)
    assert refusal(services[scene].ladder, request) is None
    assert isinstance(services[scene].call(request), Iso8583Call)


# fmt: off
CALLS = (
    # scene                   MTI  DE 3      fen      DE 90 begins with
    ("void",                  200, "200000", 482_000, "0200987654"),
    ("refund",                220, "200000", 100,     "0200987654"),
    ("completion",            200, "000000", 50_000,  "0100987654"),
    ("preauthorisation-void", 100, "200000", 50_000,  "0100987654"),
)
# fmt: on


@pytest.mark.parametrize(("scene", "mti", "processing_code", "fen", "original_data"), CALLS)
def test_what_the_host_is_asked(
    services: Mapping[str, Service], ask: Ask, scene: str, mti: int, processing_code: str, fen: int, original_data: str
) -> None:
    request = follower(services, ask, scene, {}, amount=fen)
    call = services[scene].call(request)
    assert isinstance(call, Iso8583Call)
    assert request.original is not None
    assert request.original.call is not None
    assert call.mti == mti
    assert (call.fields[3], call.fields[4]) == (processing_code, f"{fen:012d}")
    assert str(call.fields[90]).startswith(original_data)
    assert 37 not in call.fields, "it has a number of its own"
    parties = {number: request.original.call.fields.get(number) for number in (2, 102, 103)}
    assert {number: call.fields.get(number) for number in parties} == parties
    assert services[scene].call(ask(scene, original=None)) == Answer("12"), "derived again when nothing is known of it"


# fmt: off
COUNTERS = (
    # scene                   changes             what it uses up
    ("refund",                {"amount": 100},    Counter("refunded", str(RRN), 100, 482_000, "64", lasting=True)),
    ("void",                  {},                 Counter("refunded", str(RRN), 482_000, 482_000, "64", lasting=True)),
    ("completion",            {"amount": 100},    Counter("completed", str(RRN), 1, 1, "25", lasting=True)),
    ("preauthorisation-void", {},                 Counter("completed", str(RRN), 1, 1, "25", lasting=True)),
)
# fmt: on


@pytest.mark.parametrize(("scene", "changes", "counter"), COUNTERS)
def test_an_original_is_used_up_once(
    services: Mapping[str, Service], ask: Ask, scene: str, changes: dict[str, Any], counter: Counter
) -> None:
    assert services[scene].counters(follower(services, ask, scene, {}, **changes)) == (counter,)


@pytest.mark.parametrize("scene", ["void", "reversal"])
def test_what_the_host_does_not_know_yet_is_reversed_by_the_switch(
    services: Mapping[str, Service], ask: Ask, scene: str
) -> None:
    original = original_for("void", services, ask, fate=Fate.ACCEPTED)
    assert services[scene].call(ask(scene, original=original, amount=482_000)) == Answer("00", reverses=True)
    unknown = replace(original, fate=Fate.UNKNOWN)
    assert services[scene].call(ask(scene, original=unknown, amount=482_000)) == Answer("00")
    assert services[scene].counters(ask(scene, original=unknown, amount=482_000)) == ()


def test_an_offline_sale_is_told_as_an_advice_and_bounded(services: Mapping[str, Service], ask: Ask) -> None:
    service = services["offline-sale"]
    request = ask("offline-sale")
    call = service.call(request)
    assert isinstance(call, Iso8583Call)
    assert (call.mti, call.fields[3]) == (220, "000000")
    assert refusal(service.ladder, request) is None
    failed = refusal(service.ladder, ask("offline-sale", amount=100_001))
    assert failed is not None
    assert failed.code == "61"
    (counter,) = service.counters(request)
    assert (counter.amount, counter.cap, counter.lasting) == (request.integer(de.AMOUNT), 300_000, False)
