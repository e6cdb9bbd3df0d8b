"""The whole switch: real processes of a site made for it, real terminals over real TLS, and a peer over the same host.

One worker has a core to itself; terminals and the host share the others. With a worker a core there is nothing left for
them, so everybody shares all: then only CPU a transaction says something. The host approves and keeps nothing, because
a ledger on the same machine would be what is measured.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.figures import Figure
from fengshou.switch.load import LoadFailed, LoadPlan, LoadResult, own_site, run_load
from fengshou.switch.load.processes import cpu_s
from fengshou.switch.processes import SiteProcesses

TERMINALS = 200  # as many connections as the figures of jPOS were taken with
_IN_FLIGHT = 4  # of each, at saturation
_OPEN_RATE = 4000.0
_SIGNED_AHEAD_A_SECOND = 8_000  # beyond that terminals sign as they go
_WARM_UP_S = 2.0
# The load on a switch counts as its saturation when it used so much of its core.
_SATURATED = 0.93


class BenchFailed(Exception):
    """A run came to an end that makes its figures worthless; the text says which."""


@dataclass(frozen=True, slots=True)
class Bare:
    """What the bare peer did in a window."""

    rate: float
    cpu_us: float


def figures(seconds: float, folder: Path) -> tuple[list[Figure], list[str]]:
    """Figures and what has to be said with them. Raises BenchFailed, LoadFailed, ProcessFailed."""
    cores = len(os.sched_getaffinity(0))
    with own_site(folder, TERMINALS, ledger=False, switch_cores=int(cores > 1)) as (site, processes):
        idle = _load(site.folder, LoadPlan(seconds=seconds / 2, warm_up_s=1, terminals=1, sign_ahead=2000))
        full = _load(site.folder, _saturation(seconds))
        steady = _load(site.folder, _open(0.7 * full.rate, seconds))
        fixed = _load(site.folder, _open(_OPEN_RATE, seconds))
        bare = _bare(seconds, processes)
    with own_site(folder, TERMINALS, ledger=False, switch_cores=0, settings=f"workers = {cores}") as (site, _):
        many = _load(site.folder, msgspec.structs.replace(_saturation(seconds), fleets=cores))
    found = [*_costs(full, fixed, bare), *_many(many, cores), *_waits(idle, steady, fixed), *_sizes(full)]
    return found, _notes(full, fixed)


def _saturation(seconds: float) -> LoadPlan:
    ahead = round(_SIGNED_AHEAD_A_SECOND * (seconds + _WARM_UP_S) / TERMINALS)
    return LoadPlan(seconds=seconds, warm_up_s=_WARM_UP_S, in_flight=_IN_FLIGHT, sign_ahead=ahead)


def _open(rate: float, seconds: float) -> LoadPlan:
    ahead = round(rate * (seconds + _WARM_UP_S + 1) / TERMINALS)
    return LoadPlan(seconds=seconds, warm_up_s=_WARM_UP_S, rate=rate, sign_ahead=ahead)


def _load(home: Path, plan: LoadPlan) -> LoadResult:
    """Raises BenchFailed when anything was declined or lost, but not for an open loop that asks for too much."""
    result = run_load(home, plan)
    if not result.clean and not (plan.rate and _behind(result)):
        raise BenchFailed("; ".join(result.problems))
    return result


def _behind(result: LoadResult) -> bool:
    return result.rate < 0.97 * result.plan.rate


# -- the peer ---------------------------------------------------------------------------------------------------------


class _Child:
    """A part of the bare peer in a process of its own; its standard output is read line by line."""

    def __init__(self, *arguments: str) -> None:
        self._told = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.bare", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._told,
            cwd=Path(__file__).resolve().parents[1],
        )
        self.pid = self._process.pid
        self.last = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.last = line

    def wait_for_output(self) -> None:
        deadline = time.monotonic() + 30
        while not self.last:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise BenchFailed(f"the bare peer printed nothing:\n{self.told()}")
            time.sleep(0.01)

    def finish(self) -> None:
        self._process.wait()
        self._reader.join()
        if self._process.returncode:
            raise BenchFailed(f"the bare peer failed:\n{self.told()}")

    def told(self) -> str:
        """The end of its standard error."""
        self._told.seek(0)
        return self._told.read().decode(errors="replace")[-2000:]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _bare(seconds: float, processes: SiteProcesses) -> Bare:
    """The peer on the switch's core, while the switch has nothing to do. Its host is the same without MACs."""
    port, host_port = _free_port(), _free_port()
    children = [_Child("host", str(host_port))]
    try:
        children[0].wait_for_output()
        children.append(peer := _Child("switch", str(port), str(host_port)))
        os.sched_setaffinity(peer.pid, os.sched_getaffinity(processes.running["switch"].pid))
        peer.wait_for_output()
        children.append(
            load := _Child(
                "load", str(port), str(_WARM_UP_S + seconds + 1), str(_IN_FLIGHT * TERMINALS), str(TERMINALS)
            )
        )
        load.wait_for_output()
        time.sleep(_WARM_UP_S)
        begun, answered, used = time.perf_counter(), int(load.last), cpu_s([peer.pid])
        time.sleep(seconds)
        took, answered, used = time.perf_counter() - begun, int(load.last) - answered, cpu_s([peer.pid]) - used
        load.finish()
    finally:
        for child in children:
            child.kill()
    if not answered:
        raise BenchFailed(f"the bare peer answered nothing:\n{peer.told()}")
    return Bare(answered / took, used / answered * 1e6)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


