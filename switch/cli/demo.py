"""``fengshou demo``, and ``fengshou fleet``, the child process in which simulated terminals run."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fengshou.protocol.codes import text_of
from fengshou.switch.cli.common import explained, json_option, print_json, print_table, yuan
from fengshou.switch.demo import Outcome
from fengshou.switch.demo import run as run_demo
from fengshou.switch.fleets import FleetFailed, FleetFile
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.processes import ProcessFailed
from fengshou.terminals.fleet import FleetProgress, run_fleet
from fengshou.terminals.home import Home

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@click.command(epilog="Afterwards: fengshou journal show --home DIR, fengshou prices --home DIR, and so on.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/demo"),
    show_default=True,
    help="Where to make the site; what an earlier demo left there is replaced.",
)
@click.option(
    "--examples",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=EXAMPLES,
    help="Folder of purchases.csv, mix.csv, accounts.csv, terminals.csv and sites.csv.",
)
@click.option("--purchases", type=click.IntRange(min=1), default=None, help="Trade only so many; all by default.")
@click.option("--delta/--no-delta", default=True, help="Send requests as differences to earlier ones, or whole.")
@json_option
@explained
def demo(home: Path, examples: Path, purchases: int | None, delta: bool, as_json: bool) -> None:
    """Start a whole site as real processes, trade one season through it, and show what became of it."""
    if home.exists() and any(home.iterdir()) and not (home / "switch.toml").exists():
        raise click.ClickException(f"{home} holds something that is no site; give another --home")
    console = Console(stderr=True)
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=as_json and not console.is_terminal,
    ) as bar:
        task = bar.add_task("trading", total=None, visible=False)

        def progress(answered: int, total: int) -> None:
            bar.update(task, completed=answered, total=total, visible=True)

        try:
            outcome = run_demo(
                home,
                examples,
                purchases,
                lambda text: console.print(f"• {text}", style="dim"),
                progress,
                delta=delta,
            )
        except (ProcessFailed, FleetFailed) as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        print_json(outcome.as_dict())
    else:
        _show(outcome)
    if not outcome.good:
        raise SystemExit(1)


def _show(outcome: Outcome) -> None:
    facts = outcome.as_dict()
    fleets = outcome.fleets
    print_table(
        "what the terminals saw",
        ("scene", "sent", "approved", "declined, by code", "approved yuan"),
        [
            (
                name,
                sum(by_code.values()),
                by_code.get("00", 0),
                ", ".join(
                    f"{code} {text_of(code)}: {count}" for code, count in sorted(by_code.items()) if code != "00"
                ),
                yuan(fleets.approved_fen.get(name, 0)),
            )
            for name, by_code in sorted(fleets.codes.items())
        ],
    )
    latency, size, ledger, journal = (facts[name] for name in ("latency_ms", "bytes_per_message", "ledger", "journal"))
    rows: list[tuple[str, Any]] = [
        ("sent", f"{fleets.sent} by {fleets.terminals} terminals in {outcome.seconds:.1f} s"),
        ("approved", facts["approved"]),
        ("declined", sum(facts["declined"].values())),
        ("answers that were not expected", len(fleets.surprises)),
        (
            "duplicates answered with the same bytes",
            f"{fleets.repeats_equal} of {fleets.repeats_equal + fleets.repeats_different}",
        ),
        ("receipts verified by the terminals", fleets.receipts_verified),
        ("batches settled", f"{fleets.batches_balanced} in balance, {fleets.batches_different} not"),
        ("latency p50 / p99", f"{latency['p50']:.1f} / {latency['p99']:.1f} ms"),
        ("bytes a request: frame / in TLS", f"{size['request_frame']} / {size['request_tls']}"),
        ("bytes an answer: frame / in TLS", f"{size['answer_frame']} / {size['answer_tls']}"),
        ("switch CPU a transaction", f"{facts['switch_cpu_us_per_transaction']} µs"),
        ("ledger", "balanced" if ledger["balanced"] else "NOT BALANCED"),
        (
            "ledger against journal",
            f"equal: {ledger['transactions']} transactions, {yuan(ledger['fen'])} yuan"
            if ledger["equal_to_journal"]
            else f"{len(ledger['differences'])} DIFFERENCES",
        ),
        (
            "journal",
            f"verified: {journal['records']} records, {journal['commits']} commits, "
            f"{journal['terminal_signatures']} terminal signatures"
            if journal["verified"]
            else "NOT VERIFIED",
        ),
        ("events in analytics", f"{outcome.analytics_delivered} of {outcome.analytics_written}"),
    ]
    print_table("what became of it", ("", ""), rows)
    for problem in (*fleets.surprises, *ledger["differences"], *journal["problems"]):
        click.secho(problem, fg="red")
    home = outcome.home
    click.echo("Look around, nothing is running any more but everything is there:")
    for command in ("journal show", "journal verify", "settle day", "terminal list"):
        click.echo(f"  fengshou {command} --home {home}")
    click.echo(f"  fengshou host analytics --home {home} &   then: fengshou prices --home {home}")


@click.command(hidden=True)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def fleet(file: Path) -> None:
    """Run the plan and trades of FILE; progress and then the result go to standard output, a line of JSON each."""
    document = msgspec.json.decode(file.read_bytes(), type=FleetFile)
    first = Home(Path(document.plan.homes[0]))
    catalogue = Catalogue(load_service(module, {}) for module in first.configuration.services)

    def progress(so_far: FleetProgress) -> None:
        click.echo(msgspec.json.encode(so_far))

    async def go() -> None:
        click.echo(msgspec.json.encode({"prepared": True}))
        if not await asyncio.to_thread(sys.stdin.readline):
            raise SystemExit("whoever started this fleet is gone")

    result = run_fleet(
        document.plan, catalogue.grammar, document.read_trades(), progress, go if document.waits else None
    )
    click.echo(msgspec.json.encode({"result": result}))
