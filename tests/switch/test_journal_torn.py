"""Power loss and disks that lie: the last durable commit, or a refusal by name; never a wrong answer."""

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.record import Commit
from fengshou.switch.journal.columns import Wanted
from fengshou.switch.journal.find import Place, find
from fengshou.switch.journal.pages import Pages
from fengshou.switch.journal.repair import repair
from fengshou.switch.journal.signature import commit_digest
from fengshou.switch.journal.store import Journal, JournalError, Known
from tests.switch.entries import intent, key, open_journal, outcome, session
from tests.switch.journals import audit

PAGE = 4096


def trade(journal: Journal, groups: int, first: int = 1) -> list[Commit]:
    headers = []
    for at in range(first, first + groups * 5, 5):
        sales = [intent(at + offset, tags=(b"%08d" % (at + offset),)) for offset in range(5)]
        journal.refresh()
        headers.append(journal.commit(sales))
        headers.append(journal.commit([outcome(sale) for sale in sales[1:]]))
    return [header for header in headers if header is not None]


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory, custody: SoftwareCustody) -> Path:
    """A journal of 61 commits, the 30th signed; its keys are in their table."""
    folder = tmp_path_factory.mktemp("traded")
    journal = open_journal(folder)
    journal.commit([session()])
    headers = trade(journal, 30)
    signature = custody.sign(SWITCH_SIGN, commit_digest(custody.public_key(SWITCH_SIGN).za, headers[28]))
    journal.commit((), [(headers[28].number, signature)])
    journal.tidy()
    journal.close()
    return folder / "journal"


@pytest.fixture
def folder(traded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(traded, tmp_path / "journal"))


# Writes that were promised and lost ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_lost_pages_of_the_last_commits_give_no_wrong_answer(
    folder: Path, custody: SoftwareCustody, seed: int, tmp_path: Path
) -> None:
    """Some pages of the last commits keep what stood there before, or nothing: each is a process of its own, because
    what LMDB makes of such a file may end it."""
    chance = Random(seed)
    before = (folder / "data.mdb").read_bytes()
    journal = Journal(folder)
    headers = trade(journal, 3, 1001)
    journal.close()
    after = (folder / "data.mdb").read_bytes()
    data = bytearray(after)
    changed = [
        at for at in range(0, len(after), PAGE) if after[at : at + PAGE] != before[at : at + PAGE].ljust(PAGE, b"\0")
    ]
    for at in chance.sample(changed, chance.randint(1, 3)):
        old = before[at : at + PAGE].ljust(PAGE, b"\0") if chance.random() < 0.7 else bytes(PAGE)
        data[at : at + PAGE] = old
    (folder / "data.mdb").write_bytes(data)
    script = (
        "import sys; from pathlib import Path\n"
        "from fengshou.switch.journal.store import Journal, JournalError\n"
        "try: journal = Journal(Path(sys.argv[1]))\n"
        "except JournalError as error: print('refused', error); sys.exit()\n"
        "print('last', journal.last_commit.number, len(journal.open_intents()), len(list(journal.records())))\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result
    if result.stdout.startswith("refused"):
        assert "torn" in result.stdout
    else:
        last, still_open, records = map(int, result.stdout.split()[1:])
        by_commit = {headers[-1].number: 33, headers[-1].number - 1: 37}
        assert still_open == by_commit.get(last, still_open)
        assert records == 271 + sum(header.records for header in headers if header.number <= last)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_named(folder: Path, keep: float) -> None:
    data = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(data[: int(len(data) * keep)])
    for read_only in (False, True):
        with pytest.raises(JournalError, match=r"torn: page .* the file ends at byte"):
            Journal(folder, read_only=read_only)


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.999])
def test_of_a_file_cut_short_what_is_left_is_copied(
    folder: Path, tmp_path: Path, custody: SoftwareCustody, keep: float
) -> None:
    data = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(data[: int(len(data) * keep)])
    try:
        report = repair(folder, tmp_path / "out")
    except JournalError:  # the root of the tables
        assert not (tmp_path / "out").exists()
        return
    assert report.complete == (report.records == 271), "free pages may be all that is missing"
    new = Journal(tmp_path / "out")
    assert len(list(new.records())) == report.records
    assert all("no sign-in" in problem for problem in audit(new, custody).problems)
    new.close()


# Repair ----------------------------------------------------------------------------------------------------------


def test_a_whole_journal_is_repaired_into_itself(folder: Path, tmp_path: Path, custody: SoftwareCustody) -> None:
    report = repair(folder, tmp_path / "out")
    assert report.complete
    assert (report.commits_in_place, report.commits_moved, report.records) == (61, 0, 271)
    old, new = Journal(folder), Journal(tmp_path / "out")
    assert list(new.records()) == list(old.records())
    assert list(new.commits()) == list(old.commits())
    assert new.open_intents() == old.open_intents()
    assert [new.known(key(stan)) for stan in range(151)] == [old.known(key(stan)) for stan in range(151)]
    assert len(find(Place(new), Wanted(tag=b"%08d" % 77)).stories) == 1
    finding = audit(new, custody)
    assert (finding.good, finding.signed_commits) == (True, 1), finding.problems
    old.close()
    new.close()


