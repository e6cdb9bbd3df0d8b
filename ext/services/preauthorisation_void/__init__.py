"""Void of a pre-authorisation (0100 with processing code 20): the point lets go of what it held, on any day.

Codes of its own: 12 no pre-authorisation, 25 unknown, let go of already, or completed, 64 another amount.
"""

from fengshou.ext.services.following import (
    ABOUT,
    AMOUNT_IS_THE_ORIGINALS,
    AUTHORISATION_MTI,
    ENDED,
    IS_AUTHORISATION,
    KNOWN,
    NAMES_ANOTHER,
    NOT_DECLINED,
    NOT_REVERSED,
    TakesBack,
    following_call,
)
from fengshou.ext.services.rungs import AMOUNT_GIVEN, WELL_FORMED
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.service import Answer, Call, Conclusion, Fate, Request
from fengshou.protocol.templates import ANSWER, Template

PREAUTHORISATION_VOID = Template(14, "preauthorisation-void", AUTHORISATION_MTI, ABOUT, ANSWER)


class PreauthorisationVoid(TakesBack):
    name = "preauthorisation-void"
    templates = (PREAUTHORISATION_VOID,)
    ladder = (
        *WELL_FORMED,
        AMOUNT_GIVEN,
        NAMES_ANOTHER,
        KNOWN,
        ENDED,
        IS_AUTHORISATION,
        NOT_REVERSED,
        NOT_DECLINED,
        AMOUNT_IS_THE_ORIGINALS,
    )

    def call(self, request: Request) -> Call:
        if request.original is not None and request.original.fate is Fate.UNKNOWN:  # the switch reverses it already
            return Answer(APPROVED)
        return following_call(request, AUTHORISATION_MTI, "20") or Answer("12")

    def event(self, request: Request, conclusion: Conclusion) -> None:
        """Analytics never heard of what was held."""


service = PreauthorisationVoid()
