"""Group commit: groups form by themselves, a bad entry or a full disk harms its own callers, headers get signed."""

from pathlib import Path

import pytest
import trio
import trio.testing

from fengshou.codecs import sm3
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.record import parse_commit
from fengshou.switch.journal.signature import UNSIGNED_COMMITS_MAX, commit_digest
from fengshou.switch.journal.store import Journal, JournalError
from fengshou.switch.receipts import receipt
from fengshou.switch.writer import Writer
from fengshou.terminals.receipt import Receipt, verify_inclusion
from tests.full_disk import full_disk
from tests.switch.entries import intent, key, open_journal, outcome, session
from tests.switch.journals import disk_held, writing


async def test_what_gathers_while_the_disk_is_busy_is_one_commit(journal: Journal, custody: SoftwareCustody) -> None:
    async with writing(journal, custody) as writer:
        async with trio.open_nursery() as nursery, disk_held(writer):
            for stan in range(100):
                nursery.start_soon(writer.append, [intent(stan)])
        assert journal.statistics.commits == 1
        assert journal.statistics.largest_commit == 100
        journal.refresh()
        assert all(journal.known(key(stan)) is not None for stan in range(100))


async def test_a_long_queue_becomes_several_commits_and_loses_no_order(
    journal: Journal, custody: SoftwareCustody
) -> None:
    async with writing(journal, custody) as writer:
        async with trio.open_nursery() as nursery, disk_held(writer):
            for start in range(0, 2000, 100):
                nursery.start_soon(writer.append, [intent(start + stan) for stan in range(100)])
                await trio.testing.wait_all_tasks_blocked()
        assert journal.statistics.commits > 1
        journal.refresh()
        assert [journal.record(number).stan for number in range(1, 2001)] == list(range(2000))


async def test_one_entry_that_cannot_be_written_harms_only_its_caller(
    journal: Journal, custody: SoftwareCustody
) -> None:
    bad = intent(2)
    bad.record.terminal = "终端"  # no ASCII
    failed: list[int] = []

    async def append(writer: Writer, stan: int) -> None:
        try:
            await writer.append([bad if stan == 2 else intent(stan)])
        except JournalError:
            failed.append(stan)

    async with writing(journal, custody) as writer:
        async with trio.open_nursery() as nursery, disk_held(writer):
            for stan in range(1, 5):
                nursery.start_soon(append, writer, stan)
        assert failed == [2]
        await writer.append([intent(9)])
        journal.refresh()
        assert [journal.known(key(stan)) is not None for stan in (1, 2, 3, 4, 9)] == [True, False, True, True, True]


async def test_an_append_that_is_cancelled_waits_for_its_end(journal: Journal, custody: SoftwareCustody) -> None:
    """Half a wait would leave the caller not knowing what is on disk."""
    async with writing(journal, custody) as writer:
        with trio.move_on_after(0):
            await writer.append([intent(1)])
        journal.refresh()
        assert journal.known(key(1)) is not None


async def test_a_full_disk_fails_its_callers_and_room_heals_it(
    journal: Journal, custody: SoftwareCustody, tmp_path: Path
) -> None:
    """The store may not grow any more, as on a full disk: whole groups are refused, and the same store goes on."""
    async with writing(journal, custody) as writer:
        stan, size = 0, (tmp_path / "journal/data.mdb").stat().st_size
        with full_disk(size), pytest.raises(JournalError, match="cannot be written"):  # noqa: PT012 which one finds no room, LMDB knows
            while True:
                await writer.append([intent(stan + offset) for offset in range(20)])
                stan += 20
        journal.refresh()
        assert journal.next_record == stan + 1
        assert journal.known(key(stan)) is None
        await writer.append([intent(stan)])
        journal.refresh()
        assert journal.record(stan + 1).stan == stan


async def test_the_map_grows_under_the_view_of_the_switch(tmp_path: Path, custody: SoftwareCustody) -> None:
    journal = open_journal(tmp_path, map_bytes=256 * 1024)
    async with writing(journal, custody) as writer:
        for first in range(0, 3000, 100):
            journal.refresh()
            await writer.append([intent(first + offset) for offset in range(100)])
            assert journal.known(key(first)) is None  # the view is still the one before
        journal.refresh()
        assert journal.known(key(2999)) is not None
    journal.close()


def test_the_map_grows_after_the_writer_has_gone(tmp_path: Path, custody: SoftwareCustody) -> None:
    journal = open_journal(tmp_path, map_bytes=256 * 1024)

    async def write() -> None:
        async with writing(journal, custody) as writer:
            await writer.append([session()])

    trio.run(write)
    for first in range(0, 3000, 100):
        journal.commit([intent(first + offset) for offset in range(100)])
    assert journal.next_record == 3002
    journal.close()


