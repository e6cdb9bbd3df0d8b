"""The demonstration: a whole site as real processes, one season of trade through it, and what became of it.

Authority, keys, terminals, three back ends and the switch are made and started; fleets of simulated terminals,
processes of their own, trade a file of purchases and a mix of other scenes over real connections; then the books, the
journal and the terminals' own tallies are compared.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from fengshou.switch import status
from fengshou.switch.certificate_files import read_certificate
from fengshou.switch.clock import Clock
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.enrolment import enrol, publish_app
from fengshou.switch.fleets import FARM_PURCHASE, FleetFile, FleetProcess, merge
from fengshou.switch.grammar import Catalogue, services_of
from fengshou.switch.journal.audit import Finding, verify_journal
from fengshou.switch.journal.store import Journal
from fengshou.switch.processes import SiteProcesses
from fengshou.switch.recording import Recorder
from fengshou.switch.settlement.reconcile import Reconciliation, reconcile, standing_approvals
from fengshou.switch.site import Site, free_ports, make_site
from fengshou.terminals.fleet import FleetPlan, FleetResult
from fengshou.terminals.latency import Latencies
from fengshou.terminals.registry import NewTerminal, Registry
from fengshou.terminals.registry_csv import read_sites, read_terminals
from fengshou.terminals.trades import read_trades

APP, APP_VERSION = "fengshou.pos", "1.0"
# A person sends 10 requests a second at most; a simulated terminal has no person in it.
_SIMULATED_RATE = 10_000
_SETTLE_S = 60.0

Step = Callable[[str], None]
Progress = Callable[[int, int], None]  # answered, of how many


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the demo found out, ready for JSON."""

    home: str
    seconds: float
    fleets: FleetResult
    status: dict[str, Any]
    ledger_balanced: bool
    reconciliation: Reconciliation
    journal: Finding
    analytics_delivered: int
    analytics_written: int

    @property
    def good(self) -> bool:
        return (
            self.ledger_balanced
            and self.reconciliation.equal
            and self.journal.good
            and not self.fleets.surprises
            and not self.fleets.repeats_different
            and not self.fleets.receipts_invalid
            and not self.fleets.unknown
            and self.analytics_delivered == self.analytics_written
        )

    def as_dict(self) -> dict[str, Any]:
        fleets, codes = self.fleets, Counter[str]()
        for by_code in fleets.codes.values():
            codes.update(by_code)
        return {
            "good": self.good,
            "home": self.home,
            "seconds": round(self.seconds, 3),
            "sent": fleets.sent,
            "approved": codes["00"],
            "declined": {code: count for code, count in sorted(codes.items()) if code != "00"},
            "codes": fleets.codes,
            "approved_fen": fleets.approved_fen,
            "unknown": fleets.unknown,
            "surprises": fleets.surprises,
            "duplicates_answered": fleets.repeats_equal,
            "duplicates_different": fleets.repeats_different,
            "receipts_verified": fleets.receipts_verified,
            "receipts_invalid": fleets.receipts_invalid,
            "latency_ms": {
                "p50": _ms(fleets.latencies, 50),
                "p99": _ms(fleets.latencies, 99),
            },
            "bytes_per_message": {
                "request_frame": _mean(fleets.frame_bytes_up, fleets.sent),
                "answer_frame": _mean(fleets.frame_bytes_down, fleets.answered),
                "request_tls": _mean(fleets.tls_bytes_up, fleets.sent),
                "answer_tls": _mean(fleets.tls_bytes_down, fleets.answered),
            },
            "switch_cpu_us_per_transaction": round(1e6 * self.status["cpu_s"] / fleets.sent) if fleets.sent else 0,
            "ledger": {
                "balanced": self.ledger_balanced,
                "equal_to_journal": self.reconciliation.equal,
                "transactions": self.reconciliation.transactions,
                "fen": self.reconciliation.fen,
                "differences": self.reconciliation.differences,
            },
            "journal": self.journal.as_dict(),
            "analytics": {"delivered": self.analytics_delivered, "written": self.analytics_written},
        }


def _ms(latencies: dict[int, int], percent: float) -> float:
    """Milliseconds that ``percent`` of the trades did not exceed; 0 when there were none."""
    return Latencies(latencies).percentile(percent) / 1000


def _mean(total: int, count: int) -> float:
    return round(total / count, 1) if count else 0.0


