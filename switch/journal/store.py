"""The journal's store: an append-only, chained log in LMDB with the indexes that the switch asks.

One thread of a process writes (``writer.Writer``), anyone reads. ``commit`` makes a group of entries durable in one
synced transaction: their records, the Merkle root over them, the header that chains to the commit before, and every
index that follows from them. Either all of it is there after a crash, or none.

Several workers may write to one journal, each from a process of its own: LMDB lets them in one after the other, and
each begins where the one before has ended, so there is one chain, one index and one audit of all of them.

The tables stand in ``tables``, what can be asked in ``view``. Past business days are sealed: their
lines are moved to a file each (``days``), and are read from there as if they still stood here.
"""

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import lmdb

from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import Commit
from fengshou.switch.affinity import WHOLE, Share
from fengshou.switch.journal.end import tail_of
from fengshou.switch.journal.group import Group
from fengshou.switch.journal.lines import Lines
from fengshou.switch.journal.prune import Place
from fengshou.switch.journal.tables import (
    BATCH_MAX,
    FORMAT_VERSION,
    TABLES,
    WHO,
    Charges,
    Day,
    DayAbsent,
    Entry,
    JournalError,
    Known,
    LimitPassed,
    batch_key,
    key_of,
)  # fmt: skip
from fengshou.switch.journal.tail import prove_end
from fengshou.switch.journal.view import JournalView

__all__ = [
    "BATCH_MAX",
    "WHO",
    "Charges",
    "DayAbsent",
    "Entry",
    "Journal",
    "JournalError",
    "Known",
    "LimitPassed",
    "batch_key",
    "in_this_thread",
    "key_of",
]

# Rows that one step of housekeeping writes or deletes: some milliseconds between two commits.
_STEP = 1000
# Rows that one view of the store copies: some milliseconds, in which its pages are not used again.
_SLICE = 2000


def in_this_thread(work: Callable[[], None]) -> None:
    """Run work where it is asked for: the thread that writes is also the one that reads."""
    work()


@dataclass(slots=True)
class Statistics:
    commits: int = 0
    records: int = 0
    largest_commit: int = 0


