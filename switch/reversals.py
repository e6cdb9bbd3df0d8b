"""The reversals that the switch owes: sent until they are answered.

An intent whose outcome is unknown owes its back end a reversal. The debt stands in the journal from the commit of the
outcome until the commit of the reversal's answer, so it survives any restart. Each reversal repeats the original's data
(DE 90), and a host that never saw the original refuses it should it still come.
"""

import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import trio

from fengshou.protocol.iso8583 import REVERSED_NO_RESPONSE
from fengshou.protocol.record import Record, RecordKind
from fengshou.protocol.reversal import reversal_of
from fengshou.protocol.service import Iso8583Call, Reply, TerminalFacts
from fengshou.routing.destination import Completion, Outbound, Trace
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal import Entry, Journal, JournalError, key_of
from fengshou.switch.outbound import Route, trace_of
from fengshou.switch.recording import Recorder
from fengshou.switch.writer import Writer

logger = logging.getLogger(__name__)

# What ends a reversal: it was done, there is nothing to do (25, 12), or the original was declined anyway (01).
FINAL_CODES = frozenset(("00", "25", "12", "01"))
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 60.0
# Reversals handed to a destination at once; the rest wait, so that they do not crowd out trade.
_BATCH_MAX = 256


@dataclass(slots=True, eq=False)
class Debt:
    """One reversal that is owed."""

    intent: int
    attempts: int = 0


class Reversals:
    """Delivers debts. ``owe`` and ``complete`` are called by the pipeline; ``run`` does the work."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        writer: Writer,
        recorder: Recorder,
        routes: Mapping[str, Route],
        facts: Callable[[str], TerminalFacts | None],
        pseudonym: Callable[[str], str],
        random: Random,
    ) -> None:
        self._catalogue = catalogue
        self._journal = journal
        self._writer = writer
        self._recorder = recorder
        self._routes = routes
        self._facts = facts
        self._pseudonym = pseudonym
        self._random = random
        self._queue: list[tuple[float, int, Debt]] = []  # when, intent, debt
        self._completed: list[Completion] = []
        self._work = trio.Event()
        self.owed = 0
        self.delivered = 0
        self.attempts = 0

    def owe(self, intent: int) -> None:
        """A durable outcome owes this reversal."""
        self.owed += 1
        self._push(Debt(intent), 0.0)

    def complete(self, completions: Sequence[Completion]) -> None:
        """Answers of back ends to what ``run`` sent."""
        self._completed.extend(completions)
        self._work.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._work = trio.Event()  # before anything is looked at: what arrives during a commit must not be missed
            self._journal.refresh()
            await self._settle()
            self._send()
            wake_at = self._queue[0][0] if self._queue else float("inf")
            with trio.move_on_at(wake_at):
                await self._work.wait()

    def _push(self, debt: Debt, delay_s: float) -> None:
        heapq.heappush(self._queue, (trio.current_time() + delay_s, debt.intent, debt))
        self._work.set()

    def _retry(self, debt: Debt) -> None:
        bound = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(debt.attempts, 10))
        self._push(debt, bound * (0.5 + self._random.random() / 2))

    def _send(self) -> None:
        now = trio.current_time()
        calls: dict[str, list[Outbound]] = {}
        for _ in range(_BATCH_MAX):
            if not self._queue or self._queue[0][0] > now:
                break
            debt = heapq.heappop(self._queue)[2]
            record = self._journal.record(debt.intent)
            service = self._catalogue.service(record.template)
            call = self._call(record, repeat=debt.attempts > 0)
            route = self._routes.get(service.destination) if service else None
            if service is None or call is None or route is None:
                logger.error("the reversal of record %d cannot be sent: its service or route is gone", debt.intent)
                self._retry(debt)
                continue
            outbound = Outbound(debt, call[0], call[1], now + route.deadline_s)
            calls.setdefault(service.destination, []).append(outbound)
            debt.attempts += 1
            self.attempts += 1
        for destination, batch in calls.items():
            self._routes[destination].destination.submit(batch)

    def _call(self, record: Record, *, repeat: bool) -> tuple[Iso8583Call, Trace] | None:
        facts = self._facts(record.terminal)
        if facts is None:
            return None
        original = self._recorder.call(record, facts, self._pseudonym)
        if original is None:
            return None
        request = self._recorder.request(record, facts, self._pseudonym)
        call = reversal_of(original, record.rrn, record.time_us, facts.acquirer, REVERSED_NO_RESPONSE)
        return call, trace_of(request, repeat=repeat)

    async def _settle(self) -> None:
        completed, self._completed = self._completed, []
        entries: list[Entry] = []
        for completion in completed:
            debt: Debt = completion.outbound.token
            if completion.late:
                continue
            result = completion.result
            if isinstance(result, Reply) and result.code in FINAL_CODES:
                record = self._journal.record(debt.intent)
                entries.append(
                    Entry(
                        self._recorder.follow_up(RecordKind.REVERSAL, record, result.code),
                        undoes=key_of(record.terminal, record.merchant, record.batch, record.stan),
                        charges=self._journal.charges(debt.intent),
                    )
                )
            else:
                self._retry(debt)
        while entries:
            try:
                await self._writer.append(entries)
            except JournalError:
                await trio.sleep(1)
            else:
                self.owed -= len(entries)
                self.delivered += len(entries)
                return
