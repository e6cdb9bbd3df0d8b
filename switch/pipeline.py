"""The way of a message through the switch, on one screen.

Everything moves in batches that form by themselves: whatever is ready now is one batch. The two halves of the way meet
the disk, and go on when it has spoken; there is no task for a request and none for a batch::

    ready sockets → frames → messages → verify signatures → admit ─ disk: intents ─ route
    answers of back ends → conclude ─ disk: outcomes ─ encode → send

While one batch is on its way to the disk the next one is read and admitted. A request that ends early (refused,
repeated, answered without a back end) leaves the first half through ``answer``.
"""

import logging
from collections.abc import Sequence
from functools import partial

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

# Batches of requests at the disk before more are read. One makes the disk wait for the loop and the loop for the disk;
# more than two make batches smaller and their cost higher.
_AT_DISK_MAX = 2


class Pipeline:
    """Both halves. What the steps do stands in ``inbound`` and ``outbound``."""

    def __init__(
        self, pump: Pump, inbound: Inbound, sender: Sender, journal: Journal, writer: Writer, duplicates: Duplicates
    ) -> None:
        self._pump = pump
        self._inbound = inbound
        self._sender = sender
        self._journal = journal
        self._writer = writer
        self._duplicates = duplicates
        self._at_disk = 0  # batches of requests
        self._back = trio.Event()  # one of them came back
        self._unwritten: list[tuple[Sequence[Exchange], Sequence[Entry]]] = []  # outcomes that the disk refused
        self._refused = trio.Event()

    # -- requests ------------------------------------------------------------------------------------------------------

    async def requests(self) -> None:
        """Until the pump is halted."""
        while arrivals := await self._pump.ready():
            self._journal.refresh()
            exchanges = self._inbound.read(arrivals)
            self._inbound.verify(exchanges)
            self._at_disk += 1
            self._write(exchanges, self._inbound.admit(exchanges))
            # Who signs in or settles changes what is lawful next: that is read when the change is durable.
            while self._at_disk >= _AT_DISK_MAX or (self._at_disk and self._inbound.changing):
                self._back = trio.Event()
                await self._back.wait()

    def _write(self, exchanges: Sequence[Exchange], entries: Sequence[Entry]) -> None:
        """Make durable everything that must be before an answer or a call."""
        self._writer.write(entries, partial(self._written, exchanges, entries))

    def _written(self, exchanges: Sequence[Exchange], entries: Sequence[Entry], error: Exception | None) -> None:
        if isinstance(error, LimitPassed):
            self._journal.refresh()
            self._write(exchanges, self._inbound.admit_again(exchanges, entries, error.entries))
            return
        if error is None:
            self._inbound.durable(exchanges)
        else:
            logger.error("%s", error)
            self._inbound.lost(exchanges)
        self._at_disk -= 1
        self._back.set()
        ended = [exchange for exchange in exchanges if exchange.conclusion is not None]
        self.complete(self._sender.route([exchange for exchange in exchanges if exchange.conclusion is None]))
        self._sender.answer(ended)

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def complete(self, completions: Sequence[Completion]) -> None:
        """The sink of destinations."""
        if completions:
            self._journal.refresh()
            ended, entries = self._sender.conclude(completions)
            if self._unwritten:
                self._unwritten.append((ended, entries))
            else:
                self._writer.write(entries, partial(self._outcomes_written, ended, entries))

    def _outcomes_written(self, ended: Sequence[Exchange], entries: Sequence[Entry], error: Exception | None) -> None:
        if error is None:
            self._sender.durable(ended)
            self._sender.owe_late(entries)
            self._sender.answer(ended)
        else:
            logger.error("%s", error)
            self._unwritten.append((ended, entries))
            self._refused.set()

    async def outcomes(self) -> None:
        """Write again what the disk refused, once a second, until cancelled. What a back end has answered is not
        dropped, however long the disk takes."""
        while True:
            await self._refused.wait()
            with trio.CancelScope(shield=True):
                while self._unwritten:
                    await trio.sleep(1)
                    await self._write_again()
            self._refused = trio.Event()

    async def _write_again(self) -> None:
        """Outcomes that the disk refused, until it refuses again."""
        while self._unwritten:
            ended, entries = self._unwritten[0]
            try:
                await self._writer.append(entries)
            except JournalError as error:
                logger.error("%s", error)
                return
            del self._unwritten[0]
            self._outcomes_written(ended, entries, None)

    async def drained(self) -> None:
        """Return when nothing is in flight."""
        while len(self._duplicates):
            await trio.sleep(0.02)
