"""A real site for the tests of documents: authority, one terminal, core-banking host and switch as processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import IO

from fengshou.codecs import PrivateKey
from fengshou.hsm import manifest
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.pki import Authority
from fengshou.hsm.software import SoftwareCustody
from fengshou.hsm.x509 import TERMINAL, CustodySigner, Subject
from fengshou.protocol.service import TerminalFacts
from fengshou.switch.site import PUBLISHER_SIGN, SERVICES, STANDARD_SERVICES, Ports, make_site
from fengshou.terminals.home import Configuration, Home, SwitchAddress, make_home
from fengshou.terminals.identity import Identity
from fengshou.terminals.registry import NewTerminal, Registry, Site

APP, VERSION = "fengshou.pos", "1.0"
BUYER, FARMER = "9020000000104729", "9156001004001187857"
FACTS = TerminalFacts(
    "FS000001", "999452007630001", 99_904_520, "FSPOS00000001", "93370211FENG000150", BUYER, "POS", "BA12", 1
)
ACCOUNTS = f"number,name,kind,opening_fen\n{BUYER},buyer,buyer,100000000\n{FARMER},farmer,farmer,0\n"
START_S = 30


@dataclass(frozen=True, slots=True)
class RunningSite:
    folder: Path
    terminal: Home


def _ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]


def _enrol(folder: Path, port: int) -> Home:
    now = datetime.now(UTC)
    custody = SoftwareCustody(folder / "keys")
    publisher = CustodySigner(SoftwareCustody(folder / "publisher" / "keys"), PUBLISHER_SIGN)
    names = tuple(name.replace("_", "-") for name in STANDARD_SERVICES)
    app = manifest.make(manifest.Body(APP, VERSION, "test", names, now), publisher)
    key = PrivateKey.generate()
    authority = Authority(folder / "pki")
    certificate = authority.issue(TERMINAL, Subject(FACTS.terminal, serial=FACTS.serial), key.public_key, now)
    registry = Registry.open(folder / "registry.db", custody)
    registry.add_app(app, publisher.public_key)
    registry.add_sites([Site("BA12", "Stone Bridge", "point", 1)])
    registry.add_terminals([NewTerminal(FACTS, frozenset(names), frozenset((APP,)))])
    registry.enrol(FACTS.terminal, f"{certificate.serial:x}", certificate.fingerprint)
    registry.close()
    configuration = Configuration(
        switch=SwitchAddress(
            host="127.0.0.1", port=port, name="127.0.0.1", signing_key=custody.public_key(SWITCH_SIGN).point.hex()
        ),
        identity=Identity(
            terminal=FACTS.terminal,
            merchant=FACTS.merchant,
            acquirer=FACTS.acquirer,
            serial=FACTS.serial,
            credit_code=FACTS.credit_code,
            settlement_account=FACTS.settlement_account,
            app=APP,
            app_version=VERSION,
            app_manifest=app.digest.hex(),
        ),
        services=tuple(f"{SERVICES}.{name}" for name in STANDARD_SERVICES),
    )
    return make_home(
        folder / "terminals" / FACTS.terminal,
        configuration,
        authority.chain(certificate),
        (folder / "pki" / "authorities.crt").read_bytes(),
        key,
    )


@contextmanager
def _process(log: IO[bytes], *arguments: str) -> Iterator[None]:
    """One of our commands, from its ``ready`` to the end of the block; it must end well when it is told to."""
    command = [sys.executable, "-c", "from fengshou.switch.cli.main import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith(b"ready"), f"{' '.join(arguments)} did not start, see {log.name}"
        yield
        process.terminate()
        assert process.wait(START_S) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def running_site(folder: Path) -> Iterator[RunningSite]:
    """Only core banking is there; the other back ends are down, which must not matter to trade."""
    accounts = folder / "accounts.csv"
    accounts.write_text(ACCOUNTS, "utf-8")
    ports = Ports(*_ports(4))
    site = make_site(folder / "site", accounts, ports)
    home = _enrol(site.folder, ports.terminals)
    with (
        (folder / "log").open("wb") as log,
        _process(log, "host", "core-banking", "--home", str(site.folder)),
        _process(log, "switch", "--home", str(site.folder)),
    ):
        yield RunningSite(site.folder, home)
