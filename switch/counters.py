"""Limits per subject, each business day or for ever, exact under concurrency.

The journal keeps the sums, in the same commit as the intent that uses them up or the outcome that gives back. Between
admission and that commit an amount is reserved here, so that two requests in one batch cannot both take the last yuan.
What other workers commit meanwhile is found by the journal itself, which refuses the intent (``LimitPassed``).
"""

import struct
from collections.abc import Callable, Iterable

from fengshou.protocol.service import Counter
from fengshou.switch.journal.store import Charges, Journal


class Counters:
    """What is used up: the journal's sum plus what is reserved and not yet in it."""

    def __init__(self, journal: Journal, mac: Callable[[bytes], bytes]) -> None:
        """``mac`` is the keyed hash behind which subjects are kept."""
        self._journal = journal
        self._mac = mac
        self._reserved: dict[bytes, int] = {}

    def reserve(self, business_day: int, counters: Iterable[Counter]) -> Charges | Counter:
        """Reserve all of them, or none and return the one whose cap would be passed."""
        charges = tuple((self._identity(business_day, counter), counter.amount) for counter in counters)
        for counter, (identity, amount) in zip(counters, charges, strict=True):
            used = self._journal.counter(identity) + self._reserved.get(identity, 0)
            if used + amount > counter.cap:
                return counter
        for identity, amount in charges:
            self._reserved[identity] = self._reserved.get(identity, 0) + amount
        return charges

    def release(self, charges: Charges) -> None:
        """The journal has the charges now, or the request was not journalled."""
        for identity, amount in charges:
            rest = self._reserved[identity] - amount
            if rest:
                self._reserved[identity] = rest
            else:
                del self._reserved[identity]

    def _identity(self, business_day: int, counter: Counter) -> bytes:
        return (
            struct.pack(">I", 0 if counter.lasting else business_day)
            + self._mac(f"{counter.name}\0{counter.subject}".encode())[:16]
        )
