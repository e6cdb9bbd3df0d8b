"""Commands that look at a switch, running or not yet: ``status``, ``check``."""

from pathlib import Path
from typing import Any

import click

from fengshou.switch.cli.common import explained, home_option, json_option, pairs, print_json, print_table
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of, prove
from fengshou.switch.grammar import Catalogue, services_of
from fengshou.switch.status import ask


@click.command()
@home_option
@json_option
@explained
def status(home: Path, as_json: bool) -> None:
    """Show what the running switch is doing."""
    loaded = load(home / "switch.toml")
    path = loaded.path(loaded.config.files.status)
    try:
        answer = ask(path)
    except OSError as error:
        raise click.ClickException(f"no switch answers at {path}: {error.strerror}") from None
    if as_json:
        print_json(answer)
        return
    if "connections" in answer:  # else no worker answers at this moment
        print_table(f"switch, process {answer['process']}", ("", ""), _rows(answer))
    if "workers" in answer:
        print_table(
            "workers",
            ("worker", "process", "starts", "connections", "in flight", "answered", "commits", "CPU s"),
            [
                (row["worker"], row["process"], row["starts"], *(_of_worker(row["status"]) or ["down", *[""] * 4]))
                for row in answer["workers"]
            ],
        )


def _rows(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    rows = [
        ("connections", answer["connections"]),
        ("in flight", answer["in_flight"]),
        ("answered, by code", pairs(answer["answered"])),
        ("refused, by reason", pairs(answer["refused"])),
        ("handshakes refused", pairs(answer["handshakes"]["refused"])),
        ("connections closed", pairs(answer["closed"])),
        ("journal", pairs(answer["journal"])),
        ("reversals", pairs(answer["reversals"])),
    ]
    for name, destination in answer["destinations"].items():
        rows.append((f"→ {name}", f"{'up' if destination['up'] else 'DOWN'}, {destination['in_flight']} in flight"))
    if answer["analytics"]:
        rows.append(("→ analytics", pairs(answer["analytics"])))
    return rows


def _of_worker(status: dict[str, Any] | None) -> list[Any]:
    if status is None:
        return []
    return [
        status["connections"], status["in_flight"], sum(status["answered"].values()), status["journal"]["commits"],
        f"{status['cpu_s']:.1f}",
    ]  # fmt: skip


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@explained
def check(file: Path) -> None:
    """Read a configuration and say whether a switch would start with it. Each key that signs does so once."""
    loaded = load(file)
    config = loaded.config
    catalogue = Catalogue(services_of(config))
    print_table(
        "services",
        ("service", "templates", "destination"),
        [
            (
                service.name,
                ", ".join(f"{template.id} {template.name}" for template in service.templates),
                service.destination
                if service.destination in config.destination
                else f"{service.destination} (no route!)"
                if service.destination
                else "the switch itself",
            )
            for service in catalogue.services
        ],
    )
    custody = custody_of(loaded)
    prove(custody)
    click.echo(f"{file}: good; keys are kept by: {custody.protection}")