def prepare(home: Path, examples: Path) -> Site:
    """Make the site and enrol every terminal of the examples."""
    site = make_site(home, examples / "accounts.csv", free_ports())
    loaded = load(site.path("switch.toml"))
    custody = custody_of(loaded)
    services = [service.name for service in services_of(loaded.config)]
    with Registry.open(loaded.path(loaded.config.files.registry), custody) as registry:
        registry.add_sites(read_sites(examples / "sites.csv"))
        app = publish_app(loaded, registry, APP, APP_VERSION, services)
        terminals: list[NewTerminal] = [
            replace(new, rate_per_second=_SIMULATED_RATE)
            for new in read_terminals(examples / "terminals.csv", frozenset([APP]))
        ]
        registry.add_terminals(terminals)
        enrol(loaded, registry, terminals, app)
    return site


def run(
    home: Path, examples: Path, purchases: int | None, step: Step, progress: Progress, *, delta: bool = True
) -> Outcome:
    """Make everything anew in ``home`` and trade. ``purchases`` limits how many; None takes the whole season.

    Without ``delta`` the terminals send every request whole.
    """
    if home.exists():
        shutil.rmtree(home)
    home.parent.mkdir(parents=True, exist_ok=True)
    step("making authority, keys, registry and terminals")
    site = prepare(home, examples)
    season = list(islice(read_trades(examples / "purchases.csv", FARM_PURCHASE), purchases))
    mix = list(read_trades(examples / "mix.csv", FARM_PURCHASE))
    buyers = frozenset(trade.terminal for trade in season)
    files = (str((examples / "purchases.csv").resolve()), str((examples / "mix.csv").resolve()))
    shops = frozenset(trade.terminal for trade in mix) - buyers
    shares = [FleetFile(terminals, files, (len(season), len(mix))) for terminals in (buyers, shops)]
    with SiteProcesses(site.folder) as processes:
        step("starting core banking, government gateway, analytics and the switch")
        processes.start_all()
        step(f"trading {len(season)} purchases and {len(mix)} requests of other scenes")
        started_with = status.ask(site.path("status.sock"))["cpu_s"]
        start = time.perf_counter()
        fleets = _trade(site, shares, progress, delta)
        seconds = time.perf_counter() - start
        step("waiting for analytics and for reversals that are owed")
        last = _settled(site)
        last["cpu_s"] -= started_with  # what trade cost, not what starting did
    step("comparing terminals, journal and books")
    return _compare(site, fleets, seconds, last)


def _trade(site: Site, shares: Sequence[FleetFile], progress: Progress, delta: bool) -> FleetResult:
    """Each share through a fleet of its own, one request a terminal in flight: rows of the mix build on each other."""
    children = []
    total = sum(1 for share in shares for _ in share.read_trades())
    for number, share in enumerate(shares):
        homes = tuple(str(site.path("terminals", terminal)) for terminal in sorted(share.terminals))
        plan = FleetPlan(homes=homes, in_flight=1, repeat_every=50, receipt_every=100, settle=True, delta=delta)
        children.append(FleetProcess(msgspec.structs.replace(share, plan=plan), site.path(f"fleet-{number}")))
    try:
        while any(child.running for child in children):
            time.sleep(0.1)
            progress(sum(child.progress.answered for child in children), total)
            for child in children:
                child.check()
    except BaseException:
        for child in children:
            child.kill()
        raise
    progress(total, total)
    return merge([child.result() for child in children])


def _settled(site: Site) -> dict[str, Any]:
    """The switch's status once nothing is owed and analytics has everything, or after a minute at the latest."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        answer = status.ask(site.path("status.sock"))
        feed = answer["analytics"]
        done = feed["delivered"] == feed["written"] and not answer["reversals"]["owed"] and not answer["in_flight"]
        if done or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


def _compare(site: Site, fleets: FleetResult, seconds: float, last: dict[str, Any]) -> Outcome:
    loaded = load(site.path("switch.toml"))
    catalogue = Catalogue(services_of(loaded.config))
    custody = custody_of(loaded)
    recorder = Recorder(catalogue, custody, Clock())
    journal = Journal(loaded.path(loaded.config.files.journal), read_only=True)
    try:
        finding = verify_journal(
            journal, recorder, [read_certificate(loaded.path("certificates/switch-sign.crt")).public_key]
        )
        # The books are read by what the host's package offers for it: nothing here knows how they are kept.
        report = import_module("fengshou.ext.hosts.core_banking").ledger_report(
            site.path("hosts", "core-banking", "ledger.db")
        )
        result = reconcile(standing_approvals(journal, catalogue, recorder), report["transactions"])
    finally:
        journal.close()
    return Outcome(
        str(site.folder),
        seconds,
        fleets,
        last,
        report["balanced"],
        result,
        finding,
        last["analytics"]["delivered"],
        last["analytics"]["written"],
    )
