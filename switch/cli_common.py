"""What the commands share: where a site is, how errors are told, how tables and JSON are printed."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fengshou.hsm.custody import CustodyError
from fengshou.hsm.manifest import ManifestError
from fengshou.hsm.pki import PkiError
from fengshou.hsm.x509 import CertificateError
from fengshou.protocol.day_file import DayFileError
from fengshou.switch.config import ConfigError
from fengshou.switch.grammar import ServiceError
from fengshou.switch.journal import JournalError
from fengshou.switch.settlement_close import CloseError
from fengshou.switch.settlement_commission import RatesError
from fengshou.switch.stand_in import StandInError
from fengshou.terminals.answers import TerminalError
from fengshou.terminals.csv_rows import CsvError
from fengshou.terminals.home import HomeError
from fengshou.terminals.identity import CountersError
from fengshou.terminals.offline_store import OfflineError
from fengshou.terminals.receipt import ReceiptInvalid
from fengshou.terminals.registry import RegistryError

P = ParamSpec("P")
R = TypeVar("R")

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    show_default="this folder",
    envvar="FENGSHOU_HOME",
    show_envvar=True,
    help="The site's folder, made by `fengshou init`.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

OPERATOR_ERRORS = (
    ConfigError, CustodyError, PkiError, CertificateError, ManifestError, ServiceError, JournalError, RegistryError,
    CsvError, HomeError, CountersError, TerminalError, ReceiptInvalid, OfflineError, DayFileError, RatesError,
    CloseError, StandInError,
)  # fmt: skip


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """What an operator can mend becomes one line on standard error and exit status 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except OPERATOR_ERRORS as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from None

    return run


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def console() -> Console:
    """Standard output; when that is no terminal, lines are as long as they need to be for most tables."""
    out = Console()
    return out if out.is_terminal else Console(width=160)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; columns whose cells are numbers stand to the right and are never cut."""
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        numeric = all(
            row[index].replace(".", "").replace(",", "").lstrip("-").isdecimal() for row in cells if row[index]
        )
        right = numeric and bool(cells)
        table.add_column(Text(column), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console().print(table)


def yuan(fen: int) -> str:
    """Fen as yuan with two decimals."""
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100:,}.{abs(fen) % 100:02d}"


def pairs(values: Mapping[str, object]) -> str:
    """``name value`` of each, for a cell."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"
