"""The simulated disk under the real journal, and the writer that runs as a task instead of two threads.

The journal is LMDB in a folder that lives in memory, so what survives a kill is decided by LMDB and not by a model of
it. Trouble comes at the only place where durability is made, ``Journal.commit``: an error, a full disk, a slow one, and
power loss in the middle, which leaves the pages of the commit written in part and its meta page not.
"""

import queue
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import trio

from fengshou.hsm.custody import Custody
from fengshou.protocol.record import Commit
from fengshou.switch.journal.signature import sign_commit
from fengshou.switch.journal.store import Entry, Journal, JournalError
from fengshou.switch.simulation.agenda import Diary
from fengshou.switch.simulation.scheduling import Killed, Life
from fengshou.switch.writer import SIGN_AFTER_S, Writer, _Answer, _Item, _Signature, _Ticket

_PAGE_BYTES = 4096
_META_PAGES = 2
_SYNC_S = (0.0005, 0.004)  # what a synced commit takes, from its start to its report
_HICCUP = 0.1  # odds that one takes this much longer: a disk that others use too
_HICCUP_S = (0.02, 0.4)
# What a back end has answered and the disk has refused is tried again in a second.
_RETRY_S = 1.0


class Disk:
    """What one machine's disk does. It outlives the processes on it."""

    def __init__(self, folder: Path, chance: Random, diary: Diary) -> None:
        self.folder = folder
        self.chance = chance
        self.diary = diary
        self.failing = False
        self.full = False
        self.slow_s = 0.0
        self._busy_s = self._counted_s = 0.0
        self._working = 0  # a life that was killed leaves it at work when the next one begins
        self._refused = False
        self._tried_again_s = 0.0
        self.loses_power_at_next_commit = False
        self.on_durable: Callable[[Sequence[Entry]], None] = lambda entries: None

    async def work(self) -> None:
        """Half of the time that a sync takes; the commit is durable between the two halves."""
        hiccup_s = self.chance.uniform(*_HICCUP_S) if self.chance.random() < _HICCUP else 0.0
        self._count()
        self._working += 1
        await trio.sleep((self.chance.uniform(*_SYNC_S) + hiccup_s + self.slow_s) / 2)
        self._count()
        self._working -= 1
        if self._refused:
            self._refused, self._tried_again_s = False, trio.current_time() + _RETRY_S
        if self.slow_s:
            self._fault("disk slow")

    @property
    def busy_s(self) -> float:
        """For how long who needed it had to wait until now, all in all: it worked, or had refused to."""
        self._count()
        return self._busy_s

    def _count(self) -> None:
        now = trio.current_time()
        until = now if self._working else min(now, self._tried_again_s)
        self._busy_s += max(0.0, until - self._counted_s)
        self._counted_s = now

    def refuse(self) -> None:
        """Raises JournalError when nothing can be written now."""
        if self.full:
            self._refused = True
            self._fault("disk full")
            raise JournalError("the journal cannot be written: no space left on device")
        if self.failing:
            self._refused = True
            self._fault("disk error")
            raise JournalError("the journal cannot be written: input/output error")

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.suffix != ".lock"}

    def tear(self, before: dict[Path, bytes], after: dict[Path, bytes]) -> bool:
        """Leave what a power loss during a commit leaves: any of its data pages, and the meta pages of before.

        LMDB orders it so: data pages, sync, meta page. Sometimes everything had just arrived; then it returns True.
        """
        reached = self.chance.choice((0.0, 0.5, 0.5, 1.0))  # how many of the pages
        if reached == 1.0:
            self._fault("power lost behind a commit")
            return True
        self._fault("commit torn" if reached else "unsynced writes lost")
        for path, new in after.items():
            old = before.get(path, b"").ljust(len(new), b"\0")
            pages = []
            for at in range(0, len(new), _PAGE_BYTES):
                kept = at < _META_PAGES * _PAGE_BYTES or self.chance.random() >= reached
                pages.append((old if kept else new)[at : at + _PAGE_BYTES])
            path.write_bytes(b"".join(pages))
        return False

    def _fault(self, name: str) -> None:
        self.diary.effect("disk", name)


