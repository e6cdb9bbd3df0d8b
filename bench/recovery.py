"""A start after a kill: how long until a journal of a whole season is open and every open intent has its outcome.

The journal is made by the switch's own commits, only without the sync of each; then it is closed, dropped from the page
cache where the system lets us, and opened again as the switch does.
"""

import os
import shutil
import time
from pathlib import Path

from bench.figures import Figure
from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.journal import Entry, Journal
from fengshou.switch.journal_columns import Wanted
from fengshou.switch.journal_find import Place, find

# The programme's own numbers: the transactions of its season, and the aim for a start.
TRANSACTIONS = 8_340_000
OPEN = 10_000
RECOVERY_S = 5.0
_TERMINALS = 2_000
_GROUP = 500
_DAY, _RRN = 20_261_124, 632_800_000_000


def _intent(number: int) -> Entry:
    terminal, stan = number % _TERMINALS, number // _TERMINALS + 1
    record = Record(
        RecordKind.INTENT, 0, 1_790_000_000_000_000 + number * 1000, _DAY, _RRN + number, 1, f"FS{terminal:06d}",
        "999452007630001", 1, stan, refers=1, content=number.to_bytes(32, "big"), evidence=bytes(96),
        clear=bytes(60), sealed=bytes(60),
    )  # fmt: skip
    return Entry(record, tags=(number.to_bytes(8, "little"),))


def _outcome(of: Entry, code: str = "00") -> Entry:
    was = of.record
    record = Record(
        RecordKind.OUTCOME, 0, was.time_us + 500, _DAY, was.rrn, 1, was.terminal, was.merchant, 1, was.stan,
        refers=was.number, code=code, content=was.content, evidence=bytes(32), clear=bytes(20),
    )  # fmt: skip
    return Entry(record, intent=of)


def build(folder: Path, transactions: int, still_open: int) -> None:
    """Every transaction with its outcome, but ``still_open`` of them, spread over the whole journal."""
    journal = Journal(folder, sync=False)
    every = max(1, transactions // still_open)
    for first in range(0, transactions, _GROUP):
        sales = [_intent(number) for number in range(first, min(first + _GROUP, transactions))]
        journal.refresh()
        journal.commit(sales)
        journal.commit([_outcome(sale) for number, sale in enumerate(sales, first) if number % every])
    journal.close()


def _recover(journal: Journal) -> int:
    """What ``recovery`` does, less the services' own rules: each open intent is read and gets the outcome 98."""
    journal.refresh()
    intents = journal.open_records()
    for at in range(0, len(intents), 1000):
        entries = []
        for intent in intents[at : at + 1000]:
            entries.append(_outcome(Entry(intent), "98"))
            entries[-1].owes = intent.number
        journal.commit(entries)
        journal.refresh()
    return len(intents)


def figures(scratch: Path, transactions: int = TRANSACTIONS, still_open: int = OPEN) -> list[Figure]:
    """``scratch`` must lie on the disk that is to be measured; 6 GB are needed for the whole season."""
    folder = scratch / "recovery"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        build(folder, transactions, still_open)
        file = folder / "data.mdb"
        _forget(file)
        size = file.stat().st_blocks * 512
        start = time.perf_counter()
        journal = Journal(folder)
        opened = time.perf_counter()
        found = _recover(journal)
        done = time.perf_counter()
        assert found == len(range(0, transactions, max(1, transactions // still_open)))
        sale = transactions // 3 + 1
        story = _timed(journal, Wanted(rrn=_RRN + sale))
        by_card = _timed(journal, Wanted(tag=sale.to_bytes(8, "little")))
        journal.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    of = f"{transactions:,} transactions"
    return [
        Figure(key="recovery.open", what=f"open a journal of {of}", value=opened - start, unit="s"),
        Figure(
            key="recovery.all", what=f"open it and finish {found:,} open intents", value=done - start, unit="s",
            aim=RECOVERY_S,
        ),
        Figure(key="recovery.find.rrn", what="find one by its RRN", value=story, unit="s", aim=1.0),
        Figure(key="recovery.find.card", what="find one by its card", value=by_card, unit="s", aim=1.0),
        Figure(key="recovery.bytes", what="on the disk, with all indexes", value=size / transactions, unit="bytes/tx"),
    ]  # fmt: skip


def _forget(file: Path) -> None:
    """Ask the system to drop the file from its cache, so that the start reads the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(journal: Journal, wanted: Wanted) -> float:
    start = time.perf_counter()
    assert len(find(Place(journal), wanted).stories) == 1
    return time.perf_counter() - start
