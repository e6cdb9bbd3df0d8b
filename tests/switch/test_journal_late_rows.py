"""What need not be exact is not written with each commit; no RRN and no event number is given twice for that."""

from pathlib import Path

from fengshou.switch.journal.store import Journal
from tests.switch.entries import intent, open_journal, outcome, session


def test_events_are_numbered_without_gaps_and_pruned_once_delivered(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.commit([session()])
    sales = [intent(stan) for stan in range(1, 201)]
    journal.commit([*sales, *[outcome(sale, event=b"%d" % sale.record.stan) for sale in sales]])
    journal.refresh()
    assert journal.events(0, 3) == [(1, b"1"), (2, b"2"), (3, b"3")]
    assert journal.events(198, 10) == [(199, b"199"), (200, b"200")]
    journal.forget_events(63)  # few: they wait for more
    journal.commit([intent(201)])
    journal.refresh()
    assert journal.events(0, 1) == [(1, b"1")]
    journal.forget_events(150)
    journal.commit([intent(202)])
    journal.refresh()
    assert journal.events(0, 1) == [(65, b"65")]
    journal.close()
    journal = open_journal(tmp_path)
    assert (journal.events(0, 1), journal.last_event) == ([(65, b"65")], 200)
    journal.forget_events(200)
    journal.tidy()
    journal.close()
    journal = open_journal(tmp_path)  # the count goes on, although none is left
    assert (journal.events(0, 10), journal.last_event) == ([], 200)
    sale = intent(203)
    journal.commit([sale, outcome(sale, event=b"201")])
    journal.refresh()
    assert journal.events(200, 10) == [(201, b"201")]
    journal.close()


def test_a_sale_by_itself_writes_few_pages(journal: Journal) -> None:
    """Most of what a small commit costs is its pages: the rows of RRNs and those of delivered events wait."""
    sales = [intent(stan) for stan in range(1, 1001)]
    journal.commit([session(), *sales, *[outcome(sale, event=bytes(200)) for sale in sales]])
    before = _written_bytes()
    for stan in range(1001, 1051):
        journal.refresh()
        journal.forget_events(stan - 10)
        sale = intent(stan)
        journal.commit([sale])
        journal.commit([outcome(sale, event=bytes(200))])
    assert (_written_bytes() - before) / 50 < 19 * 4096


def _written_bytes() -> int:
    """What this thread gave to the system to be written, as of proc(5)."""
    counts = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text().splitlines())
    return int(counts["wchar"])


def test_no_rrn_of_a_day_is_above_what_the_journal_says_and_few_below_it_are_left_out(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    assert journal.last_rrn(6327) == 0
    journal.commit([session(), intent(1, rrn=632_700_000_009), intent(2, rrn=632_800_000_001)])
    journal.commit([intent(3, rrn=632_700_000_008)])
    journal.refresh()
    assert [journal.last_rrn(day) for day in (6326, 6327, 6328)] == [0, 632_700_001_009, 632_800_001_001]
    journal.commit([intent(4, rrn=632_700_001_009)])
    journal.refresh()
    assert journal.last_rrn(6327) == 632_700_001_009
    journal.commit([intent(5, rrn=632_700_001_010), intent(6, rrn=632_899_999_990)])
    journal.close()
    journal = open_journal(tmp_path)
    assert [journal.last_rrn(day) for day in (6327, 6328)] == [632_700_002_010, 632_899_999_999]
    journal.close()
