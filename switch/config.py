"""The switch's configuration: one TOML file, read and checked once, before anything is opened.

Paths are relative to the file. Every error names the key and says what is wrong with it.
"""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from fengshou.hsm.custody import SWITCH_TLS
from fengshou.switch.clock import CutOver

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=600_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


_SOCKET_PATH_MAX = 107
_WORKERS_MAX = 64


class ConfigError(Exception):
    """The file cannot be used. The text is for the operator: key, reason, what to do."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=lambda name: name.replace("_", "-")):
    pass


class Files(_Section, frozen=True):
    """Where the switch keeps things."""

    keys: str = "keys"  # custody's folder
    registry: str = "registry.db"
    journal: str = "journal"
    renewals: str = "renewals"  # wishes of terminals for certificates, and the authority's answers
    status: str = "status.sock"  # a Unix socket that answers `fengshou status`


class Listen(_Section, frozen=True):
    """The terminals' side. ``profile``: `national` or `narrow` (no post-quantum group: 2.3 KB less a handshake)."""

    certificate: str
    authorities: str
    host: str = "0.0.0.0"  # noqa: S104 terminals come from outside; every one shows a certificate
    port: Port = 7443
    revoked: str = ""
    profile: Literal["national", "narrow"] = "national"


class Limits(_Section, frozen=True):
    """Bounds of what the switch takes on at once."""

    connections: Count = 10_000
    handshakes: Count = 4096  # unfinished ones: twice as many as may come back at once
    handshake_s: Seconds = 10.0
    sign_in_s: Seconds = 30.0  # a connection without a sign-in
    idle_s: Seconds = 900.0
    outbox_bytes: Count = 128 * 1024  # what a slow reader may leave unread
    stalled_s: Seconds = 10.0
    in_flight: Count = 4096  # requests without an outcome; past it a request gets 96 at once
    drain_s: Seconds = 15.0  # how long a stop waits for back ends
    journal_gib: Count = 64  # the address space of the journal, not its size


class CutOverSection(_Section, frozen=True):
    """The business day. In the window around the cut-over the named services are refused with code 90."""

    time: Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "00:00"  # UTC+8
    before_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 0
    after_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 0
    services: list[Name] = []

    def rule(self) -> CutOver:
        hour, minute = map(int, self.time.split(":"))
        return CutOver(60 * hour + minute, self.before_s, self.after_s, frozenset(self.services))


class Iso8583Destination(_Section, frozen=True, tag="iso8583", tag_field="kind"):
    """A host that speaks ISO 8583:1987 over TCP; a link for each address, times ``links``."""

    addresses: Annotated[list[str], msgspec.Meta(min_length=1)]
    links: Count = 2
    deadline_ms: Milliseconds = 5000
    in_flight: Count = 2048
    packing: Literal["bcd", "ascii"] = "bcd"
    zone_keys: bool = False  # PIN and authentication key are brought to the host under its zone master key
    mac: bool = False  # every message bears DE 64 or 128; with zone_keys only
    pin_format: Literal["iso-4", "unionpay"] = "iso-4"  # of the PIN blocks that the host reads
    match: tuple[int, ...] = (11, 37, 41)


class JsonPeer(_Section, frozen=True):
    """How to reach a service that speaks signed JSON over HTTPS with mutual certificates."""

    address: str
    name: str  # in the server's certificate
    signer: str  # PEM certificate of the key that signs its answers
    certificate: str  # ours
    authorities: str
    revoked: str = ""
    profile: Literal["national", "narrow", "international"] = "national"


class JsonDestination(JsonPeer, frozen=True, tag="json", tag_field="kind"):
    """A service behind HTTPS."""

    connections: Count = 4
    waiting: Count = 256
    deadline_ms: Milliseconds = 8000


class ServiceEntry(_Section, frozen=True):
    """A business scene. ``destination`` overrides the one that the service names."""

    module: str
    options: dict[str, Any] = {}
    deadline_ms: Milliseconds | None = None


class StandInSection(_Section, frozen=True):
    """Standing in for core banking while it is away, within limits that ``signer`` has signed."""

    limits: str
    signer: str


class SdfProvider(_Section, frozen=True, tag="sdf", tag_field="kind"):
    """A device by GM/T 0018 that keeps some labels. ``passwords`` is a file: an index and its password on each line."""

    library: str  # the vendor's; a path, or a name that the loader finds
    storage_index: Count  # the key pair under which symmetric keys leave the device
    pairs: dict[Name, Annotated[list[Count], msgspec.Meta(min_length=1)]] = {}  # by label: indices, an epoch each
    symmetric: list[Name] = []  # labels whose keys the device makes itself
    max_bits: Literal[256, 512] = 512  # ECCref_MAX_BITS of the vendor's header
    sessions: Count = 8
    passwords: str = ""

    def labels(self) -> list[str]:
        return [*self.pairs, *self.symmetric]


class CardRow(_Section, frozen=True):
    """A card in its reader. ``pin`` is a file that holds the PIN."""

    reader: str  # as `pcsc_scan` shows it, or the end of that
    pin: str


class CardProvider(_Section, frozen=True, tag="card", tag_field="kind"):
    """Smart cards that keep some labels: one card an epoch."""

    cards: dict[Name, Annotated[list[CardRow], msgspec.Meta(min_length=1)]]
    profile: Literal["gmt-0017", "iso-7816"] = "gmt-0017"

    def labels(self) -> list[str]:
        return list(self.cards)


Provider = SdfProvider | CardProvider


