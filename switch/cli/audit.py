"""``fengshou audit``: the record of what was done to keys, certificates and the registry."""

from pathlib import Path

import click

from fengshou.codecs import PublicKey
from fengshou.hsm import audit_proof
from fengshou.hsm.audit import Record
from fengshou.switch.certificate_files import read_certificates
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table
from fengshou.switch.office import AUDIT_FILE, acting, seal

AUDIT_CERTIFICATE = "certificates/audit-sign.crt"


@click.group()
def audit() -> None:
    """The audit log: written before each act, chained, signed daily. Nobody can take a record away unseen.

    \b
    Examples:
      fengshou audit show --home site --last 20
      fengshou audit verify --home site
    """


@audit.command(epilog="Exit status 1 when anything is not as it was written.")
@home_option
@json_option
@explained
def verify(home: Path, as_json: bool) -> None:
    """Prove every line: its digest, the chain, the daily signatures, the words of people."""
    finding = audit_proof.verify(_log(home), _signers(home))
    if as_json:
        print_json(finding.as_dict())
    else:
        rows = [
            ("records", finding.records),
            ("daily signatures", finding.seals),
            ("records after the last signature", finding.unsigned_tail),
            ("lines cut short by a crash", finding.torn_lines),
            ("words of people", finding.proofs),
            ("acts without an end", len(finding.open_acts)),
        ]
        print_table("audit log", ("what", "count"), rows)
        for problem in finding.problems:
            click.secho(problem, fg="red")
        click.echo("audit log verified" if finding.good else "audit log NOT verified")
    if not finding.good:
        raise SystemExit(1)


@audit.command()
@home_option
@click.option("--last", type=click.IntRange(1), default=40, show_default=True, help="How many records.")
@click.option("--event", default="", help="Only events that begin so, for example keys.")
@json_option
@explained
def show(home: Path, last: int, event: str, as_json: bool) -> None:
    """What was done, by whom, from where, and how it ended."""
    found = [record for record in audit_proof.records(_log(home)) if record.event.startswith(event)][-last:]
    if as_json:
        print_json(found)
        return
    print_table(
        "audit log",
        ("record", "time", "who", "from", "event", "object", "result", "details"),
        [
            (
                record.sequence, record.at[:19].replace("T", " "), f"{record.actor.name} ({record.actor.kind})",
                record.actor.source, record.event, record.object[:24], record.result.value,
                " ".join(filter(None, (record.reason, *_details(record)))),
            )
            for record in found
        ],
    )  # fmt: skip


@audit.command()
@home_option
@explained
def sign(home: Path) -> None:
    """Sign the log as it stands now; a timer does so at the end of each day. The first act of a day does it too."""
    with acting(home, "audit.sign", AUDIT_FILE):
        pass
    click.echo(f"signed in record {seal(home)}")


def _log(home: Path) -> Path:
    """The log's file. A site that was made by a program and never touched by a command has none yet."""
    if not (home / AUDIT_FILE).exists():
        raise click.ClickException(f"{home / AUDIT_FILE} does not exist: no command has changed anything here yet")
    return home / AUDIT_FILE


def _signers(home: Path) -> list[PublicKey]:
    file = home / AUDIT_CERTIFICATE
    return [certificate.public_key for certificate in read_certificates(file)] if file.exists() else []


def _details(record: Record) -> list[str]:
    """Everything but what only a program reads."""
    unread = ("signature", "proof", "key")
    return [f"{name} {value}" for name, value in record.details.items() if name not in unread]
