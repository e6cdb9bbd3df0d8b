"""A power cut at any moment: whatever the disk kept of what was not synced, nothing that was promised is lost.

A real process writes a journal while a shim (``power_loss.c``) writes down each of its writes and syncs. Then the file
is made as a cut may leave it, hundreds of times: what was synced is there; of the rest each write is there, missing, or
torn between sectors. Each file must open, prove itself and hold every commit that was promised before the cut.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from fengshou.hsm.software import SoftwareCustody
from fengshou.switch.clock import Clock
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.audit import verify_journal
from fengshou.switch.journal.audit_indexes import Indexes
from fengshou.switch.journal.store import Journal, JournalError
from fengshou.switch.recording import Recorder

SECTOR = 512  # what a disk writes whole or not at all
CUTS = 160
WRITE, SYNC, MARK, TRUNCATE = 1, 2, 3, 4

# Trades, tells what is promised, and keeps house, all in the file that is watched.
SCRIPT = """
import ctypes, sys
from pathlib import Path
from fengshou.switch.journal.store import Journal
from tests.switch.entries import intent, outcome, session
promise = ctypes.CDLL(None).power_mark
promise.argtypes = [ctypes.c_int64]
journal = Journal(Path(sys.argv[1]), map_bytes=128 * 1024, sync=sys.argv[2] == "synced")
journal.commit([session()])
stan = 1
for group in range(60):
    sales = [intent(stan + n, charges=((bytes(20), 1),)) for n in range(1 + group % 7)]
    stan += len(sales)
    journal.refresh()
    journal.commit(sales)
    promise(journal.commit([outcome(sale, event=b"{}") for sale in sales[1:]] or [session()]).number)
    if group % 9 == 8:
        journal.tidy()
journal.close()
"""


@dataclass(frozen=True)
class Step:
    kind: int
    offset: int
    data: bytes
    synchronous: bool


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "power_loss.so"
    source = Path(__file__).with_name("power_loss.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source], check=True)
    return library


def steps(log: Path) -> Iterator[Step]:
    data, at = log.read_bytes(), 0
    while at < len(data):
        kind, offset, length, synchronous = struct.unpack_from("=4q", data, at)
        at += 32
        yield Step(kind, offset, data[at : at + length], bool(synchronous))
        at += length


def recorded(shim: Path, folder: Path, mode: str) -> list[Step]:
    environment = {
        **os.environ, "LD_PRELOAD": str(shim), "POWER_FILE": "/journal/data.mdb", "POWER_LOG": str(folder / "log"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, str(folder / "journal"), mode]
    subprocess.run(command, env=environment, check=True, timeout=120)
    return list(steps(folder / "log"))


def cut(history: list[Step], at: int, chance: Random) -> tuple[bytes, int]:
    """The file when the power fails while step ``at`` is done, and the last commit that was promised before."""
    synced = max((index for index in range(at) if history[index].kind == SYNC), default=-1)
    file, promised = bytearray(), 0
    mood = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))  # how much a disk keeps differs from cut to cut
    for index, step in enumerate(history[: at + 1]):
        if step.kind == MARK and index < at:
            promised = step.offset
        elif step.kind == TRUNCATE:
            file[step.offset :] = bytes(max(0, step.offset - len(file)))
        elif step.kind == WRITE:
            sure = index < synced or (step.synchronous and index < at)
            end = step.offset + len(step.data)
            for begin in range(step.offset, end, SECTOR):
                if sure or chance.random() < mood:
                    piece = step.data[begin - step.offset : begin - step.offset + SECTOR]
                    file += bytes(max(0, begin + len(piece) - len(file)))
                    file[begin : begin + len(piece)] = piece
    return bytes(file), promised


def what_is_left(folder: Path, custody: SoftwareCustody) -> int:
    """The last commit of the journal in ``folder``, all of it proven. Raises JournalError: it is torn."""
    journal = Journal(folder)
    try:
        recorder = Recorder(Catalogue([]), custody, Clock())
        finding = verify_journal(journal, recorder, [])
        Indexes(journal, Catalogue([]), recorder, finding).verify()
        assert finding.good, finding.problems
        return journal.last_commit.number if journal.last_commit else 0
    finally:
        journal.close()


def test_after_any_power_cut_the_journal_is_whole_and_keeps_its_promises(
    shim: Path, custody: SoftwareCustody, tmp_path: Path
) -> None:
    history = recorded(shim, tmp_path, "synced")
    assert sum(step.kind == MARK for step in history) == 60
    assert sum(step.kind == SYNC for step in history) > 120
    assert any(step.synchronous for step in history), "meta pages are written through"
    chance = Random(7)
    begin = next(index for index, step in enumerate(history) if step.kind == MARK)
    for number in range(CUTS):
        file, promised = cut(history, chance.randrange(begin, len(history)), chance)
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        (folder / "data.mdb").write_bytes(file)
        assert what_is_left(folder, custody) >= promised
        (folder / "data.mdb").unlink()


def test_the_cuts_find_a_journal_that_does_not_sync(shim: Path, custody: SoftwareCustody, tmp_path: Path) -> None:
    """The same cuts on a journal without syncs: if they found nothing there, they would prove nothing above."""
    history = recorded(shim, tmp_path, "unsynced")
    chance, broken = Random(7), 0
    begin = next(index for index, step in enumerate(history) if step.kind == MARK)
    for number in range(20):
        file, promised = cut(history, chance.randrange(begin, len(history)), chance)
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        (folder / "data.mdb").write_bytes(file)
        try:
            broken += what_is_left(folder, custody) < promised
        except (JournalError, AssertionError):
            broken += 1
    assert broken >= 10
