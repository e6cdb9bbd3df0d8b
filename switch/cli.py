"""``fengshou``: the command line. Each group of commands has a module of its own, read when it is asked for."""

from importlib import import_module

import click

# Commands in the order in which help lists them: module in this room and name there.
_COMMANDS = {
    "demo": ("cli_demo", "demo"),
    "init": ("cli_switch", "init"),
    "switch": ("cli_switch", "switch"),
    "host": ("cli_switch", "host"),
    "host-pin": ("cli_switch", "host_pin"),
    "status": ("cli_switch", "status"),
    "check": ("cli_switch", "check"),
    "journal": ("cli_journal", "journal"),
    "settle": ("cli_settlement", "settle"),
    "prices": ("cli_prices", "prices"),
    "terminal": ("cli_terminal", "terminal"),
    "app": ("cli_terminal", "app"),
    "pos": ("cli_pos", "pos"),
    "kiosk": ("cli_pos", "kiosk"),
    "pki": ("cli_renew", "pki"),  # which adds its own to those of cli_pki
    "keys": ("cli_ceremony", "keys"),  # which adds its own to those of cli_keys
    "people": ("cli_people", "people"),
    "audit": ("cli_audit", "audit"),
    "bench": ("cli_bench", "bench"),
    "fleet": ("cli_demo", "fleet"),
    "simulate": ("cli_simulate", "simulate"),
    "stand-in": ("cli_stand_in", "stand_in_commands"),
    "worker": ("cli_switch", "worker"),
}


class _Commands(click.Group):
    """Reads the module of a command only: all of them together take longer than most commands do."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name]
        command: click.Command = getattr(import_module(f"fengshou.switch.{module}"), attribute)
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
