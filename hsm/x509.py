"""X.509 with SM2: certificates, requests and revocation lists as data, signed by whoever keeps the key.

Structures are those of RFC 5280 and PKCS#10 (RFC 2986); keys and signatures are named as in GB/T 33560 and GM/T 0006:
the key is id-ecPublicKey on curve 1.2.156.10197.1.301, the signature SM2 with SM3 (1.2.156.10197.1.501) under the
default signer identity. Nothing here keeps a key, reads a clock or writes a file.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Protocol

from asn1crypto import algos, core, crl, csr, keys, x509

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm.custody import Custody

# GB/T 33560 and GM/T 0006.
OID_SM2_WITH_SM3 = "1.2.156.10197.1.501"

# A peer whose clock runs behind must still accept a certificate that was made a minute ago: terminals in the field keep
# time to within hours, not seconds.
BACKDATE = timedelta(days=1)


class CertificateError(Exception):
    """A certificate, request or list is malformed, does not verify, or breaks the rules of its profile."""


class Signer(Protocol):
    """An SM2 key that can be used but need not be seen; ``codecs.PrivateKey`` is one."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, digest: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class CustodySigner:
    """The key at a label of custody."""

    custody: Custody
    label: str

    @property
    def public_key(self) -> PublicKey:
        return self.custody.public_key(self.label)

    def sign(self, digest: bytes) -> bytes:
        return self.custody.sign(self.label, digest)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of certificate may be used for and how long."""

    name: str
    days: int
    usage: frozenset[str]
    extended_usage: tuple[str, ...] = ()
    ca_path_length: int | None = None  # None: not a certification authority

    @property
    def is_ca(self) -> bool:
        return self.ca_path_length is not None


_CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})
_SIGNATURE = frozenset({"digital_signature"})

# The root stays off line and is built into every terminal: it must outlive two generations of devices.
ROOT = Profile("root", 20 * 365, _CA_USAGE, ca_path_length=1)
# Half of the root's life, so that its successor is issued while both are valid.
ISSUING = Profile("issuing", 10 * 365, _CA_USAGE, ca_path_length=0)
# Renewed by operators at a machine that they can reach, so as short as a yearly inspection allows.
SWITCH = Profile("switch", 365, _SIGNATURE, ("server_auth", "client_auth"))
# Renewed in the field: two years leave a whole year in which a seldom used terminal can come on line.
TERMINAL = Profile("terminal", 2 * 365, _SIGNATURE, ("client_auth",))
HOST = Profile("host", 365, _SIGNATURE, ("server_auth",))
# Code signing alone: without an extended usage of its own, the certificate would pass as one for TLS.
PUBLISHER = Profile("publisher", 2 * 365, _SIGNATURE, ("code_signing",))
LEAF_PROFILES = {profile.name: profile for profile in (SWITCH, TERMINAL, HOST, PUBLISHER)}

_TERMINAL_ID = re.compile(r"[A-Za-z0-9]{8}")
_DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate names: ``serial`` is that of a device, ``names`` are DNS names and IP addresses."""

    common_name: str
    organisation: str = ""
    serial: str = ""
    names: tuple[str, ...] = ()

    def check(self, profile: Profile) -> None:
        """Raises CertificateError when the profile asks for something else."""
        if not 1 <= len(self.common_name) <= 64:  # ub-common-name, RFC 5280 appendix A.1
            raise CertificateError("a common name has 1 to 64 characters")
        if profile is TERMINAL:
            if not _TERMINAL_ID.fullmatch(self.common_name):
                raise CertificateError(
                    f"a terminal's common name is its identification, 8 letters or digits, not {self.common_name!r}"
                )
            if not self.serial:
                raise CertificateError(f"terminal {self.common_name}: the serial number of the device is missing")
        if "server_auth" in profile.extended_usage and not self.names:
            raise CertificateError(f"{self.common_name}: a server needs at least one DNS name or IP address")
        for name in self.names:
            _general_name(name)

    def encode(self) -> x509.Name:
        rows = {"organization_name": self.organisation, "common_name": self.common_name, "serial_number": self.serial}
        return x509.Name.build({kind: value for kind, value in rows.items() if value})

    @classmethod
    def decode(cls, name: x509.Name, names: tuple[str, ...] = ()) -> "Subject":
        rows = name.native
        common_name, organisation, serial = (
            rows.get(kind, "") for kind in ("common_name", "organization_name", "serial_number")
        )
        if not all(isinstance(value, str) for value in (common_name, organisation, serial)):
            raise CertificateError("the subject names something twice")
        # A request's subject is a stranger's text that an operator reads on a screen.
        if not all(value.isprintable() for value in (common_name, organisation, serial)):
            raise CertificateError("the subject holds characters that cannot be shown")
        return cls(common_name, organisation, serial, names)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.GeneralName(name="ip_address", value=str(ip_address(name)))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(name):
        raise CertificateError(f"{name!r} is neither an IP address nor a DNS name in small letters")
    return x509.GeneralName(name="dns_name", value=name)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The facts of a certificate that this system uses, beside its bytes."""

    der: bytes
    subject: Subject
    issuer: str  # common name
    serial: int
    not_before: datetime
    not_after: datetime
    public_key: PublicKey
    extended_usage: tuple[str, ...]

    @property
    def fingerprint(self) -> bytes:
        """SM3 of the DER, 32 bytes."""
        return sm3(self.der)


def parse_certificate(der: bytes) -> Certificate:
    """Read a certificate without judging it. Raises CertificateError for anything but a certificate of an SM2 key."""
    with _untrusted("an SM2 certificate"):
        structure = x509.Certificate.load(der, strict=True)
        usage = structure.extended_key_usage_value
        return Certificate(
            der=der,
            subject=Subject.decode(structure.subject, _names(structure)),
            issuer=Subject.decode(structure.issuer).common_name,
            serial=structure.serial_number,
            not_before=structure.not_valid_before,
            not_after=structure.not_valid_after,
            public_key=PublicKey(structure.public_key.dump()),
            extended_usage=tuple(usage.native) if usage else (),
        )


def names_of(der: bytes) -> tuple[str, ...]:
    """DNS names and IP addresses of a certificate with any kind of key. Raises CertificateError."""
    with _untrusted("a certificate"):
        return _names(x509.Certificate.load(der, strict=True))


def _names(structure: x509.Certificate) -> tuple[str, ...]:
    names = structure.subject_alt_name_value
    return tuple(name.native for name in names if name.name in ("dns_name", "ip_address")) if names else ()


def verify_certificate(certificate: Certificate, issuer: PublicKey) -> None:
    """Raises CertificateError unless ``issuer`` signed it. Dates, usage and revocation are for the caller."""
    with _untrusted("an SM2 certificate"):
        structure = x509.Certificate.load(certificate.der)
        _verify(issuer, structure["tbs_certificate"], structure["signature_algorithm"], structure["signature_value"])


def issue(
    profile: Profile, subject: Subject, key: PublicKey, *, issuer: Subject, signer: Signer, now: datetime
) -> Certificate:
    """A certificate of ``profile`` for ``key``, signed by ``signer``, whose name is ``issuer``; self-signed when equal.

    ``now`` is aware. Raises CertificateError when the subject breaks the profile's rules.
    """
    subject.check(profile)
    extensions = [
        _extension("basic_constraints", x509.BasicConstraints(_constraints(profile)), critical=True),
        _extension("key_usage", x509.KeyUsage(set(profile.usage)), critical=True),
        _extension("key_identifier", core.OctetString(key_identifier(key))),
        _extension(
            "authority_key_identifier",
            x509.AuthorityKeyIdentifier({"key_identifier": key_identifier(signer.public_key)}),
        ),
    ]
    if profile.extended_usage:
        extensions.append(_extension("extended_key_usage", x509.ExtKeyUsageSyntax(list(profile.extended_usage))))
    if subject.names:
        names = x509.GeneralNames([_general_name(name) for name in subject.names])
        extensions.append(_extension("subject_alt_name", names))
    start = now.replace(microsecond=0)
    body = x509.TbsCertificate(
        {
            "version": "v3",
            "serial_number": new_serial(),
            "signature": _sm2_with_sm3(),
            "issuer": issuer.encode(),
            "validity": {"not_before": _time(start - BACKDATE), "not_after": _time(start + timedelta(profile.days))},
            "subject": subject.encode(),
            "subject_public_key_info": _public_key_info(key),
            "extensions": extensions,
        }
    )
    structure = x509.Certificate(
        {"tbs_certificate": body, "signature_algorithm": _sm2_with_sm3(), "signature_value": _sign(signer, body)}
    )
    return parse_certificate(structure.dump())


def _constraints(profile: Profile) -> dict[str, Any]:
    return {"ca": True, "path_len_constraint": profile.ca_path_length} if profile.is_ca else {"ca": False}


def request(signer: Signer, subject: Subject) -> bytes:
    """A certification request (PKCS#10, DER): proof that the requester holds the key it wants certified."""
    attributes = []
    if subject.names:
        names = x509.GeneralNames([_general_name(name) for name in subject.names])
        extensions = x509.Extensions([_extension("subject_alt_name", names)])
        attributes.append({"type": "extension_request", "values": [extensions]})
    body = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": subject.encode(),
            "subject_pk_info": _public_key_info(signer.public_key),
            "attributes": attributes,
        }
    )
    structure = csr.CertificationRequest(
        {
            "certification_request_info": body,
            "signature_algorithm": _sm2_with_sm3(),
            "signature": _sign(signer, body),
        }
    )
    return bytes(structure.dump())