class SimulatedJournal(Journal):
    """The journal of one life, on a disk that has trouble."""

    events_at_once = 1  # a run has few, and all of them must be forgotten at the right time

    def __init__(self, disk: Disk, life: Life) -> None:
        self._disk = disk
        self._life = life
        super().__init__(disk.folder, map_bytes=1 << 28)
        life.on_death.append(self.close)

    def commit(self, entries: Sequence[Entry], signatures: Sequence[tuple[int, bytes]] = ()) -> Commit | None:
        if not self._life.alive:
            raise Killed
        self._disk.refuse()
        torn, self._disk.loses_power_at_next_commit = self._disk.loses_power_at_next_commit, False
        before = self._disk.files() if torn else {}
        header = super().commit(entries, signatures)
        if torn:
            after = self._disk.files()
            self._life.kill()  # closes the store
            if self._disk.tear(before, after):
                self._disk.on_durable(entries)
            raise Killed
        self._disk.on_durable(entries)
        return header


class InLoopWriter(Writer):
    """The writer's rounds in a task of the life; signatures are made in it too."""

    def __init__(
        self,
        journal: Journal,
        custody: Custody,
        on_signed: Callable[[int], None],
        disk: Disk,
        life: Life,
        spawn: Callable[[Callable[[], Any]], None],
    ) -> None:
        super().__init__(journal, custody, on_signed)
        self._custody = custody
        self._disk = disk
        self._life = life
        self._spawn = spawn
        self._items: deque[_Item] = deque()
        self._arrived = trio.Event()
        self._unsigned = trio.Event()
        self._awaited: list[_Answer] = []
        self._news: list[Callable[[], None]] = []
        self._signed = 0
        life.on_death.append(self._abandon)

    def start(self) -> None:
        last = self._journal.last_commit
        if last is not None:
            self._signed = last.number if self._journal.signature(last.number) else last.number - 1
        self._unsigned.set()
        self._spawn(self._rounds)
        self._spawn(self._sign)

    async def stop(self) -> None:
        """What is queued is written and signed; then the life may end."""
        last = self._journal.last_commit
        while self._items or (last is not None and self._signed < last.number):
            await trio.sleep(SIGN_AFTER_S)
            last = self._journal.last_commit

    def _put(self, item: _Item) -> None:
        if not self._life.alive:
            raise Killed
        self._awaited = [answer for answer in self._awaited if not answer.done.is_set()]
        if isinstance(item, _Ticket) and isinstance(item.then, _Answer):
            self._awaited.append(item.then)
        self._items.append(item)
        self._arrived.set()

    def _take(self) -> _Item:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def _tell(self, news: Callable[[], None]) -> None:
        self._news.append(news)

    def _abandon(self) -> None:
        """Whoever waits for the disk dies with the process."""
        for answer in self._awaited:
            answer(Killed())  # type: ignore[arg-type]
        self._arrived.set()
        self._unsigned.set()

    async def _rounds(self) -> None:
        """Outside of the life's own tasks, as threads are: who waits for the disk in a shield gets his answer."""
        with suppress(Killed):
            while True:
                while not self._items and self._life.alive:
                    self._arrived = trio.Event()
                    await self._arrived.wait()
                await self._disk.work()
                if not self._life.alive:
                    return
                self._round(self._items.popleft())
                self._unsigned.set()
                await self._disk.work()
                news, self._news = self._news, []
                if self._life.alive:
                    for tell in news:
                        tell()

    async def _sign(self) -> None:
        while True:
            await self._unsigned.wait()
            self._unsigned = trio.Event()
            await trio.sleep(SIGN_AFTER_S)
            if not self._life.alive:
                return
            last = self._journal.last_commit
            if last is not None and last.number > self._signed:
                self._put(_Signature(last.number, sign_commit(self._custody, last)))
                self._signed = last.number
