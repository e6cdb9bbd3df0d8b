"""Signatures and hashes under pytest-benchmark."""

from typing import Any

import pytest

from bench.signature import works

WORKS = {work.key: work for work in works()}


@pytest.mark.benchmark(group="signature")
@pytest.mark.parametrize("key", WORKS)
def test_signature(benchmark: Any, key: str) -> None:
    benchmark(WORKS[key].run)
