"""What is due when. No clock and no I/O: times are passed in, seconds of any monotonic clock.

Deadlines come nearly in order, because most are set the same time ahead. One that is not before the last goes to the
end of a queue, at a cost that does not depend on how many wait; only the others go to a heap. What was cancelled is
dropped when it comes to the front and holds nothing until then.
"""

import heapq
from collections import deque
from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")

NEVER = float("inf")


class Timer(msgspec.Struct, Generic[Item], eq=False):
    """One deadline. ``cancel`` it when it is not needed any more."""

    at: float
    serial: int
    item: Item | None

    def cancel(self) -> None:
        self.item = None

    def __lt__(self, other: "Timer[Item]") -> bool:
        return (self.at, self.serial) < (other.at, other.serial)


class Deadlines(Generic[Item]):
    """Timers; those of the same time come due in the order in which they were set."""

    def __init__(self) -> None:
        self._serial = 0
        self._queue: deque[Timer[Item]] = deque()
        self._heap: list[Timer[Item]] = []

    def __len__(self) -> int:
        """Timers that are kept, also cancelled ones that have not come to the front."""
        return len(self._queue) + len(self._heap)

    def set(self, at: float, item: Item) -> Timer[Item]:
        self._serial += 1
        timer: Timer[Item] = Timer(at, self._serial, item)
        if not self._queue or at >= self._queue[-1].at:
            self._queue.append(timer)
        else:
            heapq.heappush(self._heap, timer)
        return timer

    def next_due(self) -> float:
        """The earliest deadline; ``NEVER`` when there is none."""
        first = self._first()
        return first.at if first else NEVER

    def pop_due(self, now: float) -> Item | None:
        """The next item whose time is not after ``now``; None when there is none. An item is given once."""
        first = self._first()
        if first is None or first.at > now:
            return None
        if self._queue and self._queue[0] is first:
            self._queue.popleft()
        else:
            heapq.heappop(self._heap)
        item, first.item = first.item, None
        return item

    def _first(self) -> Timer[Item] | None:
        queue, heap = self._queue, self._heap
        while queue and queue[0].item is None:
            queue.popleft()
        while heap and heap[0].item is None:
            heapq.heappop(heap)
        if not heap:
            return queue[0] if queue else None
        return heap[0] if not queue or heap[0] < queue[0] else queue[0]
