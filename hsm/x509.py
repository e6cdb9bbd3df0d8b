"""X.509 with SM2: certificates, requests and revocation lists as data, signed by whoever keeps the key.

Structures are those of RFC 5280 and PKCS#10 (RFC 2986); keys and signatures are named as in GB/T 33560 and GM/T 0006:
the key is id-ecPublicKey on curve 1.2.156.10197.1.301, the signature SM2 with SM3 (1.2.156.10197.1.501) under the
default signer identity. Nothing here keeps a key, reads a clock or writes a file.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asn1crypto import core, crl, csr, x509

from fengshou.codecs import PublicKey, sm3
from fengshou.hsm._asn1 import (
    CertificateError,
    Signer,
    encode_time,
    extension,
    public_key_info,
    sign,
    sm2_with_sm3,
    untrusted,
    verify,
)
from fengshou.hsm._profiles import (
    HOST,
    ISSUING,
    LEAF_PROFILES,
    PUBLISHER,
    ROOT,
    SWITCH,
    TERMINAL,
    Profile,
    Subject,
    general_name,
)
from fengshou.hsm.custody import Custody

__all__ = [
    "HOST",
    "ISSUING",
    "LEAF_PROFILES",
    "PUBLISHER",
    "REVOCATION_REASONS",
    "ROOT",
    "SWITCH",
    "TERMINAL",
    "Certificate",
    "CertificateError",
    "CustodySigner",
    "Profile",
    "Revocation",
    "Signer",
    "Subject",
    "issue",
    "key_identifier",
    "names_of",
    "parse_certificate",
    "request",
    "revocation_list",
    "verify_certificate",
    "verify_request",
]

# A peer whose clock runs behind must still accept a certificate that was made a minute ago: terminals in the field keep
# time to within hours, not seconds.
BACKDATE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CustodySigner:
    """The key at a label of custody: of one epoch, or of whichever is current."""

    custody: Custody
    label: str
    epoch: int | None = None

    @property
    def public_key(self) -> PublicKey:
        return self.custody.public_key(self.label, self.epoch)

    def sign(self, digest: bytes) -> bytes:
        return self.custody.sign(self.label, digest, self.epoch)


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
    with untrusted("an SM2 certificate"):
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
    with untrusted("a certificate"):
        return _names(x509.Certificate.load(der, strict=True))


def _names(structure: x509.Certificate) -> tuple[str, ...]:
    names = structure.subject_alt_name_value
    return tuple(name.native for name in names if name.name in ("dns_name", "ip_address")) if names else ()


def verify_certificate(certificate: Certificate, issuer: PublicKey) -> None:
    """Raises CertificateError unless ``issuer`` signed it. Dates, usage and revocation are for the caller."""
    with untrusted("an SM2 certificate"):
        structure = x509.Certificate.load(certificate.der)
        verify(issuer, structure["tbs_certificate"], structure["signature_algorithm"], structure["signature_value"])


def issue(
    profile: Profile, subject: Subject, key: PublicKey, *, issuer: Subject, signer: Signer, now: datetime
) -> Certificate:
    """A certificate of ``profile`` for ``key``, signed by ``signer``, whose name is ``issuer``; self-signed when equal.

    ``now`` is aware. Raises CertificateError when the subject breaks the profile's rules.
    """
    subject.check(profile)
    extensions = [
        extension("basic_constraints", x509.BasicConstraints(_constraints(profile)), critical=True),
        extension("key_usage", x509.KeyUsage(set(profile.usage)), critical=True),
        extension("key_identifier", core.OctetString(key_identifier(key))),
        extension(
            "authority_key_identifier",
            x509.AuthorityKeyIdentifier({"key_identifier": key_identifier(signer.public_key)}),
        ),
    ]
    if profile.extended_usage:
        extensions.append(extension("extended_key_usage", x509.ExtKeyUsageSyntax(list(profile.extended_usage))))
    if subject.names:
        names = x509.GeneralNames([general_name(name) for name in subject.names])
        extensions.append(extension("subject_alt_name", names))
    start = now.replace(microsecond=0)
    body = x509.TbsCertificate(
        {
            "version": "v3",
            "serial_number": _new_serial(),
            "signature": sm2_with_sm3(),
            "issuer": issuer.encode(),
            "validity": {
                "not_before": encode_time(start - BACKDATE),
                "not_after": encode_time(start + timedelta(profile.days)),
            },
            "subject": subject.encode(),
            "subject_public_key_info": public_key_info(key),
            "extensions": extensions,
        }
    )
    structure = x509.Certificate(
        {"tbs_certificate": body, "signature_algorithm": sm2_with_sm3(), "signature_value": sign(signer, body)}
    )
    return parse_certificate(structure.dump())


def _constraints(profile: Profile) -> dict[str, Any]:
    return {"ca": True, "path_len_constraint": profile.ca_path_length} if profile.is_ca else {"ca": False}


def request(signer: Signer, subject: Subject) -> bytes:
    """A certification request (PKCS#10, DER): proof that the requester holds the key it wants certified."""
    attributes = []
    if subject.names:
        names = x509.GeneralNames([general_name(name) for name in subject.names])
        extensions = x509.Extensions([extension("subject_alt_name", names)])
        attributes.append({"type": "extension_request", "values": [extensions]})
    body = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": subject.encode(),
            "subject_pk_info": public_key_info(signer.public_key),
            "attributes": attributes,
        }
    )
    structure = csr.CertificationRequest(
        {
            "certification_request_info": body,
            "signature_algorithm": sm2_with_sm3(),
            "signature": sign(signer, body),
        }
    )
    return bytes(structure.dump())


def verify_request(der: bytes) -> tuple[Subject, PublicKey]:
    """Who asks and for which key. Raises CertificateError: malformed, or the requester does not hold the key."""
    with untrusted("an SM2 certification request"):
        structure = csr.CertificationRequest.load(der, strict=True)
        body = structure["certification_request_info"]
        key = PublicKey(body["subject_pk_info"].dump())
        verify(key, body, structure["signature_algorithm"], structure["signature"])
        names: tuple[str, ...] = ()
        for attribute in body["attributes"]:
            if attribute["type"].native == "extension_request":
                for asked in attribute["values"][0]:
                    if asked["extn_id"].native == "subject_alt_name":
                        names = tuple(name.native for name in asked["extn_value"].parsed)
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
        "signature": sm2_with_sm3(),
        "issuer": issuer.encode(),
        "this_update": encode_time(start - BACKDATE),
        "next_update": encode_time(start + timedelta(days)),
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
                "revocation_date": encode_time(revocation.at),
                "crl_entry_extensions": [
                    {"extn_id": "crl_reason", "critical": False, "extn_value": crl.CRLReason(revocation.reason)}
                ],
            }
            for revocation in revocations
        ]
    to_sign = crl.TbsCertList(body)
    structure = crl.CertificateList(
        {"tbs_cert_list": to_sign, "signature_algorithm": sm2_with_sm3(), "signature": sign(signer, to_sign)}
    )
    return bytes(structure.dump())


def _new_serial() -> int:
    """128 random bits without a sign (RFC 5280 section 4.1.2.2 allows 20 octets): unique without a shared counter."""
    return secrets.randbits(127) | 1 << 127


def key_identifier(key: PublicKey) -> bytes:
    """The first 20 bytes of SM3 of the point: method 1 of RFC 7093 with SM3."""
    return sm3(key.point)[:20]
