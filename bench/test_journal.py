"""Synced commits under pytest-benchmark: the time of a whole group."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from bench.journal import GROUPS, STORES


@pytest.mark.benchmark(group="journal")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("store", STORES)
def test_commit(benchmark: Any, tmp_path: Path, store: str, group: int) -> None:
    numbers = itertools.count(1, group)
    with STORES[store](tmp_path) as commit:
        benchmark.pedantic(lambda: commit(next(numbers), group), rounds=30, warmup_rounds=3)
