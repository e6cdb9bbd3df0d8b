"""``python -m bench``: measure, show, keep."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import (
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
from fengshou.switch.processes import ProcessFailed

STAGES = (
    "bytes", "codec", "signature", "journal", "pipeline", "link", "switch", "saf", "workers", "weather", "recovery",
)  # fmt: skip
# Minutes and gigabytes.
_LONG = frozenset(("recovery", "weather"))
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
    if context.invoked_subcommand is None:
        _measure([stage for stage in stages or STAGES if not (quick and stage in _LONG)], seconds, out)


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
    except (profile.ProfileFailed, whole.LoadFailed, ProcessFailed) as error:
        raise click.ClickException(str(error)) from None


def _measure(chosen: list[str], seconds: float, out: Path | None) -> None:
    where = machine.describe()
    found: list[Figure] = []
    notes: list[str] = []
    for stage in chosen:
        click.echo(f"measuring: {stage}", err=True)
        match stage:
            case "bytes":
                found += size.figures()
            case "codec":
                found += codec.figures(seconds / 10)
            case "signature":
                found += signature.figures(seconds / 10)
            case "saf":
                found += saf.figures(int(seconds * 1000), _SCRATCH / "saf")
            case "journal":
                found += journal.figures(seconds / 5, _SCRATCH)
                notes.append("SQLite keeps a record and one index; the journal also what rules and recovery look up.")
            case "workers":
                found += workers.figures(seconds / 10, _SCRATCH / "workers")
            case "pipeline":
                found += pipeline.figures(_SCRATCH / "pipeline")
                notes.append("pipeline: one thread, no sockets, no TLS, a back end that answers at once.")
            case "link":
                found += link.figures(seconds / 10)
            case "recovery":
                found += recovery.figures(_SCRATCH)
            case "weather":
                figures, said = weather.figures(seconds / 10, _SCRATCH / "weather")
                found += figures
                notes += said
            case "switch":
                try:
                    figures, said = whole.figures(seconds, _SCRATCH / "switch")
                except (whole.BenchFailed, whole.LoadFailed, ProcessFailed) as error:
                    raise click.ClickException(str(error)) from None
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
    run = Run(machine=where, figures=found, notes=notes)
    show(run)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    path = out or RESULTS / f"{day}-{where['commit']}{'+' if where['changed'] else ''}.json"
    save(run, path)
    click.echo(f"kept in {path}", err=True)


if __name__ == "__main__":
    sys.exit(main())
