"""How a terminal settles a batch.

``Settling`` says which message comes next and what its answer means. It is without I/O and ``settle_batches`` waits for
nothing but the answers that it is given, so the client on Trio and the fleet on asyncio settle alike.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState, Line, Totals, pack_details
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.message import Value
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.identity import BATCH_MAX, BATCH_UNKNOWN, Counters

SETTLE, DETAILS = "settle", "batch-details"

_OUT_OF_BALANCE = "95"
_DETAILS_MISMATCH = "79"
_SETTLED_OTHERWISE = "94"  # for good, so there is nothing to keep for

# Sends a request of the named template and gives code and values of its answer.
Ask = Callable[[str, Mapping[int, Value]], Awaitable[tuple[str, Mapping[int, Value]]]]


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of settling one batch. ``code`` is the last answer's; ``state`` OPEN: it was refused."""

    batch: int
    totals: Totals
    state: BatchState
    code: str


class Settling:
    """One batch on its way: totals first and, when they differ, its transactions, as many messages as they need."""

    def __init__(self, batch: int, lines: Sequence[Line]) -> None:
        self.batch = batch
        self.totals = Totals.of(lines)
        self._parts = pack_details(lines)
        self._told = 0
        self._state = BatchState.OPEN
        self._code = ""
        self.done = False

    @property
    def closed(self) -> bool:
        """The switch takes no more transactions of this batch."""
        return self._state is not BatchState.OPEN

    @property
    def result(self) -> Settled:
        return Settled(self.batch, self.totals, self._state, self._code)

    def next(self) -> tuple[str, dict[int, Value]]:
        """Name of the next message's template and its values."""
        if not self.closed:
            return SETTLE, {
                de.ORIGINAL_BATCH: self.batch,
                de.DEBITS: self.totals.debits,
                de.DEBITS_AMOUNT: self.totals.debits_fen,
                de.CREDITS: self.totals.credits,
                de.CREDITS_AMOUNT: self.totals.credits_fen,
            }
        return DETAILS, {
            de.ORIGINAL_BATCH: self.batch,
            de.DETAILS: self._parts[self._told],
            de.MESSAGE_NUMBER: self._told + 1,
            de.LAST_MESSAGE: len(self._parts),
        }

    def answered(self, code: str, values: Mapping[int, Value]) -> None:
        """The answer to ``next``."""
        self._code = code
        told = values.get(de.MESSAGE_NUMBER, 0)
        assert isinstance(told, int)
        if not self.closed and code == APPROVED:
            self._state, self.done = BatchState.BALANCED, True
        elif code == (APPROVED if self.closed else _OUT_OF_BALANCE) or (
            code == _DETAILS_MISMATCH and told > self._told
        ):
            self._told = told
            self.done = told >= len(self._parts)
            self._state = BatchState.DIFFERS if self.done else BatchState.AWAITING_DETAILS
        else:
            self.done = True


async def settle_batches(log: BatchLog, counters: Counters, ask: Ask) -> list[Settled]:
    """Settle every batch in which something counts, or else the current one; the counters go on in the next.

    Raises what ``ask`` raises; then it may be called again, and goes on where it was.
    """
    settled = []
    current = [] if counters.batch == BATCH_UNKNOWN else [counters.batch]
    for batch in log.batches() or current:
        settling = Settling(batch, log.lines(batch))
        while not settling.done:
            settling.answered(*await ask(*settling.next()))
            if settling.closed and batch == counters.batch:
                counters.begin(batch % BATCH_MAX + 1)
        if settling.closed or settling.result.code == _SETTLED_OTHERWISE:
            log.forget(batch)
        settled.append(settling.result)
    return settled
