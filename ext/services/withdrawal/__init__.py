"""Assisted cash withdrawal (助农取款): a card pays the point's account, the point hands out cash.

The notice of the People's Bank of China 2011/177 allows debit cards multiples of CNY 10 and CNY 1,000 a card and day;
2014/235 lets a bank go to CNY 2,000. Codes of its own: 13 not a multiple of CNY 10, 61 more than the day allows.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from fengshou.ext.services.core_banking import place_of
from fengshou.ext.services.options import options_as
from fengshou.ext.services.pins import PIN_FIELDS, PinOptions, PinService
from fengshou.ext.services.rungs import AMOUNT_GIVEN, CARD_NUMBER_VALID, CARD_READ, ENTRY_MODE_KNOWN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Side
from fengshou.protocol.service import Conclusion, Counter, Iso8583Call, Request, Rung
from fengshou.protocol.templates import ANSWER, Template, layout, required

NOTE_FEN = 1_000  # CNY 10
DAILY_CAP_FEN = 100_000  # CNY 1,000
DAILY_CAP_FEN_MAX = 200_000  # CNY 2,000

WITHDRAWAL = Template(
    5,
    "withdrawal",
    200,
    layout(required(de.PAN, de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE), PIN_FIELDS),
    ANSWER,
    side=Side.DEBIT,
)


class Options(PinOptions, frozen=True, forbid_unknown_fields=True):
    """``daily_cap_fen``: how much one card may withdraw in one business day, over all points together."""

    daily_cap_fen: Annotated[int, msgspec.Meta(ge=NOTE_FEN, le=DAILY_CAP_FEN_MAX)] = DAILY_CAP_FEN


class Withdrawal(PinService):
    name = "withdrawal"
    templates = (WITHDRAWAL,)
    processing_code = "010000"
    guards = (
        *WELL_FORMED,
        ENTRY_MODE_KNOWN,
        AMOUNT_GIVEN,
        Rung("amount is a multiple of CNY 10", "13", lambda request: request.integer(de.AMOUNT) % NOTE_FEN == 0),
        CARD_NUMBER_VALID,
        CARD_READ,
    )

    def configure(self, options: Mapping[str, Any]) -> None:
        self._options = options_as(Options, options, self.name)
        self.take(self._options)

    def counters(self, request: Request) -> tuple[Counter, ...]:
        cap = self._options.daily_cap_fen
        return (Counter("withdrawal", request.string(de.PAN), request.integer(de.AMOUNT), cap),)

    def call(self, request: Request) -> Iso8583Call:
        return self.financial_request(
            request, payee=request.terminal.settlement_account, reference=f"CASH OUT {request.terminal.site}"
        )

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        """Cash that left a point; who took it is nobody's business there."""
        return {"kind": "cash-out", "amount_fen": request.integer(de.AMOUNT), **place_of(request)}


service = Withdrawal()
