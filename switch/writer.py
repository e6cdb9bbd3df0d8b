"""Group commit: what is waiting when the disk is free becomes one synced transaction; the notary signs behind it.

Two threads. The writer takes everything that has gathered in its queue while the last commit was on its way to the disk
and commits it at once, so a commit holds one entry when little happens and hundreds under load. The notary signs the
newest header: since headers are chained, one signature covers all commits before it.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

import trio

from fengshou.hsm.custody import Custody
from fengshou.protocol.record import Commit
from fengshou.switch.doorbell import Doorbell
from fengshou.switch.journal.signature import UNSIGNED_COMMITS_MAX, sign_commit
from fengshou.switch.journal.store import Entry, Journal, JournalError, LimitPassed, in_this_thread

logger = logging.getLogger(__name__)

# Entries a commit: 99k records a second were measured at 256 and little more above; the audit path stays at 10 hashes.
GROUP_MAX = 512
# How long a commit may wait for a signature. 40 signatures a second took 2.7 % of a saturated core; so there are 20.
SIGN_AFTER_S = 0.05


# Told in the Trio thread how it went. None: entries are durable; JournalError or LimitPassed: none of them was written.
Then = Callable[[Exception | None], None]


class _Ticket:
    """Entries of one caller."""

    __slots__ = ("entries", "then")

    def __init__(self, entries: Sequence[Entry], then: Then) -> None:
        self.entries = entries
        self.then = then


class _Answer:
    """A ``Then`` that somebody waits for."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: Exception | None = None

    def __call__(self, error: Exception | None) -> None:
        self.error = error
        self.done.set()


class _Signature:
    __slots__ = ("commit", "value")

    def __init__(self, commit: int, value: bytes) -> None:
        self.commit = commit
        self.value = value


_Item = _Ticket | _Signature | Callable[[Journal], None] | None


