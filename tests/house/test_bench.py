"""The benchmark is a program that people rely on: it runs, keeps what it says, and compares runs rightly."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from bench.compare import NoSuchRun, compare, find, page
from bench.figures import Figure, Run, middle, pace_of, save, show
from bench.profile import PARTS, shares
from fengshou.switch.load.processes import family

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_a_run_is_shown_and_kept(tmp_path):
    file = tmp_path / "run.json"
    stages = ("--stage", "codec", "--stage", "journal", "--stage", "channel")
    outcome = bench("bench", *stages, "--seconds", "0.05", "--out", str(file))
    assert outcome.returncode == 0, outcome.stderr
    assert "decode + encode: our message, compiled" in outcome.stdout
    run = msgspec.json.decode(file.read_bytes(), type=Run)
    keys = [figure.key for figure in run.figures]
    assert len(keys) == len(set(keys))
    assert {figure.stage for figure in run.figures} == {"codec", "journal", "channel"}
    assert all(figure.value > 0 for figure in run.figures)
    assert {figure.peer for figure in run.figures} <= {*keys, ""}
    assert {"processor", "cores", "python", "openssl", "kernel", "commit"} <= set(run.machine)
    assert "aims: " in outcome.stdout
    same = bench("bench", "compare", str(file), str(file))
    assert same.returncode == 0
    assert "| 1.00 |  | 1.00 |" in same.stdout
    assert not any(word in same.stdout for word in ("better", "worse"))


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
    assert (ours.plain, ours.against) == (plain, against)
    assert ours.word == {0.5: "better", 1.0: ""}[against]


def cpu_at(value: float, pace: float | None, **more: object) -> Run:
    return Run(machine={}, figures=[Figure(key="a.cpu", what="CPU", value=value, unit="µs", pace=pace, **more)])


#   A              B             B : A   at own speed   word
PACES = [
    ((100.0, 1.0),  (200.0, 0.5),  2.0,    1.0,           ""),  # the core was half as fast
    ((100.0, 0.5),  (100.0, 1.0),  1.0,    2.0,           "worse"),
    ((100.0, None), (100.0, 0.5),  1.0,    None,          ""),  # a run of before there was a pace
    ((100.0, None), (200.0, 0.5),  2.0,    None,          "worse"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "plain", "own", "word"), PACES)
def test_a_core_that_was_shared_is_no_slower_code(a, b, plain, own, word):
    before, after = cpu_at(*a), cpu_at(*b)
    change = compare(before, after)[0]
    assert (change.plain, change.own, change.word) == (plain, own, word)
    shown = f"{plain:.2f} | {'' if own is None else f'{own:.2f}'} |"
    assert shown in page(before, after)


def test_how_fast_the_core_was_is_no_merit():
    runs = [Run(machine={}, figures=pace_of("a.pace", "saturation", [pace, None, pace])) for pace in (0.5, 1.0)]
    assert [change.word for change in compare(*runs)] == [""]
    assert pace_of("a.pace", "saturation", [None]) == []


def test_a_rate_at_the_cores_own_speed_is_higher():
    assert cpu_at(100.0, 0.5, more=True).figures[0].own == 200.0


def test_a_ratio_to_a_peer_is_of_both_at_the_cores_own_speed():
    """Ours met a slow moment. Where the peer's pace is not known, neither is corrected."""
    ours = Figure(key="a.ours", what="", value=100.0, unit="µs", peer="a.peer", pace=0.5)
    for pace, ratio in ((1.0, 0.5), (None, 1.0)):
        peer = Figure(key="a.peer", what="", value=100.0, unit="µs", pace=pace)
        assert Run(machine={}, figures=[ours, peer]).ratio(ours) == ratio


def test_of_several_rounds_the_one_in_the_middle_counts_with_its_own_pace():
    found = middle([180.0, 120.0, 240.0], [0.7, 1.0, 0.5])
    assert found == {"value": 180.0, "each": [180.0, 120.0, 240.0], "pace": 0.7}
    assert middle([5.0]) == {"value": 5.0, "each": [], "pace": None}


