"""A start after a kill, and finding one transaction, with a whole season in the journal.

Two shapes of it: all in the store, as if the season were one business day, and spread over sealed days. The journal is
made by the switch's own commits, only without the sync of each, and kept by the switch's own keeper; then it is closed,
dropped from the page cache where the system lets us, and opened again as the switch does. A search is timed as a person
meets it: ``fengshou journal find`` from its start to its end, with nothing of the journal in memory, and once more with
all of it there; beside it stands what the command alone takes, that says its help.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import lmdb
import trio

from bench.figures import Figure
from bench.measure import Tell
from bench.purchase import EXAMPLES
from fengshou.codecs import MessageCodec
from fengshou.protocol import elements as de
from fengshou.protocol.record import Record, RecordKind
from fengshou.protocol.templates import Grammar
from fengshou.protocol.transaction import Machine
from fengshou.switch.clock import Clock, local_time, rrn_base
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.journal.prune import KEPT_DAYS
from fengshou.switch.journal.store import Entry, Journal
from fengshou.switch.journal.tables import BATCH_KEY_BYTES, TABLES
from fengshou.switch.keeper import Keeper
from fengshou.switch.recording import Recorder, pseudonyms
from fengshou.switch.recovery import Recovery
from fengshou.switch.site import make_site
from fengshou.switch.writer import Writer

# The programme's own numbers: the transactions of its season, and the aim for a start.
TRANSACTIONS = 8_340_000
OPEN = 10_000
SEASON_DAYS = 120
RECOVERY_S = 5.0
FIND_S = 0.8
START_S = 0.25
_WARM = 3  # searches in memory, of which the fastest counts
_TERMINALS = 2_000
_GROUP = 500
_FIRST_DAY = date(2026, 11, 24)
_CARD = "6217001234567890123"
# As many bytes as a purchase keeps in clear and sealed, and its answer.
_CODEC = MessageCodec(Grammar())
_CLEAR = _CODEC.pack({de.AMOUNT: 123_456, de.TEXT: "x" * 64, de.LOCAL_DATE: 612})
_CLEAR_ANSWER = _CODEC.pack({de.TEXT: "x" * 16})


@dataclass
class Season:
    """What is built: ``transactions`` in business days of equal size, each number in turn at the next terminal."""

    site: Path
    transactions: int
    still_open: int
    days: int
    tags: dict[int, bytes] = field(default_factory=dict)  # of transactions whose card is known

    @property
    def a_day(self) -> int:
        return -(-self.transactions // self.days)

    def intent(self, number: int) -> Entry:
        day = _FIRST_DAY + timedelta(days=number // self.a_day)
        business_day = day.year * 10_000 + day.month * 100 + day.day
        record = Record(
            RecordKind.INTENT, 0, 1_790_000_000_000_000 + number * 10_000, business_day,
            rrn_base(business_day) + 1 + number % self.a_day, 1, f"FS{number % _TERMINALS:06d}", "999452007630001",
            1 + number // self.a_day, number // _TERMINALS + 1, content=number.to_bytes(32, "big"),
            evidence=bytes(96), clear=_CLEAR,
        )  # fmt: skip
        return Entry(record, tags=(self.tags.get(number) or number.to_bytes(8, "little"),))

    def build(self) -> None:
        """Every transaction with its outcome, but ``still_open`` of them, spread over the whole journal."""
        make_site(self.site, EXAMPLES / "accounts.csv")
        loaded = load(self.site / "switch.toml")
        custody = custody_of(loaded)
        self.tags[self.sought] = bytes.fromhex(pseudonyms(custody)(_CARD))
        every = max(1, self.transactions // self.still_open)
        journal = Journal(loaded.path(loaded.config.files.journal), sync=False)

        async def keep() -> None:
            writer = Writer(journal, custody)
            writer.start()
            keeper = Keeper(journal, writer, custody)
            await keeper.seal()
            await keeper.filter()
            await writer.stop()

        for begin in range(0, self.transactions, self.a_day):
            end = min(begin + self.a_day, self.transactions)
            for first in range(begin, end, _GROUP):
                sales = [self.intent(number) for number in range(first, min(first + _GROUP, end))]
                journal.refresh()
                journal.commit(sales)
                journal.commit([_outcome(sale) for number, sale in enumerate(sales, first) if number % every])
            trio.run(keep)
        journal.close()

    @property
    def sought(self) -> int:
        """The transaction that is looked for: in the first third, ended like most."""
        return self.transactions // 3 + 1


def _outcome(of: Entry) -> Entry:
    was = of.record
    record = Record(
        RecordKind.OUTCOME, 0, was.time_us + 500, was.business_day, was.rrn, 1, was.terminal, was.merchant, was.batch,
        was.stan, refers=was.number, code="00", content=was.content, evidence=bytes(32), clear=_CLEAR_ANSWER,
    )  # fmt: skip
    return Entry(record, intent=of)


def figures(scratch: Path, tell: Tell, transactions: int = TRANSACTIONS, still_open: int = OPEN) -> list[Figure]:
    """``scratch`` must lie on the disk that is to be measured; 7 GB are needed for the whole season."""
    found: list[Figure] = []
    for shape, days in (("store", 1), ("season", SEASON_DAYS)):
        folder = scratch / "recovery"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            season = Season(folder / "site", transactions, still_open, days)
            tell(f"building a season of {transactions:,} transactions, {days} days")
            season.build()
            tell("starts and searches")
            found += measure(season, shape)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return found


def measure(season: Season, shape: str) -> list[Figure]:
    """``season`` is built. The start is last, because it gives the open ones their outcomes."""
    folder = season.site / "journal"
    size = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
    of = f"{season.transactions:,} transactions, {'one store' if season.days == 1 else f'{season.days} days'}"
    found = _searches(season, f"recovery.{shape}.find", of)
    tables = _tables(folder)
    _forget(folder)
    start = time.perf_counter()
    journal = Journal(folder)
    opened = time.perf_counter()
    recovered = _recover(season.site, journal)
    done = time.perf_counter()
    journal.close()
    return [
        Figure(key=f"recovery.{shape}.open", what=f"{of}: open", value=opened - start, unit="s"),
        Figure(
            key=f"recovery.{shape}.all", what=f"{of}: open and finish {recovered:,} open intents", value=done - start,
            unit="s", aim=RECOVERY_S,
        ),
        *found,
        Figure(
            key=f"recovery.{shape}.decade", what=f"{of} a year: the store after ten years, days in files", unit="GB",
            value=_decade(tables, season),
        ),
        Figure(
            key=f"recovery.{shape}.bytes", what=f"{of}: on the disk, with all indexes", unit="bytes/tx",
            value=size / season.transactions,
        ),
    ]  # fmt: skip


def _searches(season: Season, key: str, of: str) -> list[Figure]:
    """How long each search takes, and the command that searches nothing."""
    sale = season.intent(season.sought).record
    since = local_time(sale.time_us).replace(microsecond=0)
    searches = {
        "RRN": ("--rrn", str(sale.rrn)),
        "card": ("--card", _CARD),
        "terminal and STAN": ("--terminal", sale.terminal, "--stan", str(sale.stan)),
        "time": (
            "--since",
            f"{since:%Y-%m-%dT%H:%M:%S}",
            "--until",
            f"{since + timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}",
        ),
        "a card that never was there": ("--card", _CARD[::-1]),
    }
    _find("--help")  # compiles what was changed since it ran last
    found = [
        Figure(
            key=f"{key}.start", what="fengshou journal find --help", unit="s", aim=START_S,
            value=min(_timed(lambda: _find("--help")) for _ in range(_WARM)),
        )
    ]  # fmt: skip
    for what, arguments in searches.items():
        name = f"{key}.{what.split()[-1].lower()}"

        def search(arguments: tuple[str, ...] = arguments) -> None:
            _find("--home", str(season.site), *arguments)

        _forget(season.site / "journal")
        found.append(Figure(key=name, what=f"{of}: find by {what}", unit="s", aim=FIND_S, value=_timed(search)))
        warm = min(_timed(search) for _ in range(_WARM))
        found.append(Figure(key=f"{name}.warm", what=f"{of}: the same again, in memory", unit="s", value=warm))
    return found


def _tables(folder: Path) -> dict[str, int]:
    """Bytes of each table of the store."""
    with lmdb.open(str(folder), readonly=True, max_dbs=len(TABLES)) as env, env.begin() as txn:
        stats = {name: txn.stat(env.open_db(name.encode(), txn=txn, create=False)) for name in TABLES}
    return {
        name: (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]
        for name, stat in stats.items()
    }


def _decade(tables: Mapping[str, int], season: Season) -> float:
    """Ten such years: keys go after ``KEPT_DAYS``; filters stay, and what was undone, one in a hundred."""
    undone = season.transactions * (BATCH_KEY_BYTES + 4 + 8) * 1.5 / 100
    return (tables["keys"] * KEPT_DAYS / 365 + 10 * (tables["filters"] + undone)) / 1e9


def _recover(site: Path, journal: Journal) -> int:
    """What a start does with the open intents."""
    loaded = load(site / "switch.toml")
    custody = custody_of(loaded)
    catalogue = Catalogue(load_service(entry.module, entry.options) for entry in loaded.config.service)
    recorder = Recorder(catalogue, custody, Clock())
    return Recovery(journal, catalogue, recorder, lambda terminal: None, pseudonyms(custody), Machine()).run()


def _find(*arguments: str) -> None:
    command = [sys.executable, "-m", "fengshou.switch", "journal", "find", *arguments]
    # With compiled modules, as they are when installed, also where this process was told not to write them.
    installed = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=installed)


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _forget(folder: Path) -> None:
    """Ask the system to drop the journal from its cache, so that what follows reads the disk."""
    for file in folder.glob("*.mdb"):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
