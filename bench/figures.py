"""Figures: what was measured, how they are shown, and the file in which a run is kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

MET = "met"
OWN = "at own speed"
RESULTS = Path(__file__).resolve().parent / "results"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number. ``key`` names it for ever, so that runs can be compared; a lower value is better unless ``more``."""

    key: str  # stage.what
    what: str
    value: float
    unit: str
    peer: str = ""  # key of the figure of the same run that it is set against
    aim: float | None = None
    more: bool = False  # a higher value is better
    circumstance: bool = False  # neither is better
    each: list[float] = []  # of several rounds; the value is the one in the middle
    pace: float | None = None  # of CPU: the share of its own speed that the core had meanwhile, where it is known

    @property
    def own(self) -> float | None:
        """The value as it would be at the core's own speed."""
        if self.pace is None:
            return None
        return self.value / self.pace if self.more else self.value * self.pace

    @property
    def stage(self) -> str:
        return self.key.partition(".")[0]

    def verdict(self) -> str:
        """How the aim was met; empty without an aim."""
        if self.aim is None:
            return ""
        met = self.value >= self.aim if self.more else self.value <= self.aim
        return MET if met else f"{self.value / self.aim:.2g} × the aim"


def middle(values: Sequence[float], paces: Sequence[float | None] = ()) -> dict[str, Any]:
    """``value``, ``each`` and ``pace`` of a figure that was taken in several rounds; the one in the middle counts."""
    value = median_low(values)
    each = list(values) if len(values) > 1 else []
    return {"value": value, "each": each, "pace": paces[values.index(value)] if paces else None}


def pace_of(key: str, what: str, paces: Sequence[float | None]) -> list[Figure]:
    """A row for the pace of the switch's core in the rounds of one kind of load; none where it is not known."""
    known = [pace for pace in paces if pace is not None]
    if not known:
        return []
    what = f"pace of the switch's core, {what}"
    return [Figure(key=key, what=what, unit="× own speed", circumstance=True, **middle(known))]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one run, where they were taken, and what has to be known to read them."""

    machine: dict[str, Any]
    figures: list[Figure]
    notes: list[str] = []

    def by_key(self) -> dict[str, Figure]:
        return {figure.key: figure for figure in self.figures}

    def ratio(self, figure: Figure) -> float | None:
        """The figure as a multiple of its peer's; at the cores' own speed where both have a pace."""
        peer = self.by_key().get(figure.peer)
        if peer is None or not peer.value:
            return None
        if figure.own is not None and peer.own is not None:
            return figure.own / peer.own
        return figure.value / peer.value


def save(run: Run, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")


def load(path: Path) -> Run:
    """Raises OSError and msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Run)


def show(run: Run) -> None:
    """A table for each stage, one of all aims beside what was reached, and what has to be known to read them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)  # a log keeps whole lines
    _show_stages(run, console)
    _show_aims(run, console)
    for note in run.notes:
        console.print(f"• {note}")


def _show_stages(run: Run, console: Console) -> None:
    names = {figure.key: figure.what for figure in run.figures}
    for stage in dict.fromkeys(figure.stage for figure in run.figures):
        figures = [figure for figure in run.figures if figure.stage == stage]
        columns: dict[str, Callable[[Figure], str]] = {
            "what": lambda figure: figure.what,
            "value": lambda figure: number(figure.value),
            "unit": lambda figure: figure.unit,
            OWN: lambda figure: _number(figure.own),
            "× its peer": lambda figure: _number(run.ratio(figure)),
            "the peer": lambda figure: names.get(figure.peer, ""),
            "aim": _aim,
            "reached": Figure.verdict,
        }
        console.print(_table(stage, columns, figures))


def _show_aims(run: Run, console: Console) -> None:
    figures = [figure for figure in run.figures if figure.aim is not None]
    if not figures:
        return
    met = sum(figure.verdict() == MET for figure in figures)
    columns: dict[str, Callable[[Figure], str]] = {
        "stage": lambda figure: figure.stage,
        "what": lambda figure: figure.what,
        "aim": _aim,
        "value": lambda figure: number(figure.value),
        "unit": lambda figure: figure.unit,
        "reached": Figure.verdict,
        OWN: lambda figure: _number(figure.own),
    }
    console.print(_table(f"aims: {met} of {len(figures)} met", columns, figures))


def _table(title: str, columns: dict[str, Callable[[Figure], str]], figures: Sequence[Figure]) -> Table:
    """A row for each figure. What is at the core's own speed has a column only where that is known of one."""
    shown = {name: cell for name, cell in columns.items() if name != OWN or any(figure.own for figure in figures)}
    table = Table(title=title, title_justify="left")
    for name in shown:
        table.add_column(name, justify="right" if name in ("value", OWN, "× its peer", "aim") else "left")
    for figure in figures:
        table.add_row(*(cell(figure) for cell in shown.values()))
    return table


def _aim(figure: Figure) -> str:
    return "" if figure.aim is None else ("≥ " if figure.more else "≤ ") + number(figure.aim)


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
