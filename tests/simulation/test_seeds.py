"""Seeds of the simulator: they hold, they repeat themselves exactly, and what fails becomes a short story."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from fengshou.switch.simulation.deeds import Deed
from fengshou.switch.simulation.plan import FAULTS, Fault, Plan, plan
from fengshou.switch.simulation.runner import Simulator, Tally, simulator
from tests.simulation import plants

# `make simulate` runs 200 and more; FENGSHOU_SEEDS sets how many run here.
SEEDS = int(os.environ.get("FENGSHOU_SEEDS", "10"))

# Plans that once found something, made small: what it was is written beside them.
REGRESSIONS = {
    "a late answer ended a debt while it rested, and it was sent again": Plan(
        24, ((Deed(1.0, "farm-purchase", 3),),), (Fault("host-late", 0.5, 20.0, 1.0, 0, 1),), 30.0
    ),
    "a completion after the cut-over counted at the host to the day of what it completed": Plan(
        27, ((Deed(2.0, "preauthorisation", 20), Deed(10.0, "completion", 12)),), (), 20.0, cut_over_in_s=6.0
    ),
    "a refund whose outcome came two days later counted on no day": Plan(
        9,
        (
            (Deed(1.0, "farm-purchase", 11), Deed(6.0, "refund", 2)),
            (Deed(11.6, "gov-enquiry", 1), Deed(15.0, "gov-enquiry", 1)),
        ),
        (
            Fault("host-frozen", 5.9, 16.0, 1.0, 0, 0),
            Fault("clock-jump", 11.0, 0.0, 1.0, 0, 0),
            Fault("clock-jump", 13.0, 0.0, 1.0, 0, 0),
        ),
        30.0,
    ),
}


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulator]:
    with simulator() as made:
        yield made


def test_seeds_hold_and_money_moved(simulated):
    verdicts = [simulated.run(plan(seed)) for seed in range(1, SEEDS + 1)]
    assert not [verdict.story() for verdict in verdicts if verdict.problem]
    steps = sum((verdict.steps for verdict in verdicts), start=verdicts[0].steps.__class__())
    for step in ("approved", "declined", "unknown, reversal due", "reversal answered", "refused"):
        assert steps[step], f"{SEEDS} seeds without a transaction that was {step}"
    assert sum(verdict.lives for verdict in verdicts) > len(verdicts)


@pytest.mark.parametrize("found", REGRESSIONS)
def test_what_was_found_stays_mended(simulated, found):
    verdict = simulated.run(REGRESSIONS[found])
    assert not verdict.problem, "\n".join(verdict.story())


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_takes_place_and_is_survived(simulated, kind):
    """The same trouble again and again, through a day of trade."""
    calm = plan(1000, frozenset((kind,)), seconds=12.0)
    busy = replace(calm, faults=tuple(replace(fault, for_s=2.0) for fault in calm.faults))
    verdict = simulated.run(busy)
    assert not verdict.problem, "\n".join(verdict.story())
    assert verdict.troubles[kind] == len(busy.faults)


def test_the_same_seed_gives_the_same_run(simulated):
    first, second = (simulated.run(plan(8)) for _ in range(2))
    assert (first.digest, first.diary) == (second.digest, second.diary)
    assert simulated.run(plan(9)).digest != first.digest


def test_another_process_with_other_hashes_and_keys_gives_the_same_run(simulated):
    command = [sys.executable, "-m", "fengshou.switch", "simulate", "--seeds", "8-8", "--json"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "4711"}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["traces"] == {"8": simulated.run(plan(8)).digest}


def test_a_failing_seed_is_told_in_few_lines(simulated, monkeypatch):
    monkeypatch.setattr("fengshou.switch.simulation.runner._TRIES_MAX", 60)
    plants.count_of_rrns_begins_anew(monkeypatch)
    verdict = next(found for seed in range(1, 100) if (found := simulated.run(plan(seed))).problem)
    smaller = simulated.smallest(verdict)
    assert smaller.problem
    assert smaller.plan.size <= verdict.plan.size / 3
    story = "\n".join(smaller.story())
    assert smaller.problem in story
    assert "starts" in story
    times = [float(line.split()[0]) for line in smaller.diary]
    assert all(earlier <= later for earlier, later in pairwise(times))


def test_what_no_run_has_taken_is_listed(simulated):
    tally = Tally()
    tally.add(simulated.run(Plan(1, ((Deed(1.0, "farm-purchase", 3),),), (), 5.0)))
    assert "transition sent: no reply" in tally.never
    assert "transition sent: reply" not in tally.never
    assert "effect commit torn" in tally.never


def test_what_cannot_be_asked_for_is_named():
    command = [sys.executable, "-m", "fengshou.switch", "simulate", "--faults", "kill,meteor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "meteor" in done.stderr
