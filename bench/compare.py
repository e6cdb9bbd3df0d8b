"""``python -m bench.compare A.json B.json``: what became of each figure from A to B.

``B : A`` is the plain ratio and holds only on one machine in one mood. ``against peers`` sets the ratio to the peer in
B against that in A: a slower machine slows both, so it holds between machines. Below 1 is better, for rates above 1.
"""

import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.figures import Run, load, number


def compare(a: Run, b: Run) -> list[tuple[str, float, float, float, float | None]]:
    """What, A, B, B : A, and the same of the ratios to peers, of each figure that both runs have."""
    before = a.by_key()
    rows = []
    for figure in b.figures:
        old = before.get(figure.key)
        if old is None or not old.value:
            continue
        ratio_a, ratio_b = a.ratio(old), b.ratio(figure)
        against = ratio_b / ratio_a if ratio_a and ratio_b else None
        rows.append((f"{figure.what}, {figure.unit}", old.value, figure.value, figure.value / old.value, against))
    return rows


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        a, b = (load(Path(name)) for name in arguments)
    except (OSError, msgspec.DecodeError) as error:
        print(error, file=sys.stderr)
        return 1
    table = Table()
    for column in ("what", "A", "B", "B : A", "against peers"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, old, new, ratio, against in compare(a, b):
        table.add_row(what, number(old), number(new), f"{ratio:.2f}", "" if against is None else f"{against:.2f}")
    console = Console()
    console.print(table)
    if a.machine["processor"] != b.machine["processor"] or a.machine["cores"] != b.machine["cores"]:
        console.print("Two different machines: only the last column means anything.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
