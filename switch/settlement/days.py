"""The file of each business day that is over: what counts, written once, when nothing of the day is undecided.

A day is over when its lines are sealed (``journal.days``). What is open or owed a reversal is waited for, so the file
is what the day came to. The switch looks now and then and has a process of its own write, which reads the journal as
any command does; killed in the middle, the next look does it again.
"""

import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import trio

from fengshou.switch.journal.store import Journal
from fengshou.switch.settlement.close import write_once
from fengshou.switch.settlement.totals import Counted

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 10.0
_COLUMNS = ("rrn", "terminal", "merchant", "batch", "stan", "service", "side", "fen")


def file_of(folder: Path, day: int) -> Path:
    """Of a business day (YYYYMMDD) in the folder of settlements."""
    return folder / f"day-{day}.csv"


def missing(journal: Journal, folder: Path) -> Mapping[int, bool]:
    """The sealed days that are here and have no file yet; each with whether something of it is undecided."""
    days = [
        day
        for day in journal.days()
        if day.sealed and journal.segments.path(day.day).exists() and not file_of(folder, day.day).exists()
    ]
    undecided = [*journal.open_intents(), *(intent for intent, _ in journal.due())] if days else []
    return {day.day: any(day.first_record <= intent <= day.last_record for intent in undecided) for day in days}


def write_day(folder: Path, day: int, counted: Iterable[Counted]) -> Path:
    """Write a day's file, in which lines end with LF and the last one proves it whole (``close``).

    ``side`` is debit or credit; what moves no money has none. Raises CloseError: it is there already.
    """
    rows = sorted(
        (
            one.rrn, one.terminal, one.merchant, one.batch, one.stan, one.service,
            one.side.name.lower() if one.side else "", one.fen,
        )
        for one in counted
    )  # fmt: skip
    lines = [",".join(_COLUMNS), *(f"{rrn:012d}," + ",".join(map(str, rest)) for rrn, *rest in rows), ""]
    return write_once(file_of(folder, day), "\n".join(lines).encode("ascii"))


async def keep_written(journal: Journal, home: Path, folder: Path) -> None:
    """Until cancelled, each day gets its file. The journal's view is that of its own thread."""
    while True:
        journal.refresh()
        if False in missing(journal, folder).values():
            command = [sys.executable, "-m", "fengshou.switch", "settle", "close-days", "--home", str(home)]
            done = await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)
            if done.returncode:
                logger.error("day files are not written for now: %s", done.stderr.decode(errors="replace").strip())
            else:
                logger.info("day files: %s", done.stdout.decode(errors="replace").strip())
        await trio.sleep(_LOOK_EVERY_S)
