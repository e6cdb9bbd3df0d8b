"""The duplicate keys of the newest records, in memory, in front of the table ``keys``.

A terminal's keys stand side by side, thousands of terminals' far apart: to write each key with its own commit would
dirty a page of the disk a key, twice, which cost more than everything else that a commit does. So the newest keys are
kept here, and those of a whole generation go to the table in the order of the table, a slice with a commit, when most
of them have their outcomes. Nothing is at risk: a key follows from its record, and a start reads the records again from
the first one whose key is not in the table (``meta``: ``keyed``, a row for each worker).

The writer's thread calls everything but ``find``, ``find_batch``, ``open`` and ``release``, which are the reader's. A
value that the reader's view of the table does not hold yet is masked by record number; a generation is let go when the
reader's view has all of it in the table.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

from fengshou.protocol.record import RecordKind
from fengshou.switch.journal.tables import BATCH_KEY_BYTES, PAIR, U64, keyed_row

# Keys a generation: the larger, the more of them fall on each page. Two of them take 20 MB and 0.3 s at a start.
GENERATION = 1 << 15
# Keys a slice at least, so that a small commit does not write a page for one key.
SLICE_MIN = 64

_INTENT, _OUTCOME = int(RecordKind.INTENT), int(RecordKind.OUTCOME)  # plain: asked once a record

_Keys = dict[bytes, dict[bytes, bytes]]  # batch key → STAN → PAIR of intent and outcome


class RecentKeys:
    """Two generations: the young one takes keys, the other one goes to the table."""

    def __init__(self, worker: int = 0) -> None:
        """``worker``: of several, each of which keeps the keys of its own terminals."""
        self.row = keyed_row(worker)
        self._young: _Keys = {}
        self._older: _Keys = {}
        self._young_first = 1
        self._size = 0
        self._due = 0  # keys that may go to the table by now
        self._batches: list[bytes] = []  # of the older generation, not begun, last first
        self._ready: list[bytes] = []  # keys that go next, last first

    # -- the writer ------------------------------------------------------------------------------------------------

    def follow(self, number: int, kind: int, key: bytes, refers: int) -> None:
        """Take in what the durable record ``number`` says, see ``record.parse_key``."""
        if kind == _INTENT:
            self.put({key: PAIR.pack(number, 0)})
        elif kind == _OUTCOME:
            self.put({key: PAIR.pack(refers, number)})

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Take in durable keys with their values."""
        young = self._young
        for key, value in values.items():
            batch, stan = key[:BATCH_KEY_BYTES], key[BATCH_KEY_BYTES:]
            stans = young.get(batch)
            if stans is None:
                stans = young[batch] = {}
            if stan not in stans:
                self._size += 1
            stans[stan] = value

    def may_be_open(self, intent: int) -> bool:
        """Whether the table ``open`` may have this intent."""
        return intent < self._young_first

    def caught_up(self, next_record: int) -> None:
        """All records before ``next_record`` were followed, as after a start: any of them may stand in ``open``."""
        self._young_first = next_record

    def turn(self, next_record: int, *, at_once: bool = False) -> None:
        """Begin a new generation when the young one is full (or holds anything) and the older one is gone."""
        if not self._older and self._size >= (1 if at_once else GENERATION):
            self._older, self._young = self._young, {}
            self._young_first, self._size, self._due = next_record, 0, 0
            self._batches = sorted(self._older, reverse=True)

    @property
    def empty(self) -> bool:
        """Whether all keys are in the table."""
        return not self._older and not self._size

    @property
    def moving(self) -> bool:
        """Whether a generation is on its way to the table."""
        return bool(self._batches or self._ready)

    def slice(self, entries: int) -> list[tuple[bytes, bytes]]:
        """The keys and values that go to the table with a commit of so many entries, in the table's order."""
        if not self.moving:
            return []
        self._due += entries
        if self._due < SLICE_MIN:
            return []
        while len(self._ready) < self._due and self._batches:
            batch = self._batches.pop()
            self._ready[:0] = [batch + stan for stan in sorted(self._older[batch], reverse=True)]
        return [(key, self._newest(key)) for key in self._ready[: -self._due - 1 : -1]]

    def last_slice(self, count: int) -> bool:
        """Whether a slice of so many keys is the last one of its generation."""
        return not self._batches and count == len(self._ready)

    def written(self, count: int) -> None:
        """The last slice is durable."""
        if count:
            del self._ready[-count:]
            self._due = 0

    @property
    def keyed(self) -> int:
        """The first record whose key is not in the table once nothing is moving."""
        return self._young_first

    def _newest(self, key: bytes) -> bytes:
        batch, stan = key[:BATCH_KEY_BYTES], key[BATCH_KEY_BYTES:]
        young = self._young.get(batch)
        return (young.get(stan) if young else None) or self._older[batch][stan]

    # -- the reader ------------------------------------------------------------------------------------------------

    def find(self, key: bytes, before: int) -> bytes | None:
        """The value of ``key`` as it was when ``before`` was the next record; None: see the table."""
        batch, stan = key[:BATCH_KEY_BYTES], key[BATCH_KEY_BYTES:]
        for generation in (self._young, self._older):
            rows = generation.get(batch)
            value = rows.get(stan) if rows else None
            if value is not None and (seen := _seen(value, before)):
                return seen
        return None

    def find_batch(self, batch: bytes, before: int) -> dict[bytes, bytes]:
        """The keys of a batch that are here, with their values."""
        found: dict[bytes, bytes] = {}
        for generation in (self._older, self._young):
            for stan, value in generation.get(batch, {}).copy().items():
                if seen := _seen(value, before):
                    found[batch + stan] = seen
        return found

    def highest(self, who: bytes) -> bytes:
        """The highest key here that begins with ``who``, of whatever view; empty for none."""
        found = b""
        for generation in (self._older, self._young):
            for batch, rows in generation.copy().items():
                if batch.startswith(who) and rows:
                    found = max(found, batch + max(rows.copy()))
        return found

    def all(self, before: int) -> Iterator[tuple[bytes, bytes]]:
        """Each key that is here with its value, the newest last."""
        for generation in (self._older, self._young):
            for batch, rows in generation.copy().items():
                for stan, value in rows.copy().items():
                    if seen := _seen(value, before):
                        yield batch + stan, seen

    def unfinished(self, before: int) -> Iterator[tuple[int, bool]]:
        """Each intent that is here, and whether it is open."""
        for generation in (self._older, self._young):
            for value in chain.from_iterable(rows.copy().values() for rows in generation.copy().values()):
                if seen := _seen(value, before):
                    intent, outcome = PAIR.unpack(seen)
                    yield intent, not outcome

    def waits_for_reader(self) -> bool:
        """Whether the older generation is in the table and only kept for the reader's view."""
        return bool(self._older) and not self.moving

    def release(self, keyed: int) -> None:
        """The reader's view has the keys of all records before ``keyed`` in the table."""
        if keyed >= self._young_first:
            self._older = {}


def _seen(value: bytes, before: int) -> bytes:
    """The value as a view up to record ``before`` has it; empty when it has not even the intent."""
    intent, outcome = PAIR.unpack(value)
    if intent >= before:
        return b""
    return value if outcome < before else value[: U64.size] + bytes(U64.size)
