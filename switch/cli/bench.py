"""``fengshou bench``: load on a switch, and what it costs."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from fengshou.switch.cli.common import explained, json_option, print_json, print_table
from fengshou.switch.load import CoreProbe, LoadFailed, LoadPlan, LoadResult, Phase, own_site, probe_of, run_load
from fengshou.switch.load.plan import PERCENTILES
from fengshou.switch.load.plot import chart, save_png
from fengshou.switch.processes import ProcessFailed, SiteProcesses
from fengshou.switch.site import Site

_SIGN_AHEAD_CLOSED = 250  # of each terminal, when nobody says: some seconds of signing for a few hundred of them
_SIGN_AHEAD_MAX = 100_000
_OWN_TERMINALS = 200


def _rates(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(rate) for rate in value.split(",") if rate)
    except ValueError:
        rates = (-1.0,)
    if any(rate <= 0 for rate in rates):
        raise click.BadParameter("numbers above 0 with commas between them: 500 or 500,1000,2000")
    return rates


@click.group()
def bench() -> None:
    """Measure a switch."""


@bench.command()
@click.option(
    "--site",
    "home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Load the switch that runs in this site's folder, with the terminals that have homes there. "
    "Without it a site is made for the purpose, run, and removed.",
)
@click.option(
    "--rate",
    "rates",
    callback=_rates,
    default="",
    metavar="N[,N…]",
    help="Open loop: so many requests begin each second, whatever the switch does. Several rates: a run each.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Closed loop, without --rate: requests that each terminal keeps going.",
)
@click.option("--seconds", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="Measured, each run.")
@click.option("--warm-up", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds before that.")
@click.option(
    "--terminals",
    type=click.IntRange(min=1),
    help=f"How many trade; all of --site by default, {_OWN_TERMINALS} of a site made for it.",
)
@click.option(
    "--fleets",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share the terminals; one keeps a core busy at most.",
)
@click.option(
    "--pre-sign",
    type=click.IntRange(0, _SIGN_AHEAD_MAX),
    help="Requests that each terminal signs before the first is sent, so that signing does not slow the load; "
    f"1 KB each. By default what the rate needs, or {_SIGN_AHEAD_CLOSED}.",
)
@click.option("--delta/--no-delta", default=True, help="Send requests as differences to earlier ones, or whole.")
@click.option(
    "--trades",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV of what is sent over and over, as examples/purchases.csv; made-up farm purchases by default.",
)
@click.option(
    "--ledger",
    is_flag=True,
    help="Of a site made for it: all embedded back ends, with books, instead of a "
    "core-banking host that approves and keeps nothing.",
)
@click.option(
    "--switch-cores",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of a site made for it: so many cores are the switch's alone. 0: everything shares all.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Of a site made for it: its processes."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/load"),
    show_default=True,
    help="Where a site is made.",
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it into this file too, as PNG.")
@json_option
@explained
def load(
    home: Path | None, rates: tuple[float, ...], in_flight: int, seconds: float, warm_up: float,
    terminals: int | None, fleets: int, pre_sign: int | None, delta: bool, trades: Path | None, ledger: bool,
    switch_cores: int, workers: int, folder: Path, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Drive terminals against a switch and say what they saw and what it cost.

    Latency in an open loop counts from when a request was due, so a switch that stalls cannot hide it. Exit status 1
    when anything was declined, turned away, lost or sent again.

    \b
    fengshou bench load                                     as much as 200 terminals can make of it, one each at a time
    fengshou bench load --rate 500,1000,2000,4000 --plot load.png     latency against throughput
    fengshou bench load --in-flight 4 --switch-cores 1      what one core of the switch carries
    fengshou bench load --site site --rate 50 --seconds 60  a site that runs already, while something else is tried
    """
    plan = LoadPlan(
        seconds=seconds, warm_up_s=warm_up, in_flight=in_flight, terminals=terminals or 0, fleets=fleets,
        sign_ahead=pre_sign or 0, delta=delta, trades=str(trades or ""),
    )  # fmt: skip
    own = partial(
        own_site,
        folder,
        terminals or _OWN_TERMINALS,
        ledger=ledger,
        switch_cores=switch_cores,
        settings=f"workers = {workers}",
    )
    results: list[LoadResult] = []
    console = Console(stderr=True)
    try:
        with _running(home, console, own) as (place, count, probe):
            for rate in rates or (0.0,):
                ahead = _sign_ahead(plan, rate, count) if pre_sign is None else pre_sign
                each = msgspec.structs.replace(plan, rate=rate, sign_ahead=ahead)
                results.append(_run(place, each, console, probe, quiet=as_json and not console.is_terminal))
    except (LoadFailed, ProcessFailed) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        print_json({"runs": [result.as_dict() for result in results]})
    else:
        _show(results)
    if plot is not None:
        save_png(results, plot)
    if not all(result.clean for result in results):
        raise SystemExit(1)


