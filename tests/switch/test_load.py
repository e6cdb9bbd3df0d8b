"""Load on a real switch: what is counted is what happened, and nothing that went wrong is called a success."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fengshou.switch.load import LoadFailed, LoadPlan, LoadResult, Pace, Phase, run_load
from fengshou.switch.load.processes import cpu_s, family
from fengshou.terminals.fleet import FleetPlan, FleetResult, run_fleet
from fengshou.terminals.latency import Latencies
from fengshou.terminals.trades import Trade
from tests.switch.town import TERMINALS, purchase, reversal

#   plan                                                              what it sends
PLANS = [
    (LoadPlan(seconds=1, warm_up_s=0.2, terminals=6, in_flight=3),                  None),
    (LoadPlan(seconds=1, warm_up_s=0.2, terminals=6, fleets=2, sign_ahead=10),      None),
    (LoadPlan(seconds=1, warm_up_s=0.3, terminals=5, fleets=2, rate=100.0),         180),
    (LoadPlan(seconds=1, warm_up_s=0.3, terminals=5, rate=50.0, delta=False),       90),
]  # fmt: skip


@pytest.mark.parametrize(("plan", "sent"), PLANS)
def test_what_is_told_is_what_the_switch_did(town, plan, sent):
    before, seen = sum(town.status()["answered"].values()), []
    result = run_load(town.folder, plan, lambda *watched: seen.append(watched))
    assert result.clean, result.problems
    fleets = result.terminals
    signed_in = fleets.sign_ins
    assert sum(town.status()["answered"].values()) - before == fleets.answered + signed_in
    assert fleets.sent == fleets.answered == sum(fleets.codes["farm-purchase"].values())
    if sent is not None:  # an open loop sends what is due, whatever the machine does besides
        assert fleets.sent == sent
    assert (fleets.terminals, fleets.connections) == (plan.terminals, plan.terminals)
    assert fleets.signed_ahead == plan.sign_ahead * plan.terminals
    assert 0 < len(Latencies(fleets.latencies)) <= fleets.answered
    assert 0 < result.transactions <= fleets.answered
    assert result.switch_cpu_s > 0
    assert result.fleets_cpu_s > 0
    assert {phase for phase, _, _ in seen} == set(Phase)
    assert 64 < result.as_dict()["bytes"]["request_frame"] < 200


def test_a_stall_of_the_switch_is_in_the_latencies_of_all_that_were_due_meanwhile(town):
    """The switch stands still for a second. A load that waited for it would see a few slow answers."""
    switch = town.process("switch").pid

    def stall():
        time.sleep(1)
        os.kill(switch, signal.SIGSTOP)
        time.sleep(1)
        os.kill(switch, signal.SIGCONT)

    plan = LoadPlan(seconds=2.5, warm_up_s=0, terminals=6, rate=60.0)
    started = threading.Event()

    def watch(phase, done, total):
        if phase is Phase.TRADING and not started.is_set():
            started.set()
            threading.Thread(target=stall).start()

    result = run_load(town.folder, plan, watch)
    assert result.clean, result.problems
    late = result.terminals.latencies
    slow = sum(count for bucket, count in late.items() if Latencies({bucket: 1}).percentile(100) >= 200_000)
    assert slow >= 40


def test_a_load_counts_the_processes_that_the_switch_has_started():
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(20_000_000)); input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as parent:
        while len(family(parent.pid)) < 2 or cpu_s(family(parent.pid)) < cpu_s([parent.pid]) + 0.05:
            time.sleep(0.01)
        parent.communicate(b"\n")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fengshou.switch", "bench", "load", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_tells_it_as_json_and_draws_it(town, tmp_path):
    picture = tmp_path / "load.png"
    outcome = bench(
        "--site", str(town.folder), "--rate", "20,40", "--seconds", "0.5", "--warm-up", "0.1", "--terminals", "4",
        "--plot", str(picture), "--json",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr + outcome.stdout
    runs = json.loads(outcome.stdout)["runs"]
    assert [run["asked_per_s"] for run in runs] == [20, 40]
    assert all(run["clean"] and run["sent"] == run["answered"] for run in runs)
    assert picture.read_bytes().startswith(b"\x89PNG")
    if len(os.sched_getaffinity(0)) > 1:  # the switch has no core of its own
        assert [run["switch_core_pace"] for run in runs] == [None, None]


def test_declines_are_told_beside_the_figures_and_end_in_failure(town, tmp_path):
    trades = tmp_path / "trades.csv"
    trades.write_text(
        "terminal,payee,product,variety,grade,weight_centikg,unit_price_fen,amount_fen\n"
        ",9156001004001187857,1,3,2,100,9650,9650\n"
        ",9156001004001187857,1,3,2,100,9650,9651\n"  # weight × price is another amount
    )
    outcome = bench(
        "--site", str(town.folder), "--seconds", "0.6", "--warm-up", "0", "--terminals", "2", "--trades", str(trades)
    )
    assert outcome.returncode == 1
    assert "answered 13 invalid amount" in outcome.stdout
    assert "switch µs" in outcome.stdout
    assert "ms   o latency" in outcome.stdout
    assert ("of its own speed" in outcome.stdout) == (len(os.sched_getaffinity(0)) == 1)


#   what the terminals saw                                  what is said of it
TROUBLE = [
    ({"retries": 2},                                           "2 sent again"),
    ({"unknown": 3},                                           "3 without any answer"),
    ({"connections": 7},                                       "2 connections made anew"),
    ({"turned_away": {"09": 4}},                               "4 turned away with 09"),
    ({"codes": {"farm-purchase": {"00": 90, "96": 1}}},        "1 answered 96"),
    ({"surprises": ["step 1 balance: 00 instead of 51"]},      "00 instead of 51"),
    ({"answered": 0},                                          "nothing was answered"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "said"), TROUBLE)
def test_what_a_switch_in_good_order_does_not_do_is_a_problem(seen, said):
    fields = dict.fromkeys(FleetResult.__struct_fields__, 0)
    fields |= {"codes": {"farm-purchase": {"00": 90}}, "turned_away": {}, "surprises": [], "latencies": {}}
    fields |= {"terminals": 5, "connections": 5, "answered": 90}
    costs = dict.fromkeys(("seconds", "switch_cpu_s", "fleets_cpu_s", "machine_cpu_s"), 1.0)
    counts = dict.fromkeys(("transactions", "idle_bytes", "connected_bytes"), 90)
    good, bad = (
        LoadResult(plan=LoadPlan(), terminals=FleetResult(**fields | changed), core=Pace([]), **costs, **counts)
        for changed in ({}, seen)
    )
    assert good.clean
    assert not bad.clean
    assert any(said in problem for problem in bad.problems)


def test_what_cannot_be_signed_yet_is_signed_in_its_turn(town):
    """A reversal names what its terminal has not made yet."""
    trades = [
        Trade("farm-purchase", purchase(1000), step=1),
        Trade("reversal", {**reversal(0, 0, 96_500)}, step=2, reverses=1),
        Trade("farm-purchase", purchase(2000), step=3),
    ]
    plan = FleetPlan(homes=(str(town.home(TERMINALS[7]).folder),), sign_ahead=10)
    result = run_fleet(plan, town.catalogue.grammar, trades, lambda _: None)
    assert result.signed_ahead == 1
    assert result.codes == {"farm-purchase": {"00": 2}, "reversal": {"00": 1}}


def test_where_no_switch_runs_one_line_says_so(tmp_path, town):
    (tmp_path / "switch.toml").write_text((town.folder / "switch.toml").read_text())
    for path in town.folder.iterdir():
        if path.name not in ("status.sock", "switch.toml"):
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(LoadFailed, match="no switch is running"):
        run_load(tmp_path, LoadPlan())
    outcome = bench("--site", str(tmp_path))
    assert outcome.returncode == 1
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_more_terminals_than_there_are_is_refused(town):
    with pytest.raises(LoadFailed, match="terminals are asked for"):
        run_load(town.folder, LoadPlan(terminals=1000))


def test_a_site_made_for_it_trades(tmp_path):
    """Where its switch has a core of its own, the pace of that core is told."""
    own_core = int(len(os.sched_getaffinity(0)) > 1)
    outcome = bench(
        "--folder", str(tmp_path / "own"), "--terminals", "5", "--seconds", "0.6", "--warm-up", "0", "--pre-sign", "3",
        "--switch-cores", str(own_core), "--json",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr + outcome.stdout
    (run,) = json.loads(outcome.stdout)["runs"]
    assert run["clean"]
    assert (run["connections"], run["signed_ahead"]) == (5, 15)
    assert 0 < run["switch_core_pace"] < 1.5