def test_the_value_and_its_aim_stay_as_measured_where_the_pace_is_shown(capsys):
    show(cpu_at(100.0, 0.5, aim=80.0))
    aims = capsys.readouterr().out.partition("aims: ")[2]
    assert aims.startswith("0 of 1 met")
    row = next(line for line in aims.splitlines() if "CPU" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells == ["a", "CPU", "≤ 80", "100", "µs", "1.2 × the aim", "50"]


def test_a_stage_that_fails_leaves_the_others_their_figures(tmp_path):
    """The disk takes no file above 100 KiB, as if it were full there."""
    file = tmp_path / "run.json"
    outcome = subprocess.run(
        [
            sys.executable, "-m", "bench", "--stage", "journal", "--stage", "workers", "--stage", "bytes",
            "--out", str(file),
        ],
        cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (102_400, 102_400)),
    )  # fmt: skip
    assert outcome.returncode == 1
    said = outcome.stderr.splitlines()[-2:]
    assert said[0].startswith("Error: journal came to nothing: ")
    assert said[1].startswith("workers came to nothing: ")
    assert all("the journal cannot be written" in line for line in said)
    assert "Traceback" not in outcome.stderr
    run = msgspec.json.decode(file.read_bytes(), type=Run)
    assert {figure.stage for figure in run.figures} == {"bytes"}
    assert [note.partition(" ")[0] for note in run.notes if "came to nothing" in note] == ["journal", "workers"]


def test_figures_that_cannot_be_kept_were_shown(tmp_path):
    (tmp_path / "taken").touch()
    outcome = bench("bench", "--stage", "bytes", "--out", str(tmp_path / "taken" / "run.json"))
    assert outcome.returncode == 1
    assert "aims: " in outcome.stdout
    assert outcome.stderr.splitlines()[-1].startswith("Error: the figures could not be kept: ")


def test_a_benchmark_that_is_stopped_stops_what_it_started():
    command = [sys.executable, "-m", "bench", "--stage", "saf", "--seconds", "100"]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (hosts := [pid for pid in family(running.pid) if b"core-banking" in _command(pid)]):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.terminate()
    told = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert told.endswith("Aborted!\n")
    assert not any(_command(pid) for pid in hosts)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended just now, between being listed and being read perhaps
        return b""


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


def test_more_of_a_rate_is_better():
    runs = [
        Run(machine={}, figures=[Figure(key="a.rate", what="", value=value, unit="/s", more=True)]) for value in (1, 2)
    ]
    assert compare(*runs)[0].word == "better"
    assert compare(*reversed(runs))[0].word == "worse"


def test_the_newest_run_of_a_commit_is_found(tmp_path):
    for day, value in (("2026-01-02", 2.0), ("2026-01-01", 1.0)):
        save(run_of(ours=value, peer=1.0), tmp_path / f"{day}-0123abcdef.json")
    assert find("0123", tmp_path).figures[0].value == 2.0
    with pytest.raises(NoSuchRun, match="nothing is kept of 'ffff'"):
        find("ffff", tmp_path)


def test_a_page_says_which_machines_and_what_only_one_run_has():
    a, b = run_of(ours=1.0, peer=1.0), run_of(ours=3.0, peer=1.0)
    a.machine["processor"], b.machine["processor"] = "one", "another"
    b.figures.append(Figure(key="a.new", what="something new", value=1, unit=""))
    text = page(a, b)
    assert "| processor | one | another |" in text
    assert "Two different machines" in text
    assert "| 3.00 |  | 3.00 |  | worse |" in text
    assert "Only in B: something new." in text


def test_a_file_that_is_no_run_is_refused_in_a_line(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    outcome = bench("bench", "compare", str(tmp_path / "x.json"), str(tmp_path / "gone.json"))
    assert outcome.returncode == 1
    assert len(outcome.stderr.splitlines()) == 1


def test_a_sample_counts_for_the_innermost_part_and_waiting_for_none():
    main = "thread (1): MainThread;run (trio/_core/_run.py:1);Pipeline.requests (switch/pipeline.py:2)"
    found = shares(
        [
            f"{main};Inbound.admit (switch/inbound.py:3);Admission.begin (switch/admission.py:4);x (y.py:5) 3",
            f"{main};Inbound.admit (switch/inbound.py:3) 1",
            f"{main} 1",
            "thread (2): writer;Writer._work (switch/writer.py:6);Journal._transact (switch/journal/store.py:7) 95",
        ]
    )
    assert found == {
        "admission: RRN, ladder, limits, call": 0.6, "admission: the rest": 0.2, "event loop, tasks, threads": 0.2,
    }  # fmt: skip


def test_every_function_of_a_part_is_there():
    """A part whose function has another name now would silently be counted elsewhere."""
    for name, _ in PARTS:
        function, _, file = name.partition(" (")
        if file:
            owner, _, method = function.partition(".")
            text = (ROOT / file).read_text("utf-8")
            assert f"class {owner}" in text
            assert f"def {method}(" in text
