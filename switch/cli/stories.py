"""Commands that show what was written: ``journal show|find|receipt``."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from fengshou.protocol.codes import APPROVED, text_of
from fengshou.protocol.record import RecordKind, parse_record
from fengshou.switch.cli.common import (
    explained,
    home_option,
    json_option,
    output_width,
    pairs,
    print_json,
    print_table,
    yuan,
)
from fengshou.switch.cli.reader import Reader, file_option
from fengshou.switch.clock import time_us_of
from fengshou.switch.config import load
from fengshou.switch.journal.columns import Wanted
from fengshou.switch.journal.find import Place, find
from fengshou.switch.receipts import receipt as make_receipt
from fengshou.switch.recording import pseudonyms

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
_IN_THE_FIRST_LINE = ("terminal", "merchant", "batch", "stan", "response_code", "rrn", "session_binding", "signer")
_INDENT = " " * 9


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Two lines a record: what it is, and the values that it carries."""
    for row in rows:
        values = {name: value for name, value in row["values"].items() if name not in _IN_THE_FIRST_LINE}
        if "amount" in values:
            values["amount"] = yuan(int(values["amount"]))
        head = click.style(f"{row['record']:>8}", dim=True)
        head += f" {row['time']}  " + click.style(f"{row['kind']:<8} {row['message']:<14}", bold=True)
        head += f" {row['terminal']} {row['batch']}/{row['stan']}"
        if row["rrn"]:
            head += f"  RRN {row['rrn']}"
        if row["code"]:
            colour = "green" if row["code"] == APPROVED else "red"
            head += click.style(f"  {row['code']} {text_of(row['code'])}", fg=colour)
        click.echo(head)
        if values:
            click.secho(click.wrap_text(pairs(values), output_width(), _INDENT, _INDENT), dim=True)


@click.command(epilog="Examples: fengshou journal show --last 20, fengshou journal show --rrn 632800000017")
@home_option
@click.option("--last", default=20, show_default=True, help="How many records from the end.")
@click.option("--from", "first", type=int, default=None, help="Show from this record number on instead.")
@click.option("--rrn", type=int, default=None, help="The whole story of one transaction.")
@click.option("--terminal", default=None, help="Only records of this terminal.")
@json_option
@explained
def show(home: Path, last: int, first: int | None, rrn: int | None, terminal: str | None, as_json: bool) -> None:
    """Show records, with card and account numbers masked."""
    reader = Reader(load(home / "switch.toml"), readahead=terminal is not None)
    if rrn is not None:
        records = reader.story(rrn)
        if not records:
            raise click.ClickException(f"no transaction has RRN {rrn:012d}")
    else:
        start = (
            first if first is not None else max(1, reader.journal.next_record - (last if terminal is None else 10**9))
        )
        records = []
        for _, data in reader.journal.records(start):
            record = parse_record(data)
            if terminal is None or record.terminal == terminal:
                records.append(record)
            if first is not None and len(records) >= last:
                break
        records = records[:last] if first is not None else records[-last:]
    rows = [reader.row(record) for record in records]
    if as_json:
        print_json(rows)
    else:
        _print_rows(rows)


@click.command(
    name="find",
    epilog="Examples: fengshou journal find --card 6217001234567890123, "
    "fengshou journal find --terminal FS000001 --since 2026-11-24T08:00",
)
@home_option
@click.option("--rrn", type=int, default=0, help="Retrieval reference number.")
@click.option("--stan", type=int, default=0, help="The terminal's trace number.")
@click.option("--terminal", default="", help="Terminal identification.")
@click.option("--card", default="", help="Card or account number; only its keyed hash is looked for.")
@click.option("--since", type=_MOMENT, default=None, help="Written at this moment or later, China's time.")
@click.option("--until", type=_MOMENT, default=None, help="Written before this moment.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Newest transactions shown.")
@file_option
@json_option
@explained
def search(
    home: Path, rrn: int, stan: int, terminal: str, card: str, since: datetime | None, until: datetime | None,
    limit: int, file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell the whole story of transactions: sign-in, intent, outcome, late answers, reversals."""
    reader = Reader(load(home / "switch.toml"), file)
    tag = bytes.fromhex(pseudonyms(reader.custody)(card)) if card else b""
    found = find(
        Place(reader.segment or reader.journal),
        Wanted(rrn, terminal, stan, tag),
        since_us=time_us_of(since) if since else 0,
        until_us=time_us_of(until) if until else 1 << 62,
        limit=limit,
    )
    if as_json:
        stories = [[reader.row(record) for record in story] for story in found.stories]
        print_json({"stories": stories, "absent_days": found.absent, "more": found.more})
        return
    for story in found.stories:
        _print_rows([reader.row(record) for record in story])
        click.echo()
    for day in found.absent:
        click.secho(f"day {day} is archived and was not searched: use --file", fg="yellow")
    more = "; older ones are left out, see --limit" if found.more else ""
    click.echo(f"{len(found.stories)} found{more}")


@click.command(epilog="docs/PROTOCOL.md shows how to check the files with openssl alone.")
@home_option
@click.argument("rrn", type=int)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=None, help="Write the parts as files.")
@json_option
@explained
def receipt(home: Path, rrn: int, out: Path | None, as_json: bool) -> None:
    """The proof that a transaction's outcome stands in the signed journal."""
    reader = Reader(load(home / "switch.toml"))
    outcomes = [record for record in reader.story(rrn) if record.kind == RecordKind.OUTCOME and record.rrn == rrn]
    if not outcomes:
        raise click.ClickException(f"no outcome for RRN {rrn:012d}")
    proof = make_receipt(reader.journal, outcomes[0].number)
    if proof is None:
        raise click.ClickException("its commit is not signed yet; try again in a moment")
    parts = {reader.catalogue.grammar.elements[key].name: value for key, value in proof.items()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, value in parts.items():
            if isinstance(value, bytes):
                (out / name).write_bytes(value)
            else:
                (out / name).write_text(f"{value}\n")
        click.echo(f"wrote {', '.join(parts)} to {out}")
    elif as_json:
        print_json({name: value.hex() if isinstance(value, bytes) else value for name, value in parts.items()})
    else:
        print_table(
            f"receipt of {rrn:012d}",
            ("part", "value"),
            [(name, value.hex() if isinstance(value, bytes) else value) for name, value in parts.items()],
        )
        print_table("the record says", ("", ""), list(reader.row(outcomes[0]).items()))
