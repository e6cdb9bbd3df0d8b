"""What the commands share: where a site is, how errors are told, how tables and JSON are printed."""

import functools
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
import msgspec

if TYPE_CHECKING:  # tables are drawn by what takes a while to read, and programs ask for JSON
    from rich.console import Console

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

# What an operator can mend, by the modules that raise it: none of them need be read before it happens.
_OPERATOR_ERRORS = {
    "fengshou.hsm.custody": "CustodyError",
    "fengshou.hsm.manifest": "ManifestError",
    "fengshou.hsm.pki": "PkiError",
    "fengshou.hsm.x509": "CertificateError",
    "fengshou.protocol.day_file": "DayFileError",
    "fengshou.switch.config": "ConfigError",
    "fengshou.switch.grammar": "ServiceError",
    "fengshou.switch.journal.tables": "JournalError",
    "fengshou.switch.settlement.close": "CloseError",
    "fengshou.switch.settlement.commission": "RatesError",
    "fengshou.switch.stand_in": "StandInError",
    "fengshou.terminals.answers": "TerminalError",
    "fengshou.terminals.csv_rows": "CsvError",
    "fengshou.terminals.home": "HomeError",
    "fengshou.terminals.identity": "CountersError",
    "fengshou.terminals.offline_store": "OfflineError",
    "fengshou.terminals.receipt": "ReceiptInvalid",
    "fengshou.terminals.registry": "RegistryError",
}


def ask_pin(*, confirm: bool = False) -> bytearray:
    """A PIN from the keypad of whoever sits here, ASCII digits; wipe it. It is not shown."""
    return bytearray(click.prompt("PIN", hide_input=True, confirmation_prompt=confirm, err=True).encode())


def is_operators(error: Exception) -> bool:
    """Whether an operator can mend it. A class whose module was never read was not raised either."""
    classes = [getattr(sys.modules[module], name) for module, name in _OPERATOR_ERRORS.items() if module in sys.modules]
    return isinstance(error, tuple(classes))


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """What an operator can mend becomes one line on standard error and exit status 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from None
        except Exception as error:
            if not is_operators(error):
                raise
            raise click.ClickException(str(error)) from None

    return run


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def output_width() -> int:
    """Characters a line of standard output; when that is no terminal, as many as most tables need."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 160


def console() -> "Console":
    """Standard output."""
    from rich.console import Console

    return Console(width=output_width())


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people, with a head where a column has a name; columns of numbers stand to the right, never cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(
        title=title, title_justify="left", show_header=any(columns), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
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
