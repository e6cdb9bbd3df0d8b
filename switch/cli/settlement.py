"""``fengshou settle``: what a day, a batch, a merchant, a site came to, and whether a host's books agree.

Every command works beside a running switch. Tables show yuan; ``--csv`` and ``--json`` have fen, as integers.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from fengshou.hsm.custody import Custody
from fengshou.protocol.batch import BatchState, Totals
from fengshou.protocol.day_file import read_day_file
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table, yuan
from fengshou.switch.clock import Clock
from fengshou.switch.config import Loaded, load
from fengshou.switch.custodies import custody_of
from fengshou.switch.grammar import Catalogue, services_of
from fengshou.switch.hosting import write_day_file
from fengshou.switch.journal.store import Journal
from fengshou.switch.recording import Recorder
from fengshou.switch.settlement.close import close_month
from fengshou.switch.settlement.commission import commissions, load_rates
from fengshou.switch.settlement.days import file_of, missing, write_day
from fengshou.switch.settlement.reconcile import compare
from fengshou.switch.settlement.reports import Group, Progress, Sums, grouped, indicators, total
from fengshou.switch.settlement.totals import Counted, Settlements, differences
from fengshou.terminals.registry import Registry

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Books:
    """The journal of a site, opened for reading."""

    loaded: Loaded
    custody: Custody
    journal: Journal
    settlements: Settlements
    today: int

    def counted(self, days: tuple[int, int], quiet: bool) -> Iterator[Counted]:
        """What counts on these days, while a bar on standard error shows how far the journal is read."""
        records = self.journal.next_record - 1
        with click.progressbar(
            length=records, label="reading", file=sys.stderr, hidden=quiet or not sys.stderr.isatty()
        ) as bar:
            yield from Progress(bar.update).of(self.settlements.days(*days))

    def days(self, day: int | None, month: int | None) -> tuple[int, int]:
        """First and last day of what was asked for; today without an answer."""
        if month is not None:
            return month * 100 + 1, month * 100 + 31
        return (day or self.today,) * 2

    def sites(self) -> Mapping[str, tuple[str, int]]:
        """Site and town of each terminal."""
        with Registry.open(self.loaded.path(self.loaded.config.files.registry), self.custody) as registry:
            rows = registry.snapshot().terminals.values()
            return {row.facts.terminal: (row.facts.site, row.facts.town) for row in rows}


@contextmanager
def _books(home: Path) -> Iterator[_Books]:
    loaded = load(home / "switch.toml")
    config = loaded.config
    custody = custody_of(loaded)
    catalogue = Catalogue(services_of(config))
    clock = Clock(config.cut_over.rule())
    journal = Journal(
        loaded.path(config.files.journal),
        map_bytes=config.limits.journal_gib << 30,
        read_only=True,
        readahead=True,
    )
    try:
        settlements = Settlements(journal, catalogue, Recorder(catalogue, custody, clock))
        yield _Books(loaded, custody, journal, settlements, clock.business_day(clock.now_us()))
    finally:
        journal.close()


class _Date(click.ParamType[int]):
    """YYYYMMDD, or YYYYMM."""

    def __init__(self, name: str, digits: int) -> None:
        self.name = name
        self._digits = digits

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if len(text) != self._digits or not (text.isascii() and text.isdecimal()) or not 1 <= int(text[4:6]) <= 12:
            self.fail(f"{text!r} is not {self.name}", param, ctx)
        return int(text)


DAY, MONTH = _Date("YYYYMMDD", 8), _Date("YYYYMM", 6)

_day = click.option("--day", type=DAY, default=None, help="Business day; today by default.")
_month = click.option("--month", type=MONTH, default=None, help="A whole month instead.")
_csv = click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write the rows as CSV."
)


@click.group()
def settle() -> None:
    """What a day came to, and whether everybody agrees.

    \b
    Examples:
      fengshou settle day --home site                        today, by service
      fengshou settle merchant --month 202611 --csv m.csv    a month, by merchant
      fengshou settle batch --differing                      what the bank must look at
      fengshou settle dayfile core-banking --day 20261124 --out day.csv
      fengshou settle reconcile --day 20261124 day.csv       exit status 1 when unequal
      fengshou settle commission --month 202611 --rates examples/commission.toml
    """


def _tell(title: str, rows: Rows, csv_file: Path | None) -> None:
    """A table for people, and the file."""
    if csv_file is not None:
        with csv_file.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if not rows:
        click.echo(f"{title}: nothing")
        return
    columns = [
        name.removesuffix("_fen").replace("_", " ") + (" yuan" if name.endswith("_fen") else "") for name in rows[0]
    ]
    cells = [
        ["" if value is None else yuan(value) if name.endswith("_fen") else value for name, value in row.items()]
        for row in rows
    ]
    print_table(title, columns, cells)


def _sums(names: Sequence[str], sums: Mapping[Group, Sums]) -> list[dict[str, Any]]:
    rows = [{**dict(zip(names, group, strict=True)), **asdict(one)} for group, one in sums.items()]
    if rows:
        rows.append({**dict.fromkeys(names, ""), names[0]: "total", **asdict(total(sums.values()))})
    return rows


def _report(
    home: Path, days: tuple[int | None, int | None], names: Sequence[str], csv_file: Path | None, as_json: bool,
    group: Callable[[_Books], Callable[[Counted], Group]],
) -> tuple[dict[Group, Sums], list[dict[str, Any]]]:  # fmt: skip
    """Group what counts; the table is printed here, JSON by the caller, who may have more to say."""
    with _books(home) as books:
        first, last = books.days(*days)
        sums = grouped(books.counted((first, last), quiet=as_json), group(books))
    rows = _sums(names, sums)
    if not as_json:
        period = str(first) if first == last else str(first // 100)
        _tell(f"business {'day' if first == last else 'month'} {period}", rows, csv_file)
    return sums, rows


@settle.command(epilog="Example: fengshou settle day --day 20261124 --counter 320")
@home_option
@_day
@_month
@click.option("--counter", type=click.IntRange(min=0), default=None, help="Services that the counters gave meanwhile.")
@_csv
@json_option
@explained
def day(
    home: Path, day: int | None, month: int | None, counter: int | None, csv_file: Path | None, as_json: bool
) -> None:
    """A day or month by service, and what it was good for: fees and trips saved, counters relieved."""
    sums, rows = _report(home, (day, month), ("service",), csv_file, as_json, lambda _: lambda one: (one.service,))
    found = indicators(sums, counter)
    if as_json:
        print_json({"services": rows, "indicators": asdict(found)})
        return
    share = found.substitution_per_mille
    print_table(
        "what it was good for",
        ("", ""),
        [
            ("served", found.served),
            ("moved", f"{yuan(found.fen)} yuan"),
            ("fees that farmers saved", f"{yuan(found.fees_saved_fen)} yuan"),
            ("trips saved", found.trips_saved),
            (
                "share that needed no counter",
                "give --counter" if share is None else f"{share // 10}.{share % 10} %",
            ),
        ],
    )


@settle.command(epilog="Example: fengshou settle merchant --month 202611 --csv merchants.csv")
@home_option
@_day
@_month
@_csv
@json_option
@explained
def merchant(home: Path, day: int | None, month: int | None, csv_file: Path | None, as_json: bool) -> None:
    """A day or month by merchant and terminal."""
    names = ("merchant", "terminal")
    _, rows = _report(home, (day, month), names, csv_file, as_json, lambda _: lambda one: (one.merchant, one.terminal))
    if as_json:
        print_json(rows)


@settle.command(epilog="Example: fengshou settle site --month 202611")
@home_option
@_day
@_month
@_csv
@json_option
@explained
def site(home: Path, day: int | None, month: int | None, csv_file: Path | None, as_json: bool) -> None:
    """A day or month by site, and the town where it stands."""

    def group(books: _Books) -> Callable[[Counted], Group]:
        sites = books.sites()

        def of(one: Counted) -> Group:
            name, town = sites.get(one.terminal, ("", 0))
            return name, str(town)

        return of

    _, rows = _report(home, (day, month), ("site", "town"), csv_file, as_json, group)
    if as_json:
        print_json(rows)


@settle.command(epilog="Example: fengshou settle batch --terminal FS000001 --batch 7")
@home_option
@click.option("--terminal", default=None, help="Only this terminal's.")
@click.option("--batch", "number", type=int, default=None, help="Only this one.")
@click.option("--differing", is_flag=True, help="Only those that are not in balance.")
@_csv
@json_option
@explained
def batch(
    home: Path, terminal: str | None, number: int | None, differing: bool, csv_file: Path | None, as_json: bool
) -> None:
    """Batches that terminals settled, and every transaction on which a batch and the journal differ."""
    rows, details = [], []
    with _books(home) as books:
        for of_terminal, of_merchant, batch_number in books.settlements.settled():
            if terminal not in (None, of_terminal) or number not in (None, batch_number):
                continue
            found = books.settlements.batch(of_terminal, of_merchant, batch_number)
            if found is None or (differing and found.state is BatchState.BALANCED):
                continue
            ours, theirs = Totals.of(found.lines), found.stated or Totals()
            rows.append(
                {
                    "terminal": of_terminal, "batch": batch_number,
                    "state": found.state.name.lower().replace("_", " "),
                    **asdict(ours), **{f"stated_{name}": value for name, value in asdict(theirs).items()},
                }
            )  # fmt: skip
            details += [
                {
                    "terminal": of_terminal, "batch": batch_number, "stan": one.stan, "what": one.difference.value,
                    "journal_fen": one.ours.fen if one.ours else None,
                    "terminal_fen": one.theirs.fen if one.theirs else None,
                }
                for one in differences(found)
            ]  # fmt: skip
    if as_json:
        print_json({"batches": rows, "differences": details})
        return
    _tell("batches", rows, csv_file)
    if details:
        _tell("differences", details, None)


@settle.command("dayfile", epilog="Example: fengshou settle dayfile core-banking --day 20261124 --out day.csv")
@home_option
@click.argument("name")
@click.option("--day", type=DAY, required=True, help="Business day.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@explained
def dayfile(home: Path, name: str, day: int, out: Path) -> None:
    """Write what an embedded back end booked on a day, as the bank's own host would deliver it."""
    with out.open("wb") as file:
        write_day_file(home / "hosts" / name, day, file)
    click.echo(f"wrote {out}")


