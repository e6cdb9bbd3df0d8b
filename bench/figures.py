"""Figures: what was measured, how they are shown, and the file in which a run is kept."""

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

MET = "met"
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

    @property
    def stage(self) -> str:
        return self.key.partition(".")[0]

    def verdict(self) -> str:
        """How the aim was met; empty without an aim."""
        if self.aim is None:
            return ""
        met = self.value >= self.aim if self.more else self.value <= self.aim
        return MET if met else f"{self.value / self.aim:.2g} × the aim"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one run, where they were taken, and what has to be known to read them."""

    machine: dict[str, Any]
    figures: list[Figure]
    notes: list[str] = []

    def by_key(self) -> dict[str, Figure]:
        return {figure.key: figure for figure in self.figures}

    def ratio(self, figure: Figure) -> float | None:
        """The figure as a multiple of its peer's."""
        peer = self.by_key().get(figure.peer)
        return figure.value / peer.value if peer is not None and peer.value else None


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
    stages = list(dict.fromkeys(figure.stage for figure in run.figures))
    for stage in stages:
        table = Table(title=stage, title_justify="left")
        for column in ("what", "value", "unit", "× its peer", "the peer", "aim", "reached"):
            table.add_column(column, justify="right" if column in ("value", "× its peer", "aim") else "left")
        for figure in run.figures:
            if figure.stage == stage:
                ratio = run.ratio(figure)
                table.add_row(
                    figure.what,
                    number(figure.value),
                    figure.unit,
                    "" if ratio is None else number(ratio),
                    names.get(figure.peer, ""),
                    _aim(figure),
                    figure.verdict(),
                )
        console.print(table)


def _show_aims(run: Run, console: Console) -> None:
    figures = [figure for figure in run.figures if figure.aim is not None]
    if not figures:
        return
    met = sum(figure.verdict() == MET for figure in figures)
    table = Table(title=f"aims: {met} of {len(figures)} met", title_justify="left")
    for column in ("stage", "what", "aim", "value", "unit", "reached"):
        table.add_column(column, justify="right" if column in ("value", "aim") else "left")
    for figure in figures:
        table.add_row(figure.stage, figure.what, _aim(figure), number(figure.value), figure.unit, figure.verdict())
    console.print(table)


def _aim(figure: Figure) -> str:
    return "" if figure.aim is None else ("≥ " if figure.more else "≤ ") + number(figure.aim)


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
