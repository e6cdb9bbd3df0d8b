"""The pace of a core: what is told is a share of its own speed, and looking at it never harms what is measured."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fengshou.switch.load import LoadPlan, pace, run_load
from fengshou.switch.load.pace import CoreProbe, Pace, core_of

CORE = min(os.sched_getaffinity(0))

#   own speed   in the window   share
SHARES = [
    ([4000.0],         [4000.0],         1.0),
    ([4000.0],         [2000.0],         0.5),
    ([4000.0, 1000.0], [2000.0, 1000.0], 0.75),  # each core against its own
    ([4000.0],         [],               None),
]  # fmt: skip


@pytest.mark.parametrize(("own", "speeds", "share"), SHARES)
def test_a_pace_is_a_share_of_the_cores_own_speed(own, speeds, share):
    found = Pace(own)
    found.speeds = speeds
    assert found.share == share


def test_a_core_is_not_faster_than_the_best_that_was_seen_of_it():
    """Also when its first second was disturbed and a later window was not: the earlier window is judged anew."""
    with CoreProbe([CORE]) as probe:
        probe.own[0] /= 10
        with probe.window() as first:
            time.sleep(0.2)
        with probe.window() as second:
            pass
    assert all(found.share is not None and 0 < found.share < 1.5 for found in (first, second))


def test_a_disturbed_moment_counts_by_its_length_and_luck_not_at_all(capsys):
    pace._tell_of([1.0, *[3.0] * 18, 9.0])
    mean, own = map(float, capsys.readouterr().out.split())
    assert (mean, own) == (3.2, 3.0)


def test_a_clock_that_stands_still_gives_no_speed(monkeypatch):
    monkeypatch.setattr(pace.time, "thread_time_ns", lambda: 7)
    with pytest.raises(ZeroDivisionError):
        pace._speed()


def test_a_core_that_nobody_may_use_has_no_pace():
    with CoreProbe([CORE, 100_000]) as probe, probe.window() as found:
        pass
    assert found.share is None


def test_a_probe_that_dies_in_a_load_leaves_the_load_alone(town):
    with CoreProbe([CORE]) as probe:
        whole = run_load(town.folder, LoadPlan(seconds=0.5, warm_up_s=0, terminals=2), probe=probe)
        probe._processes[0].kill()
        without = run_load(town.folder, LoadPlan(seconds=0.5, warm_up_s=0, terminals=2), probe=probe)
    assert whole.pace is not None
    assert whole.as_dict()["switch_core_pace"] == round(whole.pace, 3)
    assert (without.clean, without.pace) == (True, None)


def test_a_probe_ends_with_the_program_that_started_it():
    program = (
        "from fengshou.switch.load.pace import CoreProbe\n"
        f"with CoreProbe([{CORE}]) as probe, probe.window():\n"
        "    print(probe._processes[0].pid, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        probe = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{probe}/task/{probe}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_processes_that_share_several_cores_have_none_of_their_own():
    """A thread counts too: the one core of a process's first thread is not where all its work is done."""
    cores = sorted(os.sched_getaffinity(0))
    program = (
        "import os, threading\n"
        f"os.sched_setaffinity(0, {{{CORE}}})\n"
        "def work():\n"
        f"    os.sched_setaffinity(0, {set(cores)})\n"
        "    print(flush=True)\n"
        "    input()\n"
        "threading.Thread(target=work).start()\n"
    )
    alone = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{CORE}}}); print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with (
        alone,
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as spread,
    ):
        for process in (alone, spread):
            process.stdout.readline()
        assert core_of([alone.pid]) == CORE
        several = len(cores) > 1
        assert core_of([alone.pid, spread.pid]) == (None if several else CORE)
        assert core_of([alone.pid, os.getpid()]) == (None if several else CORE)
        for process in (alone, spread):
            process.communicate(b"\n")
