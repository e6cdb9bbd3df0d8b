"""``python -m bench``: measure, show, keep."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import codec, journal, machine, pipeline, recovery, saf, signature, size, weather, whole
from bench.figures import RESULTS, Figure, Run, save, show
from fengshou.switch.processes import ProcessFailed

STAGES = ("bytes", "codec", "signature", "journal", "pipeline", "switch", "saf")
# Minutes and gigabytes: only when it is asked for.
LONG_STAGES = ("recovery", "weather")
_SCRATCH = Path(__file__).resolve().parents[1] / "var" / "bench"


@click.command(epilog="Compare two runs with: python -m bench.compare A.json B.json")
@click.option(
    "--stage",
    "stages",
    type=click.Choice(STAGES + LONG_STAGES),
    multiple=True,
    help="Only these; by default all but recovery and weather.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=10.0, show_default=True, help="Length of a switch run."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Where to keep the figures.")
def main(stages: tuple[str, ...], seconds: float, out: Path | None) -> None:
    """Measure each stage and the whole switch, print the figures and keep them as data."""
    chosen = stages or STAGES
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
            case "pipeline":
                found += pipeline.figures(_SCRATCH / "pipeline")
                notes.append("pipeline: one thread, no sockets, no TLS, a back end that answers at once.")
            case "recovery":
                found += recovery.figures(_SCRATCH)
            case "weather":
                figures, said = weather.figures(seconds / 10, _SCRATCH / "weather")
                found += figures
                notes += said
            case "switch":
                try:
                    figures, said = whole.figures(seconds, _SCRATCH / "switch")
                except (whole.BenchFailed, ProcessFailed) as error:
                    raise click.ClickException(str(error)) from None
                found += figures
                notes += said
    if where["load_before"] > 0.5:
        notes.append(
            f"The machine was busy before the run began (load {where['load_before']}): wall times are worth little."
        )
    run = Run(machine=where, figures=found, notes=notes)
    show(run)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    path = out or RESULTS / f"{day}-{where['commit']}{'+' if where['changed'] else ''}.json"
    save(run, path)
    click.echo(f"kept in {path}", err=True)


if __name__ == "__main__":
    sys.exit(main())
