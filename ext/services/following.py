"""What scenes share that refer to an earlier transaction of their terminal: guards on it, and the host's call.

Nobody can refer to another terminal's transactions, since the switch looks among the terminal's own. How much of an
original is used up by refunds, or whether a pre-authorisation was completed, is a limit without a day, so it is exact
under concurrency and given back when the follower is declined or reversed.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from fengshou.ext.services.core_banking import CORE_BANKING, authorisation_of
from fengshou.protocol import elements as de
from fengshou.protocol.codes import IN_PROGRESS
from fengshou.protocol.iso8583 import original_data
from fengshou.protocol.service import Conclusion, Counter, Fate, Iso8583Call, Original, Reply, Request, Rung, Service
from fengshou.protocol.templates import required

# What every follower says.
ABOUT = required(de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ORIGINAL_BATCH, de.ORIGINAL_STAN)

AUTHORISATION_MTI = 100


def named_by(request: Request) -> tuple[int, int]:
    """(batch, STAN) of the original."""
    return request.integer(de.ORIGINAL_BATCH), request.integer(de.ORIGINAL_STAN)


def original_of(request: Request) -> Original:
    """Only after ``KNOWN`` held."""
    assert request.original is not None
    return request.original


def amount_of_original(request: Request) -> int:
    amount = original_of(request).values.get(de.AMOUNT, 0)
    assert isinstance(amount, int)
    return amount


def processing_of(original: Original) -> str:
    """The first two digits of DE 3 of what was asked for; empty when no host was asked to move money."""
    return str(original.call.fields.get(3, ""))[:2] if original.call else ""


def is_authorisation(original: Original) -> bool:
    return original.call is not None and original.call.mti == AUTHORISATION_MTI


def _names_another(request: Request) -> bool:
    return named_by(request) != (request.integer(de.BATCH), request.integer(de.STAN))


def _is_certain(request: Request) -> bool:
    return original_of(request).fate not in (Fate.REVERSED, Fate.UNKNOWN)


NAMES_ANOTHER = Rung("the original is another message", "12", _names_another)
KNOWN = Rung("the original is known", "25", lambda request: request.original is not None)
# First of those about its fate, because nothing else is certain of a transaction in flight.
ENDED = Rung("the original has an outcome", IN_PROGRESS, lambda request: original_of(request).fate is not Fate.OPEN)
AT_THE_HOST = Rung(
    "the back end knows the original", IN_PROGRESS, lambda request: original_of(request).fate is not Fate.ACCEPTED
)
IS_AUTHORISATION = Rung(
    "the original is a pre-authorisation", "12", lambda request: is_authorisation(original_of(request))
)
NOT_REVERSED = Rung(
    "the original is not reversed", "25", lambda request: original_of(request).fate is not Fate.REVERSED
)
CERTAIN = Rung("the original is neither reversed nor about to be", "25", _is_certain)
NOT_DECLINED = Rung(
    "the original was not declined", "01", lambda request: original_of(request).fate is not Fate.DECLINED
)
AMOUNT_IS_THE_ORIGINALS = Rung(
    "the amount is the original's", "64", lambda request: amount_of_original(request) == request.integer(de.AMOUNT)
)


def uses_up(request: Request, amount: int) -> tuple[Counter, ...]:
    """So much of the original is gone; all of a pre-authorisation at once."""
    original = request.original
    if original is None or original.call is None:
        return ()
    subject = f"{original.rrn:012d}"
    if is_authorisation(original):
        return (Counter("completed", subject, 1, 1, "25", lasting=True),)
    return (Counter("refunded", subject, amount, amount_of_original(request), "64", lasting=True),)


def following_call(request: Request, mti: int, processing: str) -> Iso8583Call | None:
    """The original's call with another purpose (first two digits of DE 3), this amount, clock and day, and DE 90.

    None when the original asked no host for anything.
    """
    original = request.original
    if original is None or original.call is None:
        return None
    fields = original.call.fields
    return Iso8583Call(
        mti,
        {
            **{number: value for number, value in fields.items() if number != 90},
            3: processing + str(fields[3])[2:],
            4: f"{request.integer(de.AMOUNT):012d}",
            12: f"{request.integer(de.LOCAL_TIME):06d}",
            13: f"{request.integer(de.LOCAL_DATE):04d}",
            15: f"{request.business_day % 10_000:04d}",  # it counts to its own day
            90: original_data(original.call.mti, original.rrn, original.received_us, request.terminal.acquirer),
        },
    )


class Follower(Service):
    """A scene that refers to an earlier transaction and that core banking completes. It uses up its own amount."""

    destination = CORE_BANKING

    def original_key(self, request: Request) -> tuple[int, int]:
        return named_by(request)

    def counters(self, request: Request) -> tuple[Counter, ...]:
        return uses_up(request, request.integer(de.AMOUNT))

    def conclude(self, request: Request, reply: Reply) -> Conclusion:
        return Conclusion(reply.code, authorisation_of(reply))


class TakesBack(Follower):
    """A scene after which the whole original no longer counts, so nothing of it may have been refunded or completed."""

    def counters(self, request: Request) -> tuple[Counter, ...]:
        return uses_up(request, amount_of_original(request)) if _counts(request) else ()

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any] | None:
        """Which transaction no longer counts; None when analytics never heard of it."""
        if not _counts(request):
            return None
        return {"kind": "reversal", "original_rrn": f"{original_of(request).rrn:012d}"}


def _counts(request: Request) -> bool:
    return request.original is not None and request.original.fate in (Fate.APPROVED, Fate.ACCEPTED)


def days_since(request: Request) -> int:
    """Business days of the calendar between the original and this request."""
    return (_day(request.business_day) - _day(original_of(request).business_day)).days


def _day(yyyymmdd: int) -> date:
    return date(yyyymmdd // 10_000, yyyymmdd // 100 % 100, yyyymmdd % 100)
