"""Commands about what was written: ``journal show|find|verify|receipt|segments|archive|repair``."""

from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.padding import Padding
from rich.text import Text

from fengshou.codecs import PublicKey
from fengshou.protocol.codes import APPROVED, text_of
from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.switch.certificate_files import read_certificates
from fengshou.switch.cli.common import console, explained, home_option, json_option, print_json, print_table, yuan
from fengshou.switch.clock import Clock, local_time, time_us_of
from fengshou.switch.config import Loaded, load
from fengshou.switch.custodies import custody_of
from fengshou.switch.grammar import Catalogue, services_of
from fengshou.switch.journal.audit import Finding, verify_day, verify_journal
from fengshou.switch.journal.audit_indexes import Indexes, verify_columns
from fengshou.switch.journal.audit_pages import verify_pages
from fengshou.switch.journal.columns import Wanted
from fengshou.switch.journal.days import archive as archive_day
from fengshou.switch.journal.days import prove
from fengshou.switch.journal.find import Place, find
from fengshou.switch.journal.lines import Segment
from fengshou.switch.journal.repair import repair as repair_journal
from fengshou.switch.journal.store import Journal
from fengshou.switch.journal.tables import JournalError, segment_name, spans
from fengshou.switch.masking import masked
from fengshou.switch.receipts import receipt as make_receipt
from fengshou.switch.recording import Recorder, pseudonyms

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
_file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="Read this sealed day, wherever it lies, in the place of the journal.",
)


class Reader:
    """A journal opened for reading, with the keys to show what is sealed."""

    def __init__(self, loaded: Loaded, file: Path | None = None, *, scattered: bool = False) -> None:
        """``file`` is a sealed day to read in the place of the journal; ``scattered`` as of ``Journal``.

        Raises JournalError.
        """
        self.loaded = loaded
        self._scattered = scattered
        self.catalogue = Catalogue(services_of(loaded.config))
        self.custody = custody_of(loaded)
        self.segment = Segment(file, scattered=scattered) if file else None
        self.recorder = Recorder(self.catalogue, self.custody, Clock())

    @cached_property
    def journal(self) -> Journal:
        limits, files = self.loaded.config.limits, self.loaded.config.files
        return Journal(
            self.loaded.path(files.journal),
            map_bytes=limits.journal_gib << 30,
            read_only=True,
            scattered=self._scattered,
        )

    def switch_keys(self) -> list[PublicKey]:
        """Every epoch that ever signed, the newest first."""
        file = self.loaded.path("certificates/switch-sign.crt")
        return [certificate.public_key for certificate in read_certificates(file)]

    def story(self, rrn: int) -> list[Record]:
        """Everything about one transaction, see ``journal.find``; empty when there is none."""
        found = find(Place(self.journal), Wanted(rrn=rrn))
        return found.stories[0] if found.stories else []

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
    reader = Reader(load(home / "switch.toml"), scattered=rrn is not None)
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