# -- figures ----------------------------------------------------------------------------------------------------------


def _costs(full: LoadResult, fixed: LoadResult, bare: Bare) -> list[Figure]:
    return [
        Figure(
            key="switch.full.cpu", what="CPU of the switch at saturation", value=full.switch_us, unit="µs/transaction",
            peer="switch.bare.cpu", aim=80,
        ),
        Figure(
            key="switch.bare.cpu", what="CPU of the bare peer: no TLS, signature, journal", value=bare.cpu_us,
            unit="µs/transaction",
        ),
        Figure(
            key="switch.open.cpu", what=f"CPU of the switch, {_OPEN_RATE:.0f} a second", value=fixed.switch_us,
            unit="µs/transaction", peer="switch.full.cpu",
        ),
        Figure(
            key="switch.full.rate", what="reached at saturation, one worker", value=full.rate,
            unit="transactions/s", peer="switch.bare.rate", more=True,
        ),
        Figure(
            key="switch.bare.rate", what="reached by the bare peer", value=bare.rate, unit="transactions/s", more=True,
        ),
        Figure(
            key="switch.full.core", what="a core of the switch carries", value=1e6 / full.switch_us,
            unit="transactions/s", aim=12_500, more=True,
        ),
        Figure(
            key="switch.full.busy", what="share of its core that the switch used",
            value=full.switch_cpu_s / full.seconds, unit="cores",
        ),
        Figure(
            key="switch.fleet.cpu", what="CPU of the terminals, signed ahead", value=full.fleets_us,
            unit="µs/transaction",
        ),
    ]  # fmt: skip


def _many(many: LoadResult, workers: int) -> list[Figure]:
    return [
        Figure(
            key="switch.workers.cpu", what=f"CPU of all workers, {workers} of them", value=many.switch_us,
            unit="µs/transaction", peer="switch.full.cpu",
        ),
        Figure(
            key="switch.workers.rate", what=f"reached with {workers} workers, on the terminals' cores", value=many.rate,
            unit="transactions/s", peer="switch.full.rate", more=True,
        ),
    ]  # fmt: skip


def _waits(idle: LoadResult, steady: LoadResult, fixed: LoadResult) -> list[Figure]:
    rows = (
        ("alone", "one request at a time", idle, 5.0),
        ("steady", "open loop at 70 % of saturation", steady, 20.0),
        ("open", f"open loop, {_OPEN_RATE:.0f} a second", fixed, 8.0),
    )
    return [
        Figure(
            key=f"switch.{key}.p{percent}", what=f"p{percent} that terminals see, {what}", value=result.ms(percent),
            unit="ms", aim=aim if percent == 99 else None,
        )
        for key, what, result, aim in rows
        for percent in (50, 99)
    ]  # fmt: skip


def _sizes(result: LoadResult) -> list[Figure]:
    """Bytes on the wire without TCP/IP. The few sign-ins are in the sums."""
    sizes = result.as_dict()["bytes"]
    rows = [
        ("request_frame", "request, frame in the delta form", 96.0),
        ("request_tls", "request, in TLS records", None),
        ("answer_frame", "answer, frame", None),
        ("answer_tls", "answer, in TLS records", None),
        ("handshake", "handshake, both directions", None),
    ]
    return [
        Figure(key=f"switch.bytes.{key.replace('_', '.')}", what=what, value=sizes[key], unit="bytes", aim=aim)
        for key, what, aim in rows
    ]


def _notes(full: LoadResult, fixed: LoadResult) -> list[str]:
    busy, others = full.switch_cpu_s / full.seconds, full.strangers
    who = "the switch was saturated" if busy >= _SATURATED else "terminals, host or other programs had no more to give"
    notes = [
        f"saturation: {who} (switch {busy:.0%} of a core, terminals {full.fleets_cpu_s / full.seconds:.0%}, "
        f"host and other programs {others:.2f} cores).",
        "CPU a transaction is least at saturation and grows as load falls below it.",
    ]
    if _behind(fixed):
        notes.append(f"Only {fixed.rate:.0f} of {_OPEN_RATE:.0f} a second were done: terminals waited for an overload.")
    return notes


__all__ = ["BenchFailed", "LoadFailed", "figures"]
