"""Keeps the journal while the switch works: seals the business days that are over, makes filters of the newest one,
forgets what is too long ago."""

import logging
from collections.abc import Callable
from itertools import chain

import trio

from fengshou.hsm.custody import SWITCH_SIGN, Custody
from fengshou.protocol.record import Commit
from fengshou.switch.affinity import WHOLE, Share
from fengshou.switch.journal.columns import Row
from fengshou.switch.journal.days import DayFile, over
from fengshou.switch.journal.filters import BLOCK, Filters, Rows, blocks_of, filter_rows
from fengshou.switch.journal.prune import BEGIN, Place
from fengshou.switch.journal.signature import commit_digest
from fengshou.switch.journal.store import DayAbsent, Journal, JournalError
from fengshou.switch.journal.tables import Day
from fengshou.switch.writer import Writer

logger = logging.getLogger(__name__)

# How soon a day that is over is noticed, and how soon what failed (a full disk) is tried again.
_LOOK_EVERY_S = 10.0
# Between two steps of housekeeping; each holds up the commits that wait for it by some milliseconds.
_STEP_EVERY_S = 0.05


class Keeper:
    """One task. The copying runs in a thread, what changes the store in the writer's."""

    def __init__(self, journal: Journal, writer: Writer, custody: Custody, share: Share = WHOLE) -> None:
        """Of several workers the first seals, and all take out of the store what is theirs to take out."""
        self._journal = journal
        self._writer = writer
        self._custody = custody
        self._seals = share.worker == 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._seals:
                    await self.seal()
                    await self.filter()
                    await self.prune()
                else:
                    await self.tidy()
            except JournalError as error:
                logger.error(
                    "the journal is not tidied for now; tried again in %g s: %s. Is its disk full? make room",
                    _LOOK_EVERY_S,
                    error,
                )
            await trio.sleep(_LOOK_EVERY_S)

    async def seal(self) -> None:
        """Every day that is over gets its own file, and the store lets go of its lines. Raises JournalError."""
        self._journal.refresh()
        for day, after in over(self._journal.days()):
            file = DayFile(self._journal, day, after)
            sign_ins = await trio.to_thread.run_sync(file.copy, self._sign)
            copies = self._copies(sign_ins)
            sealed: Day = await trio.to_thread.run_sync(file.finish, copies)
            for block, rows in file.filters:  # a search asks the store which files to open
                await self._note_filter(block.first, block.last, rows)
            await self._in_writer(lambda journal, day=sealed: journal.seal(day))  # type: ignore[misc]
            logger.info("day %d is sealed: records %d to %d", sealed.day, sealed.first_record, sealed.last_record)
        await self.tidy()

    async def tidy(self) -> None:
        """The store lets go of the lines of days that are sealed. Raises JournalError."""
        self._journal.refresh()
        while self._journal.untidy:
            await self._in_writer(Journal.tidy)
            self._journal.refresh()
            await trio.sleep(_STEP_EVERY_S)

    async def filter(self) -> None:
        """Every full block of the newest day gets its filter, see ``journal.filters``. Raises JournalError."""
        self._journal.refresh()
        days = self._journal.days()
        if not days:
            return
        with self._journal.snapshot() as lines:
            first = Filters(lines).end(days[-1].first_record)
        while self._journal.next_record - first >= BLOCK:
            block = await trio.to_thread.run_sync(self._block, first, self._journal.next_record - 1)
            rows = filter_rows(block)
            end = block[-1][0] + Row(block[-1][1]).count
            await self._note_filter(first, end - 1, rows)
            first = end

    async def _note_filter(self, first: int, last: int, rows: Rows) -> None:
        await self._in_writer(lambda journal: journal.note_filter(first, last, rows))

    async def prune(self) -> None:
        """The store forgets what no rule asks for any more, once for each day that is sealed. Raises JournalError."""
        self._journal.refresh()
        if max((day.last_record for day in self._journal.days()), default=0) <= self._journal.pruned:
            return
        at: Place | None = BEGIN
        while at is not None:
            following: list[Place | None] = []
            await self._in_writer(lambda journal, at=at, to=following: to.append(journal.prune(at)))  # type: ignore[misc]
            at = following[-1]
            await trio.sleep(_STEP_EVERY_S)

    def _block(self, first: int, last: int) -> list[tuple[int, bytes]]:
        return next(blocks_of(chain.from_iterable(self._journal.slices("columns", first, last))))

    def _sign(self, header: Commit) -> bytes:
        return self._custody.sign(SWITCH_SIGN, commit_digest(self._custody.public_key(SWITCH_SIGN).za, header))

    def _copies(self, sign_ins: set[int]) -> dict[int, bytes]:
        copies = {}
        for number in sign_ins:
            try:
                record = self._journal.record_bytes(number)
            except DayAbsent:
                continue  # archived already: an auditor of this day needs that one beside it
            if record is not None:
                copies[number] = record
        return copies

    async def _in_writer(self, work: Callable[[Journal], object]) -> None:
        """Run ``work`` between two commits and wait for it. Raises JournalError."""
        done = trio.Event()
        failed: list[JournalError] = []
        token = trio.lowlevel.current_trio_token()

        def run(journal: Journal) -> None:
            try:
                work(journal)
            except JournalError as error:
                failed.append(error)
            finally:
                token.run_sync_soon(done.set)

        self._writer.later(run)
        await done.wait()
        if failed:
            raise failed[0]
