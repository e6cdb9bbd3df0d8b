"""Whoever acts at the command line: who it is, what this person may do, and the record that is written before the act.

The audit log is ``audit.log`` beside the folder that is acted upon: in a site's folder for its keys, registry and
authority. People's key files are in ``people/`` beside it.
"""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fengshou.hsm import audit_proof, duties
from fengshou.hsm._asn1 import Signer
from fengshou.hsm.audit import Act, Actor, AuditLog, Record, Result
from fengshou.hsm.custody import AUDIT_SIGN, CustodyError
from fengshou.hsm.duties import DutyRefused, Person, new_session
from fengshou.hsm.personal import CARD, CardSigner, SigningCard, open_key
from fengshou.hsm.quorum import Holder
from fengshou.hsm.software import SoftwareCustody
from fengshou.hsm.x509 import CustodySigner
from fengshou.switch.config import ConfigError, load
from fengshou.switch.custodies import custody_of

if TYPE_CHECKING:
    from fengshou.hsm.card import Card

AUDIT_FILE = "audit.log"
PEOPLE = "people"

_SESSION = new_session()
_CARDS = "fengshou.cards"  # by reader, in click's context


# The log in the name of a person, and the key that proves it, None for the operating system's user.
Identity = tuple[AuditLog, Signer | None]


@contextmanager
def acting(folder: Path, event: str, of: str, who: Identity | None = None, **details: object) -> Iterator[Act]:
    """Do ``event`` to ``of``, when this person may, between two records of the log in ``folder``.

    ``who`` is what ``identified`` gave to a command that acts many times and asks for a passphrase once. Raises
    DutyRefused, which is recorded too, and AuditError; then nothing was done.
    """
    log, signer = who or identified(folder)
    try:
        permission = duties.permit(records_of(folder), log.actor, event, of, datetime.now(UTC))
    except DutyRefused as refusal:
        log.append(event, of, Result.REFUSED, reason=str(refusal))
        raise
    # At the first act of a day. Without a custody, or while it is sealed, the chain alone must do.
    with suppress(CustodyError):
        if log.due():
            seal(folder)
    with log.act(event, of, **details, **permission, **proof(signer, event, of)) as act:
        yield act


def log_of(folder: Path) -> AuditLog:
    """The log in the name of the operating system's user."""
    return AuditLog(folder / AUDIT_FILE, Actor(duties.OS_USER, _os_user(), _SESSION, _source()))


def records_of(folder: Path) -> list[Record]:
    """Everything on record so far."""
    file = folder / AUDIT_FILE
    return audit_proof.records(file) if file.exists() else []


def identified(folder: Path) -> Identity:
    """The log in the name of who acts, and the key that proves it, None for the operating system's user.

    Raises DutyRefused: the name has no duties; CustodyError: its key does not open.
    """
    log, name = log_of(folder), _claimed_name()
    if not name:
        return log, None
    person = duties.people(records_of(folder)).get(name)
    if person is None:
        raise DutyRefused(f"{name} has no duties here; see: fengshou people list")
    signer = _person_key(folder, person)
    log.actor = Actor(person.form, name, _SESSION, _source())
    return log, signer


def proof(signer: Signer | None, event: str, of: str) -> dict[str, str]:
    """The person's signature under the act, for its record."""
    if signer is None:
        return {}
    return {"proof": signer.sign(duties.proof_digest(signer.public_key.za, _SESSION, event, of)).hex()}


def seal(folder: Path) -> int | None:
    """Sign the log with the custody beside it. Raises CustodyError: there is none, it is sealed, its card is away."""
    site = folder / "switch.toml"
    try:
        custody = custody_of(load(site)) if site.exists() else SoftwareCustody(folder / "keys")
    except ConfigError as error:
        raise CustodyError(str(error)) from None
    return log_of(folder).seal(CustodySigner(custody, AUDIT_SIGN), custody.key(AUDIT_SIGN).epoch)


def _person_key(folder: Path, person: Person) -> Signer:
    """Ask for what opens the person's key. Raises DutyRefused: it is not the key that the log names."""
    signer: Signer
    if person.form == CARD:
        signer = CardSigner(person_card(person.name, person.reader))
    else:
        passphrase = click.prompt(f"Passphrase of {person.name}", hide_input=True, err=True)
        signer = open_key(folder / PEOPLE / f"{person.name}.key", person.name, passphrase)
    if signer.public_key != person.key:
        raise DutyRefused(f"the key of {person.name} is not the one on record")
    return signer


def person_card(name: str, reader: str) -> SigningCard:
    """The card in ``reader``, opened by its PIN, which is asked for. Profile GM/T 0017."""
    return _card(name, reader)


def card_holder(name: str, reader: str) -> Holder:
    """A custodian whose share is on the card in ``reader``."""
    from fengshou.hsm.card import CardHolder  # not at the top: it needs the extra `card`

    return CardHolder(name, _card(name, reader))


def _card(name: str, reader: str) -> "Card":
    """One object for each reader in a command, because whoever has a card has it alone; given back at its end."""
    from fengshou.hsm.card import Card, Gmt0017

    context = click.get_current_context()
    cards: dict[str, Card] = context.meta.setdefault(_CARDS, {})
    if reader not in cards:
        pin = click.prompt(f"PIN of {name}'s card in {reader}", hide_input=True, err=True)
        cards[reader] = Card(reader, Gmt0017(), pin.encode())
        context.call_on_close(cards[reader].close)
    return cards[reader]


def give_back_cards() -> None:
    """Of a command that goes on without them."""
    for card in click.get_current_context().meta.get(_CARDS, {}).values():
        card.close()


def _claimed_name() -> str:
    context = click.get_current_context(silent=True)
    options = context.find_root().obj if context else None
    return str(options) if options else os.environ.get("FENGSHOU_AS", "")


def _os_user() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return str(os.geteuid())


def _source() -> str:
    """The address from which this session came, or its terminal."""
    remote = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    if remote:
        return remote
    with suppress(OSError):
        return os.ttyname(0)
    return "local"