@contextmanager
def _running(
    home: Path | None, console: Console, own: Callable[[], AbstractContextManager[tuple[Site, SiteProcesses]]]
) -> Iterator[tuple[Path, int, CoreProbe]]:
    """A running switch's folder, how many terminals have their homes there, and what watches its core."""
    with ExitStack() as stack:
        if home is None:
            console.print("• making a site", style="dim")
            home = stack.enter_context(own())[0].folder
        yield home, len(list(home.glob("terminals/*/terminal.toml"))), stack.enter_context(probe_of(home))


def _sign_ahead(plan: LoadPlan, rate: float, terminals: int) -> int:
    if not rate:
        return _SIGN_AHEAD_CLOSED
    share = rate * (plan.warm_up_s + plan.seconds + 1) / (plan.terminals or terminals or 1)
    return min(math.ceil(share), _SIGN_AHEAD_MAX)


def _run(home: Path, plan: LoadPlan, console: Console, probe: CoreProbe, *, quiet: bool) -> LoadResult:
    title = f"{plan.rate:g} a second" if plan.rate else f"{plan.in_flight} in flight a terminal"
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet) as bar:
        tasks = {phase: bar.add_task(f"{title}: {phase.value}", total=None, visible=False) for phase in Phase}

        def watch(phase: Phase, done: float, total: float) -> None:
            bar.update(tasks[phase], completed=min(done, total), total=total or None, visible=True)

        return run_load(home, plan, watch, probe)


def _show(results: list[LoadResult]) -> None:
    columns = (
        "loop",
        "reached",
        *(f"p{percent:g} ms" for percent in PERCENTILES),
        "switch µs",
        "terminals µs",
        "cores used",
    )
    print_table(
        "what terminals saw, and CPU a transaction",
        columns,
        [
            (
                f"{result.plan.rate:g}/s" if result.plan.rate else f"{result.plan.in_flight} each",
                f"{result.rate:,.0f}",
                *(f"{result.ms(percent):.2f}" for percent in PERCENTILES),
                f"{result.switch_us:.1f}",
                f"{result.fleets_us:.1f}",
                f"switch {result.busy:.2f}, "
                f"terminals {result.fleets_cpu_s / result.seconds:.2f}, others {result.strangers:.2f}",
            )
            for result in results
        ],
    )
    facts = results[-1].as_dict()
    sizes, seen = facts["bytes"], results[-1].terminals
    print_table(
        "messages and connections",
        ("", ""),
        [
            ("request: frame / in TLS", f"{sizes['request_frame']} / {sizes['request_tls']} bytes"),
            ("answer: frame / in TLS", f"{sizes['answer_frame']} / {sizes['answer_tls']} bytes"),
            ("handshake, both directions", f"{sizes['handshake']:,.0f} bytes"),
            ("connections", seen.connections),
            ("memory of the switch a connection", f"{results[-1].connection_bytes / 1024:.1f} KiB"),
            ("signed ahead", f"{min(seen.signed_ahead, seen.sent)} of {seen.sent} that were sent"),
        ],
    )
    click.echo(chart(results))
    for result in results:
        asked = f"{result.plan.rate:g}/s: " if result.plan.rate else ""
        if result.pace is not None:
            click.echo(f"{asked}the switch's core ran at {result.pace:.0%} of its own speed")
        for problem in result.problems:
            click.secho(asked + problem, fg="red")
