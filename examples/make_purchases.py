"""Writes the example data beside this file: ``python examples/make_purchases.py [FOLDER]``.

The same seed gives the same bytes, so the files are committed and a test compares them with what this script writes.
"""

import csv
import io
import random
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cast import make_cast
from mix import make_mix
from season import make_season

from fengshou.ext.data.products import load

SEED = 20_260_605
HEADER = "# Synthetic example data: no person, account, card, merchant or terminal in it exists. Made by {script}.\n"


def table(rows: Iterable[Any], about: str) -> str:
    """Dataclasses as CSV: comment lines, a line of column names, a line each."""
    records = [asdict(row) for row in rows]
    text = io.StringIO()
    text.write(HEADER.format(script=Path(__file__).name) + f"# {about}\n")
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def make(folder: Path) -> None:
    rng = random.Random(SEED)
    cast = make_cast(rng)
    files = {
        "sites.csv": table(cast.sites, "Where terminals stand. town: a number of our own, see README.md."),
        "terminals.csv": table(cast.terminals, "The registry of terminals; services are parted by spaces."),
        "accounts.csv": table(cast.accounts, "Accounts of the core banking host; opening_fen is the opening balance."),
        "purchases.csv": table(
            make_season(rng, cast, load()),
            "Weight in 0.01 kg, unit price in fen per kg, amount in fen. card empty: the terminal's own account pays.",
        ),
        "mix.csv": table(
            make_mix(rng, cast), "Other scenes; expect is the response code. Send the rows of one terminal in order."
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