def verify_request(der: bytes) -> tuple[Subject, PublicKey]:
    """Who asks and for which key. Raises CertificateError: malformed, or the requester does not hold the key."""
    with _untrusted("an SM2 certification request"):
        structure = csr.CertificationRequest.load(der, strict=True)
        body = structure["certification_request_info"]
        key = PublicKey(body["subject_pk_info"].dump())
        _verify(key, body, structure["signature_algorithm"], structure["signature"])
        names: tuple[str, ...] = ()
        for attribute in body["attributes"]:
            if attribute["type"].native == "extension_request":
                for extension in attribute["values"][0]:
                    if extension["extn_id"].native == "subject_alt_name":
                        names = tuple(name.native for name in extension["extn_value"].parsed)
        return Subject.decode(body["subject"], names), key


@dataclass(frozen=True, slots=True)
class Revocation:
    serial: int
    at: datetime
    reason: str  # a name of CRLReason, RFC 5280 section 5.3.1, such as key_compromise


REVOCATION_REASONS = ("unspecified", "key_compromise", "affiliation_changed", "superseded", "cessation_of_operation")


def revocation_list(
    revocations: Sequence[Revocation], *, number: int, issuer: Subject, signer: Signer, now: datetime, days: int
) -> bytes:
    """A certificate revocation list (DER), valid for ``days``. An empty one says that nothing is revoked."""
    start = now.replace(microsecond=0)
    body: dict[str, Any] = {
        "version": "v2",
        "signature": _sm2_with_sm3(),
        "issuer": issuer.encode(),
        "this_update": _time(start - BACKDATE),
        "next_update": _time(start + timedelta(days)),
        "crl_extensions": [
            {
                "extn_id": "authority_key_identifier",
                "critical": False,
                "extn_value": x509.AuthorityKeyIdentifier({"key_identifier": key_identifier(signer.public_key)}),
            },
            {"extn_id": "crl_number", "critical": False, "extn_value": core.Integer(number)},
        ],
    }
    # RFC 5280 section 5.1.2.6: the list of revoked certificates is absent when it is empty.
    if revocations:
        body["revoked_certificates"] = [
            {
                "user_certificate": revocation.serial,
                "revocation_date": _time(revocation.at),
                "crl_entry_extensions": [
                    {"extn_id": "crl_reason", "critical": False, "extn_value": crl.CRLReason(revocation.reason)}
                ],
            }
            for revocation in revocations
        ]
    to_sign = crl.TbsCertList(body)
    structure = crl.CertificateList(
        {"tbs_cert_list": to_sign, "signature_algorithm": _sm2_with_sm3(), "signature": _sign(signer, to_sign)}
    )
    return bytes(structure.dump())


