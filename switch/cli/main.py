"""``fengshou``: the command line. Each group of commands has a module of its own, read when it is asked for."""

from importlib import import_module

import click

# Commands in the order in which help lists them: module in this room and name there.
_COMMANDS = {
    "demo": ("demo", "demo"),
    "init": ("switch", "init"),
    "switch": ("switch", "switch"),
    "host": ("switch", "host"),
    "host-pin": ("switch", "host_pin"),
    "status": ("switch", "status"),
    "check": ("switch", "check"),
    "journal": ("journal", "journal"),
    "settle": ("settlement", "settle"),
    "prices": ("prices", "prices"),
    "terminal": ("terminal", "terminal"),
    "app": ("terminal", "app"),
    "pos": ("pos", "pos"),
    "kiosk": ("pos", "kiosk"),
    "pki": ("renew", "pki"),  # which adds its own to those of cli_pki
    "keys": ("ceremony", "keys"),  # which adds its own to those of `keys`
    "people": ("people", "people"),
    "audit": ("audit", "audit"),
    "bench": ("bench", "bench"),
    "fleet": ("demo", "fleet"),
    "simulate": ("simulate", "simulate"),
    "stand-in": ("stand_in", "stand_in_commands"),
    "worker": ("switch", "worker"),
}


class _Commands(click.Group):
    """Reads the module of a command only: all of them together take longer than most commands do."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name]
        command: click.Command = getattr(import_module(f"fengshou.switch.cli.{module}"), attribute)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Start with: fengshou init DIR, then fengshou switch --home DIR. `fengshou demo` does all of it for you.",
)
@click.version_option(package_name="fengshou")
@click.option("--as", "name", envvar="FENGSHOU_AS", show_envvar=True, help="Who acts, see `fengshou people`.")
@click.pass_context
def main(context: click.Context, name: str | None) -> None:
    """Fengshou (丰收): a transaction switch for a rural bank's service network."""
    context.obj = name