def _lines(file: Path, quiet: bool) -> Iterator[bytes]:
    """The lines of a file, while a bar on standard error shows how far it is read."""
    size, hidden = file.stat().st_size, quiet or not sys.stderr.isatty()
    with (
        file.open("rb") as lines,
        click.progressbar(
            length=size, label="reading file", file=sys.stderr, hidden=hidden, update_min_steps=size // 100
        ) as bar,
    ):
        for line in lines:
            bar.update(len(line))
            yield line


@settle.command(epilog="Exit status 1 when there is any difference. docs/OPERATIONS.md describes the file.")
@home_option
@_day
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_csv
@json_option
@explained
def reconcile(home: Path, day: int | None, file: Path, csv_file: Path | None, as_json: bool) -> None:
    """Compare the journal's day with a host's file, in both directions, to the fen."""
    books_of_host = read_day_file(_lines(file, quiet=as_json))
    wanted = books_of_host.business_day if day is None else day
    if wanted != books_of_host.business_day:
        raise click.ClickException(f"{file} is of {books_of_host.business_day}, not of {wanted}")
    with _books(home) as books:
        counted = books.counted((wanted, wanted), quiet=as_json)
        standing = {one.rrn: one.fen for one in counted if one.side is not None}
    result = compare(standing, books_of_host.posted)
    rows = [
        {"rrn": f"{one.rrn:012d}", "what": one.what, "journal_fen": one.journal_fen, "books_fen": one.books_fen}
        for one in result.discrepancies
    ]
    facts = {"day": wanted, "host": books_of_host.host, "transactions": result.transactions, "fen": result.fen}
    if as_json:
        print_json({**facts, "equal": result.equal, "differences": rows})
    elif result.equal:
        click.echo(f"{wanted}: equal, {result.transactions} transactions, {yuan(result.fen)} yuan")
    else:
        _tell(f"{wanted}: differences with {books_of_host.host}", rows, csv_file)
    if not result.equal:
        raise SystemExit(1)