@journal.command(
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
@_file_option
@json_option
@explained
def search(
    home: Path, rrn: int, stan: int, terminal: str, card: str, since: datetime | None, until: datetime | None,
    limit: int, file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell the whole story of transactions: sign-in, intent, outcome, late answers, reversals."""
    reader = Reader(load(home / "switch.toml"), file, scattered=True)
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


@journal.command(epilog="Exit status 1 when anything is not as it was written.")
@home_option
@click.option("--day", type=int, default=0, metavar="YYYYMMDD", help="Only the commits of this business day.")
@_file_option
@json_option
@explained
def verify(home: Path, day: int, file: Path | None, as_json: bool) -> None:
    """Prove every record: Merkle roots, the chain of commits, the switch's signatures, the terminals' signatures.

    Before that every page of the files is read, and after it every index is compared with the records.
    """
    loaded = load(home / "switch.toml")
    finding = Finding()
    folder = loaded.path(loaded.config.files.journal)
    files = [file] if file else [folder / segment_name(day)] if day else sorted(folder.glob("*.mdb"))
    with click.progressbar(
        [each for each in files if each.exists() and each.name != "lock.mdb"], label="reading pages", hidden=as_json
    ) as bar:
        for each in bar:
            verify_pages(each, finding)
    if finding.good:
        finding = _verify_records(Reader(loaded, file), day, quiet=as_json)
    else:
        finding.wrong("nothing behind these pages was followed; `fengshou journal repair OUT` copies what is good")
    if as_json:
        print_json(finding.as_dict())
    else:
        print_table("journal", ("what", "count"), finding.rows())
        for absent in finding.absent:
            click.echo(f"day {absent} is archived and was not read; the chain spans it")
        for problem in finding.problems:
            click.secho(problem, fg="red")
        click.echo("journal verified" if finding.good else "journal NOT verified")
    if not finding.good:
        raise SystemExit(1)


def _verify_records(reader: Reader, day: int, *, quiet: bool) -> Finding:
    """``day`` 0: all of them, with all indexes."""
    keys = reader.switch_keys()
    if reader.segment is not None:
        finding = verify_day(reader.segment, reader.recorder, keys)
        verify_columns(reader.segment, reader.segment.day.first_record, reader.segment.day.last_record, finding)
        return finding
    records = 0 if day else reader.journal.next_record - 1
    with click.progressbar(length=records, label="proving records", hidden=quiet or bool(day)) as bar:
        finding = verify_journal(reader.journal, reader.recorder, keys, bar.update, day)
    if day:
        return finding
    with click.progressbar(length=records, label="comparing indexes", hidden=quiet) as bar:
        Indexes(reader.journal, reader.catalogue, reader.recorder, finding).verify(bar.update)
    return finding


@journal.command(epilog="docs/PROTOCOL.md shows how to check the files with openssl alone.")
@home_option
@click.argument("rrn", type=int)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=None, help="Write the parts as files.")
@json_option
@explained
def receipt(home: Path, rrn: int, out: Path | None, as_json: bool) -> None:
    """The proof that a transaction's outcome stands in the signed journal."""
    reader = Reader(load(home / "switch.toml"), scattered=True)
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


@journal.command()
@home_option
@click.option("--prove", "proved", is_flag=True, help="Read every file and prove its roots, its chain and its end.")
@json_option
@explained
def segments(home: Path, proved: bool, as_json: bool) -> None:
    """List the business days: where their records are, how many, how large."""
    reader = Reader(load(home / "switch.toml"))
    rows = []
    for day, last in spans(reader.journal.days()):
        path = reader.journal.segments.path(day.day)
        state, size = "in the store", 0
        if day.sealed:
            state, size = ("sealed", path.stat().st_size) if path.exists() else ("archived", 0)
        if proved and state == "sealed":
            try:
                state = "proven" if prove(path) == day else "ANOTHER DAY'S FILE"
            except JournalError as error:
                state = f"BAD: {error}"
        records = (last or reader.journal.next_record - 1) - day.first_record + 1
        rows.append(
            {"day": day.day, "first_record": day.first_record, "records": records, "bytes": size, "state": state}
        )
    if as_json:
        print_json(rows)
    else:
        print_table(
            "business days", ("day", "first record", "records", "bytes", "state"), [[*row.values()] for row in rows]
        )
    if any(str(row["state"])[:3] in ("BAD", "ANO") for row in rows):
        raise SystemExit(1)


@journal.command(epilog="To read an archived day again, copy its file back, or name it with --file.")
@home_option
@click.option("--day", type=int, required=True, metavar="YYYYMMDD")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the copy.")
@click.option("--remove", is_flag=True, help="Then take the day out of the journal's folder.")
@explained
def archive(home: Path, day: int, to: Path, remove: bool) -> None:
    """Copy a sealed day elsewhere and prove the copy. Works beside a running switch."""
    reader = Reader(load(home / "switch.toml"))
    row = next((known for known in reader.journal.days() if known.day == day), None)
    if row is None:
        raise click.ClickException(f"the journal has no day {day}")
    target = archive_day(reader.journal, row, to, remove=remove)
    click.echo(f"{target}: records {row.first_record} to {row.last_record}, proven")
    click.echo("removed from the journal's folder" if remove else "the journal's own file may be removed with --remove")


@journal.command(epilog="Exit status 1: something is lost. Compare with the hosts' books before you go on.")
@home_option
@click.argument("out", type=click.Path(path_type=Path))
@json_option
@explained
def repair(home: Path, out: Path, as_json: bool) -> None:
    """Copy what is provably good of a torn journal to OUT; the switch must not be running.

    OUT gets a report beside it, OUT.txt and OUT.json. To use the copy, move the torn folder away and put OUT in its
    place.
    """
    loaded = load(home / "switch.toml")
    report = repair_journal(loaded.path(loaded.config.files.journal), out)
    lines = list(report.lines())
    out.with_name(out.name + ".txt").write_text("\n".join(lines) + "\n", "utf-8")
    out.with_name(out.name + ".json").write_bytes(msgspec.json.format(msgspec.json.encode(report.as_dict()), indent=1))
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo("\n".join(lines))
    if not report.complete:
        raise SystemExit(1)
