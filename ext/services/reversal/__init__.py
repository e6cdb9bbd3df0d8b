"""Reversal: a terminal takes back a transaction of its own, named by the batch and STAN of the original.

The switch finds the original among the terminal's own, so nobody can reverse another's. What is found is judged by the
ladder ``MATCHING``: 09 still in flight (ask again), 12 nothing that can be undone, 25 already reversed or of another
business day, 01 declined, 64 another amount. An original that never came is answered 00, so that the terminal stops,
and leaves a tombstone: should it come late, it is refused. Where the switch already owes the host a reversal, 00 says
that it will deliver it.
"""

from fengshou.ext.services.following import (
    AMOUNT_IS_THE_ORIGINALS,
    ENDED,
    NAMES_ANOTHER,
    NOT_DECLINED,
    NOT_REVERSED,
    TakesBack,
    original_of,
    processing_of,
)
from fengshou.ext.services.rungs import AMOUNT_GIVEN, WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.iso8583 import (
    REVERSED_MAC_WRONG,
    REVERSED_NO_RESPONSE,
    REVERSED_OTHER,
    REVERSED_TERMINAL_FAULT,
)
from fengshou.protocol.reversal import REVERSAL_MTI, reversal_of
from fengshou.protocol.service import Answer, Call, Fate, Request, Rung, refusal
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

# DE 39 of the request is the reason; a terminal that gives none had no response.
REASONS = frozenset({REVERSED_NO_RESPONSE, REVERSED_TERMINAL_FAULT, REVERSED_MAC_WRONG, REVERSED_OTHER})

REVERSAL = Template(
    3,
    "reversal",
    REVERSAL_MTI,
    layout(
        required(de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ORIGINAL_BATCH, de.ORIGINAL_STAN),
        optional(de.RESPONSE_CODE),
    ),
    ANSWER,
)


def _reason(request: Request) -> str:
    return request.string(de.RESPONSE_CODE) or REVERSED_NO_RESPONSE


def _can_be_reversed(request: Request) -> bool:
    """Not what undid another transaction itself, nor a refund, which is sent until it is done."""
    return processing_of(original_of(request)) not in ("", "20")


MATCHING = (
    ENDED,
    Rung("the original moved money", "12", _can_be_reversed),
    NOT_REVERSED,
    Rung(
        "the original is of this business day",
        "25",
        lambda request: original_of(request).business_day == request.business_day,
    ),
    NOT_DECLINED,
    AMOUNT_IS_THE_ORIGINALS,
)


class Reversal(TakesBack):
    name = "reversal"
    templates = (REVERSAL,)
    ladder = (
        *WELL_FORMED,
        AMOUNT_GIVEN,
        Rung("reason is known", "30", lambda request: _reason(request) in REASONS),
        NAMES_ANOTHER,
    )

    def call(self, request: Request) -> Call:
        original = request.original
        if original is None:
            return Answer(APPROVED, tombstone=True)
        failed = refusal(MATCHING, request)
        if failed is not None:
            return Answer(failed.code)
        if original.fate is Fate.UNKNOWN:
            return Answer(APPROVED)
        if original.fate is Fate.ACCEPTED:
            return Answer(APPROVED, reverses=True)
        assert original.call is not None
        return reversal_of(
            original.call, original.rrn, original.received_us, request.terminal.acquirer, _reason(request)
        )


service = Reversal()
