"""The journal's store and the auditor's proof: what follows from entries, and every alteration found in its place."""

import itertools
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from fengshou.codecs import merkle_root, sm3
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.record import GENESIS, parse_commit
from fengshou.protocol.transaction import Duty
from fengshou.switch.journal.audit import Finding
from fengshou.switch.journal.signature import commit_digest
from fengshou.switch.journal.store import Journal, JournalError, Known
from fengshou.switch.journal.tables import FORMAT_VERSION
from tests.switch.entries import advised, intent, key, late, open_journal, outcome, reversed_by_switch, session
from tests.switch.journals import audit

COUNTER, OTHER_COUNTER = b"c" * 20, b"d" * 20


# What follows from an entry ------------------------------------------------------------------------------------------


def test_an_intent_is_open_until_its_outcome(journal: Journal) -> None:
    sale = intent(7)
    journal.commit([session(), sale])
    journal.refresh()
    assert journal.known(key(7)) == Known(2, 0, 0)
    assert journal.open_intents() == [2]
    journal.commit([outcome(sale)])
    journal.refresh()
    assert journal.known(key(7)) == Known(2, 3, 0)
    assert journal.open_intents() == []
    assert journal.record(3).refers == 2


def test_what_is_open_since_long_is_known_without_the_journal_behind_it(tmp_path: Path) -> None:
    """A start reads a copy beside the number: the record itself may lie anywhere among millions."""
    journal = open_journal(tmp_path)
    sale, young = intent(7), intent(8)
    journal.commit([session(), sale])
    journal.tidy()
    journal.commit([young])
    for _ in range(70):  # more than a start proves
        journal.commit([session()])
    journal.close()
    _put(tmp_path, "records", _at(2), None)
    journal = open_journal(tmp_path)
    assert [(record.number, record.stan) for record in journal.open_records()] == [(2, 7), (3, 8)]
    journal.commit([outcome(sale)])
    journal.refresh()
    assert [record.stan for record in journal.open_records()] == [8]
    journal.close()


def test_an_outcome_in_the_commit_of_its_intent_refers_to_it(journal: Journal) -> None:
    sale = intent(1)
    journal.commit([session(), intent(9), sale, outcome(sale, "13")])
    journal.refresh()
    assert journal.record(4).refers == 3
    assert journal.open_intents() == [2]


def test_an_advice_becomes_a_reversal_and_then_only_a_reversal_ends_it(journal: Journal) -> None:
    sale, undo = intent(1), intent(2)
    journal.commit([session(), sale])
    journal.commit([outcome(sale, advice=True), undo])
    journal.refresh()
    assert journal.due() == [(sale.record.number, Duty.ADVICE)]
    journal.commit([outcome(undo, owes=sale.record.number)])
    journal.commit([advised(sale)])  # its answer was on the way
    journal.refresh()
    assert journal.due() == [(sale.record.number, Duty.REVERSAL)]
    journal.commit([reversed_by_switch(sale)])
    journal.refresh()
    assert journal.due() == []


def test_a_late_approval_owes_a_reversal_again(journal: Journal) -> None:
    sale = intent(1)
    journal.commit([session(), sale])
    journal.commit([outcome(sale, "98", owes=sale.record.number), reversed_by_switch(sale)])
    journal.refresh()
    assert journal.duty(sale.record.number) is None
    journal.commit([late(sale, owes=sale.record.number)])
    journal.refresh()
    assert journal.duty(sale.record.number) is Duty.REVERSAL


def test_what_a_late_approval_owes_is_ended_by_its_own_answer_only(journal: Journal) -> None:
    sale = intent(1)
    number = 2
    journal.commit([session(), sale])
    journal.commit([outcome(sale, "98", owes=number)])
    journal.refresh()
    assert (journal.duty(number), journal.late_us(number)) == (Duty.REVERSAL, 0)
    approved = late(sale, owes=number)
    journal.commit([approved])
    journal.commit([reversed_by_switch(sale)])  # the end of the first demand was on the way
    journal.refresh()
    assert (journal.duty(number), journal.late_us(number)) == (Duty.REVERSAL, approved.record.time_us)
    journal.commit([reversed_by_switch(sale, late_us=approved.record.time_us)])
    journal.refresh()
    assert journal.duty(number) is None


def test_a_debt_stands_until_its_reversal(journal: Journal) -> None:
    sale = intent(1)
    journal.commit([session(), sale])
    journal.commit([outcome(sale, "98", owes=sale.record.number)])
    journal.refresh()
    assert journal.due() == [(2, Duty.REVERSAL)]
    assert journal.duty(2) is Duty.REVERSAL
    journal.commit([reversed_by_switch(sale)])
    journal.refresh()
    assert journal.due() == []
    assert journal.duty(2) is None
    assert journal.known(key(1)) == Known(2, 3, 4)


