"""``fengshou terminal`` and ``fengshou app``: the registry, for operators. A running switch notices within a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fengshou.hsm import manifest
from fengshou.hsm.pem import CERTIFICATE, from_pem
from fengshou.hsm.x509 import parse_certificate
from fengshou.protocol.elements import FROM_ACCOUNT, mask
from fengshou.protocol.service import TerminalFacts
from fengshou.protocol.templates import Grammar
from fengshou.switch.certificate_files import read_certificate
from fengshou.switch.cli.common import explained, home_option, json_option, print_json, print_table
from fengshou.switch.config import Loaded, load
from fengshou.switch.custodies import custody_of
from fengshou.switch.enrolment import enrol as enrol_terminals
from fengshou.switch.enrolment import publish_app
from fengshou.switch.grammar import services_of
from fengshou.switch.office import acting
from fengshou.terminals.binding import AppRow, Channel, Status, TerminalRow
from fengshou.terminals.home import Home
from fengshou.terminals.registry import (
    RATE_PER_SECOND_DEFAULT,
    RATE_PER_SECOND_MAX,
    NewTerminal,
    Registry,
    RegistryError,
)
from fengshou.terminals.registry_csv import read_sites, read_terminals

_file = click.Path(path_type=Path, dir_okay=False, exists=True)
_ACCOUNT = Grammar().elements[FROM_ACCOUNT]


@contextmanager
def _registry(home: Path) -> Iterator[tuple[Loaded, Registry]]:
    loaded = load(home / "switch.toml")
    custody = custody_of(loaded)
    with Registry.open(loaded.path(loaded.config.files.registry), custody) as registry:
        yield loaded, registry


@click.group()
def terminal() -> None:
    """Terminals of the network: add, enrol, look at, block.

    \b
    Examples:
      fengshou terminal import terminals.csv --sites sites.csv --app point
      fengshou terminal enrol FS000001 --app point --app-version 1.0
      fengshou terminal block FS000001
    """


@terminal.command()
@click.argument("terminal_id", metavar="TERMINAL")
@click.option("--merchant", required=True, help="15 characters.")
@click.option("--acquirer", type=int, required=True)
@click.option("--serial", required=True, help="Serial number of the device.")
@click.option("--credit-code", required=True, help="Unified social credit code of the merchant, 18 characters.")
@click.option("--account", required=True, help="Settlement account; kept sealed.")
@click.option("--channel", type=click.Choice([channel.value for channel in Channel]), default=Channel.POS.value)
@click.option("--site", required=True)
@click.option("--town", type=int, required=True)
@click.option("--service", "services", multiple=True, help="Service that it may use; several times.")
@click.option("--app", "apps", multiple=True, help="Application that it may run; several times.")
@click.option(
    "--rate", type=click.IntRange(1, RATE_PER_SECOND_MAX), default=RATE_PER_SECOND_DEFAULT, show_default=True,
    help="Requests a second.",
)  # fmt: skip
@home_option
@explained
def add(
    terminal_id: str, merchant: str, acquirer: int, serial: str, credit_code: str, account: str, channel: str,
    site: str, town: int, services: tuple[str, ...], apps: tuple[str, ...], rate: int, home: Path,
) -> None:  # fmt: skip
    """Register one terminal."""
    facts = TerminalFacts(terminal_id, merchant, acquirer, serial, credit_code, account, channel, site, town)
    with acting(home, "registry.add", terminal_id), _registry(home) as (_, registry):
        registry.add_terminals([NewTerminal(facts, frozenset(services), frozenset(apps), rate)])
    click.echo(f"{terminal_id} is registered; next: fengshou terminal enrol {terminal_id}")


@terminal.command("import")
@click.argument("file", type=_file)
@click.option("--sites", type=_file, help="CSV of the sites, read first.")
@click.option("--app", "apps", multiple=True, help="Application for rows that name none; several times.")
@home_option
@explained
def import_(file: Path, sites: Path | None, apps: tuple[str, ...], home: Path) -> None:
    """Register all terminals of a CSV file, or none when one is wrong."""
    with acting(home, "registry.add", file.name) as act, _registry(home) as (_, registry):
        if sites is not None:
            act.note(sites=registry.add_sites(read_sites(sites)))
        act.note(terminals=registry.add_terminals(read_terminals(file, frozenset(apps))))
    for what, count in act.details.items():
        click.echo(f"{count} {what}")


@terminal.command("list")
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only these.")
@home_option
@json_option
@explained
def list_(status: str | None, home: Path, as_json: bool) -> None:
    """All terminals."""
    with _registry(home) as (_, registry):
        rows = [row for row in registry.snapshot().terminals.values() if status in (None, row.status.value)]
    if as_json:
        print_json([_facts(row) for row in rows])
        return
    print_table(
        f"{len(rows)} terminals",
        ("terminal", "channel", "merchant", "site", "town", "status", "enrolled", "services"),
        [
            (
                row.facts.terminal, row.facts.channel, row.facts.merchant, row.facts.site, row.facts.town,
                row.status.value, "yes" if row.fingerprint else "no", " ".join(sorted(row.services)),
            )
            for row in rows
        ],
    )  # fmt: skip


@terminal.command()
@click.argument("terminal_id", metavar="TERMINAL")
@home_option
@json_option
@explained
def show(terminal_id: str, home: Path, as_json: bool) -> None:
    """Everything about one terminal, its settlement account masked."""
    with _registry(home) as (_, registry):
        facts = _facts(_found(registry, terminal_id))
    if as_json:
        print_json(facts)
    else:
        print_table(terminal_id, ("element", "value"), list(facts.items()))


@terminal.command()
@click.argument("terminal_id", metavar="TERMINAL")
@home_option
@explained
def block(terminal_id: str, home: Path) -> None:
    """Refuse a terminal's sign-ins until it is activated again."""
    _set_status(home, terminal_id, Status.BLOCKED)


