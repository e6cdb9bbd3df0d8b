"""Settlement batches: what counts, how it is added up, and how a terminal tells its details.

A batch is what one terminal did between two settlements. A transaction counts in it when it was approved and not taken
back, on the side that its template names (``Template.side``). Both ends count by these rules, so their totals agree
unless an answer was lost for good; then the details (0320) show which.

The details of a batch are a row of transactions in ascending order of STAN, each two varints (LEB128, as integers of
the grammar)::

    STAN minus the STAN before    2 x fen, plus 1 for a credit

Four or five bytes a transaction, and nothing that names a person: no card, no account.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from io import BytesIO

from fengshou.protocol import limits
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.kinds import VARINT

STAN_MAX = 999_999

# DE 48.8. Five bytes a transaction make some 400 of them a message, far below the largest frame.
DETAILS_BYTES_MAX = 2048

# DE 71 and 72, n4.
MESSAGES_MAX = 9999


class Side(Enum):
    """Where an approval counts: processing codes 20 to 29 are credits, all others that move money debits.

    ISO 8583:1987 4.3.3: the side is that of the customer's account.
    """

    DEBIT = "debit"
    CREDIT = "credit"


class SettlementCode(IntEnum):
    """DE 66 of an answer (ISO 8583:1987): how the stated totals compare with the journal's."""

    IN_BALANCE = 1
    OUT_OF_BALANCE = 2


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One transaction of a batch that counts."""

    stan: int
    side: Side
    fen: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What a batch adds up to: DE 76 and 88, DE 74 and 86."""

    debits: int = 0
    debits_fen: int = 0
    credits: int = 0
    credits_fen: int = 0

    @classmethod
    def of(cls, lines: Iterable[Line]) -> "Totals":
        counts, sums = dict.fromkeys(Side, 0), dict.fromkeys(Side, 0)
        for line in lines:
            counts[line.side] += 1
            sums[line.side] += line.fen
        return cls(counts[Side.DEBIT], sums[Side.DEBIT], counts[Side.CREDIT], sums[Side.CREDIT])


class Difference(Enum):
    """What is wrong with one transaction of a batch."""

    MISSING_HERE = "not approved in the journal"
    MISSING_THERE = "not counted by the terminal"
    DIFFERS = "another amount or side"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One transaction on which switch and terminal do not agree."""

    difference: Difference
    stan: int
    ours: Line | None
    theirs: Line | None


def mismatches(ours: Iterable[Line], theirs: Iterable[Line]) -> list[Mismatch]:
    """Every difference between the journal's lines and the terminal's, by STAN."""
    here, there = ({line.stan: line for line in lines} for lines in (ours, theirs))
    found = []
    for stan in sorted(here.keys() | there.keys()):
        our, their = here.get(stan), there.get(stan)
        if our is None:
            found.append(Mismatch(Difference.MISSING_HERE, stan, our, their))
        elif their is None:
            found.append(Mismatch(Difference.MISSING_THERE, stan, our, their))
        elif our != their:
            found.append(Mismatch(Difference.DIFFERS, stan, our, their))
    return found


def pack_details(lines: Iterable[Line]) -> list[bytes]:
    """The details as values of DE 48.8, as few as hold them; at least one, so that an empty batch can be told too."""
    parts: list[bytes] = []
    part, before = bytearray(), 0
    for line in sorted(lines):
        value = _packed(line, before)
        if len(part) + len(value) > DETAILS_BYTES_MAX:
            parts.append(bytes(part))
            part, value = bytearray(), _packed(line, 0)
        part += value
        before = line.stan
    return [*parts, bytes(part)]


def _packed(line: Line, before: int) -> bytes:
    step: bytes = VARINT.build(line.stan - before)
    value: bytes = VARINT.build(2 * line.fen + (line.side is Side.CREDIT))
    return step + value


def unpack_details(untrusted: bytes) -> tuple[Line, ...]:
    """The transactions in one value of DE 48.8.

    Raises UntrustedBytesError: malformed, a STAN that does not ascend, a STAN or amount out of its bounds.
    """
    stream, lines, stan = BytesIO(untrusted), [], 0
    while stream.tell() < len(untrusted):
        step, value = VARINT.parse_stream(stream), VARINT.parse_stream(stream)
        stan += step
        fen, credit = divmod(value, 2)
        if step == 0 or stan > STAN_MAX or not 0 < fen <= limits.AMOUNT_FEN_MAX:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE, "DE 48.8")
        lines.append(Line(stan, Side.CREDIT if credit else Side.DEBIT, fen))
    return tuple(lines)


class BatchState(IntEnum):
    """How far the settlement of a batch is; the journal keeps the number."""

    OPEN = 0
    BALANCED = 1
    AWAITING_DETAILS = 2
    DIFFERS = 3  # the details are here and stand beside the journal's own


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of the asking terminal as the journal knows it."""

    number: int
    state: BatchState
    in_flight: bool  # a transaction of it has no outcome yet
    lines: Sequence[Line]
    stated: Totals | None = None  # by the terminal, when it was settled
    details: Sequence[bytes] = ()  # DE 48.8 of the messages that came so far
