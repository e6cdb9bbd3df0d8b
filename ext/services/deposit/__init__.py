"""Small cash deposit: a customer gives the point cash, the point's account pays the customer's card or account.

The receiving number may be keyed, since nothing can be taken with it.
"""

from collections.abc import Mapping
from typing import Any

from fengshou.ext.services.core_banking import CoreBankingService, place_of
from fengshou.ext.services.rungs import AMOUNT_GIVEN, CARD_NUMBER_VALID, ENTRY_MODE_KNOWN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Side
from fengshou.protocol.service import Conclusion, Iso8583Call, Request, Rung
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

DEPOSIT = Template(
    6,
    "deposit",
    200,
    layout(
        required(de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE),
        optional(de.PAN, de.TO_ACCOUNT),
    ),
    ANSWER,
    side=Side.CREDIT,
)


def _one_receiver(request: Request) -> bool:
    return (de.PAN in request.values) != (de.TO_ACCOUNT in request.values)


def _receiver_is_another(request: Request) -> bool:
    receiver = request.string(de.PAN) or request.string(de.TO_ACCOUNT)
    return receiver != request.terminal.settlement_account


class Deposit(CoreBankingService):
    name = "deposit"
    templates = (DEPOSIT,)
    processing_code = "210000"
    ladder = (
        *WELL_FORMED,
        ENTRY_MODE_KNOWN,
        Rung("either a card or an account receives", "30", _one_receiver),
        AMOUNT_GIVEN,
        CARD_NUMBER_VALID,
        Rung("the point does not pay itself", "12", _receiver_is_another),
    )

    def call(self, request: Request) -> Iso8583Call:
        return self.financial_request(
            request,
            payer=request.terminal.settlement_account,
            payee=request.string(de.TO_ACCOUNT),
            reference=f"CASH IN {request.terminal.site}",
        )

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        """Cash that came to a point."""
        return {"kind": "cash-in", "amount_fen": request.integer(de.AMOUNT), **place_of(request)}


service = Deposit()
