"""Balance of a card, or of the terminal's own account. Signed, because it shows personal data; it moves no money.

Code of its own: 20, the host approved but its balance cannot be understood.
"""

from collections.abc import Mapping
from typing import Any

from fengshou.ext.services.core_banking import (
    AVAILABLE,
    LEDGER,
    MalformedAmounts,
    amounts_of,
    authorisation_of,
    payer_of,
    place_of,
)
from fengshou.ext.services.pins import PIN_FIELDS, PinService
from fengshou.ext.services.rungs import CARD_NUMBER_VALID, CARD_READ, ENTRY_MODE_KNOWN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.service import Conclusion, Iso8583Call, Reply, Request
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

BALANCE = Template(
    4,
    "balance",
    200,
    layout(required(de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE), optional(de.PAN), PIN_FIELDS),
    layout(ANSWER, optional(de.LEDGER_BALANCE, de.AVAILABLE_BALANCE)),
)

_ELEMENT_OF = {LEDGER: de.LEDGER_BALANCE, AVAILABLE: de.AVAILABLE_BALANCE}
INVALID_REPLY = "20"


class Balance(PinService):
    name = "balance"
    templates = (BALANCE,)
    processing_code = "310000"
    moves_money = False
    guards = (*WELL_FORMED, ENTRY_MODE_KNOWN, CARD_NUMBER_VALID, CARD_READ)

    def call(self, request: Request) -> Iso8583Call:
        return self.financial_request(
            request, payer="" if de.PAN in request.values else payer_of(request), reference="BALANCE"
        )

    def conclude(self, request: Request, reply: Reply) -> Conclusion:
        if reply.code != APPROVED:
            return Conclusion(reply.code)
        try:
            amounts = amounts_of(reply.fields.get(54))
        except MalformedAmounts:
            return Conclusion(INVALID_REPLY)
        balances = {_ELEMENT_OF[kind]: amount for kind, amount in amounts.items() if kind in _ELEMENT_OF}
        if not balances:
            return Conclusion(INVALID_REPLY)
        return Conclusion(reply.code, {**authorisation_of(reply), **balances})

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        """That somebody asked, for the use of points; neither who nor how much."""
        return {"kind": "balance-enquiry", **place_of(request)}


service = Balance()