@settle.command("close-days", epilog="The running switch does this by itself: HOME/settlement/day-YYYYMMDD.csv.")
@home_option
@json_option
@explained
def close_days(home: Path, as_json: bool) -> None:
    """Write the file of each business day that is over and has nothing undecided, once."""
    folder = home / "settlement"
    with _books(home) as books:
        days = missing(books.journal, folder)
        for day in [day for day, undecided in days.items() if not undecided]:
            write_day(folder, day, books.counted((day, day), quiet=True))
    if as_json:
        print_json([{"day": day, "written": not undecided} for day, undecided in days.items()])
        return
    for day, undecided in days.items():
        click.echo(f"{day}: {'waits for what is undecided' if undecided else file_of(folder, day)}")


@settle.command(epilog="A closed month is written once and stays: HOME/settlement/commission-YYYYMM.csv.")
@home_option
@click.option("--month", type=MONTH, required=True)
@click.option(
    "--rates",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="Rate table, TOML, as examples/commission.toml.",
)
@click.option("--close", is_flag=True, help="The month is over: keep the result.")
@_csv
@json_option
@explained
def commission(home: Path, month: int, rates: Path, close: bool, csv_file: Path | None, as_json: bool) -> None:
    """What the bank owes each merchant for what was served in a month."""
    table = load_rates(rates)
    with _books(home) as books:
        today, counted = books.today, books.counted(books.days(None, month), quiet=as_json)
        earned = commissions(counted, table)
    rows = [asdict(one) for one in earned]
    if close:
        click.echo(f"closed {month}: {close_month(home / 'settlement', month, today, earned)}", err=True)
    if as_json:
        print_json(rows)
        return
    if rows:
        sums = {name: sum(row[name] for row in rows) for name in rows[0] if name != "merchant"}
        rows.append({"merchant": "total", **sums})
    _tell(f"commission for {month}", rows, csv_file)
