"""Pre-authorisation (0100): an amount of a card is held for the point, as when machines or seed are lent.

It moves no money; a completion does, or a void lets go of it.
"""

from fengshou.ext.services.following import AUTHORISATION_MTI
from fengshou.ext.services.pins import PIN_FIELDS, PinService
from fengshou.ext.services.rungs import AMOUNT_GIVEN, CARD_NUMBER_VALID, CARD_READ, ENTRY_MODE_KNOWN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.service import Iso8583Call, Request, Rung
from fengshou.protocol.templates import ANSWER, Template, layout, required

# DE 25, ISO 8583:1987 A.9: the customer is there, the amount is not final.
CONDITION = "06"

PREAUTHORISATION = Template(
    12,
    "preauthorisation",
    AUTHORISATION_MTI,
    layout(required(de.PAN, de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE), PIN_FIELDS),
    ANSWER,
)


class Preauthorisation(PinService):
    name = "preauthorisation"
    templates = (PREAUTHORISATION,)
    processing_code = "000000"
    guards = (
        *WELL_FORMED,
        ENTRY_MODE_KNOWN,
        AMOUNT_GIVEN,
        CARD_NUMBER_VALID,
        CARD_READ,
        Rung(
            "the point does not hold its own money",
            "12",
            lambda request: request.string(de.PAN) != request.terminal.settlement_account,
        ),
    )

    def call(self, request: Request) -> Iso8583Call:
        asked = self.financial_request(
            request, payee=request.terminal.settlement_account, reference=f"HOLD {request.terminal.site}"
        )
        return Iso8583Call(AUTHORISATION_MTI, {**asked.fields, 25: CONDITION})


service = Preauthorisation()
