"""Offline sale: what a terminal sold while it had no network, told afterwards (0220).

The sale has happened, so past the ladder it is approved once it is durable, and core banking is told until it has
answered. The floor limits keep what the bank risks small. Codes of its own: 61 more than one sale, or a card's or
account's day, may be without asking.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from fengshou.ext.services.core_banking import CoreBankingService, payer_of, place_of
from fengshou.ext.services.options import options_as
from fengshou.ext.services.rungs import (
    AMOUNT_GIVEN,
    CARD_NUMBER_VALID,
    CARD_READ,
    ENTRY_MODE_KNOWN,
    PAYEE_IS_ANOTHER,
    WELL_FORMED,
)
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Side
from fengshou.protocol.reversal import FINANCIAL_ADVICE_MTI
from fengshou.protocol.service import Conclusion, Counter, Iso8583Call, Request, Rung
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

OFFLINE_SALE = Template(
    11,
    "offline-sale",
    FINANCIAL_ADVICE_MTI,
    layout(
        required(de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE, de.TO_ACCOUNT),
        optional(de.PAN),
    ),
    ANSWER,
    side=Side.DEBIT,
)

Fen = Annotated[int, msgspec.Meta(ge=0)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``sale_max_fen`` bounds one sale, ``payer_day_max_fen`` what one card or account buys in a business day."""

    sale_max_fen: Fen = 100_000
    payer_day_max_fen: Fen = 300_000


class OfflineSale(CoreBankingService):
    name = "offline-sale"
    templates = (OFFLINE_SALE,)
    processing_code = "000000"
    accepts = True

    def __init__(self) -> None:
        self.configure({})

    def configure(self, options: Mapping[str, Any]) -> None:
        self._options = options_as(Options, options, self.name)
        self.ladder = (
            *WELL_FORMED,
            ENTRY_MODE_KNOWN,
            AMOUNT_GIVEN,
            CARD_NUMBER_VALID,
            CARD_READ,
            PAYEE_IS_ANOTHER,
            Rung("amount is below the floor limit", "61", self._below_the_floor),
        )

    def counters(self, request: Request) -> tuple[Counter, ...]:
        cap = self._options.payer_day_max_fen
        return (Counter("offline", payer_of(request), request.integer(de.AMOUNT), cap),)

    def call(self, request: Request) -> Iso8583Call:
        asked = self.financial_request(
            request,
            payer="" if de.PAN in request.values else payer_of(request),
            payee=request.string(de.TO_ACCOUNT),
            reference=f"OFFLINE {request.terminal.site}",
        )
        return Iso8583Call(FINANCIAL_ADVICE_MTI, asked.fields)

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        return {"kind": "offline-sale", "amount_fen": request.integer(de.AMOUNT), **place_of(request)}

    def _below_the_floor(self, request: Request) -> bool:
        return request.integer(de.AMOUNT) <= self._options.sale_max_fen


service = OfflineSale()
