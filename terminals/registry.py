"""The registry of terminals, sites and applications: one SQLite file, written by operators, read by every worker.

Writers are separate processes (``fengshou terminal …``) and take turns by SQLite's own lock. A running switch never
asks the file on its hot path: it holds a ``Snapshot`` and takes a new one when ``changed`` says so.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fengshou.codecs import PublicKey
from fengshou.hsm.custody import JOURNAL_DATA, Custody
from fengshou.hsm.manifest import Manifest
from fengshou.protocol import elements as de
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.kinds import element_grammar
from fengshou.protocol.message import Value
from fengshou.protocol.service import TerminalFacts
from fengshou.protocol.templates import Grammar
from fengshou.terminals.binding import AppRow, Channel, Status, TerminalRow

# A writer holds the lock for milliseconds; a person at the command line waits this long for a stuck one.
_LOCK_WAIT_S = 5.0

# A person makes a transaction in seconds; ten a second leave room for a kiosk that catches up after an outage.
RATE_PER_SECOND_DEFAULT = 10
RATE_PER_SECOND_MAX = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sites (
    site TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('branch', 'point')),
    town INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS apps (
    app TEXT NOT NULL,
    version TEXT NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    services TEXT NOT NULL,
    body BLOB NOT NULL,
    signature BLOB NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'blocked', 'retired')),
    PRIMARY KEY (app, version)
) STRICT;
CREATE TABLE IF NOT EXISTS terminals (
    terminal TEXT PRIMARY KEY CHECK (length(terminal) = 8),
    merchant TEXT NOT NULL,
    acquirer INTEGER NOT NULL,
    serial TEXT NOT NULL,
    credit_code TEXT NOT NULL,
    settlement_account BLOB NOT NULL,
    channel TEXT NOT NULL,
    site TEXT NOT NULL REFERENCES sites (site),
    town INTEGER NOT NULL,
    services TEXT NOT NULL,
    apps TEXT NOT NULL,
    rate_per_second INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'blocked', 'retired')),
    certificate TEXT NOT NULL DEFAULT '',
    fingerprint BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE TABLE IF NOT EXISTS renewals (
    terminal TEXT PRIMARY KEY REFERENCES terminals (terminal),
    certificate TEXT NOT NULL,
    fingerprint BLOB NOT NULL UNIQUE
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_terminal_a_device ON terminals (serial) WHERE status <> 'retired';
CREATE UNIQUE INDEX IF NOT EXISTS one_terminal_a_certificate ON terminals (fingerprint) WHERE fingerprint <> x'';
"""

_ELEMENTS = Grammar().elements
_CHANNELS = frozenset(channel.value for channel in Channel)
_TERMINAL_COLUMNS = (
    "terminal, merchant, acquirer, serial, credit_code, settlement_account, channel, site, town, services, apps, "
    "rate_per_second, status, certificate, fingerprint"
)


class RegistryError(Exception):
    """The registry refuses a change: what is wrong with which field, and never a settlement account."""


@dataclass(frozen=True, slots=True)
class Site:
    site: str
    name: str
    kind: str  # "branch" of the bank, or "point" of service at a shop or village office
    town: int


@dataclass(frozen=True, slots=True)
class NewTerminal:
    """What an operator states of a terminal. ``apps`` are ids: any version that was added may run."""

    facts: TerminalFacts
    services: frozenset[str]
    apps: frozenset[str]
    rate_per_second: int = RATE_PER_SECOND_DEFAULT


class Snapshot:
    """The registry at one instant. Never changes, so the hot path reads it without a lock."""

    def __init__(
        self,
        terminals: Mapping[str, TerminalRow],
        apps: Mapping[tuple[str, str], AppRow],
        sites: Mapping[str, Site],
    ) -> None:
        self.terminals = terminals
        self.apps = apps
        self.sites = sites

    def get(self, terminal: str) -> TerminalRow | None:
        return self.terminals.get(terminal)

    def app(self, app: str, version: str) -> AppRow | None:
        return self.apps.get((app, version))


