"""The simulated town: a switch, its disk, its back ends, terminals and the network between them, from one plan."""

import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import trio

from fengshou.codecs import PrivateKey
from fengshou.hsm.custody import SWITCH_SIGN, Kind
from fengshou.hsm.software import SoftwareCustody, provision
from fengshou.hsm.x509 import TERMINAL, Certificate, CustodySigner, Subject, issue
from fengshou.protocol.service import TerminalFacts
from fengshou.routing.event_handler import EventHandler
from fengshou.routing.json_server import ApplicationHandler, Handler
from fengshou.switch.clock import CutOver
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.recording import Recorder
from fengshou.switch.simulation.agenda import Agenda, Diary, WallClock, stream_of_chance
from fengshou.switch.simulation.deeds import CARD, FARMER, STRANGER
from fengshou.switch.simulation.disk import Disk
from fengshou.switch.simulation.host import Host
from fengshou.switch.simulation.judgement import judge
from fengshou.switch.simulation.network import Network
from fengshou.switch.simulation.offices import ANALYTICS, GOVERNMENT, OFFICE_SIGN, KeptStore, Office
from fengshou.switch.simulation.plan import TERMINALS_MAX, Plan
from fengshou.switch.simulation.process import Process, Settings
from fengshou.switch.simulation.secrecy import LogBook, Secrets
from fengshou.switch.simulation.terminal import Broken, Terminal
from fengshou.switch.simulation.trouble import Trouble
from fengshou.switch.simulation.witness import Witness
from fengshou.switch.site import SERVICES, STANDARD_SERVICES
from fengshou.switch.stand_in import Caps, Limits
from fengshou.terminals.binding import AppRow, Status, TerminalRow
from fengshou.terminals.identity import Identity
from fengshou.terminals.pump import Closing

_NAMES = frozenset(name.replace("_", "-") for name in STANDARD_SERVICES)
_APP, _VERSION, _MANIFEST = "fengshou.pos", "1.0", bytes(range(32))
_GOVERNMENT = "fengshou.ext.hosts.government.Application"
_ANALYTICS = "fengshou.ext.hosts.analytics.Store"
# After the last trouble all must come to rest within this time; the longest pause between attempts is a minute, and a
# reversal that the host has refused is asked for again after ten.
_REST_S = 1800.0
# For so long nothing is open then: longer than any message is under way or any answer late.
_QUIET_S = 15
# Transfers are refused about the time at which the business day changes.
_CUT_OVER = CutOver(minute=0, before_s=3, after_s=3, services=frozenset(("transfer",)))
# What the bank lets the switch approve by itself while the host is away.
_CAPS = {
    "farm-purchase": Caps(transaction_fen=150_000, card_fen=10**9, terminal_fen=250_000, service_fen=400_000),
    "withdrawal": Caps(transaction_fen=10_000, card_fen=20_000, terminal_fen=20_000, service_fen=20_000),
}


def account_of(terminal: str) -> str:
    return f"90200000{terminal[2:]}01"


