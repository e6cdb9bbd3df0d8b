"""Transfer from a card, or from the terminal's own account, to another account of the bank."""

from collections.abc import Mapping
from typing import Any

from fengshou.ext.services.core_banking import payer_of, place_of
from fengshou.ext.services.pins import PIN_FIELDS, PinService
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
from fengshou.protocol.service import Conclusion, Iso8583Call, Request
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

TRANSFER = Template(
    7,
    "transfer",
    200,
    layout(
        required(de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE, de.TO_ACCOUNT),
        optional(de.PAN),
        PIN_FIELDS,
    ),
    ANSWER,
    side=Side.DEBIT,
)


class Transfer(PinService):
    name = "transfer"
    templates = (TRANSFER,)
    processing_code = "400000"
    guards = (*WELL_FORMED, ENTRY_MODE_KNOWN, AMOUNT_GIVEN, CARD_NUMBER_VALID, CARD_READ, PAYEE_IS_ANOTHER)

    def call(self, request: Request) -> Iso8583Call:
        # DE 102 names the payer even when DE 2 does: a transfer is defined between DE 102 and DE 103.
        return self.financial_request(
            request, payer=payer_of(request), payee=request.string(de.TO_ACCOUNT), reference="TRANSFER"
        )

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        """That money moved and where it was asked for, not between whom."""
        return {"kind": "transfer", "amount_fen": request.integer(de.AMOUNT), **place_of(request)}


service = Transfer()
