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
        self._kept: list[tuple[int, int, Mapping[int, Value]] | None] = [None] * DELTA_WINDOW

    def keep(self, sequence: int, template: int, values: Mapping[int, Value]) -> None:
        """Remember a request that was answered."""
        self._kept[sequence % DELTA_WINDOW] = sequence, template, values

    def before(self, sequence: int, template: int) -> Iterator[tuple[int, Mapping[int, Value]]]:
        """Distance and values of the requests of a template that a later one reaches, the nearest first."""
        for distance in range(1, DELTA_WINDOW + 1):
            kept = self._kept[(sequence - distance) % DELTA_WINDOW]
            if kept is not None and kept[:2] == (sequence - distance, template):
                yield distance, kept[2]
