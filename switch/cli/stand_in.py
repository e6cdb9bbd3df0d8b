"""``fengshou stand-in``: the bank's limits of standing in for core banking, and what came of it."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from fengshou.hsm.files import write_public
from fengshou.hsm.software import SoftwareCustody
from fengshou.hsm.x509 import CustodySigner
from fengshou.switch import stand_in
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table, yuan
from fengshou.switch.clock import Clock
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.grammar import Catalogue, services_of
from fengshou.switch.journal.store import Journal
from fengshou.switch.recording import Recorder
from fengshou.switch.site import PUBLISHER_SIGN

_file = click.Path(path_type=Path, dir_okay=False)


@click.group(name="stand-in")
def stand_in_commands() -> None:
    """Approvals of the switch itself while core banking is away.

    \b
    Off unless switch.toml has a section [stand-in] with a signed file of limits. Write them as TOML:
      valid_until = 2027-01-01T00:00:00+08:00
      [services.withdrawal]
      transaction_fen = 50000     # one of them
      card_fen = 50000            # of one card a business day
      terminal_fen = 500000       # of one terminal a business day
      service_fen = 10000000      # of all of them a business day
    """


@stand_in_commands.command()
@click.argument("limits", type=_file)
@click.argument("out", type=_file)
@click.option("--keys", type=click.Path(path_type=Path, file_okay=False), required=True, help="Custody of the signer.")
@click.option("--label", default=PUBLISHER_SIGN, show_default=True, help="The signer's key.")
@explained
def sign(limits: Path, out: Path, keys: Path, label: str) -> None:
    """Sign LIMITS (TOML) into OUT, from now on until valid_until."""
    try:
        document = {"issued_at": datetime.now(UTC), **tomllib.loads(limits.read_text("utf-8"))}
        body = msgspec.convert(document, stand_in.Limits)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise stand_in.StandInError(f"{limits}: {error}") from None
    write_public(out, stand_in.sign(body, CustodySigner(SoftwareCustody(keys), label)))
    click.echo(f"signed {out}: {', '.join(sorted(body.services))} until {body.valid_until.isoformat()}")


@stand_in_commands.command()
@home_option
@json_option
@explained
def differences(home: Path, as_json: bool) -> None:
    """What the switch had approved and core banking refused; exit status 1 when there is any."""
    loaded = load(home / "switch.toml")
    config = loaded.config
    catalogue = Catalogue(services_of(config))
    recorder = Recorder(catalogue, custody_of(loaded), Clock())
    journal = Journal(loaded.path(config.files.journal), map_bytes=config.limits.journal_gib << 30, read_only=True)
    try:
        found = list(stand_in.differences(journal, recorder))
    finally:
        journal.close()
    if as_json:
        print_json(found)
    else:
        columns = ("RRN", "terminal", "day", "yuan", "code")
        rows = [(f"{one.rrn:012d}", one.terminal, one.business_day, yuan(one.fen), one.code) for one in found]
        print_table(f"{len(found)} differences", columns, rows)
    if found:
        raise SystemExit(1)