def test_a_tombstone_never_covers_what_is_there(journal: Journal) -> None:
    undo, sale, second = intent(2), intent(1), intent(3)
    journal.commit([session(), undo, outcome(undo, tombstone=key(50))])
    journal.commit([sale, outcome(sale)])
    journal.commit([second, outcome(second, tombstone=key(1))])
    journal.refresh()
    assert journal.known(key(50)) == Known(0, 3, 3)
    assert journal.known(key(1)) == Known(4, 5, 0)


def test_counters_take_and_give_back(journal: Journal) -> None:
    first, second = intent(1, charges=((COUNTER, 300), (OTHER_COUNTER, 1))), intent(2, charges=((COUNTER, 200),))
    journal.commit([session(), first, second])
    journal.refresh()
    assert (journal.counter(COUNTER), journal.counter(OTHER_COUNTER)) == (500, 1)
    assert journal.charges(2) == ((COUNTER, 300), (OTHER_COUNTER, 1))
    journal.commit([outcome(first, "51", charges=journal.charges(2)), outcome(second)])
    journal.refresh()
    assert (journal.counter(COUNTER), journal.counter(OTHER_COUNTER)) == (200, 0)


def test_a_line_that_stands_there_already_is_not_written_over_nor_passed_by(journal: Journal) -> None:
    journal.commit([session()])
    journal.restore(lambda group: group.restore("records", [(_at(3), b"nobody's")]))
    with pytest.raises(JournalError, match="the table records does not end where the journal does"):
        journal.commit([intent(1), intent(2)])
    assert journal.next_record == 2
    journal.refresh()
    assert [number for number, _ in journal.records()] == [1, 3]


