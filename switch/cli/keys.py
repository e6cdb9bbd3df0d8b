"""``fengshou keys``: what keys there are, and their rotation. Ceremonies are in ``ceremony``."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from fengshou.hsm.custody import Custody, KeyInfo
from fengshou.hsm.pki import Authority
from fengshou.switch import followers
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table
from fengshou.switch.config import Loaded, load
from fengshou.switch.custodies import custody_of
from fengshou.switch.followers import AUTHORITY
from fengshou.switch.office import acting
from fengshou.switch.rotation import (
    HOST_POLICIES,
    POLICIES,
    ZONE,
    HostRotation,
    Rotation,
    RotationError,
    check_overlap,
    forget_tickets,
    key_rows,
    policies,
    retire_due,
    revoke_certificate,
)
from fengshou.switch.terminal_keys import Held, TerminalKeys

TICKETS = "tickets"

# What rotates the keys that have no epoch in the site's custody.
_OTHERS = {
    TICKETS: "let the running switch make its tickets under new keys",
    AUTHORITY: "make a further issuing authority by the root, trust both and list the revocations of both, issue by it",
}

_kind = click.argument("kind", type=click.Choice([*POLICIES, ZONE, TICKETS, AUTHORITY, *HOST_POLICIES]))
_LOOKS_EVERY_S = 1.0

_host = click.option("--host", default="", help="Of this embedded back end, whose keys are in hosts/NAME.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_label = click.argument("label")
_epoch = click.argument("epoch", type=click.IntRange(1, 255))


@click.group()
def keys() -> None:
    """Keys of the site: their state, rotation, ceremonies. Every act is on record, see `fengshou audit`.

    \b
    Examples:
      fengshou keys status --home site
      fengshou keys rotate switch-sign --dry-run --home site
      fengshou keys rotate switch-sign --home site
      fengshou keys retire --due --home site
    """


@keys.command()
@click.option("--terminals", "list_behind", is_flag=True, help="List the terminals that lack the current keys.")
@home_option
@json_option
@explained
def status(list_behind: bool, home: Path, as_json: bool) -> None:
    """Every epoch of every key: state, age, check value, when it is to be rotated or is retired, how many terminals
    hold it.
    """
    loaded, custody = _custody(home)
    now = datetime.now(UTC)
    held = followers.held_by_terminals(loaded)
    rows = [{**row.as_dict(now), "terminals": _count(row.info, held)} for row in key_rows(custody)]
    current = TerminalKeys(custody).current
    behind = {terminal: keys._asdict() for terminal, keys in held.items() if current and keys != current}
    if as_json:
        print_json({"protection": custody.protection, "keys": rows, "terminals_behind": behind})
        return
    for row in rows:
        if row["due"] and row["due"] < now.date().isoformat():
            row["due"] += " OVERDUE"
    print_table(
        f"keys of {loaded.folder}: {custody.protection}",
        ("key", "kind", "epoch", "state", "age, days", "check value", "due", "terminals"),
        [list(row.values()) for row in rows],
    )
    if list_behind and behind:
        print_table(
            "terminals that lack the current keys",
            ("terminal", "working keys", "master key"),
            [[terminal, *(epoch or "none" for epoch in keys.values())] for terminal, keys in behind.items()],
        )


@keys.command(epilog="Until the old epoch is retired, `fengshou keys rollback KIND` takes it back.")
@_kind
@_host
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@_yes
@home_option
@json_option
@explained
def rotate(kind: str, host: str, dry_run: bool, yes: bool, home: Path, as_json: bool) -> None:
    """Replace a key by its next epoch, under a running switch that does not stop for it.

    KIND ca makes a further issuing authority, trusted beside the one before until `fengshou pki retire`.
    KIND tickets makes the switch forget all TLS tickets: terminals make a full handshake when they connect next.
    """
    loaded = load(home / "switch.toml")
    steps: list[str] = []
    rotations = [] if kind in _OTHERS else _rotations(loaded, kind, host, steps)
    plan = [step for rotation in rotations for step in rotation.plan()] or [_OTHERS[kind]]
    if dry_run:
        _tell({"kind": kind, "plan": plan}, plan, as_json)
        return
    if not yes:
        click.echo("\n".join(f"  {number}. {step}" for number, step in enumerate(plan, start=1)), err=True)
        click.confirm(f"Rotate {kind}?", abort=True, err=True)
    with acting(home, "keys.rotate-ca" if kind == AUTHORITY else "keys.rotate", f"{host} {kind}".strip()) as act:
        if kind == AUTHORITY:
            issuing = Authority(loaded.path("pki")).renew_issuing(datetime.now(UTC)).certificate
            act.note(serial=f"{issuing.serial:032x}")
            steps.append(f"certificates are issued by {issuing.subject.common_name}")
        elif kind == TICKETS:
            if not forget_tickets(loaded):
                raise RotationError("no switch runs: its tickets ended with it")
            steps.append("tickets are made under new keys")
        else:
            act.note(**_noted([rotation.rotate() for rotation in rotations]))
    _tell({"kind": kind, "steps": steps}, steps, as_json)


@keys.command("rollback")
@click.argument("kind", type=click.Choice([*POLICIES, ZONE, *HOST_POLICIES]))
@_host
@_yes
@home_option
@json_option
@explained
def roll_back(kind: str, host: str, yes: bool, home: Path, as_json: bool) -> None:
    """Let the epoch before the last rotation take its place again; the newer one waits as next."""
    if not yes:
        click.confirm(f"Take back the last rotation of {kind}?", abort=True, err=True)
    steps: list[str] = []
    with acting(home, "keys.rollback", f"{host} {kind}".strip()) as act:
        loaded = load(home / "switch.toml")
        rotations = _rotations(loaded, kind, host, steps)
        act.note(**_noted([rotation.roll_back() for rotation in rotations]))
    _tell({"kind": kind, "steps": steps}, steps, as_json)


@keys.command()
@click.argument("label", required=False)
@click.argument("epoch", type=click.IntRange(1, 255), required=False)
@click.option("--due", is_flag=True, help="All whose overlap has ended; for a daily timer.")
@click.option("--force", is_flag=True, help="Before its time, or before every terminal has followed; takes two people.")
@_yes
@home_option
@json_option
@explained
def retire(label: str | None, epoch: int | None, due: bool, force: bool, yes: bool, home: Path, as_json: bool) -> None:
    """Refuse an epoch from now on. What was made with it is not accepted any more; there is no way back.

    Possible when its overlap has ended, or when every terminal has followed.
    """
    if due == (label is not None) or (label is not None and epoch is None):
        raise click.UsageError("give a key and its epoch, or --due")
    loaded, custody = _custody(home)
    now = datetime.now(UTC)
    if due:
        with acting(home, "keys.retire", "due") as act:
            keys = retire_due(custody, now)
            act.note(retired=", ".join(f"{info.label} {info.epoch}" for info in keys))
            act.note(revoked=" ".join(filter(None, (revoke_certificate(loaded, info, now) for info in keys))))
        retired = [f"{info.label} {info.epoch}" for info in keys]
    else:
        assert label is not None
        assert epoch is not None
        if not force:
            check_overlap(loaded, custody, label, epoch, now)
        if not yes:
            click.confirm(f"Refuse epoch {epoch} of {label} from now on, for ever?", abort=True, err=True)
        with acting(home, "keys.retire-early" if force else "keys.retire", label, epoch=epoch) as act:
            custody.retire(label, epoch)
            act.note(revoked=revoke_certificate(loaded, custody.key(label, epoch), now))
        retired = [f"{label} {epoch}"]
    _tell({"retired": retired}, [f"{name} is retired" for name in retired] or ["nothing is due"], as_json)


@keys.command()
@click.argument("kind", type=click.Choice([*followers.KINDS, AUTHORITY]))
@click.option("--watch", is_flag=True, help="Go on until every terminal has followed.")
@home_option
@json_option
@explained
def progress(kind: str, watch: bool, home: Path, as_json: bool) -> None:
    """Which terminals have not followed the last rotation of KIND yet, and what they have.

    \b
    Example:
      fengshou keys progress terminal-working --watch --home site
    """
    loaded, custody = _custody(home)
    told: dict[str, str] | None = None
    while True:
        custody.refresh()
        late = followers.behind(loaded, custody, followers.KINDS.get(kind, kind)) or {}
        for terminal in (told or {}).keys() - late.keys():
            click.echo(f"{terminal} has followed", err=True)
        told = late
        if not (watch and late):
            break
        time.sleep(_LOOKS_EVERY_S)
    lines = [f"{terminal} has {what}" for terminal, what in late.items()]
    _tell({"kind": kind, "behind": late}, [*lines, f"{len(late)} terminals have not followed"], as_json)


@keys.command()
@_label
@_epoch
@_yes
@home_option
@explained
def destroy(label: str, epoch: int, yes: bool, home: Path) -> None:
    """Remove a retired key for ever. What only it could open is lost."""
    if not yes:
        click.confirm(f"Destroy epoch {epoch} of {label}?", abort=True, err=True)
    _, custody = _custody(home)
    with acting(home, "keys.destroy", label, epoch=epoch):
        custody.destroy(label, epoch)
    click.echo(f"{label} {epoch} is destroyed")


def _rotations(loaded: Loaded, kind: str, host: str, steps: list[str]) -> list[Rotation]:
    if (kind in HOST_POLICIES) != bool(host):
        raise click.UsageError(f"--host goes with {' and '.join(HOST_POLICIES)}, and they with it")
    if host:
        return [HostRotation(loaded, host, HOST_POLICIES[kind], steps.append)]
    return [Rotation(loaded, policy, steps.append) for policy in policies(loaded, kind)]


def _count(key: KeyInfo, held: Mapping[str, Held]) -> int | str:
    """How many terminals hold this epoch; of a key that terminals do not hold nothing."""
    place = followers.PLACES.get(key.label)
    return "" if place is None else sum(keys[place] == key.epoch for keys in held.values())


def _noted(keys: Sequence[KeyInfo]) -> dict[str, str]:
    """What the audit log keeps of an act on these."""
    return {
        "key": " ".join(info.label for info in keys),
        "epoch": " ".join(str(info.epoch) for info in keys),
        "check_value": " ".join(info.check_value.hex().upper() for info in keys),
    }


def _custody(home: Path) -> tuple[Loaded, Custody]:
    loaded = load(home / "switch.toml")
    return loaded, custody_of(loaded)


def _tell(facts: dict[str, Any], lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        click.echo("\n".join(lines))
