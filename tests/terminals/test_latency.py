"""Buckets of latencies against the latencies themselves."""

from itertools import pairwise
from random import Random

import pytest

from fengshou.terminals.latency import Latencies, bucket_of, highest_of

RANDOM = Random(1)
# From microseconds to an hour, as many of each order of magnitude.
SAMPLE = [round(10 ** RANDOM.uniform(0, 9.5)) for _ in range(20_000)]


def test_a_bucket_holds_its_latency_and_is_narrow():
    for latency in (*range(2000), *SAMPLE):
        highest = highest_of(bucket_of(latency))
        assert latency <= highest <= latency * (1 + 1 / 128)


def test_buckets_follow_each_other_without_a_gap():
    buckets = [bucket_of(latency) for latency in range(100_000)]
    assert all(after - before in (0, 1) for before, after in pairwise(buckets))


@pytest.mark.parametrize("percent", [0.1, 1, 50, 90, 99, 99.9, 100])
def test_a_percentile_is_that_of_the_latencies(percent):
    latencies = Latencies()
    for latency in SAMPLE:
        latencies.record(latency)
    exact = sorted(SAMPLE)[max(round(len(SAMPLE) * percent / 100) - 1, 0)]
    assert exact <= latencies.percentile(percent) <= exact * (1 + 1 / 128)


def test_what_several_saw_adds_up():
    whole, parts = Latencies(), [Latencies() for _ in range(3)]
    for at, latency in enumerate(SAMPLE):
        whole.record(latency)
        parts[at % 3].record(latency)
    added = Latencies()
    for part in parts:
        added.add(part.buckets)
    assert added.buckets == whole.buckets
    assert len(added) == len(SAMPLE)


def test_nothing_has_no_percentile():
    assert Latencies().percentile(99) == 0
