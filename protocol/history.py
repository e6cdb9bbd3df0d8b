"""What the two ends of a session remember of its requests, so that a later one can be sent as its difference to them.

The switch keeps every request that it has verified, the terminal those that it knows the switch has: a request whose
answer bears an RRN was verified. So the terminal names only what the switch has, however many requests are on their
way. Both forget everything at a sign-in, and all but the last ``limits.DELTA_WINDOW`` sequence numbers.
"""

from array import array
from collections.abc import Iterator, Mapping

from fengshou.protocol.limits import DELTA_WINDOW
from fengshou.protocol.message import Value


class History:
    """The switch's end. 15 KB when it is full of purchases, which is why whole messages are not kept."""

    __slots__ = ("_sequences", "_stated")

    def __init__(self) -> None:
        self._sequences = array("Q", bytes(8 * DELTA_WINDOW))
        self._stated = [b""] * DELTA_WINDOW

    def keep(self, sequence: int, stated: bytes) -> None:
        """Remember a verified request; ``stated`` is its template (1 byte) and body."""
        place = sequence % DELTA_WINDOW
        self._sequences[place] = sequence
        self._stated[place] = stated

    def find(self, sequence: int) -> bytes:
        """Template and body of the request with this sequence; empty when it is not known (any more)."""
        place = sequence % DELTA_WINDOW
        return self._stated[place] if self._sequences[place] == sequence else b""


class Acknowledged:
    """The terminal's end: requests of which it knows that the switch has them."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[int, Mapping[int, Value]]] = {}
        self._newest: dict[object, int] = {}  # by template, and by whatever is looked for

    def keep(self, sequence: int, template: int, values: Mapping[int, Value], alike: tuple[int, ...]) -> None:
        """Remember a request that was answered. ``alike`` are the elements in which a good base is equal."""
        for old in [known for known in self._values if known <= sequence - DELTA_WINDOW]:
            self._forget(old, alike)
        self._values[sequence] = template, values
        for mark in _marks(template, values, alike):
            self._newest[mark] = max(sequence, self._newest.get(mark, 0))

    def bases(
        self, sequence: int, template: int, values: Mapping[int, Value], alike: tuple[int, ...]
    ) -> Iterator[tuple[int, Mapping[int, Value]]]:
        """Distance and values of the requests worth comparing with: the newest, and the newest that is alike."""
        found = {self._newest.get(template, 0), self._newest.get(_likeness(template, values, alike), 0)}
        for known in found:
            if known and sequence - known <= DELTA_WINDOW:
                yield sequence - known, self._values[known][1]

    def distance(self, sequence: int, template: int, key: int, value: Value) -> int:
        """How far back the same value of the same element was last sent; 0 when it was not, or too long ago."""
        known = self._newest.get((template, key, value), 0)
        return sequence - known if known and sequence - known <= DELTA_WINDOW else 0

    def _forget(self, sequence: int, alike: tuple[int, ...]) -> None:
        template, values = self._values.pop(sequence)
        for mark in _marks(template, values, alike):
            if self._newest.get(mark) == sequence:
                del self._newest[mark]


def _likeness(template: int, values: Mapping[int, Value], alike: tuple[int, ...]) -> object:
    return template, tuple(values.get(key) for key in alike)


def _marks(template: int, values: Mapping[int, Value], alike: tuple[int, ...]) -> Iterator[object]:
    yield template
    yield _likeness(template, values, alike)
    for key, value in values.items():
        if isinstance(value, str):
            yield template, key, value
