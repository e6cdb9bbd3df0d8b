"""A whole site as real processes: what tests start, hurt, look into and hold against each other."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from fengshou.codecs import PublicKey
from fengshou.ext.hosts.core_banking import ledger_report
from fengshou.hsm.pki import Authority
from fengshou.protocol import elements as de
from fengshou.protocol.money import amount_of
from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.protocol.service import TerminalFacts
from fengshou.switch import status as status_socket
from fengshou.switch.certificate_files import read_certificates
from fengshou.switch.clock import Clock
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.enrolment import enrol, publish_app
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.journal.audit import Finding, verify_journal
from fengshou.switch.journal.audit_columns import hashes_of
from fengshou.switch.journal.audit_indexes import Indexes
from fengshou.switch.journal.store import Journal
from fengshou.switch.processes import Process, SiteProcesses
from fengshou.switch.recording import Recorder, pseudonyms
from fengshou.switch.settlement.reconcile import reconcile, standing_approvals
from fengshou.switch.site import free_ports, make_site
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.client import Patience, connect
from fengshou.terminals.home import Home
from fengshou.terminals.identity import Counters
from fengshou.terminals.key_store import KeyStore
from fengshou.terminals.registry import NewTerminal, Registry, Site

APP, VERSION = "fengshou.pos", "1.0"
# An application whose manifest permits nothing that moves money.
READER_APP = "fengshou.reader"
TERMINALS = tuple(f"TT{number:06d}" for number in range(1, 13))
# A person at a till: held to ten requests a second. The others are as fast as the tests are.
SLOW_HANDED = "TT000012"
# May use everything but withdrawals.
NO_CASH = "TT000011"

# What must never be seen outside keys, sealed values and the back ends' own books.
PAN = "9156004000001267043"
POOR_PAN = "9156004000001979753"
LIMITED_PAN = "9156004000007777003"
RETURNED_PAN = "9156004000008887009"  # a day has one limit a card, so each test that uses it up has a card of its own
PIN_PAN = "9156004000009991008"
FARMER = "9156001004001187857"
SUBJECT = "990211199503110834"

SERVICES = (
    "farm-purchase", "withdrawal", "deposit", "transfer", "balance", "reversal", "gov-enquiry", "settlement", "void",
    "refund", "offline-sale", "preauthorisation", "completion", "preauthorisation-void",
)  # fmt: skip


def account_of(terminal: str) -> str:
    return f"90200000{terminal[2:]}01"


def purchase(weight_centikg: int = 125_596, **changed: Any) -> dict[int, Any]:
    """The values of a farm purchase of blueberries, without a card: the terminal's own account pays."""
    values = {
        de.AMOUNT: amount_of(weight_centikg, 9650),
        de.ENTRY_MODE: 12,
        de.PRODUCT: 1,
        de.VARIETY: 3,
        de.GRADE: 2,
        de.WEIGHT: weight_centikg,
        de.UNIT_PRICE: 9650,
        de.TO_ACCOUNT: FARMER,
        de.LOCAL_TIME: 72_150,
        de.LOCAL_DATE: 320,
    }
    return {**values, **{getattr(de, name): value for name, value in changed.items()}}


def withdrawal(amount_fen: int = 10_000, pan: str = PAN) -> dict[int, Any]:
    return {de.PAN: pan, de.AMOUNT: amount_fen, de.ENTRY_MODE: 51, de.LOCAL_TIME: 72_150, de.LOCAL_DATE: 320}


def enquiry() -> dict[int, Any]:
    return {de.ITEM: 102, de.DOMAIN: 2, de.SUBJECT: SUBJECT, de.LOCAL_TIME: 72_150, de.LOCAL_DATE: 320}


def reversal(batch: int, stan: int, amount_fen: int) -> dict[int, Any]:
    """Of a void, refund or completion as well."""
    return {
        de.AMOUNT: amount_fen,
        de.LOCAL_TIME: 72_150,
        de.LOCAL_DATE: 320,
        de.ORIGINAL_BATCH: batch,
        de.ORIGINAL_STAN: stan,
    }


