"""Indexes against records: a whole journal agrees, and every row that is lost, altered or made up is named."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import lmdb
import pytest
import trio

from fengshou.hsm.custody import JOURNAL_DATA
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol import elements as de
from fengshou.switch.clock import Clock
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.journal.audit import Finding
from fengshou.switch.journal.audit_columns import hashes_of, verify_columns
from fengshou.switch.journal.audit_indexes import Indexes
from fengshou.switch.journal.audit_pages import verify_pages
from fengshou.switch.journal.lines import Segment
from fengshou.switch.journal.store import Entry, Journal, batch_key
from fengshou.switch.journal.tables import TABLES
from fengshou.switch.recording import Recorder, pseudonyms, tags_of
from tests.switch.entries import (
    CODEC,
    DAY,
    MERCHANT,
    TERMINAL,
    intent,
    key,
    late,
    open_journal,
    outcome,
    reversed_by_switch,
    session,
)  # fmt: skip
from tests.switch.journals import seal

CARD, SITE = (20_261_124).to_bytes(4, "big") + b"c" * 16, bytes(4) + b"s" * 16
CATALOGUE = Catalogue([load_service("fengshou.ext.services.farm_purchase", {})])


def trade(journal: Journal, day: int = DAY, first: int = 1) -> None:
    """Sales of every fate: approved, declined, unknown and owed, reversed, open; with limits, tags and events."""
    journal.commit([session(day=day)])
    for at in range(first, first + 60, 6):
        sales = [
            intent(at + n, charges=((CARD, 100 + n), (SITE, 1)), day=day, tags=(b"%08d" % (at + n),)) for n in range(6)
        ]
        journal.refresh()
        journal.commit(sales)
        journal.commit(
            [
                outcome(sales[0], event=b"{}"),
                outcome(sales[1], "51", charges=sales[1].charges),
                outcome(sales[2], "98", owes=sales[2].record.number),
                outcome(sales[3], "98", owes=sales[3].record.number),
            ]
        )
        undo = intent(1000 + at, day=day)
        journal.commit([reversed_by_switch(sales[3], charges=sales[3].charges), late(sales[2])])
        journal.commit([undo, outcome(undo, undoes=key(at), charges=sales[0].charges)])
    journal.refresh()


def verified(folder: Path, custody: SoftwareCustody, *, hashes: bool = False) -> list[str]:
    finding = Finding()
    for file in sorted(folder.glob("[d0-9]*.mdb")):
        verify_pages(file, finding)
    if finding.good:
        journal = Journal(folder, read_only=True)
        try:
            recorder = Recorder(CATALOGUE, custody, Clock())
            again = hashes_of(recorder, pseudonyms(custody)) if hashes else None
            Indexes(journal, CATALOGUE, recorder, finding, again).verify()
        finally:
            journal.close()
    return finding.problems


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory, custody: SoftwareCustody) -> Path:
    """Two days, the first one in a file of its own; a settled batch."""
    folder = tmp_path_factory.mktemp("traded")
    journal = open_journal(folder)
    trade(journal)
    trade(journal, DAY + 1, 61)
    totals = intent(5000, day=DAY + 1)
    journal.commit(
        [totals, Entry(outcome(totals).record, intent=totals, settles=(batch_key(TERMINAL, MERCHANT, 1), 1))]
    )

    trio.run(seal, journal, custody)
    journal.close()
    return folder / "journal"


@pytest.fixture
def folder(traded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(traded, tmp_path / "journal"))


def test_a_whole_journal_agrees_with_its_records(folder: Path, custody: SoftwareCustody) -> None:
    assert verified(folder, custody) == []
    journal = Journal(folder)  # also with keys in memory, and after they have gone to the table
    trade(journal, DAY + 1, 200)
    journal.close()
    assert verified(folder, custody) == []
    journal = Journal(folder)
    journal.tidy()
    journal.close()
    assert verified(folder, custody) == []


@contextmanager
def rows(folder: Path, table: str, file: str = "data.mdb") -> Iterator[tuple[lmdb.Transaction, list[bytes]]]:
    """A table behind the journal's back, with its keys."""
    with lmdb.open(str(folder / file), subdir=False, max_dbs=32, lock=False) as env:
        db = env.open_db(table.encode(), create=False)
        with env.begin(write=True, db=db) as txn:
            yield txn, [bytes(at) for at, _ in txn.cursor()]