def new_serial() -> int:
    """128 random bits without a sign (RFC 5280 section 4.1.2.2 allows 20 octets): unique without a shared counter."""
    return secrets.randbits(127) | 1 << 127


def key_identifier(key: PublicKey) -> bytes:
    """The first 20 bytes of SM3 of the point: method 1 of RFC 7093 with SM3."""
    return sm3(key.point)[:20]


def _extension(kind: str, value: Any, *, critical: bool = False) -> x509.Extension:
    return x509.Extension({"extn_id": kind, "critical": critical, "extn_value": value})


def _time(moment: datetime) -> x509.Time:
    # RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
    return x509.Time(name="utc_time" if moment.year < 2050 else "general_time", value=moment)


def _sm2_with_sm3() -> algos.SignedDigestAlgorithm:
    return algos.SignedDigestAlgorithm({"algorithm": OID_SM2_WITH_SM3})


def _public_key_info(key: PublicKey) -> keys.PublicKeyInfo:
    return keys.PublicKeyInfo.load(key.spki)


def _sign(signer: Signer, body: core.Asn1Value) -> bytes:
    signature = signer.sign(sm3(signer.public_key.za + body.dump()))
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    return bytes(algos.DSASignature({"r": r, "s": s}).dump())


def _verify(key: PublicKey, body: core.Asn1Value, algorithm: Any, value: core.OctetBitString) -> None:
    if algorithm["algorithm"].dotted != OID_SM2_WITH_SM3:
        raise CertificateError("not signed with SM2 and SM3")
    pair = algos.DSASignature.load(value.native, strict=True)
    try:
        signature = b"".join(int(pair[half].native).to_bytes(32, "big") for half in ("r", "s"))
        key.verify(sm3(key.za + body.dump()), signature)
    except (OverflowError, BadSignature):
        raise CertificateError("the signature does not verify") from None


@contextmanager
def _untrusted(what: str) -> Iterator[None]:
    """What asn1crypto raises over a stranger's bytes becomes CertificateError; it parses late, so anywhere inside."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # asn1crypto explains itself over several lines; the first one names what is wrong.
        reason = (str(error).splitlines() or ["malformed"])[0]
        raise CertificateError(f"not {what}: {reason}") from None
