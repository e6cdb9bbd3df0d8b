"""Settlement of a terminal's batch: totals (0500) and, when they differ, the transactions themselves (0320).

The terminal states what its batch adds up to and the switch holds that against the journal. Equal: 00 and DE 66 is 1.
Different: 95, DE 66 is 2 and the answer carries the journal's totals; the terminal then tells its transactions, message
by message, and both lists stand side by side for the bank to look at. Either way the batch is closed from then on: the
next sign-in begins the next one, and what is still to be told of the old one is told from there.

Both may be asked again at any time, under any key: a batch that is settled is not settled twice.

Codes of their own: 09 a transaction of the batch is in flight (ask again), 25 no such batch of this terminal, 94 it was
settled with other totals, 79 details that nobody waits for, or not the next ones; DE 71 then says how many are here.
"""

from collections.abc import Sequence

from fengshou.ext.services.rungs import WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Batch, BatchState, SettlementCode, Totals, unpack_details
from fengshou.protocol.codes import APPROVED, IN_PROGRESS
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import Value
from fengshou.protocol.service import Answer, Request, Rung, Service, refusal
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

_TOTALS = (de.DEBITS, de.DEBITS_AMOUNT, de.CREDITS, de.CREDITS_AMOUNT)

SETTLE = Template(
    20,
    "settle",
    500,
    layout(required(de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ORIGINAL_BATCH, *_TOTALS)),
    layout(ANSWER, optional(de.SETTLEMENT_CODE, de.MESSAGE_NUMBER, *_TOTALS)),
)

DETAILS = Template(
    21,
    "batch-details",
    320,
    layout(
        required(
            de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ORIGINAL_BATCH, de.DETAILS, de.MESSAGE_NUMBER, de.LAST_MESSAGE
        )
    ),
    layout(ANSWER, optional(de.SETTLEMENT_CODE, de.MESSAGE_NUMBER)),
)

NO_SUCH_BATCH = "25"
OTHER_TOTALS = "94"
DETAILS_MISMATCH = "79"
OUT_OF_BALANCE = "95"


def stated_by(request: Request) -> Totals:
    """The totals that a terminal states."""
    return Totals(*(request.integer(key) for key in _TOTALS))


def _values(totals: Totals) -> dict[int, Value]:
    amounts = (totals.debits, totals.debits_fen, totals.credits, totals.credits_fen)
    return dict(zip(_TOTALS, amounts, strict=True))


def _batch(request: Request) -> Batch:
    assert request.batch is not None
    return request.batch


def _details_readable(request: Request) -> bool:
    value = request.values[de.DETAILS]
    assert isinstance(value, bytes)
    try:
        unpack_details(value)
    except UntrustedBytesError:
        return False
    return True


def _repeats_what_came(request: Request) -> bool:
    number, details = request.integer(de.MESSAGE_NUMBER), _batch(request).details
    return number > len(details) or request.values[de.DETAILS] == details[number - 1]


MATCHING = (
    Rung("the batch is one of this terminal's", NO_SUCH_BATCH, lambda request: request.batch is not None),
    Rung("all of the batch has an outcome", IN_PROGRESS, lambda request: not _batch(request).in_flight),
)

MATCHING_TOTALS = (
    *MATCHING,
    Rung(
        "the batch was not settled with other totals",
        OTHER_TOTALS,
        lambda request: _batch(request).stated in (None, stated_by(request)),
    ),
)

MATCHING_DETAILS = (
    *MATCHING,
    Rung(
        "details of the batch are wanted",
        DETAILS_MISMATCH,
        lambda request: _batch(request).state in (BatchState.AWAITING_DETAILS, BatchState.DIFFERS),
    ),
    Rung(
        "none before them is missing",
        DETAILS_MISMATCH,
        lambda request: request.integer(de.MESSAGE_NUMBER) <= len(_batch(request).details) + 1,
    ),
    Rung("what came before is the same", DETAILS_MISMATCH, _repeats_what_came),
    Rung(
        "nothing comes after the last",
        DETAILS_MISMATCH,
        lambda request: (
            _batch(request).state is not BatchState.DIFFERS
            or request.integer(de.MESSAGE_NUMBER) <= len(_batch(request).details)
        ),
    ),
)


class Settlement(Service):
    name = "settlement"
    templates = (SETTLE, DETAILS)
    destination = ""  # the switch itself answers
    moves_money = False
    ladder = (
        *WELL_FORMED,
        Rung("a batch is named", "30", lambda request: request.integer(de.ORIGINAL_BATCH) > 0),
        Rung(
            "the message is one of those that it counts",
            "30",
            lambda request: (
                request.template is SETTLE or 0 < request.integer(de.MESSAGE_NUMBER) <= request.integer(de.LAST_MESSAGE)
            ),
        ),
        Rung("details can be read", "30", lambda request: request.template is SETTLE or _details_readable(request)),
    )

    def batch_named(self, request: Request) -> int:
        return request.integer(de.ORIGINAL_BATCH)

    def call(self, request: Request) -> Answer:
        return self._settle(request) if request.template is SETTLE else self._take_details(request)

    def _settle(self, request: Request) -> Answer:
        failed = refusal(MATCHING_TOTALS, request)
        if failed is not None:
            return Answer(failed.code)
        batch = _batch(request)
        if batch.state is BatchState.OPEN:
            ours = Totals.of(batch.lines)
            balanced = ours == stated_by(request)
            return _told(batch, balanced, BatchState.BALANCED if balanced else BatchState.AWAITING_DETAILS)
        return _told(batch, batch.state is BatchState.BALANCED)

    def _take_details(self, request: Request) -> Answer:
        failed = refusal(MATCHING_DETAILS, request)
        if failed is not None:
            return Answer(failed.code, _here(request.batch.details if request.batch else ()))
        number, batch = request.integer(de.MESSAGE_NUMBER), _batch(request)
        values: dict[int, Value] = {de.MESSAGE_NUMBER: number}
        last = number == request.integer(de.LAST_MESSAGE)
        if last:
            values[de.SETTLEMENT_CODE] = int(SettlementCode.OUT_OF_BALANCE)
        if number <= len(batch.details):
            return Answer(APPROVED, values)
        return Answer(APPROVED, values, settles=BatchState.DIFFERS if last else BatchState.AWAITING_DETAILS)


def _told(batch: Batch, balanced: bool, settles: BatchState | None = None) -> Answer:
    """What a batch has come to; the same whether it is settled now or was before."""
    if balanced:
        return Answer(APPROVED, {de.SETTLEMENT_CODE: int(SettlementCode.IN_BALANCE)}, settles=settles)
    values = {de.SETTLEMENT_CODE: int(SettlementCode.OUT_OF_BALANCE), **_values(Totals.of(batch.lines))}
    return Answer(OUT_OF_BALANCE, {**values, **_here(batch.details)}, settles=settles)


def _here(details: Sequence[bytes]) -> dict[int, Value]:
    return {de.MESSAGE_NUMBER: len(details)}


service = Settlement()