class Registry:
    """An open registry. One object belongs to one thread; processes may open the file side by side."""

    def __init__(self, connection: sqlite3.Connection, custody: Custody) -> None:
        self._connection = connection
        self._custody = custody
        self._seen = (-1, -1)

    @classmethod
    def open(cls, path: Path, custody: Custody) -> Self:
        """Open the file, or make it. Raises RegistryError when it is not a registry.

        ``custody`` seals settlement accounts under its data key, each bound to its terminal.
        """
        connection = sqlite3.connect(path, timeout=_LOCK_WAIT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            connection.close()
            raise RegistryError(f"{path}: {error}") from None
        return cls(connection, custody)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    def changed(self) -> bool:
        """Whether anybody has committed a change since the last ``snapshot``; microseconds, no disk."""
        return self._version() != self._seen

    def snapshot(self) -> Snapshot:
        """Everything as of now. Raises CustodyError when a settlement account cannot be opened."""
        self._seen = self._version()
        with self._transaction("DEFERRED"):
            sites = {row[0]: Site(*row) for row in self._connection.execute("SELECT site, name, kind, town FROM sites")}
            apps = {
                (app, version): AppRow(app, version, digest, _names(services), Status(status))
                for app, version, digest, services, status in self._connection.execute(
                    "SELECT app, version, digest, services, status FROM apps"
                )
            }
            renewed = dict(self._connection.execute("SELECT terminal, fingerprint FROM renewals"))
            terminals = {
                row[0]: self._row(row, apps, renewed.get(row[0], b""))
                for row in self._connection.execute(f"SELECT {_TERMINAL_COLUMNS} FROM terminals ORDER BY terminal")  # noqa: S608
            }
        return Snapshot(terminals, apps, sites)

    # Writing

    def add_sites(self, sites: Iterable[Site]) -> int:
        """Add or correct sites, all of them or none; returns how many."""
        count = 0
        with self._transaction():
            for site in sites:
                if site.kind not in ("branch", "point"):
                    raise RegistryError(f"site {site.site}: kind is branch or point, not {site.kind!r}")
                self._connection.execute(
                    "INSERT INTO sites VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET name = excluded.name, kind = excluded.kind, town = excluded.town",
                    (site.site, site.name, site.kind, site.town),
                )
                count += 1
        return count

    def add_app(self, manifest: Manifest, publisher: PublicKey) -> AppRow:
        """Add a version of an application.

        Raises ManifestError when its signature does not hold, RegistryError when the version is there with another one.
        """
        manifest.verify(publisher)
        body = manifest.body
        row = AppRow(body.app, body.version, manifest.digest, frozenset(body.services), Status.ACTIVE)
        with self._transaction():
            found = self._connection.execute(
                "SELECT digest FROM apps WHERE app = ? AND version = ?", (row.app, row.version)
            ).fetchone()
            if found is None:
                self._connection.execute(
                    "INSERT INTO apps VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        row.app, row.version, row.digest, _list(row.services), manifest.canonical, manifest.signature,
                        row.status.value,
                    ),
                )  # fmt: skip
            elif found[0] != row.digest:
                raise RegistryError(f"app {row.app} {row.version} has another manifest already; give it a new version")
        return row

    def add_terminals(self, terminals: Iterable[NewTerminal]) -> int:
        """Add terminals, all of them or none, and the sites that are not yet known; returns how many.

        Raises RegistryError for a field outside the grammar, and for a terminal or a device that is there already.
        """
        count = 0
        with self._transaction():
            for new in terminals:
                self._insert(new)
                count += 1
        return count

    def enrol(self, terminal: str, certificate: str, fingerprint: bytes) -> None:
        """Bind a terminal to its certificate; the one that it had is no longer accepted at the next sign-in."""
        # First what the device before was about to get: cut short, it only has to ask again.
        with self._transaction():
            self._connection.execute("DELETE FROM renewals WHERE terminal = ?", (terminal,))
        try:
            self._update(terminal, "certificate = ?, fingerprint = ?", certificate, fingerprint)
        except sqlite3.IntegrityError:
            raise RegistryError(f"terminal {terminal}: the certificate belongs to another terminal") from None

    def renewed(self, terminal: str, certificate: str, fingerprint: bytes) -> None:
        """Accept a further certificate of a terminal beside the one that it has. Raises RegistryError."""
        with self._transaction():
            try:
                self._connection.execute(
                    "INSERT INTO renewals VALUES (?, ?, ?) ON CONFLICT (terminal) DO UPDATE "
                    "SET certificate = excluded.certificate, fingerprint = excluded.fingerprint",
                    (terminal, certificate, fingerprint),
                )
            except sqlite3.IntegrityError:
                raise RegistryError(f"terminal {terminal} is unknown, or it is another's certificate") from None

    def took_up(self, terminal: str, fingerprint: bytes) -> None:
        """A terminal has signed in with its further certificate: it is the only one from now on."""
        with self._transaction():
            self._connection.execute(
                "UPDATE terminals SET (certificate, fingerprint) = "
                "(SELECT certificate, fingerprint FROM renewals WHERE renewals.terminal = terminals.terminal) "
                "WHERE terminal = ? AND EXISTS (SELECT 1 FROM renewals WHERE terminal = ? AND fingerprint = ?)",
                (terminal, terminal, fingerprint),
            )
            self._connection.execute(
                "DELETE FROM renewals WHERE terminal = ? AND fingerprint = ?", (terminal, fingerprint)
            )

    def set_status(self, terminal: str, status: Status) -> None:
        """Block, activate again or retire a terminal. Raises RegistryError: unknown, or retired before."""
        self._update(terminal, "status = ?", status.value)

    def set_app_status(self, app: str, version: str, status: Status) -> None:
        """Revoke a version of an application (blocked, or retired for good) or permit it again."""
        with self._transaction():
            changed = self._connection.execute(
                "UPDATE apps SET status = ? WHERE app = ? AND version = ? AND status <> 'retired'",
                (status.value, app, version),
            ).rowcount
        if not changed:
            raise RegistryError(f"app {app} {version} is unknown or retired")

    # Inside

    @contextmanager
    def _transaction(self, mode: str = "IMMEDIATE") -> Iterator[None]:
        try:
            self._connection.execute(f"BEGIN {mode}")
        except sqlite3.OperationalError as error:
            raise RegistryError(f"the registry is locked by another writer: {error}") from None
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _version(self) -> tuple[int, int]:
        # The first counts commits of other connections, the second changes by this one.
        return self._connection.execute("PRAGMA data_version").fetchone()[0], self._connection.total_changes

    def _insert(self, new: NewTerminal) -> None:
        facts = new.facts
        _check(new)
        self._connection.execute(
            "INSERT INTO sites VALUES (?, ?, 'point', ?) ON CONFLICT DO NOTHING", (facts.site, facts.site, facts.town)
        )
        sealed = self._custody.seal(JOURNAL_DATA, facts.settlement_account.encode(), _context(facts.terminal))
        try:
            self._connection.execute(
                f"INSERT INTO terminals ({_TERMINAL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', x'')",  # noqa: S608
                (
                    facts.terminal, facts.merchant, facts.acquirer, facts.serial, facts.credit_code, sealed,
                    facts.channel, facts.site, facts.town, _list(new.services), _list(new.apps), new.rate_per_second,
                    Status.ACTIVE.value,
                ),
            )  # fmt: skip
        except sqlite3.IntegrityError as error:
            what = "serial" if "serial" in str(error) else "terminal"
            raise RegistryError(f"terminal {facts.terminal}: its {what} is registered already") from None

    def _update(self, terminal: str, assignment: str, *values: str | bytes) -> None:
        with self._transaction():
            changed = self._connection.execute(
                f"UPDATE terminals SET {assignment} WHERE terminal = ? AND status <> 'retired'",  # noqa: S608
                (*values, terminal),
            ).rowcount
        if not changed:
            raise RegistryError(f"terminal {terminal} is unknown or retired")

    def _row(self, columns: tuple[Any, ...], apps: Mapping[tuple[str, str], AppRow], renewed: bytes) -> TerminalRow:
        (
            terminal, merchant, acquirer, serial, credit_code, sealed, channel, site, town, services, permitted,
            rate_per_second, status, certificate, fingerprint,
        ) = columns  # fmt: skip
        account = self._custody.open(JOURNAL_DATA, sealed, _context(terminal)).decode()
        runs = _names(permitted)
        return TerminalRow(
            facts=TerminalFacts(terminal, merchant, acquirer, serial, credit_code, account, channel, site, town),
            services=_names(services),
            apps={key: app for key, app in apps.items() if app.app in runs},
            rate_per_second=rate_per_second,
            status=Status(status),
            fingerprint=fingerprint,
            certificate=certificate,
            renewed=renewed,
        )


