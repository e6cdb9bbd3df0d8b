"""Rotation of a site's own keys: a further epoch is certified and known before it is used; the old one stays a while.

::

    next ─ certified ─ seen by the running switch ─► current, the old one retiring ─ overlap ─► retired

Whoever verifies or opens accepts every epoch between; so nothing is refused while processes and peers change over one
after the other, and until the overlap ends the old epoch takes its place again on request. A step that was cut short
is taken up again by the same command.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fengshou.hsm.custody import (
    AUDIT_SIGN,
    JOURNAL_DATA,
    SWITCH_SIGN,
    SWITCH_TLS,
    TERMINAL_MASTER,
    TERMINAL_WORKING,
    Custody,
    CustodyError,
    KeyInfo,
    Kind,
)
from fengshou.hsm.files import write_public
from fengshou.hsm.pem import CERTIFICATE, to_pem
from fengshou.hsm.pki import Authority, PkiError
from fengshou.hsm.x509 import HOST, PUBLISHER, SWITCH, Profile, Subject
from fengshou.protocol.epoch import ACCEPTING, EpochState
from fengshou.switch import followers, status
from fengshou.switch.certificate_files import read_certificate, read_certificates
from fengshou.switch.config import Loaded
from fengshou.switch.custodies import custody_of, open_custody
from fengshou.switch.site import HOST_SIGN, HOST_TLS, load_host
from fengshou.switch.zones import zone_labels
from fengshou.terminals.home import add_switch_key

# The running switch looks twice a second; a machine that is busy may take its time.
_SEEN_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How long an epoch of a key is used, and how long it is still accepted after its successor began."""

    label: str
    kind: Kind
    life: timedelta
    overlap: timedelta | None  # None: it is never retired by date
    certificate: str = ""  # file under certificates/, of a back end in its folder
    profile: Profile = PUBLISHER  # of that certificate

    @property
    def is_channel(self) -> bool:
        """Certificate and key are used together, so they change together; others are believed beside each other."""
        return self.profile in (SWITCH, HOST)


# Lives follow those of the certificates; overlaps, how long somebody may still hold what the old epoch made.
POLICIES: Mapping[str, Policy] = {
    # A receipt that was signed before is asked for within the batch's life, and proved by its certificate for ever.
    "switch-sign": Policy(SWITCH_SIGN, Kind.SM2, timedelta(365), timedelta(30), "switch-sign.crt"),
    "switch-tls": Policy(SWITCH_TLS, Kind.SM2, timedelta(330), timedelta(7), "switch.crt", SWITCH),
    "audit-sign": Policy(AUDIT_SIGN, Kind.SM2, timedelta(365), timedelta(30), "audit-sign.crt"),
    # The law asks for ten years of records; without its epoch a record cannot be read any more.
    "journal": Policy(JOURNAL_DATA, Kind.SM4, timedelta(365), None),
    # A terminal takes its new keys with its next answer or sign-in; the overlap is for what lies in a terminal that is
    # off. A PIN block is good for as long as somebody may still send it, so the life is short.
    "terminal-working": Policy(TERMINAL_WORKING, Kind.DERIVE, timedelta(30), timedelta(3)),
    "terminal-master": Policy(TERMINAL_MASTER, Kind.DERIVE, timedelta(365), timedelta(30)),
}
# Of an embedded back end, by its name.
HOST_POLICIES: Mapping[str, Policy] = {
    "host-tls": Policy(HOST_TLS, Kind.SM2, timedelta(330), timedelta(7), "host.crt", HOST),
    "host-sign": Policy(HOST_SIGN, Kind.SM2, timedelta(365), timedelta(30), "host-sign.crt"),
}
ZONE = "zone"  # both keys of every back end that has such: one policy for each label
_BY_LABEL = {policy.label: policy for policy in (*POLICIES.values(), *HOST_POLICIES.values())}


def policies(loaded: Loaded, name: str) -> list[Policy]:
    """Of every label that the rotation of this name concerns. Raises RotationError: there is none."""
    if name != ZONE:
        return [POLICIES[name]]
    found = [policy for label, kind in zone_labels(loaded.config).items() if (policy := policy_of(label, kind))]
    if not found:
        raise RotationError("no back end has zone keys: zone-keys = true in [destination.NAME]")
    return found


def policy_of(label: str, kind: Kind) -> Policy | None:
    """None for a key that is rotated by a ceremony, or not at all."""
    if label.startswith("zone.") and kind in (Kind.PIN, Kind.MAC):
        return Policy(label, kind, timedelta(30), timedelta(7))
    return _BY_LABEL.get(label)


class RotationError(CustodyError):
    """A rotation cannot go on; the text says why, what was left as it is, and what to do."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One epoch of a key, with what the policy says of it."""

    info: KeyInfo
    due: datetime | None  # of a current epoch: when to rotate; of a retiring one: when it is retired

    def as_dict(self, now: datetime) -> dict[str, Any]:
        return {
            "key": self.info.label,
            "kind": self.info.kind.name,
            "epoch": self.info.epoch,
            "state": self.info.state.value,
            "age_days": (now - self.info.created).days,
            "check_value": self.info.check_value.hex().upper(),
            "due": self.due.date().isoformat() if self.due else "",
        }


