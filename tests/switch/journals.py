"""What a switch does to its journal, and an auditor, for tests that need no processes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fengshou.hsm.custody import SWITCH_SIGN, Custody
from fengshou.switch.clock import Clock
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.audit import Finding, verify_journal
from fengshou.switch.journal.store import Journal
from fengshou.switch.keeper import Keeper
from fengshou.switch.recording import Recorder
from fengshou.switch.writer import Writer


@asynccontextmanager
async def writing(
    journal: Journal, custody: Custody, on_signed: Callable[[int], None] = lambda commit: None
) -> AsyncIterator[Writer]:
    """A writer with its threads."""
    writer = Writer(journal, custody, on_signed)
    writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


async def seal(journal: Journal, custody: Custody) -> None:
    """Every day that is over gets its own file."""
    async with writing(journal, custody) as writer:
        await Keeper(journal, writer, custody).seal()
    journal.refresh()


def audit(journal: Journal, custody: Custody, day: int = 0) -> Finding:
    """What is wrong with the journal or, in a file of its own, with one day of it."""
    recorder = Recorder(Catalogue([]), custody, Clock())
    return verify_journal(journal, recorder, [custody.public_key(SWITCH_SIGN)], day=day)