async def test_every_commit_is_vouched_for_soon_and_the_last_at_the_stop(
    journal: Journal, custody: SoftwareCustody
) -> None:
    signed: list[int] = []
    async with writing(journal, custody, signed.append) as writer:
        await writer.append([session()])
        with trio.fail_after(10):
            while not signed:
                await trio.sleep(0.005)
        for stan in range(50):
            await writer.append([intent(stan)])
    journal.refresh()
    headers = [parse_commit(data) for data in journal.commits()]
    assert len(headers) == 51
    signature = journal.signature(51)
    assert signature is not None
    switch = custody.public_key(SWITCH_SIGN)
    switch.verify(commit_digest(switch.za, headers[-1]), signature)
    unsigned = 0
    for header in headers:
        unsigned = 0 if journal.signature(header.number) else unsigned + 1
        assert unsigned <= UNSIGNED_COMMITS_MAX + 2  # those that were committed while the notary signed


async def test_what_a_dead_switch_left_unsigned_is_signed_at_the_next_start(
    journal: Journal, custody: SoftwareCustody
) -> None:
    journal.commit([session(), intent(1)])  # as it stands after a kill between commit and signature
    journal.refresh()
    assert receipt(journal, 2) is None
    signed: list[int] = []
    async with writing(journal, custody, signed.append):
        with trio.fail_after(10):
            while not signed:
                await trio.sleep(0.005)
    journal.refresh()
    assert receipt(journal, 2) is not None


async def test_events_are_announced_and_others_are_not(journal: Journal, custody: SoftwareCustody) -> None:
    async with writing(journal, custody) as writer:
        news: list[None] = []
        writer.on_event = lambda: news.append(None)
        sale = intent(1)
        await writer.append([session(), sale])
        assert not news
        await writer.append([outcome(sale, event=b"{}")])
        assert len(news) == 1


# Receipts ------------------------------------------------------------------------------------------------------------


def _commits(journal: Journal, custody: SoftwareCustody, count: int, signed: tuple[int, ...]) -> None:
    za = custody.public_key(SWITCH_SIGN).za
    for number in range(1, count + 1):
        header = journal.commit([intent(10 * number + place) for place in range(number % 4 + 1)])
        assert header is not None
        if number in signed:
            journal.commit([], [(number, custody.sign(SWITCH_SIGN, commit_digest(za, header)))])
    journal.refresh()


@pytest.mark.parametrize(
    ("commits", "signed", "headers"),
    [
        (1,   (1,),    {1: 1}),
        (9,   (4, 9),  {1: 4, 4: 1, 5: 5, 9: 1}),
        (40,  (33,),   {1: 33, 2: 32, 33: 1}),
        (100, (100,),  {68: 33, 100: 1}),
    ],
)  # fmt: skip
def test_a_receipt_leads_to_the_next_signature(
    journal: Journal, custody: SoftwareCustody, commits: int, signed: tuple[int, ...], headers: dict[int, int]
) -> None:
    _commits(journal, custody, commits, signed)
    firsts = {parse_commit(data).number: parse_commit(data) for data in journal.commits()}
    for number, count in headers.items():
        commit = firsts[number]
        for record in range(commit.first_record, commit.first_record + commit.records):
            values = receipt(journal, record)
            assert values is not None
            proof = Receipt.from_values(values)
            assert len(proof.commits) == 92 * count
            assert verify_inclusion(proof, custody.public_key(SWITCH_SIGN)).number == record


def test_a_receipt_far_from_any_signature_is_signed_on_the_spot(journal: Journal, custody: SoftwareCustody) -> None:
    """A burst of commits without a signature, longer than a message could carry headers."""
    _commits(journal, custody, 100, (100,))
    assert receipt(journal, 1) is None  # without the key there is no way
    values = receipt(journal, 1, custody)
    assert values is not None
    proof = Receipt.from_values(values)
    assert len(proof.commits) == 92
    assert verify_inclusion(proof, custody.public_key(SWITCH_SIGN)).number == 1


def test_a_receipt_waits_for_the_signature_that_is_about_to_come(journal: Journal, custody: SoftwareCustody) -> None:
    _commits(journal, custody, 3, ())
    assert receipt(journal, 1, custody) is None
    with pytest.raises(KeyError):
        receipt(journal, 10_000, custody)


def test_a_receipt_of_the_largest_commit_fits_a_frame(journal: Journal, custody: SoftwareCustody) -> None:
    header = journal.commit([intent(stan) for stan in range(5_000)])
    assert header is not None
    za = custody.public_key(SWITCH_SIGN).za
    journal.commit([], [(1, custody.sign(SWITCH_SIGN, commit_digest(za, header)))])
    journal.refresh()
    for record in (1, 4_097, 5_000):
        values = receipt(journal, record)
        assert values is not None
        proof = Receipt.from_values(values)
        assert len(proof.audit_path) <= 1024
        assert sm3(verify_inclusion(proof, custody.public_key(SWITCH_SIGN)).to_bytes()) == sm3(proof.record)
