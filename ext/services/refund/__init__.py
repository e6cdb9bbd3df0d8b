"""Refund: goods came back, and some or all of what was paid for them goes back, on any later day and in any parts.

All refunds of one purchase together are at most its amount. A refund is an advice (0220): it is never reversed. While
its outcome is unknown the terminal hears 09, and the switch sends it again until the host has answered.
"""

from collections.abc import Mapping
from typing import Any

from fengshou.ext.services.core_banking import place_of
from fengshou.ext.services.following import (
    ABOUT,
    AT_THE_HOST,
    CERTAIN,
    ENDED,
    KNOWN,
    NAMES_ANOTHER,
    NOT_DECLINED,
    Follower,
    following_call,
    is_authorisation,
    original_of,
    processing_of,
)
from fengshou.ext.services.rungs import AMOUNT_GIVEN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Side
from fengshou.protocol.reversal import FINANCIAL_ADVICE_MTI
from fengshou.protocol.service import Answer, Call, Conclusion, Request, Rung
from fengshou.protocol.templates import ANSWER, Template

REFUND = Template(9, "refund", FINANCIAL_ADVICE_MTI, ABOUT, ANSWER, side=Side.CREDIT)


def _is_purchase(request: Request) -> bool:
    original = original_of(request)
    return processing_of(original) == "00" and not is_authorisation(original)


class Refund(Follower):
    name = "refund"
    templates = (REFUND,)
    undoes = False
    repeats = True
    ladder = (
        *WELL_FORMED,
        AMOUNT_GIVEN,
        NAMES_ANOTHER,
        KNOWN,
        ENDED,
        AT_THE_HOST,
        Rung("the original is a purchase", "12", _is_purchase),
        CERTAIN,
        NOT_DECLINED,
    )

    def call(self, request: Request) -> Call:
        return following_call(request, FINANCIAL_ADVICE_MTI, "20") or Answer("12")

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        """That something was given back and where, not to whom."""
        return {"kind": "refund", "amount_fen": request.integer(de.AMOUNT), **place_of(request)}


service = Refund()
