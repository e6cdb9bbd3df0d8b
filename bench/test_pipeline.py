"""The pipeline under pytest-benchmark: one run of the whole rig; its steps are in the extra information."""

from pathlib import Path
from typing import Any

import pytest

from bench.pipeline import figures


@pytest.mark.benchmark(group="pipeline")
def test_pipeline(benchmark: Any, tmp_path: Path) -> None:
    found = benchmark.pedantic(figures, (tmp_path, 640), rounds=3)
    benchmark.extra_info |= {figure.what: figure.value for figure in found}
