"""A site for measurements: as many terminals as are wanted, buyers who never run out of money, goods that are in order.

Its core-banking host is the embedded ledger, or one that approves and keeps nothing, so that on a small machine the
switch is what is measured.
"""

import csv
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from fengshou.hsm.files import write_public
from fengshou.protocol.money import amount_of
from fengshou.switch import status
from fengshou.switch.demo import prepare
from fengshou.switch.load.plan import LoadFailed
from fengshou.switch.processes import SiteProcesses
from fengshou.switch.site import Site, load_host
from fengshou.terminals.csv_rows import read_rows

APPROVER = "fengshou.ext.hosts.approver.Application"
# Accounts of nobody, to which purchases are paid where no books say otherwise.
_PAYEES = tuple(f"9156001009{number:09d}" for number in range(1, 101))

_SERVICES = "balance farm-purchase reversal settlement transfer"
_OPENING_FEN = 10**15
_LINKS_S = 30.0
_ROWS = 1000
_PRODUCT, _VARIETY, _GRADE, _TOWN = 1, 3, 2, 4
_PRICE_FEN = 9_650  # in the band of that product and grade in the dictionary that comes with the service


def payees(home: Path) -> Sequence[str]:
    """Accounts that the site's embedded core-banking host pays to: its farmers'. Any will do where it keeps no books.

    Raises ConfigError.
    """
    folder = home / "hosts" / "core-banking"
    file = load_host(folder).options.get("accounts") if (folder / "host.toml").exists() else None
    if file is None:
        return _PAYEES
    rows = read_rows(Path(file), ("number", "kind"), ("name", "opening_fen"))
    return [row.text("number") for row in rows if row.text("kind") == "farmer"]


def write_purchases(file: Path, payees: Sequence[str], random: Random) -> Path:
    """Farm purchases that any terminal may make, as ``terminals.trades`` reads them."""
    columns = (
        "terminal",
        "payee",
        "product",
        "variety",
        "grade",
        "weight_centikg",
        "unit_price_fen",
        "amount_fen",
        "town",
    )
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(columns)
        for number in range(_ROWS):
            weight = random.randrange(100, 50_000)
            amount = amount_of(weight, _PRICE_FEN)
            payee = payees[number % len(payees)]
            rows.writerow(("", payee, _PRODUCT, _VARIETY, _GRADE, weight, _PRICE_FEN, amount, _TOWN))
    return file


@contextmanager
def own_site(
    folder: Path, terminals: int, *, ledger: bool, switch_cores: int, settings: str = ""
) -> Iterator[tuple[Site, SiteProcesses]]:
    """Make a site in ``folder``, which is emptied first, and run it until the block is left.

    ``ledger``: with all embedded back ends, else with the approving host alone. ``switch_cores``: so many of this
    process's first cores are the switch's own and everything else, this process too, has the others; 0 for no bounds.
    ``settings`` are what the switch's configuration says beside what is usual: keys, then tables, in TOML.

    Raises LoadFailed, ProcessFailed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    examples = folder / "examples"
    examples.mkdir(parents=True)
    _write_network(examples, terminals)
    site = prepare(folder / "site", examples)
    file = site.path("switch.toml")
    write_public(file, file.read_text("utf-8").replace("[listen]", f"{settings}\n[listen]", 1).encode())
    if not ledger:
        _without_books(site)
    every = sorted(os.sched_getaffinity(0))
    if switch_cores >= len(every):
        raise LoadFailed(f"{switch_cores} cores for the switch leave none of {len(every)} to its terminals")
    own, others = (every[:switch_cores], every[switch_cores:]) if switch_cores else (every, every)
    with SiteProcesses(site.folder) as processes:
        try:
            os.sched_setaffinity(0, own)
            processes.start("switch")
            os.sched_setaffinity(0, others)
            for name in SiteProcesses.HOSTS if ledger else SiteProcesses.HOSTS[:1]:
                processes.start(name)
            for process in processes.running.values():
                process.wait_ready()
            _wait_for_host(site)
            yield site, processes
        finally:
            os.sched_setaffinity(0, every)


def _wait_for_host(site: Site) -> None:
    """A switch is ready before its links are up; the first requests would be declined. Raises LoadFailed."""
    deadline = time.monotonic() + _LINKS_S
    while not status.ask(site.path("status.sock"))["destinations"]["core-banking"]["up"]:
        if time.monotonic() > deadline:
            raise LoadFailed(f"core banking was not reached within {_LINKS_S:g} s")
        time.sleep(0.05)


def _without_books(site: Site) -> None:
    """The approving host in the ledger's place, which has no options. Nobody takes events: they stay in the journal."""
    file = site.path("hosts", "core-banking", "host.toml")
    text = re.sub(r"^(?:options|paths) = .*\n", "", file.read_text("utf-8"), flags=re.MULTILINE)
    write_public(
        file, re.sub(r'^application = ".*"$', f'application = "{APPROVER}"', text, flags=re.MULTILINE).encode()
    )


def _write_network(folder: Path, terminals: int) -> None:
    names = [f"FL{number:06d}" for number in range(1, terminals + 1)]
    accounts = [f"90200{number:011d}" for number in range(1, terminals + 1)]
    _write(folder / "sites.csv", ("site", "name", "kind", "town"), [("BENCH", "nowhere", "point", _TOWN)])
    _write(
        folder / "terminals.csv",
        (
            "terminal", "merchant", "acquirer", "serial", "credit_code", "settlement_account", "channel", "site",
            "town", "services",
        ),
        [
            (
                name, f"{999452008000000 + at}", 99904520, f"FSLOAD{at:08d}", f"93370211LD{at:08d}", account, "POS",
                "BENCH", _TOWN, _SERVICES,
            )
            for at, (name, account) in enumerate(zip(names, accounts, strict=True), 1)
        ],
    )  # fmt: skip
    _write(
        folder / "accounts.csv",
        ("number", "name", "kind", "opening_fen"),
        [(account, "buyer", "buyer", _OPENING_FEN) for account in accounts]
        + [(payee, "farmer", "farmer", 0) for payee in _PAYEES],
    )


def _write(file: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
