"""What a request's key means, wherever that is known: in flight, in the journal's memory, in one of its tables."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import cast

import pytest

from fengshou.codecs import sm3
from fengshou.protocol.transaction import Machine
from fengshou.switch.duplicates import Duplicates, Verdict
from fengshou.switch.exchange import Exchange
from fengshou.switch.journal.store import Entry, Journal, key_of
from fengshou.terminals.pump import Peer
from tests.switch.entries import intent, key, open_journal, outcome, session

FRESH, REPLAY, IN_PROGRESS, CONFLICT = Verdict.FRESH, Verdict.REPLAY, Verdict.IN_PROGRESS, Verdict.CONFLICT


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = open_journal(tmp_path)
    journal.commit([session()])
    journal.refresh()
    yield journal
    journal.close()


def content(stan: int) -> bytes:
    return sm3(b"%d" % stan)  # as ``entries.intent`` has it


def exchange(stan: int, batch: int = 1, original: bytes = b"") -> Exchange:
    nobody = cast(Peer, None)  # keys are judged whoever asks
    return Exchange(nobody, b"", 0, 0.0, Machine(), key=key(stan, batch), content=content(stan), original=original)


def commit(journal: Journal, *entries: Entry) -> None:
    journal.commit(entries)
    journal.refresh()


def in_flight(journal: Journal, duplicates: Duplicates) -> None:
    duplicates.begin(exchange(7))


def barred_in_flight(journal: Journal, duplicates: Duplicates) -> None:
    duplicates.begin(exchange(6, original=key(7)))


def in_memory(journal: Journal, duplicates: Duplicates) -> None:
    commit(journal, intent(7))


def answered(journal: Journal, duplicates: Duplicates) -> None:
    sale = intent(7)
    commit(journal, sale, outcome(sale))


def in_the_table(journal: Journal, duplicates: Duplicates) -> None:
    answered(journal, duplicates)
    journal.tidy()
    journal.refresh()


def barred(journal: Journal, duplicates: Duplicates) -> None:
    reversal = intent(6)
    commit(journal, reversal, outcome(reversal, tombstone=key(7)))


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        (in_flight, IN_PROGRESS),
        (barred_in_flight, CONFLICT),
        (in_memory, IN_PROGRESS),
        (answered, REPLAY),
        (in_the_table, REPLAY),
        (barred, CONFLICT),
    ],
)
def test_a_key_is_known_wherever_it_stands(
    journal: Journal, known: Callable[[Journal, Duplicates], None], verdict: Verdict
) -> None:
    duplicates = Duplicates(journal)
    known(journal, duplicates)
    assert duplicates.look(key(7), content(7)).verdict is verdict
    assert duplicates.look(key(7), content(8)).verdict is CONFLICT
    assert duplicates.look(key(8), content(8)).verdict is FRESH


def test_what_is_above_all_of_its_terminal_is_fresh_without_a_look_into_the_journal(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    duplicates = Duplicates(journal)
    commit(journal, intent(7), intent(3, batch=2))
    assert duplicates.look(key(4, batch=2), content(4)).verdict is FRESH
    monkeypatch.setattr(journal, "known", None)
    monkeypatch.setattr(journal, "highest_key", None)
    for at in (key(5, batch=2), key(1, batch=3), key(999_999, batch=2)):
        assert duplicates.look(at, content(1)).verdict is FRESH


def test_another_terminal_or_merchant_has_keys_of_its_own(journal: Journal) -> None:
    duplicates = Duplicates(journal)
    commit(journal, intent(7))
    for terminal, merchant in (("TT000002", "999452007600001"), ("TT000001", "999452007600002"), ("TT000000", "9")):
        assert duplicates.look(key_of(terminal, merchant, 1, 7), content(7)).verdict is FRESH
    assert duplicates.look(key(7), content(7)).verdict is IN_PROGRESS


def test_a_life_of_keys_in_any_order_and_with_restarts(tmp_path: Path) -> None:
    """Against a plain table: keys that count up, more or less, and are begun, barred, given up and answered."""
    random, journal = Random(44), open_journal(tmp_path)
    commit(journal, session())
    duplicates = Duplicates(journal)
    expected: dict[bytes, Verdict] = {}
    open_ones: dict[bytes, tuple[Exchange, Entry]] = {}
    seen = set()
    for step in range(1500):
        batch, front = 1 + step // 400, step % 400 // 10
        stan = max(front + random.randrange(-8, 4), 1)
        at = key(stan, batch)
        verdict = duplicates.look(at, content(stan)).verdict
        assert verdict is expected.get(at, FRESH)
        seen.add(verdict)
        match random.randrange(8):
            case 0 | 1 if at not in expected:  # it comes
                asked, entry = exchange(stan, batch), intent(stan, batch=batch)
                duplicates.begin(asked)
                commit(journal, entry)
                open_ones[at], expected[at] = (asked, entry), IN_PROGRESS
            case 2 if at not in expected:  # it comes, and the disk does not take it
                asked = exchange(stan, batch)
                duplicates.begin(asked)
                duplicates.finish(asked)
            case 3 if at not in expected:  # its original is barred, which has not come
                barred = key(max(stan + random.randrange(-6, 7), 1), batch + random.choice((-1, 0, 0, 1)))
                if barred not in expected and barred != at:
                    asked, entry = exchange(stan, batch, original=barred), intent(stan, batch=batch)
                    duplicates.begin(asked)
                    commit(journal, entry, outcome(entry, tombstone=barred))
                    duplicates.finish(asked)
                    expected[at], expected[barred] = REPLAY, CONFLICT
            case 4 | 5 if open_ones:  # one is answered
                ended = random.choice(list(open_ones))
                asked, entry = open_ones.pop(ended)
                commit(journal, outcome(entry))
                duplicates.finish(asked)
                expected[ended] = REPLAY
            case 6 if random.random() < 0.2:  # housekeeping
                journal.tidy()
                journal.refresh()
            case 7 if random.random() < 0.2:  # a restart
                journal.close()
                journal = open_journal(tmp_path)
                duplicates = Duplicates(journal)
    journal.close()
    assert seen == {FRESH, IN_PROGRESS, REPLAY, CONFLICT}
