"""Who may do what: roles, the acts that each may do, and the acts that need a second person.

People are whom the audit log says they are: it records who joined, in which roles and with which key, so that there is
no table beside it that could be altered alone. Nobody both acts and holds the records of it: an auditor has no other
role, and no command takes a record away.

Until the log names people for every duty, the user of the operating system stands for all of them: a site in the hands
of its installer, or of a developer. From then on whoever acts gives a name, and proves it with the key of that name.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm.audit import Actor, AuditError, Record, Result
from fengshou.protocol.signing import TAG_DUTY


class Role(Enum):
    CUSTODIAN = "custodian"  # holds components and shares of master keys; two of them together use one
    ADMINISTRATOR = "administrator"  # of security: rotates, issues, revokes, names people
    OPERATOR = "operator"  # runs the network: registers, enrols, blocks
    AUDITOR = "auditor"  # reads and proves the log, agrees to changes of people; does nothing else


@dataclass(frozen=True, slots=True)
class Duty:
    """Who may do an act; ``second`` are the roles of another person who must agree to it, empty when none need to."""

    roles: frozenset[Role]
    second: frozenset[Role] = frozenset()


def _duty(*roles: Role, second: Iterable[Role] = ()) -> Duty:
    return Duty(frozenset(roles), frozenset(second))


_CUSTODIAN, _ADMINISTRATOR, _OPERATOR, _AUDITOR = Role

#   act                        by                                      and agreed to by
DUTIES: Mapping[str, Duty] = {
    "site.make":         _duty(_ADMINISTRATOR),
    "keys.make":         _duty(_ADMINISTRATOR),
    "keys.rotate":       _duty(_ADMINISTRATOR),
    "keys.rollback":    _duty(_ADMINISTRATOR),
    "keys.retire":       _duty(_ADMINISTRATOR),
    "keys.retire-early": _duty(_ADMINISTRATOR,                        second=(_CUSTODIAN,)),
    # What touches a master key, or is trusted by everybody, takes two.
    "keys.destroy":      _duty(_ADMINISTRATOR,                         second=(_CUSTODIAN,)),
    "keys.rotate-ca":    _duty(_ADMINISTRATOR,                         second=(_CUSTODIAN,)),
    "keys.ceremony":     _duty(_CUSTODIAN,                             second=(_CUSTODIAN,)),
    "keys.seal":         _duty(_CUSTODIAN,                             second=(_CUSTODIAN,)),
    "keys.quorum":       _duty(_CUSTODIAN,                             second=(_CUSTODIAN,)),
    "keys.unseal":       _duty(_CUSTODIAN, _ADMINISTRATOR, _OPERATOR),  # the shares themselves are the dual control
    "pki.init":          _duty(_ADMINISTRATOR,                         second=(_CUSTODIAN,)),
    "pki.issue":         _duty(_ADMINISTRATOR, _OPERATOR),
    "pki.renew":        _duty(_ADMINISTRATOR, _OPERATOR),
    "pki.revoke":        _duty(_ADMINISTRATOR, _OPERATOR),
    "pki.list":          _duty(_ADMINISTRATOR, _OPERATOR),
    "registry.add":      _duty(_OPERATOR),
    "registry.enrol":    _duty(_OPERATOR),
    "registry.status":   _duty(_OPERATOR, _ADMINISTRATOR),
    "registry.app":      _duty(_OPERATOR, _ADMINISTRATOR),
    "people.join":       _duty(_ADMINISTRATOR,                         second=(_AUDITOR,)),
    "people.leave":      _duty(_ADMINISTRATOR,                         second=(_AUDITOR,)),
    "audit.sign":        _duty(_AUDITOR, _ADMINISTRATOR),
}  # fmt: skip

# Consent is for now, not for some day.
APPROVAL_LIFE = timedelta(hours=1)


class DutyRefused(AuditError):
    """This is not that person's to do, not alone, or the person was not proved."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with duties. ``form`` says how the key is kept: ``passphrase``, or ``card`` and then in which reader."""

    name: str
    roles: frozenset[Role]
    form: str
    key: PublicKey
    reader: str = ""