@pytest.mark.parametrize("seed", range(12))
def test_what_is_good_around_a_damage_is_kept_and_the_rest_is_named(
    folder: Path, tmp_path: Path, custody: SoftwareCustody, seed: int
) -> None:
    chance = Random(seed)
    old = Journal(folder)
    records = dict(old.records())
    known = {stan: old.known(key(stan)) for stan in range(1, 151)}
    victims = sorted(chance.sample(range(20, 260), chance.randint(1, 3)))
    old.close()
    data = bytearray((folder / "data.mdb").read_bytes())
    for victim in victims:
        at = data.find(records[victim])
        while at >= 0:
            data[at + 90] ^= 1
            at = data.find(records[victim], at + 1)
    (folder / "data.mdb").write_bytes(data)
    report = repair(folder, tmp_path / "out")
    gone = {number for lost in report.lost for number in range(lost.first_record, lost.first_record + lost.records)}
    assert set(victims) <= gone
    assert not report.complete
    assert report.records == len(records) - len(gone)
    new = Journal(tmp_path / "out")
    kept = list(new.records())
    finding = audit(new, custody)
    assert all("no sign-in" in problem or "no intent" in problem for problem in finding.problems), finding.problems
    assert len(kept) == report.records
    for stan, was in known.items():
        assert was is not None
        now = new.known(key(stan))
        assert now is not None, "nobody may do it again"
        if was.intent in gone:
            assert now.intent == 0
        else:
            assert now.intent == report.moved.get(was.intent, was.intent)
            outcome_now = 0 if was.outcome in gone else report.moved.get(was.outcome, was.outcome)
            assert now == Known(now.intent, outcome_now, 0)
    new.close()


def test_what_is_lost_whole_and_stands_in_no_table_yet_is_barred_all_the_same(folder: Path, tmp_path: Path) -> None:
    """The newest keys are in memory only, and neither intent nor outcome of theirs can be read again."""
    old = Journal(folder)
    trade(old, 1, 1001)
    old.refresh()
    leaves = [data for _, data in old.records(old.next_record - 9)]
    old.close()
    data = bytearray((folder / "data.mdb").read_bytes())
    for leaf in leaves:
        at = data.find(leaf)
        while at >= 0:
            data[at + 90] ^= 1
            at = data.find(leaf, at + 1)
    (folder / "data.mdb").write_bytes(data)
    report = repair(folder, tmp_path / "out")
    assert [lost.records for lost in report.lost] == [5, 4]
    assert report.barred_keys == 5
    new = Journal(tmp_path / "out")
    assert [new.known(key(1001 + sale)) for sale in range(5)] == [Known(0, 271, 271)] * 5, "nobody may do it again"
    assert new.known(key(1006)) is None
    new.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_page_of_noise_anywhere_is_survived(
    folder: Path, tmp_path: Path, custody: SoftwareCustody, seed: int
) -> None:
    """Pages of any tree, branches and roots too, are overwritten: repair says what it could not read."""
    chance = Random(seed)
    data = bytearray((folder / "data.mdb").read_bytes())
    for _ in range(chance.randint(1, 4)):
        page = chance.randrange(2, len(data) // PAGE)
        data[page * PAGE : (page + 1) * PAGE] = chance.randbytes(PAGE)
    (folder / "data.mdb").write_bytes(data)
    try:
        report = repair(folder, tmp_path / "out")
    except JournalError:  # the root of the tables
        assert not (tmp_path / "out").exists()
        return
    new = Journal(tmp_path / "out")
    assert len(list(new.records())) == report.records
    assert report.records + sum(lost.records for lost in report.lost) >= 271 or report.damaged_pages
    assert all("no sign-in" in problem for problem in audit(new, custody).problems)
    new.close()


def test_a_lost_event_is_found_out_and_its_number_is_not_given_again(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    sales = [intent(stan) for stan in range(1, 201)]
    journal.commit([session(), *sales, *[outcome(sale, event=b"<event %d>" % sale.record.stan) for sale in sales]])
    journal.close()
    data = bytearray((tmp_path / "journal" / "data.mdb").read_bytes())
    at = data.find(b"<event 200>")
    while at >= 0:  # its page says that it ends before it, as an older version would
        lower = at // PAGE * PAGE + 12
        data[lower : lower + 2] = (int.from_bytes(data[lower : lower + 2], "little") - 2).to_bytes(2, "little")
        at = data.find(b"<event 200>", at + 1)
    (tmp_path / "journal" / "data.mdb").write_bytes(data)
    with pytest.raises(JournalError, match="torn: the events do not end where they say"):
        open_journal(tmp_path)
    repair(tmp_path / "journal", tmp_path / "out")
    new = Journal(tmp_path / "out")
    assert (new.last_event, new.events(198, 10)) == (200, [(199, b"<event 199>")])
    sale = intent(201)
    new.commit([sale, outcome(sale, event=b"another")])
    new.refresh()
    assert new.events(199, 10) == [(201, b"another")]
    new.close()


def test_the_reader_of_pages_agrees_with_lmdb(folder: Path) -> None:
    journal = Journal(folder)
    records = list(journal.records())
    journal.close()
    with Pages(folder / "data.mdb") as pages:
        assert [(int.from_bytes(number, "big"), data) for number, data in pages.walk("records")] == records
        assert next(pages.backwards("records"))[1] == records[-1][1]
        assert all(pages.get("records", number.to_bytes(8, "big")) == data for number, data in records)
        assert pages.get("records", bytes(8)) is None
        assert pages.get("no such table", b"") is None