def key_rows(custody: Custody) -> list[KeyRow]:
    """Every epoch of every key."""
    keys = custody.inventory()
    began = {info.label: info.created for info in keys if info.state is EpochState.CURRENT}
    return [KeyRow(info, _due(info, began.get(info.label))) for info in keys]


def _due(info: KeyInfo, successor: datetime | None) -> datetime | None:
    policy = policy_of(info.label, info.kind)
    if policy is None:
        return None
    if info.state is EpochState.CURRENT:
        return info.created + policy.life
    if info.state is EpochState.RETIRING and policy.overlap is not None and successor is not None:
        return successor + policy.overlap
    return None


class Rotation:
    """The rotation of one key of a site. Steps are told to ``step`` as they are done."""

    def __init__(self, loaded: Loaded, policy: Policy, step: Callable[[str], object] = lambda text: None) -> None:
        """Raises CustodyError."""
        self._loaded = loaded
        self._policy = policy
        self._step = step
        self._custody = custody_of(loaded)

    def plan(self) -> list[str]:
        """What ``rotate`` would do, in words."""
        label, waiting = self._policy.label, self._waiting()
        steps = [f"take up epoch {waiting.epoch} of {label}" if waiting else f"make a further epoch of {label}"]
        if self._policy.certificate:
            steps.append(f"certify it in certificates/{self._policy.certificate}, before the old one")
        if label == SWITCH_SIGN:
            steps.append("add it to what the terminals of this site believe receipts by")
        if self._policy.kind in (Kind.PIN, Kind.MAC):
            steps.append("let the running switch bring it to the back end")
        steps += ["wait until the running switch knows it", "make it current, the old one retiring"]
        if label in (TERMINAL_WORKING, TERMINAL_MASTER):
            steps.append("tell each terminal with its next answer that new keys wait")
        overlap = self._policy.overlap
        steps.append(f"accept the old one for {overlap.days} days more" if overlap else "keep the old one for reading")
        return steps

    def rotate(self) -> KeyInfo:
        """The epoch that is current then. Raises RotationError and whatever issuing a certificate raises."""
        policy, label = self._policy, self._policy.label
        new = self._waiting()
        if new is None and self._uncertified():
            new = self._custody.key(label)  # made current, but cut short before its certificate was in place
        elif new is None:
            new = self._custody.renew(label) if self._begun() else self._custody.create(label, policy.kind)
        self._step(f"epoch {new.epoch} of {label}, check value {new.check_value.hex().upper()}")
        chain = self._certified(new.epoch) if policy.certificate else b""
        if chain and not policy.is_channel:
            write_public(self._file, chain + self._certificates_so_far())
            self._step(f"certificate in {self._file}")
        if label == SWITCH_SIGN:
            homes = sorted(self._loaded.path("terminals").glob("*/terminal.toml"))
            for home in homes:
                add_switch_key(home.parent, self._custody.public_key(label, new.epoch))
            self._step(f"{len(homes)} terminals of this site know it")
        if new.state is EpochState.NEXT:
            self._until_seen(lambda answer: answer["keys_waiting"].get(label) == new.epoch)
            self._custody.activate(label, new.epoch)
        if chain and policy.is_channel:
            # A certificate and its key change together as nearly as two files can; the switch tries again in between.
            self._keep_old_certificate()
            write_public(self._file, chain)
        self._until_seen(lambda answer: answer["keys"].get(label) == new.epoch)
        self._step(f"epoch {new.epoch} is in use")
        return self._custody.key(label)

    def roll_back(self) -> KeyInfo:
        """Let the epoch before take its place again. Raises RotationError: there is none that is still accepted."""
        label = self._policy.label
        old = [info for info in self._custody.inventory() if (info.label, info.state) == (label, EpochState.RETIRING)]
        if not old:
            raise RotationError(f"no epoch of {label} is retiring: there is nothing to go back to")
        before = max(old, key=lambda info: info.created)
        self._custody.activate(label, before.epoch)
        if self._policy.is_channel:
            kept = self._kept(before.epoch)
            write_public(self._file, kept.read_bytes() if kept.exists() else self._certified(before.epoch))
        self._until_seen(lambda answer: answer["keys"].get(label) == before.epoch)
        self._step(f"epoch {before.epoch} of {label} is in use again")
        return self._custody.key(label)

    # -- certificates --------------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self._loaded.path("certificates", self._policy.certificate)

    def _kept(self, epoch: int) -> Path:
        return self._file.with_name(f"{self._file.stem}.{epoch}{self._file.suffix}")

    def _keep_old_certificate(self) -> None:
        """For a roll-back, under the epoch of its key."""
        key, label = read_certificate(self._file).public_key, self._policy.label
        accepted = [info for info in self._custody.inventory() if info.label == label and info.state in ACCEPTING]
        for info in accepted:
            if self._custody.public_key(label, info.epoch) == key:
                write_public(self._kept(info.epoch), self._file.read_bytes())

    def _certificates_so_far(self) -> bytes:
        if not self._file.exists():
            return b""
        return b"".join(to_pem(CERTIFICATE, certificate.der) for certificate in read_certificates(self._file))

    def _certified(self, epoch: int) -> bytes:
        """A certificate of the key, PEM; empty when the newest in the file is its own already."""
        key = self._custody.public_key(self._policy.label, epoch)
        old = read_certificate(self._file) if self._file.exists() else None
        if old is not None and old.public_key == key:
            return b""
        authority = Authority(self._loaded.path("pki"))
        subject = old.subject if old else Subject(self._file.stem)
        return authority.chain(authority.issue(self._policy.profile, subject, key, datetime.now(UTC)))

    def _uncertified(self) -> bool:
        if not self._policy.certificate or not self._file.exists():
            return bool(self._policy.certificate)
        return read_certificate(self._file).public_key != self._custody.public_key(self._policy.label)

    # -- the running switch --------------------------------------------------------------------------------------------

    def _waiting(self) -> KeyInfo | None:
        wanted = (self._policy.label, EpochState.NEXT)
        return next((info for info in self._custody.inventory() if (info.label, info.state) == wanted), None)

    def _begun(self) -> bool:
        return any(info.label == self._policy.label for info in self._custody.inventory())

    def _until_seen(self, seen: Callable[[dict[str, Any]], bool]) -> None:
        """Whatever runs must know an epoch before anything is made with it. Raises RotationError."""
        deadline = time.monotonic() + _SEEN_WITHIN_S
        while time.monotonic() < deadline:
            try:
                answer = status.ask(self._loaded.path(self._loaded.config.files.status))
            except OSError:
                return  # no switch runs, so nobody is behind
            if seen(answer):
                return
            time.sleep(0.1)
        raise RotationError(
            f"the switch has not taken note of {self._policy.label} within {_SEEN_WITHIN_S:.0f} s; look at its log, "
            "then give the same command again"
        )


