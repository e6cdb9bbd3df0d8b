"""Runs an embedded back end as a process: loads its application by name and serves it on its public interface."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from fengshou.hsm.channel import Identity, Trust, server_context
from fengshou.hsm.software import SoftwareCustody
from fengshou.routing.connect import tls_accept
from fengshou.routing.envelope import Envelope
from fengshou.routing.event_handler import EventHandler
from fengshou.routing.iso8583_server import run_iso8583_server
from fengshou.routing.json_server import ApplicationHandler, Handler, run_json_server
from fengshou.switch.config import ConfigError
from fengshou.switch.links import read_certificate
from fengshou.switch.site import HOST_SIGN, HOST_TLS, HostConfig, load_host


def run_host(folder: Path, on_ready: Callable[[tuple[str, int]], None]) -> None:
    """Serve the back end whose ``host.toml`` is in ``folder`` until SIGTERM or SIGINT. Raises ConfigError."""
    config = load_host(folder)
    application = _load(config)
    match config.kind:
        case "iso8583":
            run_iso8583_server(application, config.host, config.port, on_ready)
        case "json":
            _run_json(folder, config, ApplicationHandler(application), on_ready)
        case "events":
            _run_json(folder, config, EventHandler(application), on_ready)
        case _:
            raise ConfigError(f"{folder / 'host.toml'}: kind: {config.kind!r} is not iso8583, json or events")


def _load(config: HostConfig) -> Any:
    module, _, name = config.application.rpartition(".")
    try:
        return getattr(import_module(module), name)(config.options)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"application {config.application}: {error}") from error


def _run_json(folder: Path, config: HostConfig, handler: Handler, on_ready: Callable[[tuple[str, int]], None]) -> None:
    custody = SoftwareCustody(folder / config.keys)
    context = server_context(
        Identity.of_custody(folder / config.certificate, custody, HOST_TLS),
        Trust(folder / config.authorities, folder / config.revoked if config.revoked else None),
    )
    peers = [read_certificate(folder / peer).public_key for peer in config.peers]
    run_json_server(
        handler,
        config.host,
        config.port,
        accept=tls_accept(context),
        envelope=Envelope(custody, HOST_SIGN, peers),
        on_ready=on_ready,
    )