class Config(_Section, frozen=True):
    """The whole file."""

    listen: Listen
    service: Annotated[list[ServiceEntry], msgspec.Meta(min_length=1)]
    destination: dict[Name, Iso8583Destination | JsonDestination]
    files: Files = Files()
    limits: Limits = Limits()
    cut_over: CutOverSection = CutOverSection()
    analytics: JsonPeer | None = None
    stand_in: StandInSection | None = None
    custody: dict[Name, Provider] = {}  # what keeps keys beside software
    workers: Annotated[int, msgspec.Meta(ge=1, le=_WORKERS_MAX)] = 1  # processes that share the terminals
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Loaded(msgspec.Struct, frozen=True):
    """A checked configuration and its file, from whose folder its paths start."""

    config: Config
    file: Path

    @property
    def folder(self) -> Path:
        return self.file.parent

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def optional(self, value: str) -> Path | None:
        return self.folder / value if value else None


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``, an IPv6 host in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def load(file: Path) -> Loaded:
    """Read and check. Raises ConfigError."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; `fengshou init` makes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {_explain(str(error))}") from None
    loaded = Loaded(config, file.resolve())
    for key, reason in _problems(loaded):
        raise ConfigError(f"{file}: {key}: {reason}")
    return loaded


def parse_providers(text: str) -> dict[str, Provider]:
    """The tables ``[custody.NAME]`` of a document that has nothing else. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
        if document.keys() - {"custody"}:
            raise ConfigError(f"only tables of custody belong here, not {', '.join(document.keys() - {'custody'})}")
        providers = msgspec.convert(document.get("custody", {}), dict[Name, Provider])
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"custody.{_explain(str(error))}") from None
    for key, reason in _provider_problems(providers):
        raise ConfigError(f"{key}: {reason}")
    return providers


def _provider_problems(providers: dict[str, Provider]) -> list[tuple[str, str]]:
    problems = []
    labels, readers = Counter[str](), Counter[str]()
    for name, provider in providers.items():
        labels.update(provider.labels())
        if SWITCH_TLS in provider.labels():
            problems.append(
                (f"custody.{name}", f"{SWITCH_TLS} stays in software: the TLS library needs the key itself")
            )
        if isinstance(provider, CardProvider):
            readers.update(card.reader for prepared in provider.cards.values() for card in prepared)
    problems += [("custody", f"{label} has two keepers") for label, count in labels.items() if count > 1]
    problems += [
        ("custody", f"reader {reader} stands twice: a card is one epoch of one key")
        for reader, count in readers.items()
        if count > 1
    ]
    return problems


def _explain(text: str) -> str:
    """msgspec says «reason - at `$.listen.port`»; an operator reads «listen.port: reason»."""
    reason, _, where = text.partition(" - at `$")
    return f"{where.strip('`').lstrip('.')}: {reason}" if where else reason


def _problems(loaded: Loaded) -> list[tuple[str, str]]:
    """What the types cannot say: files that are missing, addresses that are none, services without a destination."""
    config = loaded.config
    problems: list[tuple[str, str]] = []

    def needs_file(key: str, value: str, what: str) -> None:
        if value and not loaded.path(value).is_file():
            problems.append((key, f"{loaded.path(value)} does not exist ({what})"))

    def needs_address(key: str, value: str) -> None:
        try:
            address_of(value)
        except ValueError as error:
            problems.append((key, str(error)))

    def needs_peer(key: str, peer: JsonPeer) -> None:
        needs_address(f"{key}.address", peer.address)
        needs_file(f"{key}.signer", peer.signer, "certificate of the key that signs its answers")
        needs_file(f"{key}.certificate", peer.certificate, "our certificate chain")
        needs_file(f"{key}.authorities", peer.authorities, "whom we trust")
        needs_file(f"{key}.revoked", peer.revoked, "revocation list")

    of_worker = "" if config.workers == 1 else f".{config.workers - 1}"
    if len(str(loaded.path(config.files.status)) + of_worker) > _SOCKET_PATH_MAX:
        problems.append(("files.status", f"a Unix socket's path has at most {_SOCKET_PATH_MAX} characters (unix(7))"))
    if not loaded.path(config.files.keys).is_dir():
        problems.append(("files.keys", f"{loaded.path(config.files.keys)} does not exist; `fengshou init` makes it"))
    needs_file("listen.certificate", config.listen.certificate, "the switch's certificate chain")
    needs_file("listen.authorities", config.listen.authorities, "whose terminals are trusted")
    needs_file("listen.revoked", config.listen.revoked, "revocation list")
    for name, destination in config.destination.items():
        key = f"destination.{name}"
        if isinstance(destination, JsonDestination):
            needs_peer(key, destination)
        else:
            if destination.mac and not destination.zone_keys:
                problems.append((f"{key}.mac", "needs zone-keys = true: there is no key without them"))
            for address in destination.addresses:
                needs_address(f"{key}.addresses", address)
    if config.stand_in:
        needs_file("stand-in.limits", config.stand_in.limits, "signed limits; `fengshou stand-in sign` makes them")
        needs_file("stand-in.signer", config.stand_in.signer, "certificate of who may sign them")
    if config.analytics:
        needs_peer("analytics", config.analytics)
    problems += _provider_problems(config.custody)
    if config.workers > 1 and any(isinstance(provider, CardProvider) for provider in config.custody.values()):
        problems.append(("workers", "a card serves one process: 1 worker, or a device in the place of the card"))
    modules = [entry.module for entry in config.service]
    for module in modules:
        if modules.count(module) > 1:
            problems.append(("service", f"{module} stands twice"))
    return problems
