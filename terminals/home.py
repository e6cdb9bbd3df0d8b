"""The home folder of a terminal: all that a program needs to be that terminal.

::

    terminal.toml     who it is, where its switch is, which services it knows
    terminal.crt      its certificate and that of the issuing authority
    terminal.key      its private key, mode 0600; in the field the secure medium keeps it instead
    authorities.crt   whom it trusts
    working.keys      master and working keys, mode 0600, see ``key_store``; the secure medium's too in the field
    terminal.next.*   the next certificate and its key, see ``renewal``
    counters.json     batch and STAN, see ``identity.Counters``
    offline.log       purchases that wait for coverage, see ``offline_store``
    batches.jsonl     what counts in batches that are not settled, see ``batch_log.BatchLog``
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from OpenSSL import SSL

from fengshou.codecs import BadKey, MessageCodec, PrivateKey, PublicKey
from fengshou.hsm import channel
from fengshou.hsm.files import write_public
from fengshou.hsm.software import load_private_key, save_private_key
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.identity import Counters, Identity
from fengshou.terminals.key_store import KeyStore
from fengshou.terminals.offline_store import OfflineStore
from fengshou.terminals.renewal import Renewal

_CONFIGURATION = "terminal.toml"
_CERTIFICATE = "terminal.crt"
_KEY = "terminal.key"
_AUTHORITIES = "authorities.crt"
_WORKING_KEYS = "working.keys"
_COUNTERS = "counters.json"
_OFFLINE = "offline.log"
_BATCHES = "batches.jsonl"


class HomeError(Exception):
    """The folder is not the home of a terminal; the text names file, key and reason."""


class SwitchAddress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the switch is and how to know that it is the right one."""

    host: str
    port: int
    name: str  # DNS name or IP address in the switch's certificate
    signing_key: str  # its public keys for receipts, parted by spaces: 04 || x || y each, hexadecimal
    profile: str = "national"  # of the channel; "narrow" saves bytes on a field link


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``terminal.toml``. ``services`` are dotted names of the packages that define its messages."""

    switch: SwitchAddress
    identity: Identity
    services: tuple[str, ...] = ()


class Home:
    """An existing home folder."""

    def __init__(self, folder: Path) -> None:
        """Raises HomeError when ``terminal.toml`` is missing or wrong."""
        self.folder = folder
        path = folder / _CONFIGURATION
        try:
            self.configuration = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Configuration)
        except OSError as error:
            raise HomeError(f"{path}: {error.strerror}; make a home with: fengshou terminal enrol") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise HomeError(f"{path}: {error}") from None
        if self.configuration.switch.profile not in channel.PROFILES:
            raise HomeError(f"{path}: profile is one of {', '.join(channel.PROFILES)}")
        # Opened at once: a change of the certificate that was cut short is finished before anybody reads the files.
        self.renewal = Renewal(folder / _CERTIFICATE, folder / _KEY)

    @property
    def identity(self) -> Identity:
        return self.configuration.identity

    @property
    def address(self) -> tuple[str, int]:
        return self.configuration.switch.host, self.configuration.switch.port

    @property
    def switch_name(self) -> str:
        return self.configuration.switch.name

    @property
    def trust(self) -> channel.Trust:
        return channel.Trust(self.folder / _AUTHORITIES)

    def switch_keys(self) -> tuple[PublicKey, ...]:
        """The keys by which receipts are believed, of every epoch that is known here, the newest first. HomeError."""
        try:
            return tuple(PublicKey(bytes.fromhex(key)) for key in self.configuration.switch.signing_key.split())
        except (BadKey, ValueError):
            raise HomeError(f"{self.folder / _CONFIGURATION}: signing_key is no SM2 public key") from None

    def signer(self) -> PrivateKey:
        """Raises CustodyError when the key is missing or open to others."""
        return load_private_key(self.folder / _KEY)

    def context(self) -> SSL.Context:
        """The channel's context. Raises CustodyError."""
        return channel.client_context(
            channel.Identity.of_key_file(self.folder / _CERTIFICATE, self.folder / _KEY),
            self.trust,
            channel.PROFILES[self.configuration.switch.profile],
        )

    def counters(self) -> Counters:
        """Raises CountersError while another process runs this terminal."""
        return Counters.open(self.folder / _COUNTERS)

    def keys(self) -> KeyStore:
        """Only for whoever has the counters. Raises CustodyError."""
        return KeyStore.of_key(self.signer(), self.folder / _WORKING_KEYS)

    def batch_log(self) -> BatchLog:
        """Only for whoever has the counters."""
        return BatchLog(self.folder / _BATCHES)

    def offline(self, codec: MessageCodec) -> OfflineStore:
        """Purchases that wait for coverage. Raises OfflineError while another process runs this terminal."""
        return OfflineStore(self.folder / _OFFLINE, codec)


def make_home(
    folder: Path, configuration: Configuration, certificate_chain: bytes, authorities: bytes, key: PrivateKey
) -> Home:
    """Write a home folder. An existing one gets the new files, all but its counters. Raises CustodyError.

    ``certificate_chain`` and ``authorities`` are PEM.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / _KEY).unlink(missing_ok=True)
    save_private_key(folder / _KEY, key)
    (folder / _CERTIFICATE).write_bytes(certificate_chain)
    (folder / _AUTHORITIES).write_bytes(authorities)
    (folder / _CONFIGURATION).write_text(_toml(configuration), "utf-8")
    return Home(folder)


def _toml(configuration: Configuration) -> str:
    """TOML of strings, numbers and lists of strings, whose literals JSON writes alike."""
    data: dict[str, Any] = msgspec.to_builtins(configuration)
    tables = {name: data.pop(name) for name in ("switch", "identity")}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()]
    for name, table in tables.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
        ]
    return "\n".join(lines) + "\n"


def add_switch_key(folder: Path, key: PublicKey) -> None:
    """Let a terminal believe a further key for receipts; the newest stands first, older ones stay. Raises HomeError."""
    home = Home(folder)
    known = home.configuration.switch.signing_key.split()
    if key.point.hex() in known:
        return
    switch = msgspec.structs.replace(home.configuration.switch, signing_key=" ".join((key.point.hex(), *known)))
    configuration = msgspec.structs.replace(home.configuration, switch=switch)
    write_public(folder / _CONFIGURATION, _toml(configuration).encode())
