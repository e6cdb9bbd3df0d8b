"""Retrieval reference numbers (ISO 8583:1987 DE 37): YDDD of the business day and a count of eight digits.

The count goes on from the number that the journal says was not passed, so no number is given twice, whatever happened
before; a start leaves out up to a thousand. Each of several workers takes every so-manieth number.
"""

from fengshou.switch.affinity import WHOLE, Share
from fengshou.switch.clock import Clock, rrn_base
from fengshou.switch.journal.store import Journal

_COUNT = 10**8


class RrnSource:
    """Gives numbers. Those of requests that were then not journalled are left out, never given again while it runs."""

    def __init__(self, journal: Journal, clock: Clock, share: Share = WHOLE) -> None:
        self._journal = journal
        self._clock = clock
        self._share = share
        self._last: dict[int, int] = {}  # by business day: a clock that steps back over midnight finds its count again

    def next(self, now_us: int) -> tuple[int, int]:
        """The next RRN and the business day (YYYYMMDD) that it belongs to."""
        day = self._clock.business_day(now_us)
        last = self._last.get(day)
        if last is None:
            base = rrn_base(day)
            last = max(base, self._journal.last_rrn(base // _COUNT))
        number = last + 1 + (self._share.worker - last - 1) % self._share.workers
        self._last[day] = number
        return number, day
