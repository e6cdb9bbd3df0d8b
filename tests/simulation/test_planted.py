"""Each fault that is planted in the logic is found by a seed up to 200; the search begins at the one that is known."""

from collections.abc import Iterator

import pytest

from fengshou.switch.simulation.plan import plan
from fengshou.switch.simulation.runner import Simulator, simulator
from tests.simulation import plants, plants_around

PLANTS = {**plants.PLANTS, **plants_around.PLANTS}
SEEDS = range(1, 201)


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulator]:
    with simulator() as made:
        yield made


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(simulated, monkeypatch, plant):
    plant(monkeypatch)
    known = PLANTS[plant]
    assert any(simulated.run(plan(seed)).problem for seed in (*range(known, SEEDS.stop), *range(SEEDS.start, known)))