@terminal.command()
@click.argument("terminal_id", metavar="TERMINAL")
@home_option
@explained
def activate(terminal_id: str, home: Path) -> None:
    """Let a blocked terminal sign in again."""
    _set_status(home, terminal_id, Status.ACTIVE)


@terminal.command()
@click.argument("terminal_id", metavar="TERMINAL")
@click.confirmation_option(prompt="A retired terminal never comes back. Go on?")
@home_option
@explained
def retire(terminal_id: str, home: Path) -> None:
    """Take a terminal out of service for good; its device may be registered anew."""
    _set_status(home, terminal_id, Status.RETIRED)


@terminal.command()
@click.argument("terminal_ids", metavar="TERMINAL...", nargs=-1, required=True)
@click.option("--app", required=True, help="Application that it runs.")
@click.option("--app-version", "version", required=True)
@home_option
@json_option
@explained
def enrol(terminal_ids: tuple[str, ...], app: str, version: str, home: Path, as_json: bool) -> None:
    """Give terminals a key, a certificate and a home folder each, under terminals/ of the site.

    Prints what the installer needs of each. For terminals whose key may be made here; one with a secure medium makes
    its own: `fengshou pki csr` and `sign-csr`.
    """
    with _registry(home) as (loaded, registry):
        row = registry.snapshot().app(app, version)
        if row is None:
            raise RegistryError(f"app {app} {version} is unknown; add it with: fengshou app add")
        rows = [_found(registry, terminal_id) for terminal_id in terminal_ids]
        for found in rows:
            if (app, version) not in found.apps:
                raise RegistryError(f"terminal {found.facts.terminal} may not run {app}")
        new = [NewTerminal(found.facts, found.services, frozenset((app,)), found.rate_per_second) for found in rows]
        with acting(home, "registry.enrol", " ".join(terminal_ids), app=f"{app} {version}"):
            folders = enrol_terminals(loaded, registry, new, row)
    slips = [_slip(found.facts, folder) for found, folder in zip(rows, folders, strict=True)]
    if as_json:
        print_json(slips)
        return
    for slip in slips:
        print_table(slip["terminal"], ("for the installer", ""), [(name, text) for name, text in slip.items()])
    click.echo("Bring each folder to its device and leave no copy: whoever has the key in it is the terminal.")


