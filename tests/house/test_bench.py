"""The benchmark is a program that people rely on: it runs, keeps what it says, and compares runs rightly."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.compare import compare
from bench.figures import Figure, Run

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_a_run_is_shown_and_kept(tmp_path):
    file = tmp_path / "run.json"
    outcome = bench("bench", "--stage", "codec", "--stage", "journal", "--seconds", "0.05", "--out", str(file))
    assert outcome.returncode == 0, outcome.stderr
    assert "decode + encode: our message, compiled" in outcome.stdout
    run = msgspec.json.decode(file.read_bytes(), type=Run)
    keys = [figure.key for figure in run.figures]
    assert len(keys) == len(set(keys))
    assert {figure.stage for figure in run.figures} == {"codec", "journal"}
    assert all(figure.value > 0 for figure in run.figures)
    assert {figure.peer for figure in run.figures} <= {*keys, ""}
    assert {"processor", "cores", "python", "openssl", "kernel", "commit"} <= set(run.machine)
    same = bench("bench.compare", str(file), str(file))
    assert same.returncode == 0
    assert " 1.00 " in same.stdout


def run_of(**values: float) -> Run:
    figures = [
        Figure(key="a.ours", what="ours", value=values["ours"], unit="µs", peer="a.peer"),
        Figure(key="a.peer", what="peer", value=values["peer"], unit="µs"),
    ]
    return Run(machine={}, figures=figures)


#   A            B            ours B : A   against peers
CASES = [
    ((10.0, 20.0), (5.0, 20.0),  0.5,         0.5),
    ((10.0, 20.0), (20.0, 40.0), 2.0,         1.0),  # a machine half as fast
    ((10.0, 20.0), (10.0, 40.0), 1.0,         0.5),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "plain", "against"), CASES)
def test_a_slower_machine_is_no_slower_code(a, b, plain, against):
    before, after = (run_of(ours=ours, peer=peer) for ours, peer in (a, b))
    ours = compare(before, after)[0]
    assert ours[3:] == (plain, against)


def test_a_new_figure_has_nothing_to_be_compared_with():
    before = Run(machine={}, figures=[])
    assert compare(before, run_of(ours=1, peer=1)) == []


#   value  aim   more   verdict
VERDICTS = [
    (80,   80,   False, "met"),
    (160,  80,   False, "2 × the aim"),
    (100,  80,   True,  "met"),
    (40,   80,   True,  "0.5 × the aim"),
    (40,   None, True,  ""),
]  # fmt: skip


@pytest.mark.parametrize(("value", "aim", "more", "verdict"), VERDICTS)
def test_an_aim_is_met_or_said_by_how_much_not(value, aim, more, verdict):
    assert Figure(key="a.b", what="", value=value, unit="", aim=aim, more=more).verdict() == verdict


def test_a_file_that_is_no_run_is_refused_in_a_line(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    outcome = bench("bench.compare", str(tmp_path / "x.json"), str(tmp_path / "gone.json"))
    assert outcome.returncode == 1
    assert len(outcome.stderr.splitlines()) == 1
