"""What a switch does to its journal, and an auditor, for tests that need no processes."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

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


@asynccontextmanager
async def disk_held(writer: Writer) -> AsyncIterator[None]:
    """The writer's thread is busy: what is handed over inside gathers."""
    begun, release = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def hold(journal: Journal) -> None:
        token.run_sync_soon(begun.set)
        release.wait()

    writer.later(hold)
    await begun.wait()
    try:
        yield
        await trio.testing.wait_all_tasks_blocked()
    finally:
        release.set()


async def seal(journal: Journal, custody: Custody) -> None:
    """Every day that is over gets its own file."""
    async with writing(journal, custody) as writer:
        await Keeper(journal, writer, custody).seal()
    journal.refresh()


def audit(journal: Journal, custody: Custody, day: int = 0) -> Finding:
    """What is wrong with the journal or, in a file of its own, with one day of it."""
    recorder = Recorder(Catalogue([]), custody, Clock())
    return verify_journal(journal, recorder, [custody.public_key(SWITCH_SIGN)], day=day)
