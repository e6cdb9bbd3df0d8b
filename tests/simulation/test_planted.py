"""Each fault that is planted in the logic is found by a seed below 200."""

from collections.abc import Iterator

import pytest

from fengshou.switch.simulation.plan import plan
from fengshou.switch.simulation.runner import Simulator, simulator
from tests.simulation import plants


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulator]:
    with simulator() as made:
        yield made


@pytest.mark.parametrize("plant", plants.PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(simulated, monkeypatch, plant):
    plant(monkeypatch)
    found = next((seed for seed in range(1, 201) if simulated.run(plan(seed)).problem), None)
    assert found is not None