class Writer:
    """The journal's only writer."""

    def __init__(
        self, journal: Journal, custody: Custody, on_signed: Callable[[int], None] = lambda commit: None
    ) -> None:
        """``on_signed`` is called in the Trio thread with the number of each commit whose signature is stored."""
        self._journal = journal
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._notary = Notary(custody, self._put)
        self._on_signed = on_signed
        self.on_event: Callable[[], None] = lambda: None  # called in the Trio thread when there is news for analytics
        self._token: trio.lowlevel.TrioToken | None = None
        self._doorbell: Doorbell | None = None
        self._thread = threading.Thread(target=self._work, name="journal-writer", daemon=True)

    def start(self) -> None:
        """Start the threads; called in the Trio thread."""
        self._token = trio.lowlevel.current_trio_token()
        self._doorbell = Doorbell()
        self._journal.in_reader = self._in_trio
        self._thread.start()
        self._notary.start(self._journal)

    def write(self, entries: Sequence[Entry], then: Then) -> None:
        """Make entries durable, in their order, together. ``then`` is told, of several callers in the order in which
        they called; without entries at once."""
        if entries:
            self._put(_Ticket(entries, then))
        else:
            then(None)

    async def append(self, entries: Sequence[Entry]) -> None:
        """Make entries durable and wait for it. Raises JournalError, and LimitPassed for some of the entries; then none
        of them was written."""
        answer = _Answer()
        self.write(entries, answer)
        with trio.CancelScope(shield=True):  # the disk answers soon, and half a wait would leave the outcome unknown
            await answer.done.wait()
        if answer.error is not None:
            raise answer.error

    def later(self, work: Callable[[Journal], None]) -> None:
        """Run maintenance between two commits."""
        self._put(work)

    async def stop(self) -> None:
        """Write what is queued, sign the last commit, end the threads. From then on the journal is the caller's."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._notary.stop)
            self._put(None)
            await trio.to_thread.run_sync(self._thread.join)
            if self._doorbell is not None:
                await self._doorbell.close()
        self._journal.in_reader = in_this_thread

    # -- threads: what the simulator replaces, with the notary ---------------------------------------------------------

    def _put(self, item: _Item) -> None:
        self._queue.put(item)

    def _take(self) -> _Item:
        """The next item that is queued already. Raises queue.Empty."""
        return self._queue.get_nowait()

    def _tell(self, news: Callable[[], None]) -> None:
        """Run ``news`` in the Trio thread."""
        assert self._doorbell is not None
        self._doorbell.call(news)

    def _in_trio(self, work: Callable[[], None]) -> None:
        """Run ``work`` in the Trio thread and wait for it: there is no view in use between its steps."""
        trio.from_thread.run_sync(work, trio_token=self._token)

    def _work(self) -> None:
        while self._round(self._queue.get()):
            pass

    # -- one group -----------------------------------------------------------------------------------------------------

    def _round(self, item: _Item) -> bool:
        """Commit ``item`` with what has gathered behind it, and report. False: it was time to stop."""
        stopping = False
        tickets: list[_Ticket] = []
        signatures: list[_Signature] = []
        size = 0
        while True:
            if item is None:
                stopping = True
            elif isinstance(item, _Ticket):
                tickets.append(item)
                size += len(item.entries)
            elif isinstance(item, _Signature):
                signatures.append(item)
            else:
                self._maintain(item)
            if size >= GROUP_MAX:
                break
            try:
                item = self._take()
            except queue.Empty:
                break
        if tickets or signatures:
            self._commit(tickets, signatures)
        return not stopping

    def _commit(self, tickets: Sequence[_Ticket], signatures: Sequence[_Signature]) -> None:
        entries = [entry for ticket in tickets for entry in ticket.entries]
        try:
            header = self._journal.commit(entries, [(signature.commit, signature.value) for signature in signatures])
        except JournalError as error:
            self._report(tickets, (), error)
        except Exception as error:
            if len(tickets) > 1 or signatures:  # one caller's entry cannot be written: find out whose, spare the others
                if signatures:
                    self._commit((), signatures)
                for ticket in tickets:
                    self._commit((ticket,), ())
                return
            if isinstance(error, LimitPassed):
                self._report(tickets, (), error)
                return
            logger.exception("an entry cannot be journalled")
            self._report(tickets, (), JournalError(f"an entry cannot be journalled: {error}"))
        else:
            if header is not None:
                self._notary.committed(header)
            self._report(tickets, signatures, None)

    def _report(self, tickets: Sequence[_Ticket], signatures: Sequence[_Signature], error: Exception | None) -> None:
        def tell() -> None:
            for ticket in tickets:
                ticket.then(error)
            if any(entry.event for ticket in tickets for entry in ticket.entries):
                self.on_event()
            for signature in signatures:
                self._on_signed(signature.commit)

        try:
            self._tell(tell)
        except trio.RunFinishedError:
            logger.warning("the switch ended before %d entries could be reported", len(tickets))

    def _maintain(self, work: Callable[[Journal], None]) -> None:
        try:
            work(self._journal)
        except JournalError:
            logger.exception("journal maintenance failed; it will be tried again")


class Notary:
    """Signs the newest header: at once when many wait, else a little later so that one signature serves many."""

    def __init__(self, custody: Custody, deliver: Callable[[_Signature], None]) -> None:
        self._custody = custody
        self._deliver = deliver
        self._newest: Commit | None = None
        self._signed = 0
        self._stopping = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="journal-notary", daemon=True)

    def start(self, journal: Journal) -> None:
        last = journal.last_commit
        if last is not None:
            self._signed = last.number
            if journal.signature(last.number) is None:  # the switch died between the commit and its signature
                self._signed -= 1
                self._newest = last
        self._thread.start()

    def committed(self, header: Commit) -> None:
        """Called by the writer after each commit."""
        with self._condition:
            was_idle = not self._unsigned()
            self._newest = header
            if was_idle or self._unsigned() >= UNSIGNED_COMMITS_MAX:  # other workers' commits are between ours
                self._condition.notify()

    def stop(self) -> None:
        """Sign what is unsigned and end."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _unsigned(self) -> int:
        return self._newest.number - self._signed if self._newest else 0

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._unsigned() or self._stopping)
                if not self._unsigned():
                    return
                self._condition.wait_for(
                    lambda: self._unsigned() >= UNSIGNED_COMMITS_MAX or self._stopping, timeout=SIGN_AFTER_S
                )
                header = self._newest
            assert header is not None
            try:
                signature = sign_commit(self._custody, header)
            except Exception:
                logger.exception("commit %d cannot be signed; receipts wait", header.number)
                time.sleep(1)
                if self._stopping:
                    return
                continue
            with self._condition:
                self._signed = header.number
            self._deliver(_Signature(header.number, signature))