def _slip(facts: TerminalFacts, folder: Path) -> dict[str, str]:
    """What the installer of a terminal needs: for which device it is, where that stands, how its papers are told."""
    certificate = read_certificate(folder / "terminal.crt")
    host, port = Home(folder).address
    return {
        "terminal": facts.terminal,
        "device": facts.serial,
        "merchant": facts.merchant,
        "site": facts.site,
        "switch": f"{host}:{port}",
        "certificate": f"{certificate.serial:x}",
        "fingerprint": certificate.fingerprint.hex(),
        "expires": f"{certificate.not_after:%Y-%m-%d}",
        "folder": str(folder),
    }


@click.group()
def app() -> None:
    """Applications that terminals may run, by their signed manifests."""


@app.command("add")
@click.argument("file", metavar="MANIFEST", type=_file)
@click.option("--publisher", type=_file, required=True, help="Certificate of the publisher, PEM.")
@home_option
@explained
def add_app(file: Path, publisher: Path, home: Path) -> None:
    """Verify a publisher's manifest and add the application."""
    try:
        certificate = parse_certificate(from_pem(CERTIFICATE, publisher.read_bytes())[0])
    except (ValueError, IndexError):
        raise RegistryError(f"{publisher} holds no certificate in PEM") from None
    with acting(home, "registry.app", file.name), _registry(home) as (_, registry):
        row = registry.add_app(manifest.load(file, certificate.public_key), certificate.public_key)
    click.echo(f"{row.app} {row.version} with manifest {row.digest.hex()}")


@app.command()
@click.argument("app_id", metavar="APP")
@click.argument("version")
@click.option(
    "--service", "services", multiple=True, help="Service that it may use; several times. Default: all that are served."
)
@home_option
@explained
def publish(app_id: str, version: str, services: tuple[str, ...], home: Path) -> None:
    """Sign a manifest with the site's own publisher key and add the application."""
    with acting(home, "registry.app", f"{app_id} {version}"), _registry(home) as (loaded, registry):
        served = services or tuple(service.name for service in services_of(loaded.config))
        row = publish_app(loaded, registry, app_id, version, served)
    click.echo(f"{row.app} {row.version} with manifest {row.digest.hex()}")


@app.command("list")
@home_option
@json_option
@explained
def list_apps(home: Path, as_json: bool) -> None:
    """All applications and their versions."""
    with _registry(home) as (_, registry):
        rows = list(registry.snapshot().apps.values())
    if as_json:
        print_json([_app_facts(row) for row in rows])
        return
    print_table(
        f"{len(rows)} applications",
        ("app", "version", "status", "manifest", "services"),
        [
            (row.app, row.version, row.status.value, row.digest.hex()[:16], " ".join(sorted(row.services)))
            for row in rows
        ],
    )


@app.command()
@click.argument("app_id", metavar="APP")
@click.argument("version")
@home_option
@explained
def revoke(app_id: str, version: str, home: Path) -> None:
    """Refuse sign-ins with a version of an application, for good."""
    with acting(home, "registry.app", f"{app_id} {version}", status="revoked"), _registry(home) as (_, registry):
        registry.set_app_status(app_id, version, Status.RETIRED)
    click.echo(f"{app_id} {version} is revoked")


def _found(registry: Registry, terminal_id: str) -> TerminalRow:
    row = registry.snapshot().get(terminal_id)
    if row is None:
        raise RegistryError(f"terminal {terminal_id} is not registered")
    return row


def _set_status(home: Path, terminal_id: str, status: Status) -> None:
    with acting(home, "registry.status", terminal_id, status=status.value), _registry(home) as (_, registry):
        registry.set_status(terminal_id, status)
    click.echo(f"{terminal_id} is {status.value}")


def _facts(row: TerminalRow) -> dict[str, Any]:
    return {
        **asdict(row.facts),
        "settlement_account": mask(_ACCOUNT, row.facts.settlement_account),
        "services": sorted(row.services),
        "apps": sorted(f"{name} {version}" for name, version in row.apps),
        "rate_per_second": row.rate_per_second,
        "status": row.status.value,
        "certificate": row.certificate,
        "fingerprint": row.fingerprint.hex(),
    }


def _app_facts(row: AppRow) -> dict[str, Any]:
    return {
        "app": row.app,
        "version": row.version,
        "status": row.status.value,
        "manifest": row.digest.hex(),
        "services": sorted(row.services),
    }
