"""Void: a terminal takes back a whole transaction of its own open batch, because the customer changed his mind.

Unlike a reversal it names something whose outcome the terminal knows. Codes of its own: 12 what cannot be voided
(enquiries, reversals, refunds, pre-authorisations), 25 unknown, of another batch or day, or reversed already, 64
another amount, or some of it is refunded. A void that is not answered is taken over: the switch reverses the original.
"""

from fengshou.ext.services.following import (
    ABOUT,
    AMOUNT_IS_THE_ORIGINALS,
    ENDED,
    KNOWN,
    NAMES_ANOTHER,
    NOT_DECLINED,
    NOT_REVERSED,
    TakesBack,
    following_call,
    is_authorisation,
    original_of,
    processing_of,
)
from fengshou.ext.services.rungs import AMOUNT_GIVEN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.service import Answer, Call, Fate, Request, Rung
from fengshou.protocol.templates import ANSWER, Template

REFUND = "20"

VOID = Template(2, "void", 200, ABOUT, ANSWER)


def _can_be_voided(request: Request) -> bool:
    original = original_of(request)
    return processing_of(original) not in ("", REFUND) and not is_authorisation(original)


def _of_this_batch(request: Request) -> bool:
    today = original_of(request).business_day == request.business_day
    return today and request.integer(de.ORIGINAL_BATCH) == request.integer(de.BATCH)


class Void(TakesBack):
    name = "void"
    templates = (VOID,)
    ladder = (
        *WELL_FORMED,
        AMOUNT_GIVEN,
        NAMES_ANOTHER,
        KNOWN,
        ENDED,
        Rung("the original can be voided", "12", _can_be_voided),
        NOT_REVERSED,
        Rung("the original is of this batch and business day", "25", _of_this_batch),
        NOT_DECLINED,
        AMOUNT_IS_THE_ORIGINALS,
    )

    def call(self, request: Request) -> Call:
        fate = request.original.fate if request.original else Fate.DECLINED
        if fate is Fate.UNKNOWN:  # the switch reverses it already
            return Answer(APPROVED)
        if fate is Fate.ACCEPTED:
            return Answer(APPROVED, reverses=True)
        return following_call(request, 200, REFUND) or Answer("12")


service = Void()
