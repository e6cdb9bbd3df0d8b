"""A good request for every scene; a test changes what it is about."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fengshou.ext.services.balance import Balance
from fengshou.ext.services.completion import Completion
from fengshou.ext.services.deposit import Deposit
from fengshou.ext.services.farm_purchase import FarmPurchase
from fengshou.ext.services.gov_enquiry import GovEnquiry
from fengshou.ext.services.offline_sale import OfflineSale
from fengshou.ext.services.preauthorisation import Preauthorisation
from fengshou.ext.services.preauthorisation_void import PreauthorisationVoid
from fengshou.ext.services.refund import Refund
from fengshou.ext.services.reversal import Reversal
from fengshou.ext.services.settlement import Settlement
from fengshou.ext.services.transfer import Transfer
from fengshou.ext.services.void import Void
from fengshou.ext.services.withdrawal import Withdrawal
from fengshou.protocol.batch import Batch, Line, Side, pack_details
from fengshou.protocol.message import Value
from fengshou.protocol.service import Original, Request, Service, TerminalFacts
from fengshou.protocol.templates import Grammar

SERVICES: tuple[type[Service], ...] = (
    FarmPurchase, Withdrawal, Deposit, Transfer, Balance, Reversal, GovEnquiry, Settlement, Void, Refund, OfflineSale,
    Preauthorisation, Completion, PreauthorisationVoid,
)  # fmt: skip

CARD = "9156004000000079191"
FARMER = "9156001001000079192"
SHOP = "9020000000104729"

TERMINAL = TerminalFacts(
    "FS000001", "999452007630001", 99904520, "FSPOS00000001", "93370211FENG000150", SHOP, "POS", "BA12", 1
)
# What the session implies.
SESSION: dict[str, Value] = {
    "terminal": TERMINAL.terminal,
    "merchant": TERMINAL.merchant,
    "currency": 156,
    "batch": 7,
    "operator": "001",
}
_CLOCK: dict[str, Value] = {"stan": 12, "local_time": 93_005, "local_date": 612}
_GOODS: dict[str, Value] = {"product": 1, "variety": 1, "grade": 2, "weight": 12_050, "unit_price": 4_000}

GOOD: dict[str, dict[str, Value]] = {
    "farm-purchase": {**_CLOCK, **_GOODS, "entry_mode": 12, "amount": 482_000, "to_account": FARMER},
    "withdrawal": {**_CLOCK, "entry_mode": 52, "pan": CARD, "amount": 30_000},
    "deposit": {**_CLOCK, "entry_mode": 52, "pan": CARD, "amount": 12_345},
    "transfer": {**_CLOCK, "entry_mode": 52, "pan": CARD, "amount": 12_345, "to_account": FARMER},
    "balance": {**_CLOCK, "entry_mode": 52, "pan": CARD},
    "reversal": {**_CLOCK, "amount": 30_000, "original_batch": 7, "original_stan": 11},
    "void": {**_CLOCK, "amount": 482_000, "original_batch": 7, "original_stan": 11},
    "refund": {**_CLOCK, "amount": 100, "original_batch": 6, "original_stan": 11},
    "offline-sale": {**_CLOCK, "entry_mode": 52, "pan": CARD, "amount": 12_345, "to_account": FARMER},
    "preauthorisation": {**_CLOCK, "entry_mode": 52, "pan": CARD, "amount": 50_000},
    "completion": {**_CLOCK, "amount": 50_000, "original_batch": 7, "original_stan": 11},
    "preauthorisation-void": {**_CLOCK, "amount": 50_000, "original_batch": 7, "original_stan": 11},
    "settlement": {
        **_CLOCK,
        "original_batch": 6,
        "debits": 2,
        "debits_amount": 40_000,
        "credits": 1,
        "credits_amount": 12_345,
    },
    "batch-details": {
        **_CLOCK,
        "original_batch": 6,
        "details": pack_details([Line(3, Side.DEBIT, 30_000)])[0],
        "message_number": 1,
        "last_message": 2,
    },
    "gov-enquiry": {**_CLOCK, "item": 1, "domain": 1, "subject": "990211197001010010"},
}

Ask = Callable[..., Request]


@pytest.fixture(scope="session")
def services() -> dict[str, Service]:
    """Each scene as its package configures it without options."""
    return {service.name: service() for service in SERVICES}


@pytest.fixture(scope="session")
def grammar(services: Mapping[str, Service]) -> Grammar:
    return Grammar(
        (element for service in services.values() for element in service.elements),
        (template for service in services.values() for template in service.templates),
    )


@pytest.fixture(scope="session")
def ask(services: Mapping[str, Service], grammar: Grammar) -> Ask:
    """``ask(scene, element=value …)``: the good request of a scene with changes; None takes an element away.

    ``template`` counts the scene's templates; ``original`` and ``batch`` are what the journal knows.
    """

    def ask(
        scene: str, original: Original | None = None, template: int = 0, batch: Batch | None = None,
        **changes: Value | None,
    ) -> Request:  # fmt: skip
        found = services[scene].templates[template]
        named = {**SESSION, **GOOD[found.name if template else scene], **changes}
        return Request(
            template=found,
            values={grammar.by_name[name].key: value for name, value in named.items() if value is not None},
            terminal=replace(TERMINAL),
            received_us=1_781_000_000_000_000,
            business_day=20260609,
            rrn=616000000042,
            pseudonym=lambda identifier: f"{sum(identifier.encode()):016x}",
            original=original,
            batch=batch,
        )

    return ask