def lose(folder: Path, table: str) -> None:
    with rows(folder, table) as (txn, keys):
        txn.delete(keys[-1 if table == "charges" else len(keys) // 2])


def alter(folder: Path, table: str) -> None:
    with rows(folder, table) as (txn, keys):
        at = keys[-1 if table == "charges" else len(keys) // 2]
        value = bytearray(txn.get(at))
        value[-1] ^= 1
        txn.put(at, bytes(value))


def invent(folder: Path, table: str) -> None:
    with rows(folder, table) as (txn, keys):
        value = txn.get(keys[-1])
        txn.put(bytes(len(keys[-1]) - 1) + b"\1", value)


@pytest.mark.parametrize(
    ("harm", "table", "problem"),
    [
        (lose,   "keys",        "keys: the key of record"),
        (alter,  "keys",        "keys: "),
        (invent, "keys",        "keys: a row leads to record"),
        (lose,   "open",        "has no outcome and is missing"),
        (alter,  "open",        "open: another copy of record"),
        (invent, "open",        "open: record 1 has an outcome, or is no intent"),
        (lose,   "due",         "due: nothing is owed for record"),
        (invent, "due",         "due: reversal of record 1, which is no intent with an outcome"),
        (lose,   "undone",      "undone"),
        (lose,   "counters",    "counters: 0 instead of"),
        (alter,  "counters",    "counters:"),
        (lose,   "charges",     "counters:"),
        (alter,  "charges",     "counters:"),
        (lose,   "rrns",        "rrns: "),
        (lose,   "events",      "events: numbers are missing"),
        (alter,  "settlements", "settlements: record"),
        (lose,   "columns",     "columns: the row of record"),
        (alter,  "columns",     "columns"),
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_is_named(
    folder: Path, custody: SoftwareCustody, harm: Callable[[Path, str], None], table: str, problem: str
) -> None:
    if table == "undone":
        with rows(folder, table) as (txn, keys):  # of what the switch reversed: records alone tell
            for at in keys:
                txn.delete(at)
    elif (harm, table) == (alter, "columns"):
        with rows(folder, table) as (txn, keys):
            value = bytearray(txn.get(keys[3]))
            value[30] ^= 1
            txn.put(keys[3], bytes(value))
    else:
        harm(folder, table)
    problems = verified(folder, custody)
    assert any(problem in found for found in problems), problems


def test_what_a_late_approval_owes_is_compared_with_it(folder: Path, custody: SoftwareCustody) -> None:
    sale = intent(900, day=DAY + 1)
    journal = Journal(folder)
    journal.commit([sale])
    journal.commit([outcome(sale, "98", owes=sale.record.number), reversed_by_switch(sale)])
    journal.commit([late(sale, owes=sale.record.number)])
    journal.close()
    assert verified(folder, custody) == []
    of_sale = sale.record.number.to_bytes(8, "big")
    with rows(folder, "due") as (txn, _):
        row = txn.get(of_sale)
        txn.put(of_sale, row[:-1] + bytes((row[-1] ^ 1,)))
    assert verified(folder, custody) == [f"due: no late approval owes the reversal of record {sale.record.number}"]
    with rows(folder, "due") as (txn, _):
        txn.delete(of_sale)
    assert verified(folder, custody) == [
        f"due: nothing is owed for record {sale.record.number + 3}, an approval that came late"
    ]


def test_the_store_has_the_filters_of_sealed_days(folder: Path, custody: SoftwareCustody) -> None:
    lose(folder, "filters")
    assert f"filters: those of day {DAY} in the store are not those of its file" in verified(folder, custody)


@pytest.mark.parametrize("table", ["columns", "filters"])
@pytest.mark.parametrize("harm", ["lose", "alter"])
def test_a_sealed_day_has_columns_and_filters_of_its_records(
    folder: Path, custody: SoftwareCustody, table: str, harm: str
) -> None:
    name = f"{DAY}.mdb"
    segment = Segment(folder / name)
    finding = Finding()
    verify_columns(segment, segment.day.first_record, segment.day.last_record, finding)
    segment.close()
    assert finding.good
    with rows(folder, table, name) as (txn, keys):
        at = keys[-1]
        value = bytearray(txn.get(at))
        value[100] ^= 1
        if harm == "lose":
            txn.delete(at)
        else:
            txn.put(at, bytes(value))
    assert any(found.startswith(table) for found in verified(folder, custody))


# Keyed hashes, which only who has the keys can make again -----------------------------------------------------------


def named(custody: SoftwareCustody, stan: int, *accounts: str) -> Entry:
    """A sale that names accounts, sealed and searched for as the switch does it."""
    values = dict(zip((de.FROM_ACCOUNT, de.TO_ACCOUNT), accounts, strict=False))
    sale = intent(stan, day=DAY + 1, tags=tags_of(values, pseudonyms(custody)))
    context = bytes((sale.record.kind,)) + sale.record.content
    sale.record.sealed = custody.seal(JOURNAL_DATA, CODEC.pack(values), context)
    return sale


def test_keyed_hashes_are_compared_where_the_keys_are_at_hand(tmp_path: Path, custody: SoftwareCustody) -> None:
    journal = open_journal(tmp_path)
    journal.commit([session(day=DAY + 1)])
    journal.commit([named(custody, 1, "9020000000000101", "9156001004001187857"), named(custody, 2), intent(3)])
    journal.close()
    folder = tmp_path / "journal"
    assert verified(folder, custody, hashes=True) == []
    with rows(folder, "columns") as (txn, keys):
        row = bytearray(txn.get(keys[-1]))
        row[-1] ^= 1  # one bit of the last hash: the payee would not be found again
        txn.put(keys[-1], bytes(row))
    assert verified(folder, custody) == [], "no record says it, and no signature"
    assert verified(folder, custody, hashes=True) == [
        "columns: the keyed hashes in the row of record 2 are not those of its records"
    ]


def test_keyed_hashes_of_what_cannot_be_opened_are_counted(tmp_path: Path, custody: SoftwareCustody) -> None:
    journal = open_journal(tmp_path)
    journal.commit([session(day=DAY + 1)])
    sale = named(custody, 1, "9020000000000101")
    sale.record.sealed = bytes(len(sale.record.sealed))
    journal.commit([sale, named(custody, 2, "9020000000000101")])
    journal.close()
    journal = Journal(tmp_path / "journal", read_only=True)
    finding, recorder = Finding(), Recorder(CATALOGUE, custody, Clock())
    verify_columns(journal.store, 1, 3, finding, hashes=hashes_of(recorder, pseudonyms(custody)))
    journal.close()
    assert (finding.problems, finding.unopened) == ([], 1)


# Files that the disk has changed -------------------------------------------------------------------------------------


def everything(folder: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """All that LMDB finds in the files of a journal."""
    found = {}
    for file in sorted(folder.glob("[d0-9]*.mdb")):
        with lmdb.open(str(file), subdir=False, readonly=True, lock=False, max_dbs=32) as env, env.begin() as txn:
            for table in [*TABLES, "sign-ins"]:
                if txn.get(table.encode()) is not None:
                    found[file.name + table] = list(txn.cursor(env.open_db(table.encode(), txn=txn, create=False)))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_pages_that_changed_are_named_or_say_the_same(folder: Path, seed: int) -> None:
    """Flipped bits, torn and swapped pages, anywhere in any file: whatever is not named has changed nothing that is
    read, or is in a value, which the second half of the audit compares."""
    chance = Random(seed)
    before = everything(folder)
    file = chance.choice(sorted(folder.glob("[d0-9]*.mdb")))
    data = bytearray(file.read_bytes())
    page = chance.randrange(len(data) // 4096) * 4096
    match seed % 4:
        case 0:
            at = page + chance.randrange(16)  # in the page's head
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            at = page + chance.randrange(4096)
            data[at] ^= 1 << chance.randrange(8)
        case 2:
            data[page + 2048 : page + 4096] = bytes(2048)
        case _:
            other = chance.randrange(len(data) // 4096) * 4096
            data[page : page + 4096] = data[other : other + 4096]
    file.write_bytes(data)
    finding = Finding()
    verify_pages(file, finding)
    if finding.good:
        after = everything(folder)
        assert [[at for at, _ in rows] for rows in after.values()] == [
            [at for at, _ in rows] for rows in before.values()
        ]
    else:
        assert all(problem.startswith(f"{file.name}: page ") and "(byte " in problem for problem in finding.problems)


def test_files_of_any_bytes_end_in_a_finding(tmp_path: Path) -> None:
    chance = Random(5)
    for size in (0, 10, 4096, 8192, 40_960):
        file = tmp_path / "20261124.mdb"
        file.write_bytes(chance.randbytes(size))
        finding = Finding()
        verify_pages(file, finding)
        assert not finding.good
