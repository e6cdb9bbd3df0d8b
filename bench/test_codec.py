"""The codecs under pytest-benchmark: ``python -m pytest bench``, for work on one of them."""

from typing import Any

import pytest

from bench.codec import pairs

PAIRS = pairs()


@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize("key", PAIRS)
def test_decode(benchmark: Any, key: str) -> None:
    _, (decode, _, _) = PAIRS[key]
    assert benchmark(decode)


@pytest.mark.benchmark(group="encode")
@pytest.mark.parametrize("key", PAIRS)
def test_encode(benchmark: Any, key: str) -> None:
    _, (_, encode, _) = PAIRS[key]
    assert benchmark(encode)
