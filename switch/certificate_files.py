"""Certificates and requests as files that operators name at the command line."""

from pathlib import Path
from typing import Any

from fengshou.hsm import x509
from fengshou.hsm.pem import CERTIFICATE, from_pem
from fengshou.hsm.x509 import Certificate, CertificateError


def facts_of(certificate: Certificate) -> dict[str, Any]:
    """What an operator reads of a certificate; only what it has."""
    facts: dict[str, Any] = {
        "subject": certificate.subject.common_name,
        "organisation": certificate.subject.organisation,
        "device_serial": certificate.subject.serial,
        "names": list(certificate.subject.names),
        "issuer": certificate.issuer,
        "serial": f"{certificate.serial:032x}",
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "use": list(certificate.extended_usage),
        "public_key": certificate.public_key.point.hex(),
        "fingerprint_sm3": certificate.fingerprint.hex(),
    }
    return {name: value for name, value in facts.items() if value}


def read_certificate(path: Path) -> Certificate:
    """The first certificate of a PEM file. Raises CertificateError."""
    return read_certificates(path)[0]


def read_certificates(path: Path) -> list[Certificate]:
    """All certificates of a PEM file, at least one: of a key that signs, the newest epoch first. CertificateError."""
    try:
        return [x509.parse_certificate(der) for der in from_pem(CERTIFICATE, path.read_bytes())]
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path}: {error}") from error


def stem(common_name: str) -> str:
    """The common name as a file name."""
    return (
        "".join(char if char.isalnum() or char in "._-" else "-" for char in common_name).lstrip(".") or "certificate"
    )


def serial_of(certificate: str) -> int:
    """Of a certificate in a file, or written in hexadecimal. Raises CertificateError."""
    path = Path(certificate)
    if path.is_file():
        return x509.parse_certificate(blocks(CERTIFICATE, path)[0]).serial
    try:
        return int(certificate.replace(":", ""), 16)
    except ValueError:
        raise CertificateError(f"{certificate} is neither a file nor a serial number") from None


def blocks(kind: str, path: Path) -> list[bytes]:
    """What a PEM file holds of one kind, at least one. Raises CertificateError."""
    try:
        return from_pem(kind, path.read_bytes())
    except ValueError as error:
        raise CertificateError(f"{path}: {error}") from None


def single(kind: str, path: Path) -> bytes:
    """The only block of its kind. Raises CertificateError."""
    found = blocks(kind, path)
    if len(found) != 1:
        raise CertificateError(f"{path} holds {len(found)} blocks of {kind.lower()}, not one")
    return found[0]
