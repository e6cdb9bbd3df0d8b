"""Each fault that is planted in the logic is found by a seed up to 200; the search begins at the one that is known."""

from collections.abc import Iterator

import pytest

from fengshou.switch.simulation.plan import plan
from fengshou.switch.simulation.runner import Simulator, simulator
from tests.simulation import plants

SEEDS = range(1, 201)


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulator]:
    with simulator() as made:
        yield made


@pytest.mark.parametrize("plant", plants.PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(simulated, monkeypatch, plant):
    plant(monkeypatch)
    known = plants.PLANTS[plant]
    assert any(simulated.run(plan(seed)).problem for seed in (*range(known, SEEDS.stop), *range(SEEDS.start, known)))
