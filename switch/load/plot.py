"""Pictures of load: in the terminal for whoever watches, as PNG for documents. Latency against throughput for several
runs; for a single one, the latency that so many percent of its answers did not exceed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fengshou.switch.load.plan import LoadFailed, LoadResult

_SHOWN = (50.0, 99.0, 99.9)
_MARKS = "o+x"
# Of one run: percentiles at even distances on the scale that stretches towards 100, as HdrHistogram draws them.
_SPECTRUM = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)

Points = Sequence[tuple[float, float]]


def chart(results: Sequence[LoadResult], width: int = 72, height: int = 16) -> str:
    """Characters; the scale of latency is logarithmic."""
    if len(results) > 1:
        series = [_against_rate(results, percent) for percent in _SHOWN]
        legend = "   ".join(f"{mark} p{percent:g}" for mark, percent in zip(_MARKS, _SHOWN, strict=True))
        below = "transactions a second"
    else:
        series = [[(_stretched(percent), results[0].ms(percent)) for percent in _SPECTRUM]]
        legend, below = f"{_MARKS[0]} latency", "percent of the answers: 90 99 99.9 99.99 at even distances"
    return _drawn(series, width, height, f"ms   {legend}", below)


def _against_rate(results: Sequence[LoadResult], percent: float) -> list[tuple[float, float]]:
    return sorted((result.rate, result.ms(percent)) for result in results)


def _stretched(percent: float) -> float:
    """How many nines: 90 is 1, 99 is 2."""
    return -math.log10(1 - percent / 100)


def _drawn(series: Sequence[Points], width: int, height: int, title: str, below: str) -> str:
    points = [point for line in series for point in line]
    right = max(x for x, _ in points) or 1.0
    low, high = (math.log10(max(edge(y for _, y in points), 1e-3)) for edge in (min, max))
    low, high = math.floor(low * 2) / 2, max(math.ceil(high * 2) / 2, math.floor(low * 2) / 2 + 0.5)
    grid = [[" "] * (width + 1) for _ in range(height + 1)]
    for mark, line in zip(_MARKS, series, strict=False):
        for x, y in line:
            row = round((math.log10(max(y, 1e-3)) - low) / (high - low) * height)
            grid[height - row][round(x / right * width)] = mark
    lines = [title]
    for at, cells in enumerate(grid):
        value = 10 ** (high - (high - low) * at / height)
        lines.append(
            f"{value:9.4g} ┤{''.join(cells).rstrip()}" if at % 4 == 0 else f"{'':9} │{''.join(cells).rstrip()}"
        )
    lines.append(f"{'':9} └{'─' * (width + 1)}")
    lines.append(f"{'':10} 0{below:^{width - 10}}{right:>9,.4g}")
    return "\n".join(lines)


def save_png(results: Sequence[LoadResult], file: Path) -> None:
    """Raises LoadFailed without matplotlib, OSError."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise LoadFailed("plots need matplotlib: pip install 'fengshou[bench]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    if len(results) > 1:
        _latency_and_cost(results, *axes)
    else:
        _spectrum_and_codes(results[0], *axes)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _latency_and_cost(results: Sequence[LoadResult], left: Any, right: Any) -> None:
    from matplotlib.ticker import LogFormatter

    for percent in _SHOWN:
        left.plot(*zip(*_against_rate(results, percent), strict=True), "o-", label=f"p{percent:g}")
    left.set(yscale="log", xlabel="transactions a second", ylabel="latency, ms", title="latency that terminals see")
    left.yaxis.set_major_formatter(LogFormatter())  # 80 and not 8 × 10¹
    left.yaxis.set_minor_formatter(LogFormatter())
    left.legend()
    right.plot(*zip(*sorted((result.rate, result.switch_us) for result in results), strict=True), "o-")
    right.set_ylim(0, 1.1 * max(result.switch_us for result in results))
    right.set(xlabel="transactions a second", ylabel="µs a transaction", title="CPU of the switch")
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.grid(visible=True, which="both", alpha=0.3)


def _spectrum_and_codes(result: LoadResult, left: Any, right: Any) -> None:
    left.plot([_stretched(percent) for percent in _SPECTRUM], [result.ms(percent) for percent in _SPECTRUM], "o-")
    left.set(xlabel="percent of the answers", ylabel="latency, ms", title=f"{result.rate:,.0f} transactions a second")
    ticks = (50.0, 90.0, 99.0, 99.9, 99.99)
    left.set_xticks([_stretched(percent) for percent in ticks], [f"{percent:g}" for percent in ticks])
    left.grid(visible=True, alpha=0.3)
    used = {
        "switch": result.switch_cpu_s,
        "terminals": result.fleets_cpu_s,
        "others": result.strangers * result.seconds,
    }
    right.bar(list(used), [seconds / result.seconds for seconds in used.values()])
    right.set(ylabel="cores", title="who used the machine")
