"""Order among debts: what concerns one account is done in the order in which it came, all else side by side.

A lane is an account. An item stands in the lane of each account that it concerns and may go when it is first in all of
them. It takes all its places at once, so two items meet in the same order in every lane and never wait for each other.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Lanes(Generic[Item]):
    """Names of lanes are given without repeats, the same at entering and leaving. No clock and no I/O."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Item]] = {}
        self._behind: dict[Item, int] = {}  # in how many lanes another is before it

    def __len__(self) -> int:
        return len(self._behind)

    def enter(self, item: Item, names: Sequence[str]) -> bool:
        """Take a place at the end of each lane. Returns whether it may go at once."""
        behind = 0
        for name in names:
            lane = self._lanes.setdefault(name, deque())
            behind += bool(lane)
            lane.append(item)
        self._behind[item] = behind
        return not behind

    def leave(self, item: Item, names: Sequence[str]) -> list[Item]:
        """Give up the first place of each lane. Returns those that may go now."""
        del self._behind[item]
        ready: list[Item] = []
        for name in names:
            lane = self._lanes[name]
            assert lane[0] is item, "only the first may leave"
            lane.popleft()
            if not lane:
                del self._lanes[name]
                continue
            following = lane[0]
            self._behind[following] -= 1
            if not self._behind[following]:
                ready.append(following)
        return ready
