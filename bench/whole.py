"""The whole switch: real processes of a site made for it, real terminals over real TLS, and a peer over the same host.

One worker has a core to itself; terminals and the host share the others. With a worker a core there is nothing left for
them, so everybody shares all: then only CPU a transaction says something. The host approves and keeps nothing, because
a ledger on the same machine would be what is measured.

A core's pace changes within seconds where cores are virtual, so nothing is measured once: saturation, 70 % of what it
just reached, a fixed rate and the peer follow one another in each of three short rounds, and of each figure the round
in its middle counts.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.figures import Figure, middle, number, pace_of
from bench.measure import BenchFailed, Tell
from bench.peer import Bare, run_bare
from fengshou.switch.load import CoreProbe, LoadPlan, LoadResult, own_site, probe_of, run_load

TERMINALS = 200  # as many connections as the figures of jPOS were taken with
ROUNDS = 3
_IN_FLIGHT = 4  # of each, at saturation
_STEADY = 0.7  # of what saturation reached
_STEADY_SAID = f"{_STEADY * 100:g} %"
_OPEN_RATE = 4000.0
_SIGNED_AHEAD_A_SECOND = 8_000  # beyond that terminals sign as they go
_WARM_UP_S = 1.0
# The load on a switch counts as its saturation when it used so much of its core.
_SATURATED = 0.93


@dataclass(frozen=True, slots=True)
class Round:
    """Four windows that follow one another at once."""

    full: LoadResult
    steady: LoadResult
    fixed: LoadResult
    bare: Bare


def figures(seconds: float, folder: Path, tell: Tell) -> tuple[list[Figure], list[str]]:
    """Figures and what has to be said with them. ``seconds`` are measured of each kind of load, in all rounds together.

    Raises BenchFailed, LoadFailed, ProcessFailed.
    """
    cores = os.sched_getaffinity(0)
    each_s = seconds / ROUNDS
    tell("making a site")
    with own_site(folder, TERMINALS, ledger=False, switch_cores=int(len(cores) > 1)) as (site, processes):
        switch = processes.running["switch"].pid
        with probe_of(site.folder) as probe:
            tell("one request at a time")
            idle = _load(site.folder, LoadPlan(seconds=each_s, warm_up_s=1, terminals=1, sign_ahead=2000), probe)
            rounds = [
                _round(site.folder, each_s, switch, probe, partial(_tell, tell, number))
                for number in range(1, ROUNDS + 1)
            ]
        core = probe.own
    tell(f"{len(cores)} workers")
    with (
        own_site(folder, TERMINALS, ledger=False, switch_cores=0, settings=f"workers = {len(cores)}") as (site, _),
        CoreProbe(cores) as probe,
    ):
        many, fixed = (
            _load(site.folder, msgspec.structs.replace(plan, fleets=len(cores)), probe)
            for plan in (_saturation(each_s), _open(_OPEN_RATE, each_s))
        )
    found = [
        *_costs(rounds),
        *_many(many, len(cores)),
        *_waits(idle, rounds, fixed),
        *_circumstances(idle, rounds, many),
        *_own_speed(core),
        *_sizes(rounds[0].full),
    ]
    return found, _notes(rounds)


def _tell(tell: Tell, number: int, what: str) -> None:
    tell(f"round {number} of {ROUNDS}: {what}")


def _round(home: Path, seconds: float, switch: int, probe: CoreProbe, tell: Tell) -> Round:
    tell("saturation")
    full = _load(home, _saturation(seconds), probe)
    tell(f"{_STEADY_SAID} of it")
    steady = _load(home, _open(_STEADY * full.rate, seconds), probe)
    tell(f"{_OPEN_RATE:.0f} a second")
    fixed = _load(home, _open(_OPEN_RATE, seconds), probe)
    tell("the bare peer")
    return Round(full, steady, fixed, run_bare(seconds, _WARM_UP_S, TERMINALS, _IN_FLIGHT, switch, probe))


def _saturation(seconds: float) -> LoadPlan:
    ahead = round(_SIGNED_AHEAD_A_SECOND * (seconds + _WARM_UP_S) / TERMINALS)
    return LoadPlan(seconds=seconds, warm_up_s=_WARM_UP_S, in_flight=_IN_FLIGHT, sign_ahead=ahead)


def _open(rate: float, seconds: float) -> LoadPlan:
    ahead = round(rate * (seconds + _WARM_UP_S + 1) / TERMINALS)
    return LoadPlan(seconds=seconds, warm_up_s=_WARM_UP_S, rate=rate, sign_ahead=ahead)


def _load(home: Path, plan: LoadPlan, probe: CoreProbe) -> LoadResult:
    """Raises BenchFailed when anything was declined or lost, but not for an open loop that asks for too much."""
    result = run_load(home, plan, probe=probe)
    if not result.clean and not (plan.rate and _behind(result)):
        raise BenchFailed("; ".join(result.problems))
    return result


def _behind(result: LoadResult) -> bool:
    return result.rate < 0.97 * result.plan.rate


# -- figures ----------------------------------------------------------------------------------------------------------


def _costs(rounds: Sequence[Round]) -> list[Figure]:
    full, bare = [each.full for each in rounds], [each.bare for each in rounds]
    at = "µs/transaction"
    return [
        Figure(
            key="switch.full.cpu", what="CPU of the switch at saturation", unit=at, peer="switch.bare.cpu", aim=80,
            **_cpu(full),
        ),
        Figure(
            key="switch.bare.cpu", what="CPU of the bare peer: no TLS, signature, journal", unit=at,
            **middle([each.cpu_us for each in bare], [each.core.share for each in bare]),
        ),
        Figure(
            key="switch.steady.cpu", what=f"CPU of the switch at {_STEADY_SAID} of saturation", unit=at,
            peer="switch.full.cpu", **_cpu([each.steady for each in rounds]),
        ),
        Figure(
            key="switch.open.cpu", what=f"CPU of the switch, {_OPEN_RATE:.0f} a second", unit=at,
            peer="switch.full.cpu", **_cpu([each.fixed for each in rounds]),
        ),
        Figure(
            key="switch.full.rate", what="reached at saturation, one worker", unit="transactions/s",
            peer="switch.bare.rate", more=True, **middle([each.rate for each in full]),
        ),
        Figure(
            key="switch.bare.rate", what="reached by the bare peer", unit="transactions/s", more=True,
            **middle([each.rate for each in bare]),
        ),
        Figure(
            key="switch.full.core", what="a core of the switch carries", unit="transactions/s", aim=12_500, more=True,
            **middle([1e6 / each.switch_us for each in full], [each.pace for each in full]),
        ),
        Figure(
            key="switch.fleet.cpu", what="CPU of the terminals, signed ahead", unit=at,
            **middle([each.fleets_us for each in full]),
        ),
    ]  # fmt: skip


def _cpu(windows: Sequence[LoadResult]) -> dict[str, Any]:
    return middle([each.switch_us for each in windows], [each.pace for each in windows])


def _many(many: LoadResult, workers: int) -> list[Figure]:
    return [
        Figure(
            key="switch.workers.cpu", what=f"CPU of all workers, {workers} of them", value=many.switch_us,
            unit="µs/transaction", peer="switch.full.cpu", pace=many.pace,
        ),
        Figure(
            key="switch.workers.rate", what=f"reached with {workers} workers, on the terminals' cores", value=many.rate,
            unit="transactions/s", peer="switch.full.rate", more=True,
        ),
    ]  # fmt: skip


def _waits(idle: LoadResult, rounds: Sequence[Round], many: LoadResult) -> list[Figure]:
    rows = (
        ("alone", "one request at a time", [idle], 5.0),
        ("steady", f"open loop at {_STEADY_SAID} of saturation", [each.steady for each in rounds], 20.0),
        ("open", f"open loop, {_OPEN_RATE:.0f} a second", [each.fixed for each in rounds], 8.0),
        ("workers", f"open loop, {_OPEN_RATE:.0f} a second, all workers", [many], None),
    )
    return [
        Figure(
            key=f"switch.{key}.p{percent}", what=f"p{percent} that terminals see, {what}", unit="ms",
            aim=aim if percent == 99 else None, **middle([each.ms(percent) for each in windows]),
        )
        for key, what, windows, aim in rows
        for percent in (50, 99)
    ]  # fmt: skip


def _circumstances(idle: LoadResult, rounds: Sequence[Round], many: LoadResult) -> Iterator[Figure]:
    """How much of its speed the core had in each window, where that is known, and how much of it the switch used."""
    loads = (
        ("full", "saturation", [each.full for each in rounds]),
        ("steady", f"{_STEADY_SAID} of it", [each.steady for each in rounds]),
        ("open", f"{_OPEN_RATE:.0f} a second", [each.fixed for each in rounds]),
    )
    for key, what, results in loads:
        yield from pace_of(f"switch.{key}.pace", what, [each.pace for each in results])
        yield Figure(
            key=f"switch.{key}.busy", what=f"share of its core that the switch used, {what}", unit="cores",
            circumstance=True, **middle([each.busy for each in results]),
        )  # fmt: skip
    yield from pace_of("switch.bare.pace", "the bare peer", [each.bare.core.share for each in rounds])
    yield from pace_of("switch.alone.pace", "one request at a time", [idle.pace])
    yield from pace_of("switch.workers.pace", "all workers, all cores", [many.pace])


def _own_speed(core: Sequence[float]) -> list[Figure]:
    """What the paces are shares of; no row where no core was watched."""
    return [
        Figure(
            key="switch.core.own", what="the core's own speed: the fixed piece of work", value=own, unit="times/s",
            circumstance=True,
        )
        for own in core
        if own
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


def _notes(rounds: Sequence[Round]) -> list[str]:
    notes = ["switch: CPU a transaction is least at saturation and grows as load falls below it."]
    full = [each.full for each in rounds]
    if min(each.busy for each in full) < _SATURATED:
        terminals, others = (max(values) for values in zip(*map(_beside, full), strict=True))
        notes.append(
            "switch: not saturated in every round; terminals, host or other programs had no more to give (terminals "
            f"{terminals:.0%} of a core, host and other programs {others:.2f} cores at most)."
        )
    steady, fixed = [each.steady for each in rounds], [each.fixed for each in rounds]
    notes.append(f"switch, {_STEADY_SAID} of saturation: {'; '.join(map(_window, steady))}.")
    notes.append(f"switch, {_OPEN_RATE:.0f} a second: {'; '.join(map(_window, fixed))}.")
    return notes


def _beside(result: LoadResult) -> tuple[float, float]:
    return result.fleets_cpu_s / result.seconds, result.strangers


def _window(result: LoadResult) -> str:
    pace = "" if result.pace is None else f", at a pace of {result.pace:.0%}"
    overload = ", an overload" if result.busy >= _SATURATED or _behind(result) else ""
    return f"p99 {number(result.ms(99))} ms at {result.rate:.0f} a second, busy {result.busy:.0%}{pace}{overload}"
