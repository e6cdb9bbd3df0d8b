"""The scenes' templates: one grammar, a declared signature, few bytes."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.ext import services as package
from fengshou.protocol import elements as de
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.iso8583 import MTI, HostFormat
from fengshou.protocol.iso8583_reference import ReferenceIso8583Codec
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.service import Iso8583Call, Request, Service
from fengshou.protocol.templates import Grammar

Ask = Callable[..., Request]

SIGNATURE = bytes(range(64))


def test_every_package_of_the_folder_offers_a_service(services: Mapping[str, Service]) -> None:
    folder = Path(package.__path__[0])
    names = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
    found = [importlib.import_module(f"fengshou.ext.services.{name}").service for name in names]
    assert all(isinstance(service, Service) for service in found)
    assert [service.name for service in found] == [name.replace("_", "-") for name in names]
    assert {service.name for service in found} == services.keys()
    assert all((folder / name / "py.typed").exists() for name in names)


# fmt: off
TEMPLATES = (
    # scene            id   MTI  destination     moves money
    ("settlement",     20,  500, "",             False),
    ("farm-purchase",  1,   200, "core-banking", True),
    ("reversal",       3,   400, "core-banking", True),
    ("balance",        4,   200, "core-banking", False),
    ("withdrawal",     5,   200, "core-banking", True),
    ("deposit",        6,   200, "core-banking", True),
    ("transfer",       7,   200, "core-banking", True),
    ("gov-enquiry",    10,  200, "government",   False),
    ("void",           2,   200, "core-banking", True),
    ("refund",         9,   220, "core-banking", True),
    ("offline-sale",   11,  220, "core-banking", True),
    ("preauthorisation", 12, 100, "core-banking", True),
    ("completion",     13,  200, "core-banking", True),
    ("preauthorisation-void", 14, 100, "core-banking", True),
)
# fmt: on


@pytest.mark.parametrize(("scene", "template_id", "mti", "destination", "moves_money"), TEMPLATES)
def test_declaration(
    services: Mapping[str, Service], scene: str, template_id: int, mti: int, destination: str, moves_money: bool
) -> None:
    service = services[scene]
    template = service.templates[0]
    assert (template.id, template.mti) == (template_id, mti)
    assert (service.destination, service.moves_money, template.signed) == (destination, moves_money, True)


def test_whatever_moves_money_counts_on_a_side_or_takes_another_back(services: Mapping[str, Service]) -> None:
    """What a batch, a day and a host's books are compared by."""
    for service in services.values():
        for template in service.templates:
            asked = {field.key for field in template.request}
            if not service.moves_money:
                assert template.side is None, template.name
            elif template.side is None:
                holds_only = template.mti // 100 == 1
                assert holds_only or de.ORIGINAL_STAN in asked, template.name
            else:
                assert de.AMOUNT in asked, template.name


def _frame(grammar: Grammar, request: Request, sequence: int = 1) -> bytes:
    own = {field.key for field in request.template.request}
    values = {key: value for key, value in request.values.items() if key in own}
    return ReferenceCodec(grammar).encode(Message(request.template.id, Flag.SIGNED, sequence, values, SIGNATURE))


# fmt: off
SIZES = (
    # scene            change                                                        bytes at most
    ("farm-purchase",  {},                                                           105),
    ("farm-purchase",  {"stan": 999_999, "town": 40_000, "lot": "BA-0612-07"},       120),
    ("farm-purchase",  {"stan": 999_999, "pan": "9156004000000079191"},              120),
    ("withdrawal",     {"stan": 999_999},                                            95),
    ("deposit",        {"stan": 999_999},                                            95),
    ("transfer",       {"stan": 999_999},                                            105),
    ("balance",        {"stan": 999_999},                                            92),
    ("reversal",       {"stan": 999_999, "original_batch": 999_999},                 95),
    ("gov-enquiry",    {"stan": 999_999},                                            105),
    ("settlement",     {"stan": 999_999, "original_batch": 999_999},                 95),
    ("settlement",     {"template": 1, "details": bytes(2_048)},                     2_140),
)
# fmt: on


@pytest.mark.parametrize(("scene", "change", "most"), SIZES)
def test_a_signed_request_is_small(grammar: Grammar, ask: Ask, scene: str, change: dict[str, Any], most: int) -> None:
    frame = _frame(grammar, ask(scene, **change), sequence=20_000)
    (body,), used = ReferenceCodec(grammar).split(frame)
    assert used == len(frame)
    assert ReferenceCodec(grammar).decode(body).signature == SIGNATURE
    assert len(frame) <= most


@given(
    stan=st.integers(1, 999_999),
    sequence=st.integers(1, 20_000),
    weight=st.integers(1, 10_000_000),
    price=st.integers(1, 100_000),
    town=st.integers(1, 65_535),
    local_time=st.integers(0, 235_959),
    lot=st.none() | st.text("ABCDEFGHIJ0123456789-", min_size=1, max_size=10),
)
def test_a_signed_purchase_never_exceeds_120_bytes(
    grammar: Grammar, ask: Ask, sequence: int, weight: int, price: int, **values: Any
) -> None:
    request = ask("farm-purchase", weight=weight, unit_price=price, amount=(weight * price + 50) // 100, **values)
    assert len(_frame(grammar, request, sequence)) <= 120


def test_host_calls_can_be_sent(services: Mapping[str, Service], ask: Ask) -> None:
    codec = ReferenceIso8583Codec(HostFormat())
    for name, service in services.items():
        call = service.call(ask(name))
        if isinstance(call, Iso8583Call):
            fields = {MTI: f"{call.mti:04d}", **call.fields}
            assert codec.decode(codec.encode(fields)) == fields


def test_answers_can_carry_what_scenes_conclude(grammar: Grammar) -> None:
    codec = ReferenceCodec(grammar)
    values = {
        4: {de.RESPONSE_CODE: "00", de.AUTHORISATION: "A1B2C3", de.LEDGER_BALANCE: -500, de.AVAILABLE_BALANCE: 0},
        10: {de.RESPONSE_CODE: "00", de.REPLY: "答" * 341},
    }
    for template, answer in values.items():
        assert codec.decode_body(template, True, codec.encode_body(template, True, answer)) == answer
