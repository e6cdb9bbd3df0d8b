"""Completion of a pre-authorisation (0200): the held amount, or what it has come to, is paid to the point.

Once, within 30 days, and at most 115 % of what was held (China UnionPay). Codes of its own: 12 no pre-authorisation, 25
unknown, reversed, completed already or too old, 64 too much.
"""

from collections.abc import Mapping
from typing import Any

from fengshou.ext.services.core_banking import place_of
from fengshou.ext.services.following import (
    ABOUT,
    CERTAIN,
    ENDED,
    IS_AUTHORISATION,
    KNOWN,
    NAMES_ANOTHER,
    NOT_DECLINED,
    Follower,
    amount_of_original,
    days_since,
    following_call,
)
from fengshou.ext.services.rungs import AMOUNT_GIVEN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Side
from fengshou.protocol.service import Answer, Call, Conclusion, Request, Rung
from fengshou.protocol.templates import ANSWER, Template

PERCENT_MAX = 115
DAYS_MAX = 30

COMPLETION = Template(13, "completion", 200, ABOUT, ANSWER, side=Side.DEBIT)


def _not_too_much(request: Request) -> bool:
    return request.integer(de.AMOUNT) * 100 <= amount_of_original(request) * PERCENT_MAX


class Completion(Follower):
    name = "completion"
    templates = (COMPLETION,)
    undoes = False
    ladder = (
        *WELL_FORMED,
        AMOUNT_GIVEN,
        NAMES_ANOTHER,
        KNOWN,
        ENDED,
        IS_AUTHORISATION,
        CERTAIN,
        NOT_DECLINED,
        Rung(f"at most {DAYS_MAX} days have passed", "25", lambda request: days_since(request) <= DAYS_MAX),
        Rung(f"amount is at most {PERCENT_MAX} % of what is held", "64", _not_too_much),
    )

    def call(self, request: Request) -> Call:
        return following_call(request, 200, "00") or Answer("12")

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        return {"kind": "completion", "amount_fen": request.integer(de.AMOUNT), **place_of(request)}


service = Completion()