class Town:
    """A site in ``folder`` and its processes, as far as they were started."""

    def __init__(
        self,
        folder: Path,
        *,
        deadline_ms: int = 0,
        cut_over: Mapping[str, Any] | None = None,
        providers: str = "",
        workers: int = 1,
        **limits: float,
    ) -> None:
        """``deadline_ms`` is that of all back ends; ``cut_over`` the configuration's section of that name, ``limits``
        keys of another, underscored; ``providers`` its tables of custody."""
        self.folder = folder
        _make(folder, deadline_ms, cut_over or {}, providers, workers, limits)
        self.loaded = load(folder / "switch.toml")
        self.catalogue = Catalogue(load_service(entry.module, entry.options) for entry in self.loaded.config.service)
        self.custody = custody_of(self.loaded)
        self.recorder = Recorder(self.catalogue, self.custody, Clock())
        self.authority = Authority(folder / "pki")
        self.processes = SiteProcesses(folder)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.loaded.config.listen.port

    @property
    def switch_keys(self) -> list[PublicKey]:
        """Of all epochs, the newest first."""
        certificates = read_certificates(self.folder / "certificates/switch-sign.crt")
        return [certificate.public_key for certificate in certificates]

    def home(self, terminal: str) -> Home:
        return Home(self.folder / "terminals" / terminal)

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        with Registry.open(self.folder / "registry.db", self.custody) as registry:
            yield registry

    # -- processes ---------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        for name in names:
            self.processes.start(name)
        for name in names:
            self.processes.running[name].wait_ready()

    def kill(self, name: str) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        self.process(name).kill()

    def restart(self, name: str) -> None:
        self.start(name)

    def process(self, name: str) -> Process:
        return self.processes.running[name]

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """The process keeps its connections and does nothing."""
        os.kill(self.process(name).pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self.thaw(name)

    def thaw(self, name: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process(name).pid, signal.SIGCONT)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8", errors="replace")

    # -- what a running switch says ------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return status_socket.ask(self.folder / "status.sock")

    def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> dict[str, Any]:
        """The first status for which ``holds``; fails the test when there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.status()
            if holds(answer):
                return answer
            assert time.monotonic() < deadline, f"not in time: {answer}"
            time.sleep(0.05)

    def until_up(self, *names: str) -> None:
        self.until(lambda answer: all(answer["destinations"][name]["up"] for name in names))

    def settle(self) -> dict[str, Any]:
        """Wait until nothing is in flight, nothing is owed and analytics has everything."""
        return self.until(
            lambda answer: (
                not answer["in_flight"]
                and not answer["reversals"]["owed"]
                and answer["analytics"]["delivered"] == answer["analytics"]["written"]
            ),
            60.0,
        )

    # -- what it has left behind ---------------------------------------------------------------------------------------

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        journal = Journal(self.folder / "journal", read_only=True)
        try:
            yield journal
        finally:
            journal.close()

    def next_record(self) -> int:
        with self.journal() as journal:
            return journal.next_record

    def records(self, first: int = 1, kind: RecordKind | None = None) -> list[Record]:
        with self.journal() as journal:
            records = [parse_record(data) for _, data in journal.records(first)]
        return [record for record in records if kind is None or record.kind == kind]

    def reasons(self, first: int) -> Counter[tuple[str, str]]:
        """Code and reason of every refusal on record from ``first`` on."""
        return Counter(
            (record.code, str(self.recorder.clear(record).get(de.TEXT, "")))
            for record in self.records(first, RecordKind.REFUSAL)
        )

    def verify(self) -> Finding:
        with self.journal() as journal:
            finding = verify_journal(journal, self.recorder, self.switch_keys)
            custody = custody_of(self.loaded)  # with the keys of now
            hashes = hashes_of(Recorder(self.catalogue, custody, Clock()), pseudonyms(custody))
            Indexes(journal, self.catalogue, self.recorder, finding, hashes).verify()
            assert not finding.unopened
            return finding

    def books(self) -> Mapping[str, Any]:
        return ledger_report(self.folder / "hosts/core-banking/ledger.db")

    def require_truth(self) -> dict[int, int]:
        """Journal proved, books balanced, both equal to the fen; returns what stands, fen by RRN."""
        finding = self.verify()
        assert finding.good, finding.problems
        books = self.books()
        assert books["balanced"]
        with self.journal() as journal:
            assert not journal.open_intents()
            assert not journal.due()
            standing = standing_approvals(journal, self.catalogue, self.recorder)
        result = reconcile(standing, books["transactions"])
        assert result.equal, result.differences
        return standing

    # -- terminals -----------------------------------------------------------------------------------------------------

    def client(
        self, terminal: str, counters: Counters | None = None, log: BatchLog | None = None,
        keys: KeyStore | None = None, **patience: float,
    ) -> Any:  # fmt: skip
        """``async with`` a client of the switch that tries again for as long as a test may last."""
        home = self.home(terminal)
        waits = {"connect_s": 5.0, "answer_s": 8.0, "trade_s": 60.0, "longest_delay_s": 0.5, **patience}
        return connect(
            home.address, home.context(), home.switch_name, home.identity, home.signer(), counters or home.counters(),
            self.catalogue.grammar, Patience(**waits), log=log, keys=keys, home=home,
        )  # fmt: skip


def _make(
    folder: Path,
    deadline_ms: int,
    cut_over: Mapping[str, Any],
    providers: str,
    workers: int,
    limits: Mapping[str, float],
) -> None:
    accounts = [f"{account_of(terminal)},buyer,buyer,400000000000" for terminal in TERMINALS]
    accounts += [
        f"{FARMER},farmer,farmer,0",
        f"{PAN},card,card,500000000",
        f"{POOR_PAN},card,card,100",
        f"{LIMITED_PAN},card,card,500000000",
        f"{RETURNED_PAN},card,card,500000000",
        f"{PIN_PAN},card,card,500000000",
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    csv = folder.parent / f"{folder.name}-accounts.csv"
    csv.write_text("\n".join(["number,name,kind,opening_fen", *accounts]) + "\n", "utf-8")
    site = make_site(folder, csv, free_ports(), providers=providers)
    file = site.path("switch.toml")
    section = "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in limits.items())
    section += "\n[cut-over]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in cut_over.items())
    text = file.read_text("utf-8").replace("[listen]", f"[limits]\n{section}\n[listen]", 1)
    for usual in (5000, 8000):
        text = text.replace(f"deadline-ms = {usual}", f"deadline-ms = {deadline_ms or usual}")
    file.write_text(text.replace('log-level = "info"', f'log-level = "debug"\nworkers = {workers}'), "utf-8")
    loaded = load(file)
    with Registry.open(site.path("registry.db"), custody_of(loaded)) as registry:
        registry.add_sites([Site("TOWN", "东山村", "point", 1)])
        app = publish_app(loaded, registry, APP, VERSION, SERVICES)
        publish_app(loaded, registry, READER_APP, VERSION, ("balance", "gov-enquiry"))
        rows = [_terminal(terminal) for terminal in TERMINALS]
        registry.add_terminals(rows)
        enrol(loaded, registry, rows, app)


def _terminal(terminal: str) -> NewTerminal:
    number = int(terminal[2:])
    facts = TerminalFacts(
        terminal, f"9994520076{number:05d}", 99_904_520, f"SN{number:08d}", f"93370211FENG{number:06d}",
        account_of(terminal), "POS", "TOWN", 1,
    )  # fmt: skip
    services = frozenset(SERVICES) - ({"withdrawal"} if terminal == NO_CASH else set())
    return NewTerminal(facts, services, frozenset((APP, READER_APP)), 10 if terminal == SLOW_HANDED else 10_000)


@contextmanager
def running_town(folder: Path, **settings: Any) -> Iterator[Town]:
    """A town whose four processes run and whose links are up."""
    shutil.rmtree(folder, ignore_errors=True)
    town = Town(folder, **settings)
    with town.processes:
        town.start("core-banking", "government", "analytics", "switch")
        town.until_up("core-banking", "government")
        yield town


async def trade_now(town: Town, terminal: str = TERMINALS[0]) -> None:
    """One purchase of a terminal that has nothing to do with the trouble: it must succeed meanwhile."""
    async with town.client(terminal, Counters()) as client:
        with trio.fail_after(20):
            response = await client.trade("farm-purchase", purchase())
        assert response.code == "00", response.text()