def people(log: Sequence[Record]) -> dict[str, Person]:
    """Who is who, as the log has it at its end."""
    found: dict[str, Person] = {}
    for record in log:
        admit(found, record)
    return found


def admit(known: dict[str, Person], record: Record) -> None:
    """Let a record change who is who, if it is about that."""
    if record.result is not Result.DONE:
        return
    if record.event == "people.join":
        facts = record.details
        roles = frozenset(map(Role, facts["roles"].split()))
        key = PublicKey(bytes.fromhex(facts["key"]))
        known[record.object] = Person(record.object, roles, facts["form"], key, facts.get("reader", ""))
    elif record.event == "people.leave":
        known.pop(record.object, None)


def complete(present: Iterable[Person]) -> bool:
    """Whether these people can do every duty, so that nobody needs to stand in: two custodians, one of each else."""
    held = [role for person in present for role in person.roles]
    return all(held.count(role) >= (2 if role is Role.CUSTODIAN else 1) for role in Role)


def check_roles(roles: frozenset[Role]) -> None:
    """Raises DutyRefused: no role, or a person who would audit what he does."""
    if not roles:
        raise DutyRefused("a person has at least one role")
    if Role.AUDITOR in roles and len(roles) > 1:
        raise DutyRefused("an auditor has no other role: nobody keeps the records of his own acts")


def permit(log: Sequence[Record], actor: Actor, event: str, of: str, now: datetime) -> dict[str, str]:
    """What the record of the act adds to show that it was permitted. Raises DutyRefused."""
    known = people(log)
    if not complete(known.values()):
        return {}
    duty = DUTIES[event]
    _require(known, actor, duty.roles, event)
    if not duty.second:
        return {}
    used = {record.details.get("approval") for record in log}
    for record in reversed(log):
        if record.result is not Result.APPROVED or (record.event, record.object) != (event, of):
            continue
        other = known.get(record.actor.name)
        if (
            other is not None
            and other.name != actor.name
            and record.actor.session != actor.session
            and other.roles & duty.second
            and str(record.sequence) not in used
            and now - datetime.fromisoformat(record.at) <= APPROVAL_LIFE
        ):
            return {"approval": str(record.sequence)}
    roles = " or ".join(sorted(role.value for role in duty.second))
    raise DutyRefused(f"{event} takes two: another person, {roles}, runs: fengshou people approve {event} {of}")


def permit_approval(log: Sequence[Record], actor: Actor, event: str) -> None:
    """Raises DutyRefused unless the actor may agree to such an act."""
    duty = DUTIES.get(event)
    if duty is None or not duty.second:
        raise DutyRefused(f"{event} is no act that a second person agrees to")
    known = people(log)
    if complete(known.values()):
        _require(known, actor, duty.second, f"agreeing to {event}")


OS_USER = "os-user"  # the kind of an actor who has not given a name


def _require(known: Mapping[str, Person], actor: Actor, roles: frozenset[Role], what: str) -> None:
    person = known.get(actor.name) if actor.kind != OS_USER else None
    if person is None:
        raise DutyRefused(f"{what}: say who you are, as in: fengshou --as NAME …")
    if not person.roles & roles:
        raise DutyRefused(f"{what} is the duty of {' or '.join(sorted(role.value for role in roles))}")


def new_session() -> str:
    return secrets.token_hex(8)


def proof_digest(za: bytes, session: str, event: str, of: str) -> bytes:
    """What a person signs: SM3(ZA || "FP1D" || session LF act LF object)."""
    return sm3(za + TAG_DUTY + f"{session}\n{event}\n{of}".encode())


def check_proof(person: Person, session: str, event: str, of: str, proof: bytes) -> None:
    """Raises DutyRefused."""
    try:
        person.key.verify(proof_digest(person.key.za, session, event, of), proof)
    except BadSignature:
        raise DutyRefused(f"{person.name} did not sign this") from None
