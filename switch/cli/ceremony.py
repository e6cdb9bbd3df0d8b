"""Commands of ``fengshou keys`` that custodians sit together for: ``seal``, ``unseal``, ``quorum``, ``ceremony``."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from fengshou.hsm import agent, components, quorum
from fengshou.hsm.custody import CustodyError, Kind
from fengshou.hsm.files import write_public
from fengshou.hsm.quorum import Holder, Passphrase
from fengshou.switch import ceremonies
from fengshou.switch.cli.common import explained, home_option
from fengshou.switch.cli.keys import keys
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.office import acting, card_holder, give_back_cards
from fengshou.switch.server import only_one

_CUSTODIAN = "NAME or NAME=READER, where the share is on the card in that reader; several times."
_custodians = click.option("--custodian", "custodians", multiple=True, required=True, help=_CUSTODIAN)
_needed = click.option("--needed", type=click.IntRange(2), default=2, show_default=True, help="How many open it.")

# What may come from components: keys that wrap or make others, and keys of a zone.
_KINDS = {
    "transport": Kind.TRANSPORT, "derive": Kind.DERIVE, "pin": Kind.PIN, "pin-verify": Kind.PIN_VERIFY,
}  # fmt: skip


def _holders(named: Sequence[str], *, new: bool) -> list[Holder]:
    """Whoever is at the table, each asked in turn."""
    holders: list[Holder] = []
    for text in named:
        name, _, reader = text.partition("=")
        if reader:
            holders.append(card_holder(name, reader))
        else:
            words = click.prompt(f"Passphrase of {name}", hide_input=True, confirmation_prompt=new, err=True)
            holders.append(Passphrase(name, words))
    return holders


def _folder(home: Path) -> Path:
    loaded = load(home / "switch.toml")
    return loaded.path(loaded.config.files.keys)


@keys.command()
@_custodians
@_needed
@home_option
@explained
def seal(custodians: tuple[str, ...], needed: int, home: Path) -> None:
    """Put the site's keys under a master key that only custodians together open. The switch must not run.

    \b
    Example:
      fengshou keys seal --custodian an --custodian bo --custodian chen=READER --needed 2 --home site
    """
    folder = _folder(home)
    with only_one(home / "switch.lock"), acting(home, "keys.seal", folder.name, needed=needed) as act:
        ceremonies.seal_custody(folder, needed, _holders(custodians, new=True))
        described = quorum.describe(folder)
        act.note(
            check_value=described.check_value.hex().upper(),
            custodians=", ".join(f"{custodian.name} ({custodian.form})" for custodian in described.custodians),
        )
    click.echo(f"sealed; master key {described.check_value.hex().upper()}, {needed} of {len(custodians)} open it")
    click.echo(f"next: fengshou keys unseal --home {home}")


@keys.command(epilog="Runs until SIGTERM: the switch and other commands get the keys from it, across their restarts.")
@_custodians
@home_option
@explained
def unseal(custodians: tuple[str, ...], home: Path) -> None:
    """Open the site's keys, and keep the master key in this process's memory for as long as it runs."""
    folder = _folder(home)
    with acting(home, "keys.unseal", folder.name, custodians=", ".join(custodians)):
        serving = agent.Agent(folder, quorum.unseal(folder, _holders(custodians, new=False)))
    give_back_cards()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: serving.close())
    click.echo(f"ready {folder}")
    serving.serve()


@keys.command("quorum")
@click.option("--old", "old", multiple=True, required=True, help=f"A custodian of now: {_CUSTODIAN}")
@_custodians
@_needed
@home_option
@explained
def quorum_(old: tuple[str, ...], custodians: tuple[str, ...], needed: int, home: Path) -> None:
    """A new master key for these custodians; everything is sealed anew. Old shares open nothing afterwards.

    A running switch goes on. With the custodians of now it is the rotation of the master key alone.
    """
    folder = _folder(home)
    with acting(home, "keys.quorum", folder.name, needed=needed) as act:
        master = quorum.unseal(folder, _holders(old, new=False))
        quorum.change_master(folder, master, needed, _holders(custodians, new=True))
        check_value = quorum.describe(folder).check_value.hex().upper()
        act.note(check_value=check_value, custodians=", ".join(custodians))
    click.echo(f"master key {check_value}, {needed} of {len(custodians)} open it")


@keys.command("components")
@click.option("--count", type=click.IntRange(2, 9), default=2, show_default=True)
@explained
def components_(count: int) -> None:
    """Components of a new random key, each with its check value: one form for each custodian."""
    parts = components.new_components(count)
    for number, part in enumerate(parts, start=1):
        click.echo(f"component {number}: {components.format_component(part)}")
        click.pause("for its custodian alone; a key to go on")
        click.clear()
    click.echo(f"check value of the key: {ceremonies.check_value_of(parts)}")


@keys.command()
@click.argument("label")
@click.option("--kind", type=click.Choice(sorted(_KINDS)), default="transport", show_default=True)
@click.option("--custodian", "names", multiple=True, required=True, help="Who types a component; at least two.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Write the sheet to be signed there.")
@home_option
@explained
def ceremony(label: str, kind: str, names: tuple[str, ...], record: Path | None, home: Path) -> None:
    """Bring a master key into custody from components that custodians type, each his own, in turn.

    \b
    Example:
      fengshou --as an keys ceremony zone.core --custodian an --custodian bo --record sheet.txt --home site
    """
    if len(set(names)) < 2:
        raise click.UsageError("a ceremony takes two custodians, each with a component")
    custody = custody_of(load(home / "switch.toml"))
    with acting(home, "keys.ceremony", label, custodians=", ".join(names)) as act:
        parts = [(name, _typed(name)) for name in names]
        whole = ceremonies.check_value_of([part for _, part in parts])
        if not click.confirm(f"The key has check value {whole}. Does it stand so on the form?", err=True):
            raise CustodyError("the check value is not that of the form; nothing was changed")
        info = ceremonies.import_components(custody, label, _KINDS[kind], [part for _, part in parts])
        act.note(epoch=info.epoch, check_value=whole)
    sheet = ceremonies.record_of(label, parts, info, datetime.now(UTC))
    if record is not None:
        write_public(record, sheet.encode())
    click.echo(sheet, nl=False)


def _typed(name: str) -> bytes:
    """A component, asked for until it fits its check value; only the person who typed it sees that it does not."""
    while True:
        text = click.prompt(f"Component of {name} (32 digits / check value)", hide_input=True, err=True)
        with suppress(components.ComponentError):
            return components.parse_component(text)
        click.echo("it does not fit its check value: read it again from the form", err=True)
