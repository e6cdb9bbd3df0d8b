"""Commands that prove and keep what was written: ``journal verify|segments|archive|repair``."""

from pathlib import Path

import click
import msgspec

from fengshou.codecs import PublicKey
from fengshou.switch.certificate_files import read_certificates
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table
from fengshou.switch.cli.reader import Reader, file_option
from fengshou.switch.config import Loaded, load
from fengshou.switch.journal.audit import Finding, verify_day, verify_journal
from fengshou.switch.journal.audit_columns import hashes_of, verify_columns
from fengshou.switch.journal.audit_indexes import Indexes
from fengshou.switch.journal.audit_pages import verify_pages
from fengshou.switch.journal.days import archive as archive_day
from fengshou.switch.journal.days import prove
from fengshou.switch.journal.repair import repair as repair_journal
from fengshou.switch.journal.tables import JournalError, segment_name, spans
from fengshou.switch.recording import pseudonyms


@click.command(epilog="Exit status 1 when anything is not as it was written.")
@home_option
@click.option("--day", type=int, default=0, metavar="YYYYMMDD", help="Only the commits of this business day.")
@click.option("--hashes", is_flag=True, help="Make the keyed hashes of cards and accounts again, too; takes the keys.")
@file_option
@json_option
@explained
def verify(home: Path, day: int, hashes: bool, file: Path | None, as_json: bool) -> None:
    """Prove every record: Merkle roots, the chain of commits, the switch's signatures, the terminals' signatures.

    Before that every page of the files is read, and after it every index is compared with the records.
    """
    if day and hashes:
        raise click.UsageError("--hashes looks at the whole journal, or at a sealed day that --file names")
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
        finding = _verify_records(Reader(loaded, file, readahead=True), day, hashes=hashes, quiet=as_json)
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


def _switch_keys(loaded: Loaded) -> list[PublicKey]:
    """Every epoch that ever signed, the newest first."""
    return [certificate.public_key for certificate in read_certificates(loaded.path("certificates/switch-sign.crt"))]


def _verify_records(reader: Reader, day: int, *, hashes: bool, quiet: bool) -> Finding:
    """``day`` 0: all of them, with all indexes."""
    again = hashes_of(reader.recorder, pseudonyms(reader.custody)) if hashes else None
    keys = _switch_keys(reader.loaded)
    if reader.segment is not None:
        finding = verify_day(reader.segment, reader.recorder, keys)
        sealed = reader.segment.day
        verify_columns(reader.segment, sealed.first_record, sealed.last_record, finding, hashes=again)
        return finding
    records = 0 if day else reader.journal.next_record - 1
    with click.progressbar(length=records, label="proving records", hidden=quiet or bool(day)) as bar:
        finding = verify_journal(reader.journal, reader.recorder, keys, bar.update, day)
    if day:
        return finding
    with click.progressbar(length=records, label="comparing indexes", hidden=quiet) as bar:
        Indexes(reader.journal, reader.catalogue, reader.recorder, finding, again).verify(bar.update)
    return finding


@click.command()
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


@click.command(epilog="To read an archived day again, copy its file back, or name it with --file.")
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


@click.command(epilog="Exit status 1: something is lost. Compare with the hosts' books before you go on.")
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
