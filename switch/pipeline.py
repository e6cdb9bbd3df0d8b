"""The way of a message through the switch, on one screen.

Everything moves in batches that form by themselves: whatever is ready now is one batch. Two loops share the journal's
group commits; neither has a task for a request::

    requests:  ready sockets → frames → messages → verify signatures → admit → journal the intents → route
    outcomes:  answers of back ends → conclude → journal the outcomes → encode → send

A request that ends early (refused, repeated, answered without a back end) leaves the first loop through ``answer``.
"""

import logging
from collections.abc import Sequence

import trio

from fengshou.routing.destination import Completion
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.exchange import Exchange
from fengshou.switch.inbound import Inbound
from fengshou.switch.journal.store import Entry, Journal, JournalError, LimitPassed
from fengshou.switch.outbound import Sender
from fengshou.switch.writer import Writer
from fengshou.terminals.pump import Pump

logger = logging.getLogger(__name__)


class Pipeline:
    """The two loops. What the steps do stands in ``inbound`` and ``outbound``."""

    def __init__(
        self, pump: Pump, inbound: Inbound, sender: Sender, journal: Journal, writer: Writer, duplicates: Duplicates
    ) -> None:
        self._pump = pump
        self._inbound = inbound
        self._sender = sender
        self._journal = journal
        self._writer = writer
        self._duplicates = duplicates
        self._completed: list[Completion] = []
        self._arrived = trio.Event()

    async def requests(self) -> None:
        """Until the pump is halted."""
        while arrivals := await self._pump.ready():
            self._journal.refresh()
            exchanges = self._inbound.read(arrivals)
            self._inbound.verify(exchanges)
            if await self._admit(exchanges):
                self._inbound.durable(exchanges)
            else:
                self._inbound.lost(exchanges)
            self.complete(self._sender.route([exchange for exchange in exchanges if exchange.is_open]))
            self._sender.answer([exchange for exchange in exchanges if not exchange.is_open])

    async def outcomes(self) -> None:
        """Until cancelled. What a back end has answered is not dropped, however long the disk takes."""
        while True:
            await self._arrived.wait()
            completed, self._completed, self._arrived = self._completed, [], trio.Event()
            self._journal.refresh()
            ended, entries = self._sender.conclude(completed)
            with trio.CancelScope(shield=True):
                while not await self._append(entries):
                    await trio.sleep(1)
            self._sender.durable(ended)
            self._sender.owe_late(entries)
            self._sender.answer(ended)

    def complete(self, completions: Sequence[Completion]) -> None:
        """The sink of destinations."""
        if completions:
            self._completed.extend(completions)
            self._arrived.set()

    async def drained(self) -> None:
        """Return when nothing is in flight."""
        while len(self._duplicates):
            await trio.sleep(0.02)

    async def _admit(self, exchanges: Sequence[Exchange]) -> bool:
        """Whether everything that must be durable before an answer or a call is."""
        entries = self._inbound.admit(exchanges)
        while True:
            try:
                return await self._append(entries)
            except LimitPassed as passed:
                self._journal.refresh()
                entries = self._inbound.admit_again(exchanges, entries, passed.entries)

    async def _append(self, entries: Sequence[Entry]) -> bool:
        try:
            await self._writer.append(entries)
        except JournalError as error:
            logger.error("%s", error)
            return False
        return True
