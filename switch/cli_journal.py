"""Commands that read what was written: ``journal show|verify|receipt``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.padding import Padding
from rich.text import Text

from fengshou.codecs import PublicKey
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.codes import APPROVED, text_of
from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.switch.audit import Finding, verify_journal
from fengshou.switch.cli_common import console, explained, home_option, json_option, print_json, print_table, yuan
from fengshou.switch.clock import Clock, local_time
from fengshou.switch.config import Loaded, load
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.journal import Journal
from fengshou.switch.links import read_certificate
from fengshou.switch.logs import masked
from fengshou.switch.receipts import receipt as make_receipt
from fengshou.switch.recording import Recorder


class _Reader:
    """A journal opened for reading, with the keys to show what is sealed."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.catalogue = Catalogue(load_service(entry.module, entry.options) for entry in loaded.config.service)
        self.custody = SoftwareCustody(loaded.path(loaded.config.files.keys))
        self.journal = Journal(
            loaded.path(loaded.config.files.journal), map_bytes=loaded.config.limits.journal_gib << 30, read_only=True
        )
        self.recorder = Recorder(self.catalogue, self.custody, Clock())

    def switch_key(self) -> PublicKey:
        return read_certificate(self.loaded.path("certificates/switch-sign.crt")).public_key

    def row(self, record: Record) -> dict[str, Any]:
        """A record as people and programs may see it: C2 values masked."""
        template = self.catalogue.grammar.templates.get(record.template)
        return {
            "record": record.number,
            "time": local_time(record.time_us).isoformat(sep=" ", timespec="milliseconds")[:-6],
            "kind": RecordKind(record.kind).name.lower(),
            "message": template.name if template else "",
            "terminal": record.terminal,
            "batch": record.batch,
            "stan": record.stan,
            "rrn": f"{record.rrn:012d}" if record.rrn else "",
            "code": record.code.strip(),
            "refers": record.refers,
            "values": masked(self.catalogue.grammar, self.recorder.values(record)),
        }


_IN_THE_FIRST_LINE = ("terminal", "merchant", "batch", "stan", "response_code", "rrn", "session_binding", "signer")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Two lines a record: what it is, and the values that it carries."""
    out = console()
    for row in rows:
        values = {name: value for name, value in row["values"].items() if name not in _IN_THE_FIRST_LINE}
        if "amount" in values:
            values["amount"] = yuan(int(values["amount"]))
        head = Text(f"{row['record']:>8} ", "dim") + Text(f"{row['time']}  ")
        head += Text(f"{row['kind']:<8} {row['message']:<14} ", "bold")
        head += Text(f"{row['terminal']} {row['batch']}/{row['stan']}")
        if row["rrn"]:
            head += Text(f"  RRN {row['rrn']}")
        if row["code"]:
            head += Text(f"  {row['code']} {text_of(row['code'])}", "green" if row["code"] == APPROVED else "red")
        out.print(head)
        if values:
            out.print(
                Padding(Text(", ".join(f"{name} {value}" for name, value in values.items()), "dim"), (0, 0, 0, 9))
            )


@click.group()
def journal() -> None:
    """Look at the journal, prove it, take receipts from it. Works beside a running switch."""


@journal.command(epilog="Examples: fengshou journal show --last 20, fengshou journal show --rrn 632800000017")
@home_option
@click.option("--last", default=20, show_default=True, help="How many records from the end.")
@click.option("--from", "first", type=int, default=None, help="Show from this record number on instead.")
@click.option("--rrn", type=int, default=None, help="The whole story of one transaction.")
@click.option("--terminal", default=None, help="Only records of this terminal.")
@json_option
@explained
def show(home: Path, last: int, first: int | None, rrn: int | None, terminal: str | None, as_json: bool) -> None:
    """Show records, with card and account numbers masked."""
    reader = _Reader(load(home / "switch.toml"))
    if rrn is not None:
        records = list(_story(reader.journal, rrn))
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


def _story(journal: Journal, rrn: int) -> Iterator[Record]:
    """The intent of an RRN and every record that refers to it."""
    intent = journal.intent_of_rrn(rrn)
    if intent is None:
        return
    yield journal.record(intent)
    for _, data in journal.records(intent + 1):
        record = parse_record(data)
        if record.refers == intent and record.kind != RecordKind.INTENT:
            yield record


@journal.command(epilog="Exit status 1 when anything is not as it was written.")
@home_option
@json_option
@explained
def verify(home: Path, as_json: bool) -> None:
    """Prove every record: Merkle roots, the chain of commits, the switch's signatures, the terminals' signatures."""
    reader = _Reader(load(home / "switch.toml"))
    with click.progressbar(length=reader.journal.next_record - 1, label="verifying", hidden=as_json) as bar:
        finding: Finding = verify_journal(reader.journal, reader.recorder, reader.switch_key(), bar.update)
    if as_json:
        print_json(finding.as_dict())
    else:
        print_table("journal", ("what", "count"), finding.rows())
        for problem in finding.problems:
            click.secho(problem, fg="red")
        click.echo("journal verified" if finding.good else "journal NOT verified")
    if not finding.good:
        raise SystemExit(1)


@journal.command(epilog="docs/PROTOCOL.md shows how to check the files with openssl alone.")
@home_option
@click.argument("rrn", type=int)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=None, help="Write the parts as files.")
@json_option
@explained
def receipt(home: Path, rrn: int, out: Path | None, as_json: bool) -> None:
    """The proof that a transaction's outcome stands in the signed journal."""
    reader = _Reader(load(home / "switch.toml"))
    outcomes = [record for record in _story(reader.journal, rrn) if record.kind == RecordKind.OUTCOME]
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
