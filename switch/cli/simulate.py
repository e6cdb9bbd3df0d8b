"""``fengshou simulate``: the whole network in one process, with trouble, from seeds."""

import time
from typing import Any

import click
import msgspec

from fengshou.switch.cli.common import json_option
from fengshou.switch.simulation.plan import FAULTS, plan
from fengshou.switch.simulation.runner import Tally, Verdict, simulator

_STORY_LINES_MAX = 120
# So many seeds with all kinds of trouble must take every transition and feel every effect.
WHOLE_RUNS = 200


def _seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> range | None:
    if value is None:
        return None
    first, dash, last = value.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise click.BadParameter("a number, or two with a hyphen between them: 1-200")
    return range(int(first), int(last if dash else first) + 1)


def _kinds(context: click.Context, parameter: click.Parameter, value: str | None) -> frozenset[str] | None:
    if value is None:
        return None
    kinds = frozenset(kind for kind in value.split(",") if kind)
    if unknown := sorted(kinds - FAULTS.keys()):
        raise click.BadParameter(f"no such fault: {unknown[0]}. There are: {', '.join(FAULTS)}")
    return kinds


@click.command()
@click.option("--seed", type=click.IntRange(0), help="One seed; its whole story is printed.")
@click.option("--seeds", callback=_seeds, metavar="A-B", help="Many seeds, 1-200 without this option.")
@click.option("--faults", callback=_kinds, metavar="KIND,…", help="Only these kinds of trouble; '' for none.")
@click.option(
    "--hours", type=click.FloatRange(0, min_open=True), default=1 / 120, show_default="half a minute",
    help="How long there is trade and trouble, in simulated time.",
)  # fmt: skip
@json_option
def simulate(seed: int | None, seeds: range | None, faults: frozenset[str] | None, hours: float, as_json: bool) -> None:
    """Run the whole switch with terminals, host, network and disk in simulated time, and try to break it.

    The same seed gives the same run. A seed that fails is made smaller and told as a story; exit status 1. So it is
    too when 200 seeds or more with all kinds of trouble leave a transition of the table untaken.

    \b
    fengshou simulate --seeds 1-1000
    fengshou simulate --seed 42 --faults kill,power
    """
    chosen = range(seed, seed + 1) if seed is not None else seeds if seeds is not None else range(1, 201)
    began, tally, digests = time.monotonic(), Tally(), {}
    with simulator() as running:
        for number in chosen:
            verdict = running.run(plan(number, faults, hours * 3600))
            digests[number] = verdict.digest
            if verdict.problem:
                click.echo(f"seed {number}: {verdict.problem}; looking for the shortest way there", err=True)
                verdict = running.smallest(verdict)
            tally.add(verdict)
            if not as_json and (verdict.problem or seed is not None):
                _tell(verdict)
    seconds = time.monotonic() - began
    if as_json:
        click.echo(msgspec.json.encode(_as_dict(tally, digests, seconds)))
    else:
        _sum_up(tally, seconds)
    whole = faults is None and tally.runs >= WHOLE_RUNS
    if tally.failed or (whole and tally.never):
        raise SystemExit(1)


def _tell(verdict: Verdict) -> None:
    story = verdict.story()
    click.echo("\n".join(story[:_STORY_LINES_MAX]))
    if len(story) > _STORY_LINES_MAX:
        click.echo(f"  … {len(story) - _STORY_LINES_MAX} more lines")
    click.echo(f"trace {verdict.digest}\n")


def _sum_up(tally: Tally, seconds: float) -> None:
    click.echo(
        f"{tally.runs} runs, {tally.lives} lives of the switch, {len(tally.failed)} failed; "
        f"{seconds:.1f} s, {tally.seconds / seconds:.0f} times as fast as the clock on the wall"
    )
    counted = {"trouble": tally.troubles, "and what it did": tally.effects, "steps of transactions": tally.steps}
    for title, counts in counted.items():
        click.echo(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    click.echo(f"transitions of the table: {len(tally.transitions)}")
    for name, times in tally.transitions.items():
        click.echo(f"  {times:7}  {name}")
    for name in tally.never:
        click.echo(f"never: {name}")


def _as_dict(tally: Tally, digests: dict[int, str], seconds: float) -> dict[str, Any]:
    return {
        "runs": tally.runs,
        "lives": tally.lives,
        "seconds": round(seconds, 3),
        "failed": [
            {"seed": verdict.plan.seed, "problem": verdict.problem, "story": verdict.story()}
            for verdict in tally.failed
        ],
        "troubles": dict(sorted(tally.troubles.items())),
        "effects": dict(sorted(tally.effects.items())),
        "steps": dict(sorted(tally.steps.items())),
        "transitions": dict(tally.transitions),
        "never": tally.never,
        "traces": {str(seed): digest for seed, digest in digests.items()},
    }
