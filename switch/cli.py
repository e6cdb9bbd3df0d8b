"""``fengshou``: the command line. Each group of commands has a module of its own."""

import click

from fengshou.switch import cli_ceremony  # noqa: F401 adds its commands to `keys`
from fengshou.switch.cli_audit import audit
from fengshou.switch.cli_bench import bench
from fengshou.switch.cli_demo import demo, fleet
from fengshou.switch.cli_journal import journal
from fengshou.switch.cli_keys import keys
from fengshou.switch.cli_people import people
from fengshou.switch.cli_pki import pki
from fengshou.switch.cli_pos import kiosk, pos
from fengshou.switch.cli_prices import prices
from fengshou.switch.cli_settlement import settle
from fengshou.switch.cli_simulate import simulate
from fengshou.switch.cli_stand_in import stand_in_commands
from fengshou.switch.cli_switch import check, host, init, status, switch
from fengshou.switch.cli_terminal import app, terminal


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Start with: fengshou init DIR, then fengshou switch --home DIR. `fengshou demo` does all of it for you.",
)
@click.version_option(package_name="fengshou")
@click.option("--as", "name", envvar="FENGSHOU_AS", show_envvar=True, help="Who acts, see `fengshou people`.")
@click.pass_context
def main(context: click.Context, name: str | None) -> None:
    """Fengshou (丰收): a transaction switch for a rural bank's service network."""
    context.obj = name


for command in (
    demo, init, switch, host, status, check, journal, settle, prices, terminal, app, pos, kiosk, pki, keys, people,
    audit, bench, fleet, simulate,
    stand_in_commands,
):  # fmt: skip
    main.add_command(command)
