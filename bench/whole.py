"""The whole switch: real processes of a new site, real terminals over real TLS, and a peer over the same host.

The switch has a core to itself; terminals and back ends share the others. CPU is read from the kernel at two moments of
a steady run, so that starting up, handshakes and sign-ins are not in it.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.figures import Figure
from bench.load import EXAMPLES
from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.switch import status
from fengshou.switch.demo import prepare
from fengshou.switch.processes import SiteProcesses
from fengshou.switch.site import Site
from fengshou.terminals.fleet import FleetPlan, FleetResult
from fengshou.terminals.latency import Latencies
from fengshou.terminals.registry_csv import read_terminals

TERMINALS = 12  # of the examples' buyers
_IN_FLIGHT = 64 * TERMINALS
_OPEN_RATE = 500.0
_OPENING_FEN = 10**15
_WARM_UP_S = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")
# A run is called limited by a group of processes when they leave less than this of their cores idle.
_BUSY = 0.93
_STRANGERS = 0.1  # cores that other programs may use before they are to blame


class BenchFailed(Exception):
    """A run came to an end that makes its figures worthless; the text says which."""


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two moments of a run: seconds, transactions, seconds of CPU by process and of strangers."""

    seconds: float
    transactions: int
    cpu_s: dict[str, float]
    strangers_s: float

    @property
    def rate(self) -> float:
        return self.transactions / self.seconds

    def us(self, *names: str) -> float:
        """CPU a transaction of these processes together."""
        return sum(self.cpu_s[name] for name in names) / max(self.transactions, 1) * 1e6

    def busy(self, names: Iterable[str], cores: int) -> float:
        """The share of their cores that they used."""
        return sum(self.cpu_s[name] for name in names) / self.seconds / cores


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, user and system, all threads (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_of_all() -> float:
    """Seconds of CPU that the whole machine has used: all of /proc/stat but idle, waiting for the disk, and guests."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


class Cores:
    """Who runs where: the switch on the first core, everything else on the others, if there are any."""

    def __init__(self) -> None:
        every = sorted(os.sched_getaffinity(0))
        self.switch = set(every[:1])
        self.others = set(every[1:]) or set(every)
        self._every = set(every)

    @contextmanager
    def on(self, cores: set[int]) -> Iterator[None]:
        """Processes that are started inside run on these cores."""
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._every)


class Child:
    """A load in a process of its own; its standard output is read line by line."""

    def __init__(self, *arguments: str) -> None:
        self._told = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=self._told, cwd=EXAMPLES.parent
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
                self.finish()
                raise BenchFailed(f"a load printed nothing:\n{self.told()}")
            time.sleep(0.01)

    def finish(self) -> bytes:
        """The last line, at the end of the process. Raises BenchFailed when it failed."""
        self._process.wait()
        self._reader.join()
        if self._process.returncode:
            raise BenchFailed(f"a load failed:\n{self.told()}")
        return self.last

    def told(self) -> str:
        """The end of its standard error."""
        self._told.seek(0)
        return self._told.read().decode(errors="replace")[-2000:]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def copy_examples(folder: Path) -> Path:
    """The examples, but with buyers who can pay for as many purchases as a run can make."""
    folder.mkdir(parents=True)
    for name in ("terminals.csv", "sites.csv"):
        shutil.copy(EXAMPLES / name, folder)
    with (EXAMPLES / "accounts.csv").open(encoding="utf-8") as lines, (folder / "accounts.csv").open("w") as out:
        for line in lines:
            out.write(f"{line.rpartition(',')[0]},{_OPENING_FEN}\n" if ",buyer," in line else line)
    return folder


class Bench:
    """A running site and the runs that are made on it."""

    def __init__(self, site: Site, processes: SiteProcesses, cores: Cores) -> None:
        self._site = site
        self._cores = cores
        self._pids = {name: process.pid for name, process in processes.running.items()}
        self._homes = tuple(
            str(site.path("terminals", new.facts.terminal))
            for new in read_terminals(EXAMPLES / "terminals.csv")
            if FARM_PURCHASE.name in new.services
        )

    def fleet(
        self, seconds: float, *, homes: int = 0, in_flight: int = 1, rate: float = 0.0
    ) -> tuple[Window, FleetResult]:
        """One fleet on the site; ``homes`` terminals, all by default."""
        chosen = self._homes[: homes or None]
        plan = FleetPlan(homes=chosen, in_flight=in_flight, rate=rate, seconds=_WARM_UP_S + seconds, progress_s=0.05)
        file = self._site.path("fleet.json")
        file.write_bytes(msgspec.json.encode(plan))
        with self._cores.on(self._cores.others):
            child = Child("bench.load", str(file))
        try:
            window = self._window(child, self._pids | {"fleet": child.pid}, seconds, self._answered)
            result = msgspec.json.decode(child.finish(), type=FleetResult, strict=False)
        except BaseException:
            child.kill()
            raise
        if result.surprises or result.unknown:
            raise BenchFailed(f"{result.unknown} without an answer; {result.surprises[:3]}")
        return window, result

    def bare(self, seconds: float, core_banking_port: int) -> Window:
        """The peer over the same core-banking host."""
        port = _free_port()
        with self._cores.on(self._cores.switch):
            peer = Child("bench.bare", "switch", str(port), str(core_banking_port))
        try:
            peer.wait_for_output()
            with self._cores.on(self._cores.others):
                child = Child("bench.bare", "load", str(port), str(_WARM_UP_S + seconds + 1), str(_IN_FLIGHT))
            try:
                pids = {"bare": peer.pid, "load": child.pid, "core-banking": self._pids["core-banking"]}
                window = self._window(child, pids, seconds, lambda: int(child.last))
                child.finish()
            except BaseException:
                child.kill()
                raise
        finally:
            peer.kill()
        if not window.transactions:
            raise BenchFailed(f"the bare peer answered nothing:\n{peer.told()}")
        return window

    def _answered(self) -> int:
        return sum(status.ask(self._site.path("status.sock"))["answered"].values())

    def _window(self, child: Child, pids: dict[str, int], seconds: float, answered: Callable[[], int]) -> Window:
        child.wait_for_output()
        time.sleep(_WARM_UP_S)
        begun, first, whole = time.perf_counter(), answered(), cpu_of_all()
        before = {name: cpu_of(pid) for name, pid in pids.items()}
        time.sleep(max(seconds - 1, 1))
        spent = {name: cpu_of(pid) - before[name] for name, pid in pids.items()}
        strangers = max(cpu_of_all() - whole - sum(spent.values()), 0.0)
        return Window(time.perf_counter() - begun, answered() - first, spent, strangers)


def _wait_for_links(site: Site) -> None:
    """A switch is ready before its links to back ends are up; the first requests would be declined."""
    deadline = time.monotonic() + 30
    while not all(each["up"] for each in status.ask(site.path("status.sock"))["destinations"].values()):
        if time.monotonic() > deadline:
            raise BenchFailed("a back end is not reached")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def figures(seconds: float, folder: Path) -> tuple[list[Figure], list[str]]:
    """Figures and what has to be said with them. Raises BenchFailed, ProcessFailed."""
    shutil.rmtree(folder, ignore_errors=True)
    site = prepare(folder / "site", copy_examples(folder / "examples"))
    cores = Cores()
    with SiteProcesses(site.folder) as processes:
        with cores.on(cores.others):
            for name in processes.HOSTS:
                processes.start(name)
        with cores.on(cores.switch):
            processes.start("switch")
        for process in processes.running.values():
            process.wait_ready()
        _wait_for_links(site)
        bench = Bench(site, processes, cores)
        _, alone = bench.fleet(seconds, homes=1)
        calm, open_loop = bench.fleet(seconds, rate=_OPEN_RATE)
        full, closed = bench.fleet(seconds, in_flight=_IN_FLIGHT // TERMINALS)
        peer = bench.bare(seconds, site.ports.core_banking)
    shutil.rmtree(folder, ignore_errors=True)
    loads = ("fleet", *SiteProcesses.HOSTS)
    notes = [
        _bottleneck("full load", full, ("switch",), loads, cores),
        _bottleneck("the peer's full load", peer, ("bare",), ("load", "core-banking"), cores),
        "The aims of the whole switch are for its saturation; CPU a transaction grows as load falls below it.",
    ]
    if calm.rate < 0.95 * _OPEN_RATE:
        notes.append(
            f"Only {calm.rate:.0f} of {_OPEN_RATE:.0f} a second were done: what terminals waited is of overload."
        )
    return [*_costs(full, calm, peer, loads), *_waits(alone, open_loop, closed), *_sizes(closed)], notes


def _costs(full: Window, calm: Window, peer: Window, loads: tuple[str, ...]) -> list[Figure]:
    return [
        Figure(
            key="switch.full.cpu", what="CPU of the switch, full load", value=full.us("switch"), unit="µs/transaction",
            peer="switch.bare.cpu", aim=80,
        ),
        Figure(
            key="switch.bare.cpu", what="CPU of the bare peer: no TLS, signature, journal", value=peer.us("bare"),
            unit="µs/transaction",
        ),
        Figure(
            key="switch.open.cpu", what=f"CPU of the switch, {_OPEN_RATE:.0f} a second", value=calm.us("switch"),
            unit="µs/transaction", peer="switch.full.cpu",
        ),
        Figure(
            key="switch.full.rate", what="reached at full load", value=full.rate,
            unit="transactions/s", peer="switch.bare.rate", more=True,
        ),
        Figure(
            key="switch.bare.rate", what="reached by the bare peer", value=peer.rate,
            unit="transactions/s", more=True,
        ),
        Figure(
            key="switch.full.core", what="a core of the switch would carry", value=1e6 / full.us("switch"),
            unit="transactions/s", aim=12_500, more=True,
        ),
        Figure(
            key="switch.full.busy", what="share of its core that the switch used", value=full.busy(("switch",), 1),
            unit="cores",
        ),
        Figure(key="switch.fleet.cpu", what="CPU of the terminals", value=full.us("fleet"), unit="µs/transaction"),
        Figure(
            key="switch.hosts.cpu", what="CPU of the three back ends",
            value=full.us(*(name for name in loads if name != "fleet")), unit="µs/transaction",
        ),
    ]  # fmt: skip


def _waits(alone: FleetResult, open_loop: FleetResult, closed: FleetResult) -> list[Figure]:
    found = []
    for key, what, result, aim in (
        ("alone", "one request at a time", alone, 5.0),
        ("open", f"{_OPEN_RATE:.0f} a second", open_loop, 8.0),
        ("full", f"full load, {_IN_FLIGHT} in flight", closed, None),
    ):
        latencies = Latencies(result.latencies)
        for percent in (50, 99):
            found.append(
                Figure(
                    key=f"switch.{key}.p{percent}", what=f"p{percent} that terminals see, {what}",
                    value=latencies.percentile(percent) / 1000, unit="ms", aim=aim if percent == 99 else None,
                )
            )  # fmt: skip
    return found


def _sizes(result: FleetResult) -> list[Figure]:
    """Bytes on the wire without TCP/IP. The few sign-ins are in the sums."""
    up, down = result.tls_bytes_up - result.handshake_bytes_up, result.tls_bytes_down - result.handshake_bytes_down
    handshakes = result.handshake_bytes_up + result.handshake_bytes_down
    rows = [
        ("request.frame", "request, frame", result.frame_bytes_up / result.sent, 120.0),
        ("request.tls", "request, in TLS records", up / result.sent, None),
        ("answer.frame", "answer, frame", result.frame_bytes_down / result.answered, None),
        ("answer.tls", "answer, in TLS records", down / result.answered, None),
        ("handshake", "handshake, both directions", handshakes / result.connections, None),
    ]
    return [
        Figure(key=f"switch.bytes.{key}", what=what, value=value, unit="bytes", aim=aim)
        for key, what, value, aim in rows
    ]


def _bottleneck(name: str, window: Window, switch: tuple[str, ...], loads: tuple[str, ...], cores: Cores) -> str:
    ours, theirs = window.busy(switch, 1), window.busy(loads, len(cores.others))
    strangers = window.strangers_s / window.seconds
    if cores.switch == cores.others:
        who = "switch and terminals shared one core"
    elif ours >= _BUSY:
        who = "the switch was the bottleneck"
    elif theirs >= _BUSY:
        who = "terminals and back ends were the bottleneck, not the switch"
    elif strangers > _STRANGERS:
        who = "the machine was the bottleneck, because other programs had much of it"
    else:
        who = "no core was full: waiting for the disk was the bottleneck"
    return (
        f"{name}: {who} (switch {ours:.0%} of its core, the others {theirs:.0%} of {len(cores.others)}, "
        f"other programs {strangers:.2f} cores)."
    )
