"""A real site for the tests of documents: authority, one terminal, core-banking host and switch as processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fengshou.protocol.service import TerminalFacts
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.enrolment import enrol, publish_app
from fengshou.switch.processes import SiteProcesses
from fengshou.switch.site import STANDARD_SERVICES, free_ports, make_site
from fengshou.terminals.home import Home
from fengshou.terminals.registry import NewTerminal, Registry, Site

APP, VERSION = "fengshou.pos", "1.0"
BUYER, FARMER = "9020000000104729", "9156001004001187857"
FACTS = TerminalFacts(
    "FS000001", "999452007630001", 99_904_520, "FSPOS00000001", "93370211FENG000150", BUYER, "POS", "BA12", 1
)
ACCOUNTS = f"number,name,kind,opening_fen\n{BUYER},buyer,buyer,100000000\n{FARMER},farmer,farmer,0\n"


def _enrol(folder: Path) -> Home:
    loaded = load(folder / "switch.toml")
    services = tuple(name.replace("_", "-") for name in STANDARD_SERVICES)
    terminal = NewTerminal(FACTS, frozenset(services), frozenset((APP,)))
    with Registry.open(folder / "registry.db", custody_of(loaded)) as registry:
        app = publish_app(loaded, registry, APP, VERSION, services)
        registry.add_sites([Site(FACTS.site, "Stone Bridge", "point", FACTS.town)])
        registry.add_terminals([terminal])
        (home,) = enrol(loaded, registry, [terminal], app)
    return Home(home)


@contextmanager
def running_site(folder: Path) -> Iterator[Home]:
    """The terminal's home. Only core banking is there; the other back ends are down, which must not matter to trade."""
    accounts = folder / "accounts.csv"
    accounts.write_text(ACCOUNTS, "utf-8")
    site = make_site(folder / "site", accounts, free_ports())
    home = _enrol(site.folder)
    with SiteProcesses(site.folder) as processes:
        for name in ("core-banking", "switch"):
            processes.start(name).wait_ready()
        yield home
        assert [processes.running.pop(name).stop() for name in ("switch", "core-banking")] == [0, 0]
