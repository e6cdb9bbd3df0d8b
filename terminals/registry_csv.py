"""Terminals as a CSV file, the form in which a bank hands over its fleet.

One line a terminal, with a header; lines that begin with # are comments. Names in a cell are parted by spaces.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from fengshou.protocol.service import TerminalFacts
from fengshou.terminals.registry import RATE_PER_SECOND_DEFAULT, NewTerminal, RegistryError

_REQUIRED = (
    "terminal", "merchant", "acquirer", "serial", "credit_code", "settlement_account", "channel", "site", "town",
    "services",
)  # fmt: skip
_OPTIONAL = ("apps", "rate_per_second")


def read_terminals(path: Path, apps: frozenset[str] = frozenset()) -> Iterator[NewTerminal]:
    """The terminals of a file; ``apps`` are for lines that name none.

    Raises RegistryError with the line: a column is missing or unknown, a cell is missing or no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = [(number, line) for number, line in enumerate(file, 1) if line.strip() and not line.startswith("#")]
    reader = csv.DictReader((line for _, line in lines), strict=True)
    columns = reader.fieldnames or ()
    for column in _REQUIRED:
        if column not in columns:
            raise RegistryError(f"{path}: no column {column}")
    for column in columns:
        if column not in _REQUIRED + _OPTIONAL:
            raise RegistryError(f"{path}: unknown column {column}")
    for row in reader:
        number = lines[reader.line_num - 1][0]
        if None in row or None in row.values():
            raise RegistryError(f"{path} line {number}: {len(columns)} cells are expected")
        yield NewTerminal(
            TerminalFacts(
                row["terminal"],
                row["merchant"],
                _integer(path, number, row, "acquirer"),
                row["serial"],
                row["credit_code"],
                row["settlement_account"],
                row["channel"],
                row["site"],
                _integer(path, number, row, "town"),
            ),
            services=frozenset(row["services"].split()),
            apps=frozenset(row.get("apps", "").split()) or apps,
            rate_per_second=_integer(path, number, row, "rate_per_second")
            if row.get("rate_per_second")
            else RATE_PER_SECOND_DEFAULT,
        )


def _integer(path: Path, number: int, row: dict[str, str], column: str) -> int:
    text = row[column]
    if not (text.isascii() and text.isdecimal()):
        raise RegistryError(f"{path} line {number}: {column} is no number")
    return int(text)