class Keys:
    """What is made once for many runs: keys, certificates, accounts. Nothing of a run depends on their values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        custody = provision(folder / "keys")
        SoftwareCustody.initialise(folder / "office").create(OFFICE_SIGN, Kind.SM2)
        signer = CustodySigner(custody, SWITCH_SIGN)
        self.terminals: dict[str, tuple[PrivateKey, Certificate]] = {}
        for number in range(1, TERMINALS_MAX + 1):
            name, key = f"TT{number:06d}", PrivateKey.generate()
            subject = Subject(name, serial=f"SN{number:08d}")
            certificate = issue(
                TERMINAL, subject, key.public_key, issuer=Subject("simulation"), signer=signer, now=datetime.now(UTC)
            )
            self.terminals[name] = key, certificate
        self.accounts = folder / "accounts.csv"
        rows = [f"{account_of(name)},buyer,buyer,300000" for name in self.terminals]
        rows += [f"{FARMER},farmer,farmer,0", f"{CARD},card,card,90000"]
        self.accounts.write_text("\n".join(["number,name,kind,opening_fen", *rows]) + "\n", "utf-8")


class Town:
    """One run. ``run`` raises Broken when something that must always hold does not."""

    def __init__(self, plan: Plan, keys: Keys, folder: Path, log: LogBook) -> None:
        """``log`` has what the switch logs."""
        self.plan = plan
        self.folder = folder
        self.log = log
        for name in ("journal", "host", "offices", "terminals"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(keys.folder / "keys", folder / "keys")
        chance = partial(stream_of_chance, plan.seed)
        self.chance = chance("town")
        self.diary = Diary()
        self.agenda = Agenda()
        self.clock = WallClock(_CUT_OVER, plan.cut_over_in_s)
        self.network = Network(self.agenda, self.diary, chance("network"))
        self.custody = SoftwareCustody(folder / "keys")
        self.catalogue = Catalogue(load_service(f"{SERVICES}.{name}", {}) for name in STANDARD_SERVICES)
        now = datetime.fromtimestamp(self.clock.start_us / 1e6, UTC)
        self.stand_in = Limits(now - timedelta(days=1), now + timedelta(days=30), _CAPS)
        self.disk = Disk(folder / "journal", chance("disk"), self.diary)
        self.witness = Witness(
            self.diary, self.fail, self.catalogue, Recorder(self.catalogue, self.custody, self.clock), _CAPS
        )
        self.disk.on_durable = self.witness.durable
        self.host = Host(
            self.network, folder / "host", keys.accounts, WallClock(_CUT_OVER, plan.cut_over_in_s), chance("host"),
            self.witness.at_host,
        )  # fmt: skip
        self.analytics_told: dict[int, Any] = {}  # event by number
        office_keys = SoftwareCustody(keys.folder / "office")
        self.office_key = office_keys.public_key(OFFICE_SIGN)
        self.offices = [
            Office(name, self.network, office_keys, self.custody, chance(name), opened)
            for name, opened in ((GOVERNMENT, self._open_government), (ANALYTICS, self._open_analytics))
        ]
        self.back_ends: list[Host | Office] = [self.host, *self.offices]
        self.ends: list[Callable[[], None]] = []  # of the faults that are on
        self.certificates = {name: certificate for name, (_, certificate) in keys.terminals.items()}
        self.rows: dict[str, TerminalRow] = {}
        self.terminals: list[Terminal] = []
        for (name, (key, certificate)), _ in zip(keys.terminals.items(), plan.deeds, strict=False):
            row = self.rows[name] = _row(name, certificate)
            self.terminals.append(
                Terminal(
                    _identity(row.facts), key, self.catalogue.grammar, self.network, self.diary, self.clock,
                    chance(name), folder / "terminals", self.witness.at_terminal,
                )
            )  # fmt: skip
        self.secrets = Secrets(
            [folder / "keys", keys.folder / "office"],
            {f"the key of {name}": key.to_scalar() for name, (key, _) in keys.terminals.items()},
            {
                "the number of the card": CARD, "the number of the farmer": FARMER, "a stranger's number": STRANGER,
                **{f"the account of {name}": account_of(name) for name in keys.terminals},
            },
        )  # fmt: skip
        self.process = Process(
            self, Settings(stands_in=self.chance.random() < 0.5, government=self.chance.random() < 0.85)
        )
        self._nursery: trio.Nursery
        self._scope = trio.CancelScope()
        self._problem = ""

    def _open_government(self) -> Handler:
        return ApplicationHandler(_made(_GOVERNMENT, {"database": str(self.folder / "offices/government.db")}))

    def _open_analytics(self) -> Handler:
        store = _made(_ANALYTICS, {"database": str(self.folder / "offices/analytics.db"), "products": ""})
        return EventHandler(KeptStore(store, self.analytics_told))

    # -- what trouble does ---------------------------------------------------------------------------------------------

    def change_row(self, name: str, change: Callable[[TerminalRow], TerminalRow]) -> None:
        """An operator changes the registry; the switch looks whether the terminal's session may go on."""
        self.rows[name] = change(self.rows[name])
        core = self.process.running
        if core is not None:
            for peer in core.pump:
                if (
                    peer.row is not None
                    and peer.row.facts.terminal == name
                    and not core.sessions.review(peer, self.rows[name])
                ):
                    core.pump.close(peer, Closing.REVOKED)

    def spawn(self, work: Callable[[], Awaitable[object]]) -> None:
        """A task that outlives the one that asks for it."""
        self._nursery.start_soon(work)

    def spawn_guarded(self, work: Callable[[], Awaitable[object]]) -> None:
        """One whose failure ends the run."""
        self._nursery.start_soon(self._guarded, work)

    # -- the run -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        trouble = Trouble(self)
        for fault in self.plan.faults:
            self.agenda.at(fault.at_s, partial(trouble.begin, fault))
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for back_end in self.back_ends:
                    back_end.start()
                    nursery.start_soon(self._guarded, back_end.serve)
                for work in (self.agenda.run, self.process.run):
                    nursery.start_soon(self._guarded, work)
                await self._guarded(self._day)
                nursery.cancel_scope.cancel()
        if self._problem:
            raise Broken(self._problem)
        judge(self)

    def fail(self, problem: str) -> None:
        """Something that must always hold does not: the run ends here. The first problem counts."""
        self._problem = self._problem or problem
        self.process.kill()
        self._scope.cancel()

    async def _guarded(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception as error:
            self.fail(problem_of(error))

    async def _day(self) -> None:
        async with trio.open_nursery() as nursery:
            for terminal, deeds in zip(self.terminals, self.plan.deeds, strict=True):
                nursery.start_soon(terminal.live, list(deeds))
            await trio.sleep(self.plan.seconds)
            self._fair_weather()
        await self._rest()

    def close(self) -> None:
        """Let go of files, however the run ended."""
        self.process.kill()
        for back_end in self.back_ends:
            back_end.kill()

    def _fair_weather(self) -> None:
        self.diary.note("town", "no more trouble")
        for end in self.ends:
            end()
        self.ends.clear()

    async def _rest(self) -> None:
        """Everybody asks for what he does not know; then nothing is in flight and nothing is owed."""
        with trio.move_on_after(_REST_S) as patience:
            async with trio.open_nursery() as nursery:
                for terminal in self.terminals:
                    nursery.start_soon(terminal.settle)
            quiet_s = 0
            while quiet_s < _QUIET_S:
                await trio.sleep(1.0)
                quiet_s = 0 if self._open_work() else quiet_s + 1
        if patience.cancelled_caught:
            raise Broken(f"{_REST_S:.0f} s after the last trouble there is still work open: {self._open_work()}")
        self.process.kill()

    def _open_work(self) -> str:
        """What is not at rest; empty when everything is."""
        core, feed = self.process.running, self.process.feed
        if core is None or feed is None:
            return "the switch does not start"
        waiting = [terminal.name for terminal in self.terminals if not terminal.finished]
        untold = len(self.witness.events) - feed.cursor
        if not (len(core.duplicates) or core.forwarder.owed or waiting or untold):
            return ""
        return (
            f"{len(core.duplicates)} in flight, {core.forwarder.owed} owed, {untold} events untold, {waiting} waiting"
        )


def _made(application: str, options: dict[str, str]) -> Any:
    """A back end by its dotted name, as it is in its configuration."""
    module, _, name = application.rpartition(".")
    return getattr(import_module(module), name)(options)


def problem_of(error: BaseException) -> str:
    """The first thing that went wrong, in words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"


def _row(name: str, certificate: Certificate) -> TerminalRow:
    number = int(name[2:])
    facts = TerminalFacts(
        name, f"9994520076{number:05d}", 99_904_520, f"SN{number:08d}", f"93370211FENG{number:06d}", account_of(name),
        "POS", "TOWN", 1,
    )  # fmt: skip
    app = AppRow(_APP, _VERSION, _MANIFEST, _NAMES, Status.ACTIVE)
    return TerminalRow(
        facts, _NAMES, {(_APP, _VERSION): app}, 20, Status.ACTIVE, certificate.fingerprint, f"{certificate.serial:x}"
    )


def _identity(facts: TerminalFacts) -> Identity:
    return Identity(
        terminal=facts.terminal, merchant=facts.merchant, acquirer=facts.acquirer, serial=facts.serial,
        credit_code=facts.credit_code, settlement_account=facts.settlement_account, app=_APP, app_version=_VERSION,
        app_manifest=_MANIFEST.hex(),
    )  # fmt: skip
