"""Terminals and sites as CSV files, the form in which a bank hands over its network.

Names in a cell are parted by spaces.
"""

from collections.abc import Iterator
from pathlib import Path

from fengshou.protocol.service import TerminalFacts
from fengshou.terminals.csv_rows import read_rows
from fengshou.terminals.registry import RATE_PER_SECOND_DEFAULT, NewTerminal, Site

_TERMINAL = (
    "terminal", "merchant", "acquirer", "serial", "credit_code", "settlement_account", "channel", "site", "town",
    "services",
)  # fmt: skip


def read_terminals(path: Path, apps: frozenset[str] = frozenset()) -> Iterator[NewTerminal]:
    """The terminals of a file; ``apps`` are for rows that name none. Raises CsvError."""
    for row in read_rows(path, _TERMINAL, ("apps", "rate_per_second")):
        yield NewTerminal(
            TerminalFacts(
                terminal=row.text("terminal"),
                merchant=row.text("merchant"),
                acquirer=row.integer("acquirer"),
                serial=row.text("serial"),
                credit_code=row.text("credit_code"),
                settlement_account=row.text("settlement_account"),
                channel=row.text("channel"),
                site=row.text("site"),
                town=row.integer("town"),
            ),
            services=frozenset(row.text("services").split()),
            apps=frozenset(row.text("apps").split()) or apps,
            rate_per_second=row.integer("rate_per_second") if row.text("rate_per_second") else RATE_PER_SECOND_DEFAULT,
        )


def read_sites(path: Path) -> Iterator[Site]:
    """The sites of a file. Raises CsvError."""
    for row in read_rows(path, ("site", "name", "kind", "town")):
        yield Site(row.text("site"), row.text("name"), row.text("kind"), row.integer("town"))
