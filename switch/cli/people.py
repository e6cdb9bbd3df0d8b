"""``fengshou people``: who has which duties, and the consent of a second person."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from fengshou.hsm import duties
from fengshou.hsm.audit import Result
from fengshou.hsm.custody import CustodyError
from fengshou.hsm.duties import DUTIES, DutyRefused, Role, check_roles, complete
from fengshou.hsm.personal import CARD, PASSPHRASE, CardSigner, make_key
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table
from fengshou.switch.office import PEOPLE, acting, identified, person_card, proof, records_of, seal

_NAME = click.argument("name")


@click.group()
def people() -> None:
    """People and their duties. Until somebody is there for every duty, the operating system's user does them all.

    \b
    Examples:
      fengshou people join li --role custodian --home site
      fengshou people join wang --role custodian --card "Reader 0" --home site
      fengshou --as li people approve keys.ceremony zone.core --home site
    """


@people.command()
@_NAME
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice([role.value for role in Role]))
@click.option("--card", "reader", default="", help="The person's key is on the card (GM/T 0017) in this reader.")
@home_option
@explained
def join(name: str, roles: tuple[str, ...], reader: str, home: Path) -> None:
    """Give a person duties and a key: a new one under a passphrase that the person types, or that of a card."""
    chosen = frozenset(map(Role, roles))
    check_roles(chosen)
    if not name.isidentifier() or name in duties.people(records_of(home)):
        raise DutyRefused(f"{name} is no name, or has duties already")
    with acting(home, "people.join", name, roles=" ".join(sorted(roles))) as act:
        if reader:
            key = CardSigner(person_card(name, reader)).public_key
            act.note(reader=reader)
        else:
            passphrase = click.prompt(f"Passphrase of {name}", hide_input=True, confirmation_prompt=True, err=True)
            key = make_key(home / PEOPLE / f"{name}.key", name, passphrase).public_key
        act.note(roles=" ".join(sorted(roles)), form=CARD if reader else PASSPHRASE, key=key.point.hex())
    _seal(home)
    click.echo(f"{name} is {' and '.join(sorted(roles))}")
    if complete(duties.people(records_of(home)).values()):
        click.echo("somebody is there for every duty: from now on whoever acts gives a name, fengshou --as NAME …")


@people.command()
@_NAME
@home_option
@explained
def leave(name: str, home: Path) -> None:
    """Take all duties from a person."""
    if name not in duties.people(records_of(home)):
        raise DutyRefused(f"{name} has no duties here")
    with acting(home, "people.leave", name):
        (home / PEOPLE / f"{name}.key").unlink(missing_ok=True)
    _seal(home)
    click.echo(f"{name} has no duties any more")


@people.command("list")
@home_option
@json_option
@explained
def list_(home: Path, as_json: bool) -> None:
    """Who has which duties."""
    known = duties.people(records_of(home)).values()
    rows = [(person.name, " ".join(sorted(role.value for role in person.roles)), person.form) for person in known]
    if as_json:
        print_json([dict(zip(("name", "roles", "form"), row, strict=True)) for row in rows])
        return
    print_table("people", ("name", "roles", "key"), rows)
    if not complete(known):
        click.echo("not every duty has its people: the operating system's user stands in for all")


@people.command()
@click.argument("event", type=click.Choice([event for event, duty in DUTIES.items() if duty.second]))
@click.argument("of", metavar="OBJECT")
@home_option
@explained
def approve(event: str, of: str, home: Path) -> None:
    """Agree that another person does EVENT to OBJECT, once and within the hour."""
    log, signer = identified(home)
    duties.permit_approval(records_of(home), log.actor, event)
    number = log.append(event, of, Result.APPROVED, details=proof(signer, event, of))
    until = datetime.now(UTC) + duties.APPROVAL_LIFE
    click.echo(f"approved in record {number}, until {until.astimezone():%H:%M}")


def _seal(home: Path) -> None:
    """Everything else rests on who is who, so it is signed at once, as far as there is a custody and it is open."""
    with suppress(CustodyError):
        seal(home)
