"""One run of load: start the fleets, let them sign ahead, trade together, and read the kernel's counts meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fengshou.switch import status
from fengshou.switch.config import Loaded, load
from fengshou.switch.fleets import FleetFailed, FleetFile, FleetProcess, merge
from fengshou.switch.load.pace import UNWATCHED, CoreProbe, core_of
from fengshou.switch.load.plan import LoadFailed, LoadPlan, LoadResult, Phase
from fengshou.switch.load.processes import cpu_s, family, machine_cpu_s, memory_bytes
from fengshou.switch.load.scenery import payees, write_purchases
from fengshou.terminals.fleet import FleetPlan

# Trade goes on for so long after the window, so that its end is not in it.
_TAIL_S = 0.5
_LOOK_S = 0.05

Watch = Callable[[Phase, float, float], None]  # phase, done, of how much: requests or seconds


def _nobody(phase: Phase, done: float, total: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Reading:
    """Counts at one moment."""

    at: float
    answered: int
    switch_s: float
    fleets_s: float
    machine_s: float


def run_load(home: Path, plan: LoadPlan, watch: Watch = _nobody, probe: CoreProbe = UNWATCHED) -> LoadResult:
    """Load the running switch of the site at ``home`` with terminals that have their homes there.

    Raises LoadFailed, ConfigError, CsvError.
    """
    loaded = load(home / "switch.toml")
    socket = loaded.path(loaded.config.files.status)
    switch = _processes(loaded)
    shares = _shares(loaded, plan)
    folder = loaded.path("load")
    folder.mkdir(exist_ok=True)
    idle_bytes = memory_bytes(switch)
    trades = plan.trades or str(write_purchases(folder / "purchases.csv", payees(home), Random(1)))
    fleets = [
        FleetProcess(_file(share, plan, trades, len(shares)), folder / f"fleet-{number}")
        for number, share in enumerate(shares)
    ]
    try:
        _prepare(fleets, plan.sign_ahead * sum(map(len, shares)), watch)
        connected_bytes = memory_bytes(switch)
        for fleet in fleets:
            fleet.go()
        began = time.monotonic()
        _follow(fleets, plan, began, began + plan.warm_up_s, watch)
        with probe.window() as core:
            before = _read(socket, switch, fleets)
            _follow(fleets, plan, began, began + plan.warm_up_s + plan.seconds, watch)
            after = _read(socket, switch, fleets)
        seen = merge([fleet.result() for fleet in fleets])
    except (FleetFailed, OSError) as error:
        raise LoadFailed(str(error)) from None
    finally:
        for fleet in fleets:
            if fleet.running:
                fleet.kill()
    return LoadResult(
        plan=plan,
        seconds=after.at - before.at,
        transactions=after.answered - before.answered,
        switch_cpu_s=after.switch_s - before.switch_s,
        fleets_cpu_s=after.fleets_s - before.fleets_s,
        machine_cpu_s=after.machine_s - before.machine_s,
        idle_bytes=idle_bytes,
        connected_bytes=connected_bytes,
        terminals=seen,
        core=core,
    )


@contextmanager
def probe_of(home: Path) -> Iterator[CoreProbe]:
    """For several runs on the switch that runs at ``home``; it watches nothing where that does not keep to one core.

    Raises LoadFailed, ConfigError.
    """
    try:
        core = core_of(_processes(load(home / "switch.toml")))
    except OSError as error:
        raise LoadFailed(f"the switch in {home} came to an end just now ({error})") from None
    with CoreProbe([] if core is None else [core]) as probe:
        yield probe


def _processes(loaded: Loaded) -> list[int]:
    """The switch and what it has started."""
    try:
        return family(status.ask(loaded.path(loaded.config.files.status))["process"])
    except OSError as error:
        raise LoadFailed(
            f"no switch is running in {loaded.folder} ({error}); start one with: fengshou switch"
        ) from None


def _shares(loaded: Loaded, plan: LoadPlan) -> list[list[Path]]:
    """The homes of the terminals, dealt out to the fleets."""
    folder = loaded.path("terminals")
    homes = sorted(home for home in folder.iterdir() if (home / "terminal.toml").exists()) if folder.is_dir() else []
    if not homes:
        raise LoadFailed(f"no terminal has its home in {folder}; make some with: fengshou terminal enrol")
    if plan.terminals > len(homes):
        raise LoadFailed(f"{plan.terminals} terminals are asked for, {folder} has {len(homes)}")
    homes = homes[: plan.terminals or None]
    fleets = min(plan.fleets, len(homes))
    return [homes[number::fleets] for number in range(fleets)]


def _file(homes: Sequence[Path], plan: LoadPlan, trades: str, fleets: int) -> FleetFile:
    return FleetFile(
        terminals=frozenset(home.name for home in homes),
        files=(str(Path(trades).resolve()),),
        rows=(None,),
        cycle=True,
        waits=True,
        plan=FleetPlan(
            homes=tuple(str(home) for home in homes),
            in_flight=plan.in_flight,
            rate=plan.rate / fleets,
            seconds=plan.warm_up_s + plan.seconds + _TAIL_S,
            warm_up_s=plan.warm_up_s,
            sign_ahead=plan.sign_ahead,
            delta=plan.delta,
            progress_s=2 * _LOOK_S,
        ),
    )


def _prepare(fleets: Sequence[FleetProcess], total: int, watch: Watch) -> None:
    while not all(fleet.prepared for fleet in fleets):
        time.sleep(_LOOK_S)
        for fleet in fleets:
            fleet.check()
        watch(Phase.SIGNING, sum(fleet.progress.signed_ahead for fleet in fleets), total)
    watch(Phase.SIGNING, total, total)


def _follow(fleets: Sequence[FleetProcess], plan: LoadPlan, began: float, until: float, watch: Watch) -> None:
    while (now := time.monotonic()) < until:
        time.sleep(min(_LOOK_S, until - now))
        for fleet in fleets:
            fleet.check()
        watch(Phase.TRADING, time.monotonic() - began, plan.warm_up_s + plan.seconds)


def _read(socket: Path, switch: Sequence[int], fleets: Sequence[FleetProcess]) -> _Reading:
    answered = sum(status.ask(socket)["answered"].values())
    return _Reading(
        time.perf_counter(), answered, cpu_s(switch), cpu_s([fleet.pid for fleet in fleets]), machine_cpu_s()
    )
