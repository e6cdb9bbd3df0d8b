"""Kinds of certificates, and whom they name."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from asn1crypto import x509

from fengshou.hsm._asn1 import CertificateError


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
        if profile.name == TERMINAL.name:
            if not _TERMINAL_ID.fullmatch(self.common_name):
                raise CertificateError(
                    f"a terminal's common name is its identification, 8 letters or digits, not {self.common_name!r}"
                )
            if not self.serial:
                raise CertificateError(f"terminal {self.common_name}: the serial number of the device is missing")
        if "server_auth" in profile.extended_usage and not self.names:
            raise CertificateError(f"{self.common_name}: a server needs at least one DNS name or IP address")
        for name in self.names:
            general_name(name)

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


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.GeneralName(name="ip_address", value=str(ip_address(name)))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(name):
        raise CertificateError(f"{name!r} is neither an IP address nor a DNS name in small letters")
    return x509.GeneralName(name="dns_name", value=name)
