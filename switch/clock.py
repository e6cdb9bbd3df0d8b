"""Wall clock and business day, injectable as one object."""

import time
from datetime import UTC, datetime, timedelta

_CHINA = timedelta(hours=8)
_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """Microseconds since 1970-01-01T00:00:00Z, and what they are in China (UTC+8)."""

    def __init__(self) -> None:
        self._day_ends_us = 0
        self._business_day = 0

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def business_day(self, now_us: int) -> int:
        """YYYYMMDD of the business day that ``now_us`` falls in. It is the calendar day; cut-over is at midnight."""
        if not self._day_ends_us - _DAY_US <= now_us < self._day_ends_us:
            local = local_time(now_us)
            self._business_day = local.year * 10_000 + local.month * 100 + local.day
            self._day_ends_us = (now_us + 8 * 3_600_000_000) // _DAY_US * _DAY_US + _DAY_US - 8 * 3_600_000_000
        return self._business_day


def local_time(time_us: int) -> datetime:
    """A moment as China's wall clock shows it."""
    return _EPOCH + timedelta(microseconds=time_us) + _CHINA


def rrn_base(business_day: int) -> int:
    """The RRN before the first one of a business day: YDDD and eight zeros (ISO 8583:1987 DE 37, n12)."""
    year, month, day = business_day // 10_000, business_day // 100 % 100, business_day % 100
    ordinal = datetime(year, month, day, tzinfo=UTC).timetuple().tm_yday
    return (year % 10 * 1000 + ordinal) * 10**8
