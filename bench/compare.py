"""``python -m bench compare A B``: what became of each figure from A to B.

``B : A`` is the plain ratio and holds only on one machine in one mood. ``against peers`` sets the ratio to the peer in
B against that in A: a slower machine slows both, so it holds between machines. ``at own speed`` is B : A of CPU as it
would be at the cores' own speed, where both runs know the pace of their core: it holds on one machine in any mood.
Below 1 is better, for rates above 1.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from bench.figures import RESULTS, Figure, Run, load, number

# Nothing is said of a change that is smaller: a figure taken twice differs by as much.
_NOISE = 0.05


class NoSuchRun(Exception):
    """Nothing is kept of a commit, or a file holds no run; the text says which."""


class Change(msgspec.Struct, frozen=True):
    """One figure in both runs."""

    before: Figure
    after: Figure
    plain: float  # B : A
    own: float | None  # the same at the cores' own speed
    against: float | None  # the same of the ratios to peers

    @property
    def word(self) -> str:
        """Whether it became better or worse, by the ratio that means more; empty when it hardly changed, or may."""
        if self.after.circumstance:
            return ""
        ratio = next(ratio for ratio in (self.against, self.own, self.plain) if ratio is not None)
        if abs(ratio - 1) <= _NOISE:
            return ""
        return "better" if (ratio > 1) == self.after.more else "worse"


def find(name: str, folder: Path = RESULTS) -> Run:
    """The run in a file of this name, else the newest that is kept of the commit. Raises NoSuchRun."""
    path = Path(name)
    if not path.is_file():
        kept = sorted(folder.glob(f"*-{name}*.json")) if name else []
        if not kept:
            raise NoSuchRun(f"nothing is kept of {name!r} in {folder}, and it is no file")
        path = kept[-1]
    try:
        return load(path)
    except (OSError, msgspec.DecodeError) as error:
        raise NoSuchRun(f"{path}: {error}") from None


def compare(a: Run, b: Run) -> list[Change]:
    """Each figure that both runs have, in the order of B."""
    before = a.by_key()
    changes = []
    for figure in b.figures:
        old = before.get(figure.key)
        if old is None or not old.value:
            continue
        ratio_a, ratio_b = a.ratio(old), b.ratio(figure)
        against = ratio_b / ratio_a if ratio_a and ratio_b else None
        own = figure.own / old.own if figure.own is not None and old.own else None
        changes.append(Change(old, figure, figure.value / old.value, own, against))
    return changes


def page(a: Run, b: Run) -> str:
    """Both runs side by side, in Markdown."""
    return "\n".join(_lines(a, b, compare(a, b))) + "\n"


def _lines(a: Run, b: Run, changes: Sequence[Change]) -> Iterator[str]:
    yield f"# {a.machine.get('commit', 'A')} against {b.machine.get('commit', 'B')}"
    yield ""
    yield "A figure that is set against a peer of its own run is judged by that ratio, any other as it would be at the"
    yield f"core's own speed where both runs know that, else as it is. Changes of {_NOISE:.0%} and less go without a"
    yield "word."
    yield ""
    yield "| | A | B |"
    yield "|---|---|---|"
    for fact in dict.fromkeys([*a.machine, *b.machine]):
        yield f"| {fact} | {a.machine.get(fact, '')} | {b.machine.get(fact, '')} |"
    if any(a.machine.get(fact) != b.machine.get(fact) for fact in ("processor", "cores")):
        yield ""
        yield "**Two different machines: only what is set against a peer means anything.**"
    for stage, found in groupby(changes, key=lambda change: change.after.stage):
        yield ""
        yield f"## {stage}"
        yield ""
        yield "| what | unit | A | B | B : A | at own speed | against peers | aim | |"
        yield "|---|---|--:|--:|--:|--:|--:|--:|---|"
        for change in found:
            figure = change.after
            cells = (
                figure.what, figure.unit, number(change.before.value), number(figure.value), f"{change.plain:.2f}",
                _ratio(change.own), _ratio(change.against),
                "" if figure.aim is None else number(figure.aim), change.word,
            )  # fmt: skip
            yield f"| {' | '.join(cells)} |"
    gone = [figure.what for key, figure in a.by_key().items() if key not in b.by_key()]
    new = [figure.what for key, figure in b.by_key().items() if key not in a.by_key()]
    for title, names in (("Only in A", gone), ("Only in B", new)):
        if names:
            yield ""
            yield f"{title}: {'; '.join(names)}."


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
