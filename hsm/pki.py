"""The certification authority as a folder: root, issuing authority, and an index of all it ever issued or revoked.

::

    authorities.crt   root and issuing certificate: what peers trust
    issuing.crt       goes with each server's certificate
    crl.pem           the newest revocation list
    index.jsonl       one line an act, only ever appended
    keys/             custody of the issuing key
    root/             custody of the root key; nothing needs it after initialisation: move it off line

Writers in several processes exclude each other by a lock on ``lock``. An act is in the index, durably, before its
certificate or list leaves this module; a line that a crash cut short was never an act and gives way to the next one.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from fengshou.codecs import PublicKey
from fengshou.hsm import x509
from fengshou.hsm.files import write_public
from fengshou.hsm.pem import CERTIFICATE, REVOCATION_LIST, from_pem, to_pem
from fengshou.hsm.software import Kind, SoftwareCustody
from fengshou.hsm.x509 import Certificate, CertificateError, CustodySigner, Profile, Subject
from fengshou.protocol.epoch import ACCEPTING, EpochState

ROOT_KEY = "ca.root"
ISSUING_KEY = "ca.issuing"

AUTHORITIES = "authorities.crt"
ISSUING = "issuing.crt"
CRL = "crl.pem"
_INDEX = "index.jsonl"

# An expired list stops every handshake. A month survives holidays and a broken job; lists are made daily.
CRL_DAYS = 30


class PkiError(Exception):
    """The folder is not what the operation needs; the text says what to do."""


class Issued(msgspec.Struct, frozen=True, tag="issued", tag_field="act"):
    at: datetime
    profile: str
    serial: str  # hexadecimal
    common_name: str
    not_after: datetime
    certificate: bytes  # DER; base64 in the file


class Revoked(msgspec.Struct, frozen=True, tag="revoked", tag_field="act"):
    at: datetime
    serial: str
    reason: str


class Listed(msgspec.Struct, frozen=True, tag="listed", tag_field="act"):
    """A revocation list was made; its number never repeats (RFC 5280 section 5.2.3)."""

    at: datetime
    number: int


Act = Issued | Revoked | Listed
_DECODER = msgspec.json.Decoder(Act)


class Entry(NamedTuple):
    """An issued certificate and what became of it."""

    issued: Issued
    revoked: Revoked | None


class Authority:
    """The issuing authority of a folder that ``initialise`` made."""

    def __init__(self, folder: Path | str) -> None:
        """Raises PkiError when there is no authority in ``folder``, CustodyError when its keys are badly protected."""
        self.folder = Path(folder)
        try:
            (der,) = from_pem(CERTIFICATE, (self.folder / ISSUING).read_bytes())
        except (OSError, ValueError):
            raise PkiError(f"no authority in {self.folder}; make one with: fengshou pki init {self.folder}") from None
        self.certificate = x509.parse_certificate(der)
        self._custody = SoftwareCustody(self.folder / "keys")
        # By the certificate, not by what custody has as current: while the key is renewed they differ for a moment.
        self._signer = self._signer_of(self.certificate)

    @classmethod
    def initialise(cls, folder: Path | str, organisation: str, now: datetime) -> "Authority":
        """Make root and issuing authority. ``folder`` appears whole or not at all; PkiError when it holds anything."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PkiError(f"{folder} exists and is not an empty folder; nothing was changed")
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            root_custody = SoftwareCustody.initialise(work / "root")
            root_custody.create(ROOT_KEY, Kind.SM2)
            issuing_custody = SoftwareCustody.initialise(work / "keys")
            issuing_custody.create(ISSUING_KEY, Kind.SM2)
            root_signer = CustodySigner(root_custody, ROOT_KEY)
            root_name = Subject(f"{organisation} Root CA", organisation)
            name = Subject(f"{organisation} Issuing CA", organisation)
            root = x509.issue(
                x509.ROOT, root_name, root_signer.public_key, issuer=root_name, signer=root_signer, now=now
            )
            issuing_key = issuing_custody.public_key(ISSUING_KEY)
            issuing = x509.issue(x509.ISSUING, name, issuing_key, issuer=root_name, signer=root_signer, now=now)
            write_public(work / AUTHORITIES, to_pem(CERTIFICATE, root.der) + to_pem(CERTIFICATE, issuing.der))
            write_public(work / ISSUING, to_pem(CERTIFICATE, issuing.der))
            write_public(work / _INDEX, b"")
            authority = cls(work)
            authority.make_revocation_list(now)
            work.chmod(0o755)
            os.rename(work, folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        return cls(folder)

    def _signer_of(self, authority: Certificate) -> CustodySigner:
        """The epoch of the issuing key that a certificate is of. Raises PkiError: it is gone or retired."""
        for info in self._custody.inventory():
            if info.label == ISSUING_KEY and info.state in ACCEPTING:
                signer = CustodySigner(self._custody, ISSUING_KEY, info.epoch)
                if signer.public_key == authority.public_key:
                    return signer
        raise PkiError(f"no key in {self.folder / 'keys'} belongs to {authority.subject.common_name}")

    def authorities(self) -> list[Certificate]:
        """The root, then the issuing authorities that are trusted, the newest first."""
        try:
            blocks = from_pem(CERTIFICATE, (self.folder / AUTHORITIES).read_bytes())
        except (OSError, ValueError) as error:
            raise PkiError(f"{self.folder / AUTHORITIES}: {error}") from None
        return [x509.parse_certificate(der) for der in blocks]

    def renew_issuing(self, now: datetime) -> "Authority":
        """A further issuing authority beside the one that there is, by the root, whose folder must be here for it.

        Both are trusted and both have a revocation list, in the same files as before, until the key of the old one is
        retired; new certificates are of the new one. A renewal that was cut short goes on where it was. PkiError.
        """
        if not (self.folder / "root").is_dir():
            raise PkiError(f"bring {self.folder / 'root'} back for this: only the root makes an issuing authority")
        waiting = [info for info in self._custody.inventory() if info.label == ISSUING_KEY]
        new = next((info for info in waiting if info.state is EpochState.NEXT), None)
        new = new or self._custody.renew(ISSUING_KEY)
        key = self._custody.public_key(ISSUING_KEY, new.epoch)
        root, *trusted = self.authorities()
        made = next((certificate for certificate in trusted if certificate.public_key == key), None)
        if made is None:
            organisation = root.subject.organisation
            # Another name, because a revocation list is found by the name of who made it.
            name = Subject(f"{organisation} Issuing CA {new.epoch}", organisation)
            signer = CustodySigner(SoftwareCustody(self.folder / "root"), ROOT_KEY)
            made = x509.issue(x509.ISSUING, name, key, issuer=root.subject, signer=signer, now=now)
            chain = (root, made, *trusted)
            write_public(self.folder / AUTHORITIES, b"".join(to_pem(CERTIFICATE, one.der) for one in chain))
        # Trust and lists before the first certificate: whoever reads them again knows what he meets then.
        self.make_revocation_list(now)
        self._custody.activate(ISSUING_KEY, new.epoch)
        write_public(self.folder / ISSUING, to_pem(CERTIFICATE, made.der))
        return Authority(self.folder)

    def retire_issuing(self, now: datetime) -> list[str]:
        """Trust only the newest issuing authority from now on; the names of those that ended. PkiError: it is alone.

        Certificates of the old ones are refused as soon as ``authorities.crt`` is read again.
        """
        root, newest, *old = self.authorities()
        if not old:
            raise PkiError("there is one issuing authority only")
        write_public(self.folder / AUTHORITIES, to_pem(CERTIFICATE, root.der) + to_pem(CERTIFICATE, newest.der))
        for info in self._custody.inventory():
            if info.label == ISSUING_KEY and info.state is EpochState.RETIRING:
                self._custody.retire(ISSUING_KEY, info.epoch)
        self.make_revocation_list(now)
        return [certificate.subject.common_name for certificate in old]

    def issue(
        self, profile: Profile, subject: Subject, key: PublicKey, now: datetime, days: int | None = None
    ) -> Certificate:
        """Issue one certificate. Raises CertificateError when the subject breaks the profile's rules."""
        return self.issue_many(profile, [(subject, key)], now, days)[0]

    def issue_many(
        self,
        profile: Profile,
        requests: Sequence[tuple[Subject, PublicKey]],
        now: datetime,
        days: int | None = None,
    ) -> list[Certificate]:
        """Issue certificates of one profile with one durable write; ``days`` makes them shorter-lived than it says."""
        if profile.name not in x509.LEAF_PROFILES:
            raise CertificateError(f"the issuing authority does not issue {profile.name} certificates")
        if days is not None and not 0 < days <= profile.days:
            raise CertificateError(f"a {profile.name} certificate lives 1 to {profile.days} days, not {days}")
        profile = replace(profile, days=days or profile.days)
        organisation = self.certificate.subject.organisation
        certificates = [
            x509.issue(
                profile,
                Subject(subject.common_name, organisation, subject.serial, subject.names),
                key,
                issuer=self.certificate.subject,
                signer=self._signer,
                now=now,
            )
            for subject, key in requests
        ]
        with self._locked():
            self._append(
                [
                    Issued(now, profile.name, _hex(made.serial), made.subject.common_name, made.not_after, made.der)
                    for made in certificates
                ]
            )
        return certificates

    def issue_from_request(
        self, profile: Profile, request: bytes, now: datetime, names: tuple[str, ...] = ()
    ) -> Certificate:
        """Issue to whoever made a certification request (DER): subject and key are the request's.

        ``names``, when given, replace the names that it asks for. Raises CertificateError.
        """
        subject, key = x509.verify_request(request)
        if names:
            subject = Subject(subject.common_name, serial=subject.serial, names=names)
        return self.issue(profile, subject, key, now)

    def chain(self, certificate: Certificate) -> bytes:
        """What the holder shows on a channel, PEM.

        A server adds the issuing authority's certificate, so that its clients in the field need only the root. A mere
        client does not: its servers know the issuing authority, and half a kilobyte counts on a field link.
        """
        shown = to_pem(CERTIFICATE, certificate.der)
        if "server_auth" in certificate.extended_usage:
            shown += to_pem(CERTIFICATE, self.certificate.der)
        return shown

    def revoke(self, serial: int, reason: str, now: datetime) -> Issued:
        """Revoke for good; it takes effect with the next revocation list.

        Raises PkiError: no such certificate, or it is revoked already.
        """
        if reason not in x509.REVOCATION_REASONS:
            raise PkiError(f"{reason} is not a reason; use one of {', '.join(x509.REVOCATION_REASONS)}")
        with self._locked():
            entry = next((entry for entry in self.entries() if entry.issued.serial == _hex(serial)), None)
            if entry is None:
                raise PkiError(f"no certificate with serial {_hex(serial)} was issued here")
            if entry.revoked is not None:
                raise PkiError(f"{_hex(serial)} was revoked at {entry.revoked.at:%Y-%m-%d %H:%M:%S}")
            self._append([Revoked(now, entry.issued.serial, reason)])
        return entry.issued

    def make_revocation_list(self, now: datetime, days: int = CRL_DAYS) -> Path:
        """Sign the list of all that is revoked, one for each issuing authority, and put them into place."""
        with self._locked():
            acts = list(self._acts())
            number = 1 + max((act.number for act in acts if isinstance(act, Listed)), default=0)
            issuers = {
                act.serial: x509.parse_certificate(act.certificate).issuer for act in acts if isinstance(act, Issued)
            }
            lists = []
            for authority in self.authorities()[1:]:
                name = authority.subject.common_name
                revocations = [
                    x509.Revocation(int(act.serial, 16), act.at, act.reason)
                    for act in acts
                    if isinstance(act, Revoked) and issuers[act.serial] == name
                ]
                lists.append(
                    x509.revocation_list(
                        revocations, number=number, issuer=authority.subject, signer=self._signer_of(authority),
                        now=now, days=days,
                    )
                )  # fmt: skip
            self._append([Listed(now, number)])
            path = self.folder / CRL
            write_public(path, b"".join(to_pem(REVOCATION_LIST, der) for der in lists))
        return path

    def entries(self) -> list[Entry]:
        """All certificates in the order of issue."""
        issued: dict[str, Issued] = {}
        revoked: dict[str, Revoked] = {}
        for act in self._acts():
            if isinstance(act, Issued):
                issued[act.serial] = act
            elif isinstance(act, Revoked):
                revoked[act.serial] = act
        return [Entry(act, revoked.get(serial)) for serial, act in issued.items()]

    def _acts(self) -> Iterator[Act]:
        data = (self.folder / _INDEX).read_bytes()
        # Whatever follows the last line end was cut short.
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
            try:
                yield _DECODER.decode(line)
            except (msgspec.DecodeError, msgspec.ValidationError):
                raise PkiError(f"{self.folder / _INDEX} line {number} is damaged; restore it from a backup") from None

    def _append(self, acts: Sequence[Act]) -> None:
        lines = b"".join(msgspec.json.encode(act) + b"\n" for act in acts)
        with open(self.folder / _INDEX, "r+b") as file:
            data = file.read()
            file.seek(data.rfind(b"\n") + 1)
            file.truncate()
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)  # gives the lock back


def _hex(serial: int) -> str:
    return f"{serial:032x}"
