"""A short run over every target: the kept seeds, and mutations of them that are the same each time."""

from itertools import islice
from random import Random

import pytest

from tests.fuzz.mutation import CORPUS, mutations, seeds
from tests.fuzz.targets import TARGETS

MUTATIONS = 600
FEWER = {"channel": 60}  # an input takes two handshakes


def test_every_target_has_seeds():
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations(name):
    kept = seeds(name)
    for data in (b"", *kept, *islice(mutations(kept, Random(name)), FEWER.get(name, MUTATIONS))):
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name} on {data.hex()}") from error
