"""``fengshou``: the command line. Each group of commands has a module of its own, read when it is asked for."""

import click

from fengshou.switch.cli.lazy import Elsewhere, LazyGroup

_COMMANDS = {
    "demo": Elsewhere("demo", "demo", "Start a whole site as real processes and trade one season's cases."),
    "init": Elsewhere("switch", "init", "Make a site: authority, keys, certificates, configuration."),
    "switch": Elsewhere("switch", "switch", "Run the switch."),
    "host": Elsewhere("switch", "host", "Run one of the embedded back ends."),
    "host-pin": Elsewhere("switch", "host_pin", "Let the holder of a card choose a PIN at the embedded host."),
    "status": Elsewhere("status", "status", "Show what the running switch is doing."),
    "check": Elsewhere("status", "check", "Say whether a switch would start with a configuration."),
    "journal": Elsewhere("journal", "journal", "What was written: look at it, find in it, prove it, take receipts."),
    "settle": Elsewhere("settlement", "settle", "What a day came to, and whether everybody agrees."),
    "prices": Elsewhere("prices", "prices", "What goods were sold for: by product, grade and day."),
    "terminal": Elsewhere("terminal", "terminal", "Terminals of the network: add, enrol, look at, block."),
    "app": Elsewhere("terminal", "app", "Applications that terminals may run, by their signed manifests."),
    "pos": Elsewhere("pos", "pos", "Be a POS for one trade."),
    "kiosk": Elsewhere("pos", "kiosk", "Be a kiosk for one trade: enquiries, balances, transfers."),
    "pki": Elsewhere("renew", "pki", "Certificates of the network: one root, one issuing authority, what they issue."),
    "keys": Elsewhere("ceremony", "keys", "Keys of the site: their state, rotation, ceremonies."),
    "people": Elsewhere("people", "people", "People and their duties."),
    "audit": Elsewhere("audit", "audit", "The audit log: written before each act, chained, signed daily."),
    "bench": Elsewhere("bench", "bench", "Measure a switch."),
    "fleet": Elsewhere("demo", "fleet"),  # started by others
    "simulate": Elsewhere("simulate", "simulate", "Run a whole network in simulated time, and try to break it."),
    "stand-in": Elsewhere("stand_in", "stand_in_commands", "What the switch approves while core banking is away."),
    "worker": Elsewhere("switch", "worker"),  # started by the switch
}


@click.group(
    cls=LazyGroup,
    elsewhere=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Start with: fengshou init DIR, then fengshou switch --home DIR. `fengshou demo` does all of it for you.",
)
@click.version_option(package_name="fengshou")
@click.option("--as", "name", envvar="FENGSHOU_AS", show_envvar=True, help="Who acts, see `fengshou people`.")
@click.pass_context
def main(context: click.Context, name: str | None) -> None:
    """Fengshou (丰收): a transaction switch for a rural bank's service network."""
    context.obj = name
