"""What shopkeepers do with their terminals, and what a request says for it.

A deed is a kind and a number, so that a plan is data. What a deed is about (which purchase is taken back) depends on
what the terminal remembers when its time comes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.money import amount_of
from fengshou.terminals.answers import Request, Response

# Accounts. The farmer's is a card too, the stranger's is in no bank's books.
FARMER, CARD, STRANGER = "9156001004001187857", "9156004000001267043", "9156009999999999993"
PRICE_FEN = 9650
_GOODS: dict[int, Value] = {de.PRODUCT: 1, de.VARIETY: 3, de.GRADE: 2}
_RESIDENT, _NOBODY = "370211197003150012", "nobody"

# Every kind of deed, with its weight in the draw.
DEEDS: Mapping[str, int] = {
    "farm-purchase": 14,
    "wrong-sum": 1,  # weight × price is not the amount
    "withdrawal": 4,
    "farmers-cash": 2,  # the farmer draws what he was paid
    "deposit": 2,
    "transfer": 3,
    "balance": 2,
    "strangers-balance": 1,
    "gov-enquiry": 3,
    "reversal": 4,
    "early-reversal": 1,  # before its original
    "crossing-reversal": 1,  # while its original is on the way
    "void": 3,
    "refund": 5,
    "preauthorisation": 4,
    "completion": 3,
    "preauthorisation-void": 2,
    "offline-sale": 4,
    "disputed-sale": 1,  # one that the host will refuse
    "upload": 2,  # of purchases that were made without coverage
    "settle": 2,
    "sign-off": 1,
    "repeat": 2,
    "conflict": 1,
    "forgery": 1,
}


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that a shopkeeper does. ``kind``: of ``DEEDS``."""

    at_s: float
    kind: str
    amount: int


@dataclass(slots=True, eq=False)
class Told:
    """A request and the answers that it got, in the order in which they came."""

    request: Request
    answers: list[Response] = field(default_factory=list)
    forged: bool = False  # its signature was not ours

    @property
    def outcome(self) -> Response | None:
        """The first answer from the journal; one without an RRN says that nothing was begun."""
        return next((answer for answer in self.answers if answer.rrn is not None), None)

    @property
    def approved(self) -> bool:
        return self.outcome is not None and self.outcome.approved

    @property
    def names(self) -> dict[int, Value]:
        """How another request refers to this one."""
        return {de.ORIGINAL_BATCH: self.request.batch, de.ORIGINAL_STAN: self.request.stan}

    @property
    def fen(self) -> int:
        return cast(int, self.request.values[de.AMOUNT])


def farm_purchase(amount: int, payee: str = FARMER, error_fen: int = 0) -> dict[int, Value]:
    """So many kilograms."""
    weight = 100 * amount
    return {
        de.AMOUNT: amount_of(weight, PRICE_FEN) + error_fen, de.ENTRY_MODE: 12, **_GOODS, de.WEIGHT: weight,
        de.UNIT_PRICE: PRICE_FEN, de.TO_ACCOUNT: payee,
    }  # fmt: skip


def _sale(amount: int, payee: str) -> dict[int, Value]:
    return {de.AMOUNT: 1000 * amount, de.ENTRY_MODE: 12, de.TO_ACCOUNT: payee}


# What stands for itself: name of the template, and its values by the deed's number.
_PLAIN: Mapping[str, tuple[str, Callable[[int], dict[int, Value]]]] = {
    "farm-purchase": ("farm-purchase", farm_purchase),
    "wrong-sum": ("farm-purchase", lambda amount: farm_purchase(amount, error_fen=-1)),
    "withdrawal": ("withdrawal", lambda amount: {de.PAN: CARD, de.AMOUNT: 1000 * amount, de.ENTRY_MODE: 51}),
    "farmers-cash": ("withdrawal", lambda amount: {de.PAN: FARMER, de.AMOUNT: 5000 * amount, de.ENTRY_MODE: 51}),
    "deposit": ("deposit", lambda amount: {de.AMOUNT: 100 * amount, de.ENTRY_MODE: 51, de.PAN: CARD}),
    "transfer": ("transfer", lambda amount: {de.AMOUNT: 100 * amount, de.ENTRY_MODE: 12, de.TO_ACCOUNT: FARMER}),
    "balance": ("balance", lambda amount: {de.PAN: CARD, de.ENTRY_MODE: 51}),
    "strangers-balance": ("balance", lambda amount: {de.PAN: STRANGER, de.ENTRY_MODE: 51}),
    "gov-enquiry": (
        "gov-enquiry",
        lambda amount: {de.ITEM: 1, de.DOMAIN: 1, de.SUBJECT: _NOBODY if amount % 4 == 0 else _RESIDENT},
    ),
    "preauthorisation": (
        "preauthorisation",
        lambda amount: {de.PAN: CARD, de.AMOUNT: 1000 * amount, de.ENTRY_MODE: 51},
    ),
    "offline-sale": ("offline-sale", lambda amount: _sale(amount, FARMER)),
    "disputed-sale": ("offline-sale", lambda amount: _sale(amount, STRANGER)),
}


def wish(deed: Deed, told: Sequence[Told]) -> tuple[str, dict[int, Value]] | None:
    """Template and values of what a deed asks for; None when there is nothing that it could be about."""
    if deed.kind in _PLAIN:
        template, values = _PLAIN[deed.kind]
        return template, values(deed.amount)
    match deed.kind:
        case "reversal":
            return _about(told, "reversal", lambda one: one.request.template.name != "reversal", _whole)
        case "void":
            return _about(told, "void", lambda one: one.approved and one.request.template.side is not None, _whole)
        case "refund":  # a third, two thirds, all, and sometimes more
            return _about(told, "refund", _is_purchase, lambda fen: fen * (1 + deed.amount % 4) // 3)
        case "completion":  # from 73 % to 130 %
            return _about(told, "completion", _is_held, lambda fen: fen * (70 + 3 * deed.amount) // 100)
        case "preauthorisation-void":
            return _about(told, "preauthorisation-void", _is_held, _whole)
    raise ValueError(deed.kind)


def _about(
    told: Sequence[Told], template: str, fits: Callable[[Told], bool], share: Callable[[int], int]
) -> tuple[str, dict[int, Value]] | None:
    """A request about the latest one that fits, over a share of its amount."""
    for one in reversed(told):
        if de.AMOUNT in one.request.values and not one.forged and fits(one):
            return template, {de.AMOUNT: share(one.fen), **one.names}
    return None


def _whole(fen: int) -> int:
    return fen


def _is_purchase(told: Told) -> bool:
    return told.approved and told.request.template.name in ("farm-purchase", "offline-sale", "completion")


def _is_held(told: Told) -> bool:
    return told.approved and told.request.template.name == "preauthorisation"