def test_commits_are_chained_and_found_by_any_record_of_theirs(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    groups = [[session()], [intent(1), intent(2), intent(3)], [intent(4)]]
    headers = [journal.commit(group) for group in groups]
    journal.refresh()
    assert [parse_commit(data).number for data in journal.commits(3)] == [2, 3]
    assert [parse_commit(data).number for data in journal.commits(5)] == [3]
    assert headers[0] is not None
    assert headers[0].previous == GENESIS
    for earlier, later in itertools.pairwise(headers):
        assert earlier is not None
        assert later is not None
        assert later.previous == sm3(earlier.to_bytes())
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.last_commit == headers[2]
    assert journal.next_record == 6
    journal.close()


def test_the_map_grows_by_itself_under_a_view(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, map_bytes=256 * 1024)
    journal.commit([session()])
    for first in range(1, 4000, 100):
        journal.commit([intent(first + offset) for offset in range(100)])
        assert journal.known(key(first)) is None  # the view is still that of the last refresh
        journal.refresh()
        assert journal.known(key(first)) == Known(first + 1, 0, 0)
    assert journal.next_record == 4002
    journal.close()


def test_only_a_journal_of_this_format_is_opened(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.commit([session()])
    journal.close()
    _put(tmp_path, "meta", b"format", b"1")
    for read_only in (False, True):
        with pytest.raises(JournalError, match="another format"):
            Journal(tmp_path / "journal", read_only=read_only)
    _put(tmp_path, "meta", b"format", FORMAT_VERSION)
    open_journal(tmp_path).close()


def test_what_is_no_journal_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot open"):
        Journal(tmp_path / "nothing", read_only=True)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal/data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(JournalError, match="neither meta page"):
        open_journal(tmp_path)


def test_a_damaged_last_header_is_said_at_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.commit([session()])
    journal.close()
    _put(tmp_path, "commits", _at(1), b"short")
    with pytest.raises(JournalError, match="damaged"):
        open_journal(tmp_path)


# The proof -----------------------------------------------------------------------------------------------------------


def _at(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _put(folder: Path, table: str, at: bytes, value: bytes | None) -> None:
    """Write or delete behind the journal's back."""
    with lmdb.open(str(folder / "journal"), max_dbs=32) as env:
        db = env.open_db(table.encode())
        with env.begin(write=True, db=db) as txn:
            if value is None:
                assert txn.delete(at)
            else:
                txn.put(at, value)


def _get(folder: Path, table: str, at: bytes) -> bytes:
    with lmdb.open(str(folder / "journal"), max_dbs=32) as env, env.begin(db=env.open_db(table.encode())) as txn:
        value: bytes = txn.get(at)
        return value


def _flip(folder: Path, table: str, number: int, at: int) -> None:
    place = _at(number)
    value = bytearray(_get(folder, table, place))
    value[at] ^= 1
    _put(folder, table, place, bytes(value))


@pytest.fixture
def written(tmp_path: Path, custody: SoftwareCustody) -> Path:
    """Five commits of records 1, 2-4, 5-7, 8-10 and 11-13; the second and the fourth are signed."""
    journal = open_journal(tmp_path)
    za = custody.public_key(SWITCH_SIGN).za
    journal.commit([session()])
    sales = [intent(stan) for stan in range(1, 10)]
    groups = [sales[:3], sales[3:6], sales[6:], [outcome(sale) for sale in sales[:3]]]
    for group in groups:
        header = journal.commit(group)
        assert header is not None
        if header.number % 2 == 0:
            journal.commit([], [(header.number, custody.sign(SWITCH_SIGN, commit_digest(za, header)))])
    journal.close()
    return tmp_path


def _audit(folder: Path, custody: SoftwareCustody) -> Finding:
    journal = Journal(folder / "journal", read_only=True)
    try:
        return audit(journal, custody)
    finally:
        journal.close()


def test_a_good_journal_is_proved(written: Path, custody: SoftwareCustody) -> None:
    finding = _audit(written, custody)
    assert finding.good, finding.problems
    assert (finding.commits, finding.records, finding.signed_commits) == (5, 13, 2)
    assert (finding.terminal_signatures, finding.unsigned_tail) == (10, 1)


def _forge(folder: Path) -> None:
    """Replace record 6 and make its commit fit: only the chain can tell."""
    _flip(folder, "records", 6, 60)
    leaves = [_get(folder, "records", _at(number)) for number in (5, 6, 7)]
    header = bytearray(_get(folder, "commits", _at(5)))
    header[28:60] = merkle_root(leaves)
    _put(folder, "commits", _at(5), bytes(header))


@pytest.mark.parametrize(
    ("alter", "problem"),
    [
        (lambda at: _flip(at, "records", 6, 60),           "commit 3: its records do not give its Merkle root"),
        (lambda at: _flip(at, "records", 6, 0),            "record 6: unknown-version at record"),
        (lambda at: _flip(at, "records", 6, -1),           "commit 3: its records do not give its Merkle root"),
        (lambda at: _put(at, "records", _at(6), b""),      "record 6: truncated at record"),
        (lambda at: _put(at, "records", _at(6), None),     "record 6 of commit 3 is missing"),
        (lambda at: _put(at, "records", _at(14), b"x"),    "record 14 belongs to no commit"),
        (lambda at: _put(at, "commits", _at(5), None),     "commit 4 does not follow commit 2"),
        (lambda at: _put(at, "commits", _at(5), b"xyz"),   "the commit after 2: truncated at commit"),
        (lambda at: _put(at, "commits", _at(1), None),     "the journal begins with commit 2, record 2"),
        (lambda at: _flip(at, "commits", 5, 25),           "commit 4 does not chain to commit 3"),
        (lambda at: _flip(at, "commits", 8, 25),           "commit 4: the switch's signature does not verify"),
        (lambda at: _flip(at, "signatures", 2, 5),         "commit 2: the switch's signature does not verify"),
        (_forge,                                           "commit 4 does not chain to commit 3"),
    ],
    ids=[
        "a byte of a record", "its version", "its last byte", "all of it", "it is gone", "one too many",
        "a commit is gone", "a header cut short", "the first commit is gone", "a byte of a header",
        "of a signed header", "of a signature", "a record and its root",
    ],
)  # fmt: skip
def test_an_alteration_is_found_in_its_place(
    written: Path, custody: SoftwareCustody, alter: Callable[[Path], None], problem: str
) -> None:
    alter(written)
    problems = _audit(written, custody).problems
    assert problem in problems
    others = [other for other in problems if "no sign-in at record 1" not in other]  # it went with the first commit
    assert len(others) <= 4, problems  # what is good is not called bad


def test_a_bit_that_the_disk_lost_is_found(written: Path, custody: SoftwareCustody) -> None:
    """In the file itself, wherever the record's bytes lie."""
    record = _get(written, "records", _at(9))
    file = written / "journal/data.mdb"
    data = bytearray(file.read_bytes())
    places = [at for at in range(len(data)) if data.startswith(record, at)]
    assert places
    for at in places:
        data[at + len(record) // 2] ^= 0x10
    file.write_bytes(data)
    assert any("commit 4" in problem or "record 9" in problem for problem in _audit(written, custody).problems)


def test_a_signature_of_another_terminal_is_found(tmp_path: Path, custody: SoftwareCustody) -> None:
    journal = open_journal(tmp_path)
    sale, stray = intent(1), intent(2, signed_in_at=7)
    sale.record.evidence = sale.record.evidence[:32] + bytes(63) + b"\x01"
    journal.commit([session(), sale, stray])
    journal.close()
    assert _audit(tmp_path, custody).problems == [
        "record 3: no sign-in at record 7",
        "record 2: the terminal's signature does not verify",
    ]
