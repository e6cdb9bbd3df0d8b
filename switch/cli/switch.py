"""Commands that make a site and run its processes: ``init``, ``switch``, ``host``, ``host-pin``."""

from pathlib import Path

import click

from fengshou.switch.affinity import Share
from fengshou.switch.cli.common import ask_pin, explained, home_option
from fengshou.switch.config import load
from fengshou.switch.hosting import run_host, set_pin
from fengshou.switch.logs import configure
from fengshou.switch.office import acting
from fengshou.switch.server import Ready, serve, work
from fengshou.switch.site import Ports, make_site
from fengshou.switch.supervisor import supervise
from fengshou.switch.workers import Line

HOSTS = ("core-banking", "government", "analytics")


@click.command(epilog="Example: fengshou init site --accounts examples/accounts.csv")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--accounts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="CSV of the accounts with which the embedded core-banking host opens.",
)
@click.option("--port", default=7443, show_default=True, help="Port for terminals.")
@click.option(
    "--custody",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML with tables [custody.NAME]: cards and devices that keep some of the keys. Its paths are from FOLDER.",
)
@explained
def init(folder: Path, accounts: Path, port: int, custody: Path | None) -> None:
    """Make a site: authority, keys, certificates, configuration, and three embedded back ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with acting(folder, "site.make", folder.name):
        providers = custody.read_text("utf-8") if custody else ""
        site = make_site(folder, accounts, Ports(terminals=port), providers=providers)
    click.echo(f"Made {site.folder}. Next, each in a terminal of its own:")
    for name in HOSTS:
        click.echo(f"  fengshou host {name} --home {folder}")
    click.echo(f"  fengshou switch --home {folder}")


@click.command(
    epilog="Stops on SIGTERM or Ctrl-C after everything in flight has ended. SIGHUP makes terminals handshake anew."
)
@home_option
@click.option("--config", type=click.Path(path_type=Path), default=None, help="Another file than HOME/switch.toml.")
@explained
def switch(home: Path, config: Path | None) -> None:
    """Run the switch."""
    loaded = load(config or home / "switch.toml")
    configure(loaded.config.log_level)

    def ready(started: Ready) -> None:
        if started.recovered or started.owed:
            click.echo(f"recovered {started.recovered} open transactions; {started.owed} reversals are owed", err=True)
        click.echo(f"ready {started.address[0]}:{started.address[1]}")

    (serve if loaded.config.workers == 1 else supervise)(loaded, ready)


@click.command(hidden=True)
@click.option("--config", type=click.Path(path_type=Path), required=True)
@click.option("--number", type=int, required=True)
@click.option("--of", type=int, required=True)
@click.option("--supervisor", type=int, required=True)
@click.option("--line", type=int, required=True)
@explained
def worker(config: Path, number: int, of: int, supervisor: int, line: int) -> None:
    """One of several workers; started by the switch."""
    end = Line(line, supervisor)
    loaded = load(config)
    configure(loaded.config.log_level, worker=number)
    work(loaded, Share(number, of), end)


@click.command(epilog="A bank's own system takes the place of one by configuration: change its address in switch.toml.")
@click.argument("name", type=click.Choice(HOSTS))
@home_option
@explained
def host(name: str, home: Path) -> None:
    """Run one of the embedded back ends."""
    configure("info")
    run_host(home / "hosts" / name, lambda address: click.echo(f"ready {address[0]}:{address[1]}"))


@click.command("host-pin")
@click.argument("card")
@home_option
@explained
def host_pin(card: str, home: Path) -> None:
    """Let the holder of CARD choose a PIN at the embedded core-banking host. It unlocks a card that was locked.

    Only an offset is kept, which says nothing without a key of the host's custody.
    """
    set_pin(home / "hosts" / "core-banking", card, ask_pin(confirm=True))
    click.echo("the card has this PIN now")
