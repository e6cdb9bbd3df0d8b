"""A new site in one folder: authority, keys, certificates, configuration, and the three embedded back ends.

::

    switch.toml                 the switch's configuration
    keys/                       the switch's custody
    certificates/               the switch's certificates: switch.crt for channels, switch-sign.crt for what it signs,
                                audit-sign.crt for the audit log
    pki/                        the certification authority; in earnest it lives on another machine
    publisher/                  the key that signs application manifests, and the manifests
    registry.db                 terminals, sites, applications
    journal/                    the journal
    hosts/NAME/                 one embedded back end: host.toml, keys and certificates of its own, its store
    terminals/ID/               homes of enrolled terminals
    audit.log                   what was done to keys, certificates and the registry, and by whom; `people/` their keys

``fengshou init`` makes it for a start; each part can be moved or replaced, because everything is named in a TOML file.
"""

import socket
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fengshou.hsm.custody import AUDIT_SIGN, SWITCH_SIGN, SWITCH_TLS, Custody
from fengshou.hsm.files import make_folder, write_public
from fengshou.hsm.pki import AUTHORITIES, CRL, Authority
from fengshou.hsm.software import Kind, SoftwareCustody, make_keys
from fengshou.hsm.x509 import HOST, PUBLISHER, SWITCH, Profile, Subject
from fengshou.switch.config import ConfigError, Provider, parse_providers
from fengshou.switch.custodies import open_custody
from fengshou.switch.zones import found_zone
from fengshou.terminals.signer_dialogue import SIGNER_NAME

SERVICES = "fengshou.ext.services"
STANDARD_SERVICES = (
    "farm_purchase", "withdrawal", "deposit", "transfer", "balance", "reversal", "gov_enquiry", "settlement", "void",
    "refund", "offline_sale", "preauthorisation", "completion", "preauthorisation_void",
)  # fmt: skip
LOCALHOST = "127.0.0.1"

# Labels in the custody of a back end and of the publisher of applications.
HOST_TLS = "host.tls"
HOST_SIGN = "host.sign"
PUBLISHER_SIGN = "publisher.sign"


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on localhost."""

    terminals: int = 7443
    core_banking: int = 8583
    government: int = 8443
    analytics: int = 8444


def free_ports() -> Ports:
    """Four on which nobody listens just now."""
    sockets = [socket.create_server((LOCALHOST, 0)) for _ in range(4)]
    numbers = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return Ports(*numbers)


class HostConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a ``host.toml``. Paths are relative to its folder; so are options whose name is in ``paths``."""

    application: str  # dotted name of a class of protocol.backend
    kind: str  # iso8583, json or events
    host: str = LOCALHOST
    port: int
    mac: bool = False  # of ISO 8583: every message bears one, see ``protocol.iso8583_mac``
    options: dict[str, Any] = {}
    paths: list[str] = []
    keys: str = ""
    certificate: str = ""
    authorities: str = ""
    revoked: str = ""
    peers: list[str] = []  # certificates of the keys that sign requests
    custody: dict[str, Provider] = {}  # what keeps keys beside software


def load_host(folder: Path) -> HostConfig:
    """Read a back end's configuration. Raises ConfigError."""
    file = folder / "host.toml"
    try:
        config = msgspec.convert(tomllib.loads(file.read_text("utf-8")), HostConfig)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; `fengshou init` makes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{file}: {error}") from error
    options = {name: str(folder / value) if name in config.paths else value for name, value in config.options.items()}
    return msgspec.structs.replace(config, options=options)


@dataclass(slots=True)
class Site:
    """A folder that ``make_site`` made."""

    folder: Path
    ports: Ports = field(default_factory=Ports)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)


