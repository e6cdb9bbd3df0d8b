"""Latencies in buckets: bounded memory for any number of them, and runs of several processes can be added up.

The buckets are those of HdrHistogram with two significant digits: as many of them for each doubling, so the error is
the same share of any latency, from a microsecond to an hour.
"""

from collections.abc import Mapping

# A bucket is at most 1/128 of its value wide: a percentile is at most 0.8 % too high.
_STEPS_BITS = 7
_STEPS = 1 << _STEPS_BITS


def bucket_of(microseconds: int) -> int:
    """The bucket of a latency: up to 2 * 128 exact, above that 128 buckets to each doubling."""
    shift = max(microseconds.bit_length() - _STEPS_BITS - 1, 0)
    return (shift << _STEPS_BITS) + (microseconds >> shift)


def highest_of(bucket: int) -> int:
    """The highest latency of a bucket, in microseconds."""
    shift = max((bucket >> _STEPS_BITS) - 1, 0)
    return ((bucket - (shift << _STEPS_BITS) + 1) << shift) - 1


class Latencies:
    """Counts of latencies by bucket."""

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: dict[int, int] = dict(buckets or {})

    def __len__(self) -> int:
        return sum(self.buckets.values())

    def record(self, microseconds: int) -> None:
        bucket = bucket_of(microseconds)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def add(self, other: Mapping[int, int]) -> None:
        """Add the buckets of another run."""
        for bucket, count in other.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def percentile(self, percent: float) -> int:
        """The latency in microseconds that ``percent`` of all do not exceed; 0 when there are none."""
        wanted = len(self) * percent / 100
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return highest_of(bucket)
        return 0
