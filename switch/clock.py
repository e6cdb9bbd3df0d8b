"""Wall clock and business day, injectable as one object.

The business day is cut over at one time of the day, always in UTC+8 (China has no other time and no summer time). The
day that begins is the calendar day, or, where the cut-over is in the afternoon or evening, the calendar day after it:
with 23:00, what is received on 1 June at 23:00 counts to 2 June. An intent takes the business day of its receipt and
its outcome counts to the same day, whenever that comes. Nothing stops for a cut-over; services that the bank wants
quiet at that time are refused with code 90 within a window around it.
"""

import time
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_CHINA = timedelta(hours=8)
_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHINA_US = 8 * 3600 * _SECOND_US


@dataclass(frozen=True, slots=True)
class CutOver:
    """When the business day changes, and the window in which ``services`` are refused.

    ``minute`` counts from midnight; the window begins ``before_s`` seconds before it and ends ``after_s`` after.
    """

    minute: int = 0
    before_s: int = 0
    after_s: int = 0
    services: Set[str] = frozenset()

    @property
    def shift_us(self) -> int:
        """What makes a moment's calendar day its business day when it is added."""
        time_us = self.minute * 60 * _SECOND_US
        return _DAY_US - time_us if time_us >= _DAY_US // 2 else -time_us


class Clock:
    """Microseconds since 1970-01-01T00:00:00Z, and what they are in China (UTC+8)."""

    def __init__(self, cut_over: CutOver = CutOver()) -> None:
        self._cut_over = cut_over
        self._offset_us = _CHINA_US + cut_over.shift_us
        self._day_ends_us = 0
        self._business_day = 0

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def business_day(self, now_us: int) -> int:
        """YYYYMMDD of the business day that ``now_us`` falls in."""
        if not self._day_ends_us - _DAY_US <= now_us < self._day_ends_us:
            into_us = (now_us + self._offset_us) % _DAY_US
            day = _EPOCH + timedelta(microseconds=now_us + self._offset_us)
            self._business_day = day.year * 10_000 + day.month * 100 + day.day
            self._day_ends_us = now_us - into_us + _DAY_US
        return self._business_day

    def is_cutting_over(self, service: str, now_us: int) -> bool:
        """Whether a new request of this service is refused (90) because the business day is about to change or has."""
        if service not in self._cut_over.services:
            return False
        into_us = (now_us + self._offset_us) % _DAY_US
        return (
            into_us < self._cut_over.after_s * _SECOND_US or into_us >= _DAY_US - self._cut_over.before_s * _SECOND_US
        )


def local_time(time_us: int) -> datetime:
    """A moment as China's wall clock shows it."""
    return _EPOCH + timedelta(microseconds=time_us) + _CHINA


def time_us_of(local: datetime) -> int:
    """The moment that China's wall clock shows as ``local``, which has no zone of its own."""
    return (local.replace(tzinfo=UTC) - _CHINA - _EPOCH) // timedelta(microseconds=1)


def rrn_base(business_day: int) -> int:
    """The RRN before the first one of a business day: YDDD and eight zeros (ISO 8583:1987 DE 37, n12)."""
    year, month, day = business_day // 10_000, business_day // 100 % 100, business_day % 100
    ordinal = datetime(year, month, day, tzinfo=UTC).timetuple().tm_yday
    return (year % 10 * 1000 + ordinal) * 10**8
