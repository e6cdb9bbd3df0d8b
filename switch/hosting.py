"""Runs an embedded back end as a process: loads its application by name and serves it on its public interface."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import trio

from fengshou.hsm.channel import NATIONAL, Trust, server_context
from fengshou.hsm.renewal import LiveContext
from fengshou.protocol.backend import PinVerifier
from fengshou.protocol.day_file import day_file_lines
from fengshou.routing.connect import tls_accept
from fengshou.routing.envelope import Envelope
from fengshou.routing.event_handler import EventHandler
from fengshou.routing.iso8583_server import run_iso8583_server
from fengshou.routing.json_server import ApplicationHandler, Handler, run_json_server
from fengshou.routing.zone_keys import PinPad, ZoneHost
from fengshou.switch.config import ConfigError
from fengshou.switch.custodies import open_custody
from fengshou.switch.links import SignerFiles
from fengshou.switch.site import HOST_SIGN, HOST_TLS, HostConfig, load_host


def run_host(folder: Path, on_ready: Callable[[tuple[str, int]], None]) -> None:
    """Serve the back end whose ``host.toml`` is in ``folder`` until SIGTERM or SIGINT. Raises ConfigError."""
    config = load_host(folder)
    match config.kind:
        case "iso8583":
            zone = ZoneHost(open_custody(folder, config.keys, config.custody)) if config.keys else None
            application = _load(config, zone)
            run_iso8583_server(application, config.host, config.port, on_ready, zone=zone, mac=config.mac)
        case "json":
            _run_json(folder, config, ApplicationHandler(_load(config)), on_ready)
        case "events":
            _run_json(folder, config, EventHandler(_load(config)), on_ready)
        case _:
            raise ConfigError(f"{folder / 'host.toml'}: kind: {config.kind!r} is not iso8583, json or events")


def write_day_file(folder: Path, business_day: int, file: IO[bytes]) -> None:
    """What the back end in ``folder`` booked on a day, see ``protocol.day_file``. Raises ConfigError."""
    config = load_host(folder)
    application = _application(config)
    if not hasattr(application, "day_rows"):
        raise ConfigError(f"application {config.application} keeps no books of a day")
    file.writelines(day_file_lines(folder.name, business_day, application.day_rows(config.options, business_day)))


def set_pin(folder: Path, card: str, digits: bytearray) -> None:
    """Let a card of the back end in ``folder`` have this PIN, ASCII digits that are wiped.

    Raises ConfigError: it verifies no PINs, or has no such card; CustodyError.
    """
    config = load_host(folder)
    application = _application(config)
    if not config.keys or not hasattr(application, "give_pin"):
        raise ConfigError(f"{folder}: this back end verifies no PINs")
    offset = PinPad(open_custody(folder, config.keys, config.custody)).offset(card, digits)
    try:
        application.give_pin(config.options, card, offset)
    except LookupError as error:
        raise ConfigError(f"{folder}: {error}") from None


def _application(config: HostConfig) -> Any:
    module, _, name = config.application.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"application {config.application}: {error}") from error


def _load(config: HostConfig, pins: PinVerifier | None = None) -> Any:
    application = _application(config)
    more = {"pins": pins} if pins and hasattr(application, "give_pin") else {}
    try:
        return application(config.options, **more)
    except ValueError as error:
        raise ConfigError(f"application {config.application}: {error}") from error


def _run_json(folder: Path, config: HostConfig, handler: Handler, on_ready: Callable[[tuple[str, int]], None]) -> None:
    custody = open_custody(folder, config.keys, config.custody)
    trust = Trust(folder / config.authorities, folder / config.revoked if config.revoked else None)
    context = LiveContext(server_context, folder / config.certificate, custody, HOST_TLS, trust, NATIONAL)
    peers = SignerFiles([folder / peer for peer in config.peers])

    async def accept(raw: trio.abc.Stream) -> trio.abc.Stream:
        return await tls_accept(context())(raw)

    run_json_server(
        handler,
        config.host,
        config.port,
        accept=accept,
        envelope=Envelope(custody, HOST_SIGN, peers.keys(), peers.changed),
        on_ready=on_ready,
    )