class Journal(JournalView):
    """The store at a folder. Not thread-safe for writing: only one thread may call the methods that write."""

    # Delivered events that go together, so that a small commit does not write three pages for each of them.
    events_at_once = 64

    def __init__(
        self,
        folder: Path,
        *,
        map_bytes: int = 1 << 30,
        read_only: bool = False,
        readahead: bool = False,
        sync: bool = True,
        share: Share = WHOLE,
    ) -> None:
        """Open or create. ``map_bytes`` is the address space to begin with; it doubles when it is full.

        A journal that is to be written must have its end whole, see ``tail``. To open it for the ``share`` of
        a worker, it must have been opened as a whole and shared out first.

        ``readahead``: it will be read from end to end, as an audit does. Else the system reads the pages that are asked
        for and not what lies around each of them, which may be megabytes, while whoever asks waits.

        Without ``sync`` a commit is not durable: only to make a large journal for a measurement.
        Raises JournalError.
        """
        try:
            if share.workers == 1:  # else somebody may write at this moment, and it was proven before
                prove_end(folder / "data.mdb", whole=not read_only)
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            env = lmdb.open(
                str(folder), map_size=map_bytes, max_dbs=len(TABLES), readonly=read_only, max_readers=64, sync=sync,
                readahead=readahead,
            )  # fmt: skip
        except (lmdb.Error, OSError) as error:
            raise JournalError(f"cannot open the journal in {folder}: {error}") from error
        self.statistics = Statistics()
        # Runs work in the thread that reads; whoever gives the writer a thread of its own replaces it.
        self.in_reader: Callable[[Callable[[], None]], None] = in_this_thread
        self._pin = threading.Lock()  # held while another thread has a view of its own
        self._delivered = 0
        self._transaction = 0  # number of our last one
        try:
            env.reader_check()  # a worker that was killed pins pages until somebody looks
            _check_format(env, folder, read_only)
            tables = {name: env.open_db(name.encode(), create=not read_only) for name in TABLES}
            super().__init__(env, tables, folder, share, follows=read_only, readahead=readahead)
            if not read_only and share.workers == 1:
                self.share_out(1)
        except (lmdb.Error, UntrustedBytesError, struct.error) as error:
            env.close()
            raise JournalError(f"the journal in {folder} is damaged: {error}") from error
        except JournalError:
            env.close()
            raise

    # -- writing -------------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], signatures: Sequence[tuple[int, bytes]] = ()) -> Commit | None:
        """Make entries durable, in their order. Returns the commit's header, None when only signatures were given.

        Raises LimitPassed, and JournalError: nothing was written and the same call may be made again.
        """
        header = self._transact(lambda group: group.write(entries, signatures)).header
        if header is not None:
            self.statistics.commits += 1
            self.statistics.records += header.records
            self.statistics.largest_commit = max(self.statistics.largest_commit, header.records)
        return header

    def _transact(self, work: Callable[[Group], object]) -> Group:
        """Do ``work`` in one synced transaction."""
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    number = txn.id()
                    tail = self._tail if number == self._transaction + 1 else tail_of(txn, self._db)
                    group = Group(txn, self._db, self._keys, tail, self._delivered)
                    work(group)
            except lmdb.MapFullError:
                self._remap(double=True)
            except lmdb.MapResizedError:  # another worker has made it larger
                self._remap(double=False)
            except (lmdb.Error, OSError) as error:
                raise JournalError(f"the journal cannot be written: {error}") from error
            else:
                group.durable()
                self._tail, self._transaction = group.tail, number
                return group

    def share_out(self, workers: int) -> None:
        """So many workers write from now on; none does yet. Raises JournalError."""
        if max(len(self._keyed_rows()), 1) != workers:
            self._transact(lambda group: group.share_out_keys(workers))
            self.refresh()

    def _remap(self, *, double: bool) -> None:
        """Another size of the map: twice as large, or what the file says. No view may be open meanwhile, so the thread
        that reads has to do it."""

        def remap() -> None:
            with self._pin:
                self._read.abort()
                try:
                    self._env.set_mapsize(self._env.info()["map_size"] * 2 if double else 0)
                finally:
                    self._read = self._lines.txn = self._env.begin()

        try:
            self.in_reader(remap)
        except (lmdb.Error, OSError, RuntimeError) as error:
            raise JournalError(f"the journal's map cannot grow: {error}") from error

    def forget_events(self, delivered: int) -> None:
        """Drop the events up to ``delivered`` with the commits that follow, when there are enough; records stay."""
        if delivered >= self._delivered + self.events_at_once:
            self._delivered = delivered

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """One step of what commits leave for later: keys to their table, sealed lines out of this file.

        Raises JournalError.
        """
        self._keys.turn(self._tail.next_record, at_once=True)

        def work(group: Group) -> None:
            group.move_keys(_STEP)
            group.note_keyed()
            group.forget_events(_STEP)
            group.drop_sealed(_STEP)

        self._transact(work)

    def seal(self, day: Day) -> None:
        """The lines of this day stand, proven and durable, in their own file: read them from there from now on.

        ``tidy`` takes them out of this one. Raises JournalError.
        """
        self._transact(lambda group: group.note_day(day))

    def restore(self, work: Callable[[Group], object]) -> None:
        """Write rows as they are, for a repair; then read again where the journal ends. Raises JournalError."""
        self._transact(work)
        self.refresh()
        self._look()

    def prune(self, at: Place) -> Place | None:
        """One step of forgetting, see ``prune``. Returns where the next one begins, None at the end.

        Raises JournalError.
        """
        following: list[Place | None] = []
        self._transact(lambda group: following.append(group.prune(at, _STEP)))
        return following[-1]

    def note_filter(self, first: int, last: int, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """The filter of a block from record ``first`` to ``last``, see ``filters``. Raises JournalError."""
        self._transact(lambda group: group.replace_filter(first, last, rows))

    @property
    def untidy(self) -> bool:
        """Whether this file holds lines of sealed days for which ``tidy`` can do something, as of the current view.
        They stay until the keys of all workers are in the table; what waits for another worker waits."""
        sealed = [day.last_record for day in self.days() if day.sealed]
        if not sealed or all(first > sealed[-1] for first in self._lines.first()):
            return False
        keyed = self._keyed_rows()
        if keyed.get(self._keys.row, 1) <= sealed[-1]:
            return True
        may_go = max((last for last in sealed if last < min(keyed.values())), default=0)
        return any(first <= may_go for first in self._lines.first())

    @contextmanager
    def snapshot(self) -> Iterator[Lines]:
        """The lines of this file for another thread. Hold it for moments: meanwhile no page is used again."""
        with self._pin, self._env.begin() as txn:
            yield Lines(txn, self._db)

    def slices(self, table: str, first: int, last: int) -> Iterator[list[tuple[int, bytes]]]:
        """Rows of a table of this file that is keyed by records, for another thread: each slice from a short view."""
        while first <= last:
            with self.snapshot() as lines:
                rows = list(islice(takewhile(lambda row: row[0] <= last, lines.rows(table, first)), _SLICE))
            if not rows:
                return
            yield rows
            first = rows[-1][0] + 1


def _check_format(env: lmdb.Environment, folder: Path, read_only: bool) -> None:
    meta = env.open_db(b"meta", create=not read_only)
    with env.begin(write=not read_only) as txn:
        found = txn.get(b"format", db=meta)
        if found is None and not read_only:
            txn.put(b"format", FORMAT_VERSION, db=meta)
        elif found != FORMAT_VERSION:
            raise JournalError(f"the journal in {folder} is of another format")
