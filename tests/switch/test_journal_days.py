"""The journal over the years: days sealed under way, read as before, archived and brought back, torn at any step."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.record import RecordKind
from fengshou.switch.affinity import Share, worker_of
from fengshou.switch.clock import Clock
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.audit import verify_day
from fengshou.switch.journal.columns import Row, Wanted, join, pack_entries
from fengshou.switch.journal.days import archive, prove
from fengshou.switch.journal.find import Place, find
from fengshou.switch.journal.lines import Segment
from fengshou.switch.journal.store import DayAbsent, Entry, Journal, JournalError, Known
from fengshou.switch.keeper import Keeper
from fengshou.switch.receipts import receipt
from fengshou.switch.recording import Recorder
from fengshou.switch.writer import Writer
from tests.switch.entries import TERMINAL, intent, key, open_journal, outcome, reversed_by_switch, session
from tests.switch.journals import audit, seal

DAYS = (20_261_124, 20_261_125, 20_261_126)
A_DAY = 40  # sales of each
FARMER, BUYER = b"farmer..", b"buyer..."


def _stan(day: int, sale: int) -> int:
    return day * A_DAY + sale + 1


def trade(journal: Journal) -> list[Entry]:
    """Three days of sales in groups of ten over one session. The first sale of each day is open over its midnight; the
    second of the first day is reversed on the third."""
    journal.commit([session()])
    left: list[Entry] = []
    owed: list[Entry] = []
    for index, day in enumerate(DAYS):
        for start in range(0, A_DAY, 10):
            sales = [
                intent(_stan(index, sale), day=day, rrn=(6328 + index) * 10**8 + sale, tags=(FARMER, BUYER)[: sale % 3])
                for sale in range(start, start + 10)
            ]
            journal.refresh()
            journal.commit(sales)
            ends = [outcome(sale) for sale in sales[2:]]
            if start:
                ends += [outcome(sale) for sale in sales[:2]]
            else:
                ends += [outcome(before) for before in left]
                left = sales[:1]
                if not index:
                    owed = sales[1:2]
                    ends.append(outcome(owed[0], "98", owes=owed[0].record.number))
                else:
                    ends.append(outcome(sales[1]))
            journal.commit(ends)
        journal.refresh()
    journal.commit([reversed_by_switch(owed[0])])
    journal.refresh()
    return left


@pytest.fixture
def journal(tmp_path: Path, custody: SoftwareCustody) -> Iterator[Journal]:
    journal = open_journal(tmp_path)
    trade(journal)
    trio.run(seal, journal, custody)
    yield journal
    journal.close()


def _everything(journal: Journal) -> tuple[object, ...]:
    return (
        list(journal.records()), list(journal.commits()), journal.open_intents(), journal.due(),
        [journal.known(key(_stan(index, sale))) for index in range(3) for sale in range(A_DAY)],
        [journal.last_rrn(6328 + index) for index in range(3)],
    )  # fmt: skip


# Sealing -----------------------------------------------------------------------------------------------


def test_a_sealed_journal_says_what_it_said_before(tmp_path: Path, custody: SoftwareCustody) -> None:
    journal = open_journal(tmp_path)
    trade(journal)
    before = _everything(journal)
    trio.run(seal, journal, custody)
    assert [(day.day, day.sealed) for day in journal.days()] == [(DAYS[0], True), (DAYS[1], True), (DAYS[2], False)]
    assert next(journal.live_records(1))[0] == journal.days()[2].first_record, "the store let go of its lines"
    assert _everything(journal) == before
    finding = audit(journal, custody)
    assert finding.good, finding.problems
    assert finding.records == journal.next_record - 1
    journal.close()
    journal = open_journal(tmp_path)
    assert _everything(journal) == before
    journal.commit([intent(999, day=DAYS[2])])
    assert audit(journal, custody).good
    journal.close()


def test_repeats_reversals_and_receipts_reach_over_midnight(journal: Journal) -> None:
    first, second = journal.known(key(_stan(0, 0))), journal.known(key(_stan(0, 1)))
    assert first is not None
    assert second is not None
    days = journal.days()
    assert first.intent < days[1].first_record <= first.outcome < days[2].first_record
    assert journal.record(first.outcome).refers == first.intent
    assert second.undone_by >= days[2].first_record
    assert journal.record(second.undone_by).kind == RecordKind.REVERSAL
    last_of_the_day = days[0].last_record
    proof = receipt(journal, last_of_the_day)
    assert proof is not None, "the last commit of a sealed day is signed"
    assert journal.open_intents() == [days[2].first_record], "the last midnight's open sale"


def test_each_day_is_proved_by_itself_and_as_a_file_alone(
    journal: Journal, custody: SoftwareCustody, tmp_path: Path
) -> None:
    for index, day in enumerate(DAYS):
        finding = audit(journal, custody, day)
        assert finding.good, finding.problems
        assert finding.terminal_signatures == A_DAY + (index == 0)
    journal.close()
    recorder = Recorder(Catalogue([]), custody, Clock())
    file = shutil.move(tmp_path / "journal/20261125.mdb", tmp_path / "elsewhere.mdb")
    segment = Segment(file)
    finding = verify_day(segment, recorder, [custody.public_key(SWITCH_SIGN)])
    assert finding.good, finding.problems
    assert finding.terminal_signatures == A_DAY, "under the first day's sign-in, of which the file has a copy"
    segment.close()


# Archiving ----------------------------------------------------------------------------------------------------------


def test_an_archived_day_is_named_and_comes_back(journal: Journal, custody: SoftwareCustody, tmp_path: Path) -> None:
    before = _everything(journal)
    first, second, _ = journal.days()
    target = archive(journal, first, tmp_path / "vault", remove=True)
    journal.close()
    journal = open_journal(tmp_path)
    with pytest.raises(DayAbsent, match=r"bring 20261124\.mdb back"):
        journal.record(2)
    with pytest.raises(DayAbsent):
        list(journal.records())
    assert journal.record(second.first_record).business_day == second.day
    assert journal.known(key(_stan(0, 3))) == Known(5, before[4][3].outcome, 0)  # type: ignore[index]
    finding = audit(journal, custody)
    assert (finding.good, finding.absent, finding.unchecked) == (True, [DAYS[0]], 0), finding.problems
    assert find(Place(journal), Wanted(terminal=TERMINAL), limit=500).absent == [DAYS[0]]
    journal.close()
    shutil.copy(target, tmp_path / "journal")
    journal = open_journal(tmp_path)
    assert _everything(journal) == before
    journal.close()


def test_what_is_open_is_not_archived_away(tmp_path: Path, custody: SoftwareCustody) -> None:
    journal = open_journal(tmp_path)
    sale = intent(1)
    journal.commit([session(), sale])
    journal.commit([session(day=DAYS[1])])
    journal.refresh()
    with pytest.raises(JournalError, match="not sealed yet"):
        archive(journal, journal.days()[0], tmp_path / "vault", remove=False)
    trio.run(seal, journal, custody)
    archive(journal, journal.days()[0], tmp_path / "vault", remove=False)
    with pytest.raises(JournalError, match="record 2 of it is open"):
        archive(journal, journal.days()[0], tmp_path / "second", remove=True)
    journal.close()


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_day_is_not_archived_and_is_found(
    journal: Journal, custody: SoftwareCustody, tmp_path: Path, at: float
) -> None:
    """Every record of the day is overwritten in turn of the file: whatever is hit, it is never called good."""
    file = tmp_path / "journal/20261124.mdb"
    record = journal.record_bytes(1 + int(at * 70))
    journal.close()
    assert record is not None
    data = bytearray(file.read_bytes())
    place = data.find(record)
    assert data.find(record, place + 1) < 0, "a sealed file holds nothing twice"
    data[place + 100] ^= 1
    file.write_bytes(data)
    journal = open_journal(tmp_path)
    with pytest.raises(JournalError, match="not what was journalled"):
        archive(journal, journal.days()[0], tmp_path / "vault", remove=True)
    assert file.exists()
    assert not audit(journal, custody).good
    journal.close()


def test_lines_of_a_sealed_day_stay_until_every_worker_has_its_keys_in_the_table(
    tmp_path: Path, custody: SoftwareCustody
) -> None:
    """The one that does not trade has no keys to bring, but it must have said so; nobody waits for it meanwhile."""
    journal = open_journal(tmp_path)
    trade(journal)
    journal.share_out(2)
    journal.close()
    trader = worker_of(TERMINAL, 2)
    lines = []
    for worker in (trader, 1 - trader):
        journal = Journal(tmp_path / "journal", share=Share(worker, 2))
        trio.run(seal, journal, custody)
        assert not journal.untidy
        lines.append(sum(1 for _ in journal.live_records(1)))
        assert journal.known(key(_stan(0, 5))) is not None
        journal.close()
    assert lines[0] > 2 * 2 * A_DAY > lines[1]
    journal = open_journal(tmp_path)  # as one again
    assert journal.known(key(_stan(2, 5))) is not None
    assert audit(journal, custody).good
    journal.close()


def test_another_days_file_is_not_taken_for_it(journal: Journal, custody: SoftwareCustody, tmp_path: Path) -> None:
    journal.close()
    shutil.copy(tmp_path / "journal/20261125.mdb", tmp_path / "journal/20261124.mdb")
    journal = open_journal(tmp_path)
    with pytest.raises(JournalError, match="not the day that was sealed here"):
        journal.record(2)
    assert any("20261124.mdb" in problem for problem in audit(journal, custody).problems)
    journal.close()


def test_killed_between_any_two_steps_of_sealing_nothing_is_lost(tmp_path: Path, custody: SoftwareCustody) -> None:
    """The store as it was at every step is opened again and sealed to the end: it says the same each time."""
    journal = open_journal(tmp_path)
    trade(journal)
    before = _everything(journal)
    journal.close()
    copies = [shutil.copytree(tmp_path / "journal", tmp_path / f"{step}/journal") for step in range(5)]
    for step, folder in enumerate(copies):
        journal = Journal(folder)
        with pytest.raises(_Killed):
            trio.run(_seal_until, journal, custody, step)
        journal.close()
        journal = Journal(folder)
        assert _everything(journal) == before, f"after step {step}"
        trio.run(seal, journal, custody)
        assert _everything(journal) == before, f"sealed after step {step}"
        assert audit(journal, custody).good
        first = journal.days()[0]
        journal.close()
        assert prove(folder / "20261124.mdb") == first
        assert not [*folder.glob("*.part"), *folder.glob("*.packed")]


class _Killed(Exception):
    pass


async def _seal_until(journal: Journal, custody: SoftwareCustody, step: int) -> None:
    """Every use of the writer and every signature is a step; the one after ``step`` never happens."""
    left = step

    class Mortal(Writer):
        def later(self, work: object) -> None:
            self.take_a_step()
            work(journal)  # type: ignore[operator]

        @staticmethod
        def take_a_step() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise _Killed

    writer = Mortal(journal, custody)
    keeper = Keeper(journal, writer, custody)
    sign = keeper._sign

    def mortal_sign(header: object) -> bytes:
        Mortal.take_a_step()
        return sign(header)  # type: ignore[arg-type]

    keeper._sign = mortal_sign  # type: ignore[method-assign,assignment]
    await keeper.seal()


# Finding -----------------------------------------------------------------------------------------------


def _sales(*rests: int) -> list[tuple[int, int]]:
    return [(day, sale) for day in range(3) for sale in range(A_DAY) if sale % 3 in rests]


@pytest.mark.parametrize("is_sealed", [False, True], ids=["in the store", "sealed"])
@pytest.mark.parametrize(
    ("wanted", "sales"),
    [
        (Wanted(rrn=632_800_000_007),                  [(0, 7)]),
        (Wanted(rrn=632_900_000_007),                  [(1, 7)]),
        (Wanted(rrn=632_900_000_099),                  []),
        (Wanted(rrn=7),                                []),
        (Wanted(stan=_stan(2, 4)),                     [(2, 4)]),
        (Wanted(terminal=TERMINAL, stan=_stan(1, 2)),  [(1, 2)]),
        (Wanted(terminal="TT000002", stan=1),          []),
        (Wanted(tag=FARMER),                           _sales(1, 2)),
        (Wanted(tag=BUYER, terminal=TERMINAL),         _sales(2)),
        (Wanted(tag=b"stranger"),                      []),
    ],
)  # fmt: skip
def test_what_is_looked_for_is_found(
    tmp_path: Path, custody: SoftwareCustody, wanted: Wanted, sales: list[tuple[int, int]], is_sealed: bool
) -> None:
    journal = open_journal(tmp_path)
    trade(journal)
    if is_sealed:
        trio.run(seal, journal, custody)
    found = find(Place(journal), wanted, limit=1000)
    stans = [[record.stan for record in story if record.kind == RecordKind.INTENT] for story in found.stories]
    assert sorted(stans) == [[_stan(day, sale)] for day, sale in sales]
    assert not found.more
    journal.close()


def test_a_story_is_whole_over_three_days(journal: Journal) -> None:
    (story,) = find(Place(journal), Wanted(rrn=632_800_000_001)).stories
    assert [record.kind for record in story] == [
        RecordKind.SESSION, RecordKind.INTENT, RecordKind.OUTCOME, RecordKind.REVERSAL
    ]  # fmt: skip
    assert [record.code for record in story[2:]] == ["98", "00"]


def test_the_newest_come_and_it_is_said_that_there_are_more(journal: Journal) -> None:
    found = find(Place(journal), Wanted(terminal=TERMINAL), limit=5)
    assert found.more
    assert len(found.stories) == 5
    assert all(story[-1].number > journal.days()[2].first_record for story in found.stories)


def test_time_bounds_hold_to_the_microsecond(journal: Journal) -> None:
    """Records of the test have their STAN as time."""
    found = find(Place(journal), Wanted(), since_us=_stan(1, 3), until_us=_stan(1, 6), limit=100)
    intents = [record.stan for story in found.stories for record in story if record.kind == RecordKind.INTENT]
    assert sorted(intents) == [_stan(1, sale) for sale in (3, 4, 5)]


def test_rows_of_columns_join_and_refuse_damage() -> None:
    groups = [[session(), *(intent(stan, tags=(FARMER,)) for stan in range(at, at + 5))] for at in (1, 6)]
    rows = [Row(pack_entries(group)) for group in groups]
    joined = Row(join(rows))
    assert joined.count == 12
    assert joined.matches(Wanted(tag=FARMER)) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert joined.matches(Wanted(stan=7)) == [8]
    assert joined.matches(Wanted()) == list(range(12))
    data = pack_entries(groups[0])
    for damaged in (b"", data[:3], data[:-1], b"\0\0\0\0", b"\xff\xff\xff\xff" + data[4:]):
        with pytest.raises(ValueError, match="damaged"):
            Row(damaged)
