"""``python -m bench``: measure, show, keep."""

import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import lmdb

from bench import (
    channel,
    codec,
    compare,
    journal,
    link,
    machine,
    pipeline,
    profile,
    recovery,
    saf,
    signature,
    size,
    weather,
    whole,
    workers,
)  # fmt: skip
from bench.figures import RESULTS, Figure, Run, save, show
from bench.measure import BenchFailed
from fengshou.switch.journal.tables import JournalError
from fengshou.switch.load import LoadFailed
from fengshou.switch.processes import ProcessFailed

STAGES = (
    "bytes", "codec", "signature", "journal", "pipeline", "channel", "link", "switch", "saf", "workers", "weather",
    "recovery",
)  # fmt: skip
# Minutes and gigabytes.
_LONG = frozenset(("recovery", "weather"))
# What a machine may do to a stage; the others go on.
_FAILURES = (BenchFailed, LoadFailed, ProcessFailed, JournalError, OSError, lmdb.Error, sqlite3.Error)
_SCRATCH = Path(__file__).resolve().parents[1] / "var" / "bench"


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--stage", "stages", type=click.Choice(STAGES), multiple=True, help="Only these; by default all.")
@click.option("--quick", is_flag=True, help="Leave out what takes minutes and gigabytes: recovery and weather.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=10.0, show_default=True, help="Length of a switch run."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Where to keep the figures.")
@click.pass_context
def main(context: click.Context, stages: tuple[str, ...], quick: bool, seconds: float, out: Path | None) -> None:
    """Measure each stage and the whole switch, print the figures beside the aims, and keep them as data.

    \b
    python -m bench --stage codec --stage signature
    python -m bench --quick --seconds 5
    python -m bench compare 485f75a51c 0e7b22aa55 --out changes.md
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started has to be stopped, as with Ctrl-C
    if context.invoked_subcommand is None:
        _measure(stages, quick, seconds, out)


@main.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the page there instead.")
def compare_(a: str, b: str, out: Path | None) -> None:
    """Set two runs side by side, a page in Markdown. A and B are commits, whose newest runs are taken, or files."""
    try:
        text = compare.page(compare.find(a), compare.find(b))
    except compare.NoSuchRun as error:
        raise click.ClickException(str(error)) from None
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, "utf-8")


@main.command("profile")
@click.option("--seconds", type=click.FloatRange(min=1), default=8.0, show_default=True, help="How long to sample.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("docs/loaded-switch.svg"),
    show_default=True,
    help="Where the flame graph goes.",
)
def profile_(seconds: float, out: Path) -> None:
    """Load a switch to its saturation and show where its CPU goes: a table, and a flame graph as SVG."""
    try:
        profile.show(profile.run(_SCRATCH / "profile", out, seconds))
    except (profile.ProfileFailed, LoadFailed, ProcessFailed) as error:
        raise click.ClickException(str(error)) from None


def _measure(stages: tuple[str, ...], quick: bool, seconds: float, out: Path | None) -> None:
    """Raises ClickException when a stage failed or the figures cannot be kept, after everything else was done."""
    chosen = [stage for stage in stages or STAGES if not (quick and stage in _LONG)]
    where, begun = machine.describe(), time.monotonic()
    found: list[Figure] = []
    notes: list[str] = []
    failed: list[str] = []
    for stage in chosen:

        def tell(what: str, stage: str = stage) -> None:
            click.echo(f"{time.monotonic() - begun:5.0f} s  {stage}: {what}", err=True)

        tell("measuring")
        try:
            figures, said = _stage(stage, seconds, tell)
        except _FAILURES as error:
            failed.append(f"{stage} came to nothing: {str(error) or type(error).__name__}")
            tell(failed[-1])
            continue
        found += figures
        notes += said
    if where["load_before"] > 0.5:
        notes.append(
            f"The machine was busy before the run began (load {where['load_before']}): wall times are worth little."
        )
    if where["interpreter"] == machine.SHARED:
        notes.append(
            "The interpreter is a shared library, which takes more CPU than one in its program: see decision 13."
        )
    if found:
        run = Run(machine=where, figures=found, notes=[*notes, *failed])
        show(run)
        part = "" if len(chosen) == len(STAGES) else "-" + "-".join(stages or ("quick",))
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        path = out or RESULTS / f"{day}-{where['commit']}{'+' if where['changed'] else ''}{part}.json"
        try:
            save(run, path)
        except OSError as error:
            failed.append(f"the figures could not be kept: {error}")
        else:
            click.echo(f"kept in {path}", err=True)
    if failed:
        raise click.ClickException("\n".join(failed))


def _stage(stage: str, seconds: float, tell: Callable[[str], None]) -> tuple[list[Figure], list[str]]:
    """Figures of one stage, and what has to be said with them."""
    match stage:
        case "bytes":
            return size.figures(), []
        case "codec":
            return codec.figures(seconds / 10), []
        case "signature":
            return signature.figures(seconds / 10), []
        case "journal":
            return journal.figures(seconds / 5, _SCRATCH), [
                "journal: SQLite keeps a record and one index; the journal also what rules and recovery look up."
            ]
        case "pipeline":
            return pipeline.figures(_SCRATCH / "pipeline"), [
                "pipeline: one thread, no sockets, no TLS, a back end that answers at once."
            ]
        case "channel":
            return channel.figures(seconds / 10), []
        case "link":
            return link.figures(seconds / 10), []
        case "switch":
            return whole.figures(seconds, _SCRATCH / "switch", tell)
        case "saf":
            return saf.figures(int(seconds * 1000), _SCRATCH / "saf"), []
        case "workers":
            return workers.figures(seconds / 10, _SCRATCH / "workers"), []
        case "weather":
            return weather.figures(seconds / 10, _SCRATCH / "weather", tell)
        case "recovery":
            return recovery.figures(_SCRATCH, tell), []
    raise AssertionError(stage)


if __name__ == "__main__":
    sys.exit(main())
