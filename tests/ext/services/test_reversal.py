"""Which original may be taken back, with which answer, and what the host is then asked."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from fengshou.protocol import elements as de
from fengshou.protocol.iso8583 import OriginalData
from fengshou.protocol.service import Answer, Conclusion, Fate, Iso8583Call, Original, Request, Service

Ask = Callable[..., Request]

TODAY = 20260609


@pytest.fixture
def original(services: Mapping[str, Service], ask: Ask) -> Original:
    """An approved withdrawal of CNY 300 by the same terminal on the same day."""
    request = ask("withdrawal")
    call = services["withdrawal"].call(request)
    assert isinstance(call, Iso8583Call)
    # 2026-06-09 16:30:05 in UTC, past midnight in UTC+8.
    return Original(5, 200, Fate.APPROVED, TODAY, 1_781_022_605_000_000, 616_000_987_654, request.values, call)


# fmt: off
MATCHING = (
    # change of the original                            code   what holds
    ({"call": None},                                    "12",  "it moved no money, or is a reversal"),
    ({"fate": Fate.REVERSED},                           "25",  "it is reversed already"),
    ({"business_day": TODAY - 1},                       "25",  "it is of yesterday"),
    ({"fate": Fate.DECLINED},                           "01",  "nothing was done"),
    ({"values": {de.AMOUNT: 29_999}},                   "64",  "the amount is another"),
    ({"values": {}},                                    "64",  "it had no amount"),
    ({"fate": Fate.OPEN},                               "09",  "it is in flight"),
    ({"fate": Fate.UNKNOWN},                            "00",  "the switch already owes the reversal"),
    # The order in which several reasons are named.
    ({"call": None, "fate": Fate.REVERSED},             "12",  "nothing to undo comes first"),
    ({"fate": Fate.REVERSED, "values": {}},             "25",  "reversed comes before the amount"),
    ({"fate": Fate.DECLINED, "business_day": TODAY - 1}, "25", "another day comes before declined"),
    ({"fate": Fate.OPEN, "call": None},                 "09",  "in flight comes before everything"),
    ({"fate": Fate.OPEN, "values": {de.AMOUNT: 1}},     "09",  "in flight comes before everything"),
    ({"fate": Fate.UNKNOWN, "values": {de.AMOUNT: 1}},  "64",  "a wrong amount is never right"),
)
# fmt: on


@pytest.mark.parametrize(("change", "code", "why"), MATCHING)
def test_answered_without_the_host(
    services: Mapping[str, Service], ask: Ask, original: Original, change: dict[str, Any], code: str, why: str
) -> None:
    request = ask("reversal", original=replace(original, **change))
    assert services["reversal"].call(request) == Answer(code), why


def test_an_unknown_original_is_answered_and_leaves_a_tombstone(services: Mapping[str, Service], ask: Ask) -> None:
    assert services["reversal"].call(ask("reversal")) == Answer("00", tombstone=True)


def test_the_key_names_batch_and_stan(services: Mapping[str, Service], ask: Ask) -> None:
    keys = {name: service.original_key(ask(name)) for name, service in services.items()}
    for follower in ("reversal", "void", "completion", "preauthorisation-void"):
        assert keys.pop(follower) == (7, 11)
    assert keys.pop("refund") == (6, 11), "also of an earlier batch"
    assert set(keys.values()) == {None}


@pytest.mark.parametrize(("reason", "sent"), [(None, "98"), ("98", "98"), ("06", "06"), ("A0", "A0"), ("96", "96")])
def test_host_call(
    services: Mapping[str, Service], ask: Ask, original: Original, reason: str | None, sent: str
) -> None:
    call = services["reversal"].call(ask("reversal", original=original, response_code=reason))
    assert isinstance(call, Iso8583Call)
    assert original.call is not None
    assert call.mti == 400
    assert call.fields == {
        **original.call.fields,
        37: "616000987654",
        39: sent,
        90: "0200" + "987654" + "0610003005" + "00099904520" + "00000000000",
    }
    parsed = OriginalData.parse(str(call.fields[90]))
    assert (parsed.mti, parsed.stan, parsed.acquirer, parsed.forwarder) == ("0200", "987654", 99_904_520, 0)


def test_a_repeat_asks_the_host_the_same(services: Mapping[str, Service], ask: Ask, original: Original) -> None:
    """Another reversal message of the same original is, to the host, the same reversal."""
    first, second = (services["reversal"].call(ask("reversal", original=original, stan=stan)) for stan in (20, 21))
    assert first == second


# fmt: off
EVENTS = (
    (Fate.APPROVED, {"kind": "reversal", "original_rrn": "616000987654"}),
    (Fate.UNKNOWN,  None),  # analytics hears of approved transactions only
    (Fate.OPEN,     None),
)
# fmt: on


@pytest.mark.parametrize(("fate", "event"), EVENTS)
def test_event(
    services: Mapping[str, Service], ask: Ask, original: Original, fate: Fate, event: dict[str, str] | None
) -> None:
    request = ask("reversal", original=replace(original, fate=fate))
    assert services["reversal"].event(request, Conclusion("00")) == event


def test_no_event_for_what_never_came(services: Mapping[str, Service], ask: Ask) -> None:
    assert services["reversal"].event(ask("reversal"), Conclusion("00")) is None