class HostRotation(Rotation):
    """The rotation of a key of an embedded back end, which reads its files again whenever it accepts or signs."""

    def __init__(
        self, loaded: Loaded, host: str, policy: Policy, step: Callable[[str], object] = lambda text: None
    ) -> None:
        """Raises CustodyError, ConfigError."""
        super().__init__(loaded, policy, step)
        self._folder = loaded.path("hosts", host)
        config = load_host(self._folder)
        if not config.certificate:
            raise RotationError(f"{host} has no keys of its own: its link is not a channel")
        self._custody = open_custody(self._folder, config.keys, config.custody)

    @property
    def _file(self) -> Path:
        return self._folder / self._policy.certificate

    def _until_seen(self, seen: Callable[[dict[str, Any]], bool]) -> None:
        """Whoever verifies looks at the file each time, and the back end at its custody: nobody is to be waited for."""


def forget_tickets(loaded: Loaded) -> bool:
    """New keys for the tickets of TLS sessions: they live in the switch's context only. False: no switch runs."""
    with suppress(OSError):
        os.kill(int(status.ask(loaded.path(loaded.config.files.status))["process"]), signal.SIGHUP)
        return True
    return False


def check_overlap(loaded: Loaded, custody: Custody, label: str, epoch: int, now: datetime) -> None:
    """Raises RotationError: somebody may still need an epoch, because not all have followed and its time is not up."""
    row = next((row for row in key_rows(custody) if (row.info.label, row.info.epoch) == (label, epoch)), None)
    if row is None or policy_of(label, row.info.kind) is None:
        return  # custody says what is wrong; or it is nobody's but the site's own
    if row.info.state is EpochState.CURRENT:
        raise RotationError(f"epoch {epoch} of {label} is in use: rotate first, or --force")
    if row.info.state is not EpochState.RETIRING or (row.due is not None and row.due <= now):
        return
    late = followers.behind(loaded, custody, label)
    if late == {}:
        return
    until = f"until {row.due:%Y-%m-%d}" if row.due else "as long as what it sealed is to be read"
    who = f"; {len(late)} terminals have not followed" if late else ""
    raise RotationError(f"epoch {epoch} of {label} is accepted {until}{who}: wait, or --force with a second person")


def revoke_certificate(loaded: Loaded, info: KeyInfo, now: datetime) -> str:
    """Revoke the certificate of a retired key of the channel; its serial number.

    Empty when it has none, or when the authority is on another machine, where it is to be revoked then.
    """
    kept = loaded.path("certificates", f"switch.{info.epoch}.crt")
    if info.label != SWITCH_TLS or not kept.exists():
        return ""
    certificate = read_certificate(kept)
    try:
        authority = Authority(loaded.path("pki"))
    except PkiError:
        return ""
    authority.revoke(certificate.serial, "superseded", now)
    authority.make_revocation_list(now)
    return f"{certificate.serial:032x}"


def retire_due(custody: Custody, now: datetime) -> list[KeyInfo]:
    """Refuse every epoch whose overlap has ended."""
    due = [
        row.info for row in key_rows(custody) if row.info.state is EpochState.RETIRING and row.due and row.due <= now
    ]
    for info in due:
        custody.retire(info.label, info.epoch)
    return due