def _context(terminal: str) -> bytes:
    """A sealed account moved to another terminal's row does not open."""
    return b"registry.terminals.settlement_account:" + terminal.encode()


def _list(names: Iterable[str]) -> str:
    return " ".join(sorted(names))


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _check(new: NewTerminal) -> None:
    """Refuse what no sign-in could ever state. Raises RegistryError that names the field."""
    facts = new.facts
    stated: tuple[tuple[int, Value], ...] = (
        (de.TERMINAL, facts.terminal),
        (de.MERCHANT, facts.merchant),
        (de.ACQUIRER, facts.acquirer),
        (de.SERIAL, facts.serial),
        (de.CREDIT_CODE, facts.credit_code),
        (de.FROM_ACCOUNT, facts.settlement_account),
        (de.TOWN, facts.town),
        *((de.APP, app) for app in new.apps),
    )
    for key, value in stated:
        element = _ELEMENTS[key]
        try:
            element_grammar(element).build(value)
        except UntrustedBytesError as error:
            raise RegistryError(f"terminal {facts.terminal}: {element.name} is {error.error.value}") from None
    if facts.channel not in _CHANNELS:
        raise RegistryError(f"terminal {facts.terminal}: channel is one of {', '.join(sorted(_CHANNELS))}")
    if not facts.serial:
        raise RegistryError(f"terminal {facts.terminal}: serial is empty")
    if not 1 <= new.rate_per_second <= RATE_PER_SECOND_MAX:
        raise RegistryError(f"terminal {facts.terminal}: rate_per_second is not 1 .. {RATE_PER_SECOND_MAX}")
    for name in (*new.services, *new.apps):
        if not name or name.split() != [name]:
            raise RegistryError(f"terminal {facts.terminal}: {name!r} is no name of a service or app")