def make_site(
    folder: Path, accounts: Path, ports: Ports | None = None, organisation: str = "Fengshou Rural Bank",
    providers: str = "",
) -> Site:  # fmt: skip
    """Make everything but terminals. ``accounts`` opens the embedded ledger.

    ``providers`` are tables ``[custody.NAME]`` in TOML: cards and devices that keep some of the keys from the start.
    Raises PkiError when a site is there, ConfigError, CustodyError: a card or device cannot be used.
    """
    site = Site(folder.resolve(), ports or Ports())
    now = datetime.now(UTC)
    make_folder(site.path("keys"))
    custody = open_custody(site.folder, "keys", parse_providers(providers))
    make_keys(custody)  # first: a card or device that cannot be used must not leave half a site
    authority = Authority.initialise(site.path("pki"), organisation, now)
    site.path("certificates").mkdir()
    _certify(authority, SWITCH, "switch", custody, SWITCH_TLS, site.path("certificates", "switch.crt"), now)
    for name, label in ((SIGNER_NAME, SWITCH_SIGN), ("audit-sign", AUDIT_SIGN)):
        _certify(authority, PUBLISHER, name, custody, label, site.path("certificates", f"{name}.crt"), now)
    publisher = SoftwareCustody.initialise(site.path("publisher", "keys"))
    publisher.create(PUBLISHER_SIGN, Kind.SM2)
    _certify(authority, PUBLISHER, "publisher", publisher, PUBLISHER_SIGN, site.path("publisher", "publisher.crt"), now)
    for name in ("government", "analytics"):
        home = site.path("hosts", name)
        host_custody = SoftwareCustody.initialise(home / "keys")
        host_custody.create(HOST_TLS, Kind.SM2)
        host_custody.create(HOST_SIGN, Kind.SM2)
        _certify(authority, HOST, name, host_custody, HOST_TLS, home / "host.crt", now)
        _certify(authority, PUBLISHER, f"{name}-sign", host_custody, HOST_SIGN, home / "host-sign.crt", now)
    home = site.path("hosts", "core-banking")
    found_zone(custody, SoftwareCustody.initialise(home / "keys"), "core-banking")
    ports = site.ports
    write_public(
        home / "host.toml", _CORE_BANKING.format(port=ports.core_banking, accounts=accounts.resolve()).encode()
    )
    for name, port, template in (
        ("government", ports.government, _GOVERNMENT),
        ("analytics", ports.analytics, _ANALYTICS),
    ):
        text = template.format(port=port) + _JSON_HOST
        write_public(site.path("hosts", name, "host.toml"), text.encode())
    services = "".join(f'\n[[service]]\nmodule = "{SERVICES}.{name}"\n' for name in STANDARD_SERVICES)
    write_public(site.path("switch.toml"), (_SWITCH.format(ports=ports) + services + providers).encode())
    return site


def _certify(
    authority: Authority, profile: Profile, name: str, custody: Custody, label: str, file: Path, now: datetime
) -> None:
    subject = Subject(name, names=(LOCALHOST, "localhost")) if profile in (SWITCH, HOST) else Subject(name)
    certificate = authority.issue(profile, subject, custody.public_key(label), now)
    write_public(file, authority.chain(certificate))


_CORE_BANKING = """\
# The embedded core-banking host: a double-entry ledger behind ISO 8583:1987.
application = "fengshou.ext.hosts.core_banking.Application"
kind = "iso8583"
port = {port}
options = {{ database = "ledger.db", accounts = "{accounts}" }}
paths = ["database", "accounts"]
keys = "keys"
mac = true
"""

_GOVERNMENT = """\
# The embedded government gateway: a catalogue of services behind HTTPS with signed JSON.
application = "fengshou.ext.hosts.government.Application"
kind = "json"
port = {port}
options = {{ database = "gateway.db" }}
paths = ["database"]
"""

_ANALYTICS = """\
# The embedded analytics store: farm trades in DuckDB, behind HTTPS with signed JSON.
application = "fengshou.ext.hosts.analytics.Store"
kind = "events"
port = {port}
options = {{ database = "analytics.duckdb" }}
paths = ["database"]
"""

_JSON_HOST = f"""\
keys = "keys"
certificate = "host.crt"
authorities = "../../pki/{AUTHORITIES}"
revoked = "../../pki/{CRL}"
peers = ["../../certificates/switch-sign.crt"]
"""

_SWITCH = f"""\
# The switch. Paths are relative to this file; `fengshou check FILE` reads it and says what is wrong.
log-level = "info"

[listen]
host = "{LOCALHOST}"
port = {{ports.terminals}}
certificate = "certificates/switch.crt"
authorities = "pki/{AUTHORITIES}"
revoked = "pki/{CRL}"
profile = "national"        # or "narrow": no post-quantum group, 2.3 KB less a handshake

# The bank's own host can stand here: another address, perhaps packing = "ascii".
[destination.core-banking]
kind = "iso8583"
addresses = ["{LOCALHOST}:{{ports.core_banking}}"]
links = 2
deadline-ms = 5000
zone-keys = true            # PINs travel under a key of this link
mac = true                  # and every message is authenticated by another one

[destination.government]
kind = "json"
address = "{LOCALHOST}:{{ports.government}}"
name = "{LOCALHOST}"
signer = "hosts/government/host-sign.crt"
certificate = "certificates/switch.crt"
authorities = "pki/{AUTHORITIES}"
revoked = "pki/{CRL}"
deadline-ms = 8000

[analytics]
address = "{LOCALHOST}:{{ports.analytics}}"
name = "{LOCALHOST}"
signer = "hosts/analytics/host-sign.crt"
certificate = "certificates/switch.crt"
authorities = "pki/{AUTHORITIES}"
revoked = "pki/{CRL}"
"""
