"""The simulated town: a switch, its disk, a host, terminals and the network between them, from one plan."""

import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import trio

from fengshou.codecs import PrivateKey
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.software import SoftwareCustody, provision
from fengshou.hsm.x509 import TERMINAL, Certificate, CustodySigner, Subject, issue
from fengshou.protocol.iso8583 import HostFormat
from fengshou.protocol.service import TerminalFacts
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.switch.core import Core, World
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.journal import JournalError
from fengshou.switch.outbound import Route
from fengshou.switch.simulation.agenda import Agenda, Diary, WallClock, stream_of_chance
from fengshou.switch.simulation.checks import Witness
from fengshou.switch.simulation.disk import Disk, InLoopWriter, SimulatedJournal
from fengshou.switch.simulation.host import HOST, Host
from fengshou.switch.simulation.network import Connection, Network, Readiness
from fengshou.switch.simulation.plan import Plan
from fengshou.switch.simulation.scheduling import Life
from fengshou.switch.simulation.terminal import SWITCH, Broken, Deed, Terminal
from fengshou.switch.simulation.trouble import Trouble
from fengshou.switch.site import SERVICES
from fengshou.terminals.binding import AppRow, Status, TerminalRow
from fengshou.terminals.identity import Identity
from fengshou.terminals.pump import Closing, Pump, PumpLimits

_SERVED = ("farm_purchase", "withdrawal", "deposit", "transfer", "balance", "reversal")
_NAMES = frozenset(name.replace("_", "-") for name in _SERVED)
_APP, _VERSION, _MANIFEST = "fengshou.pos", "1.0", bytes(range(32))
FARMER, CARD = "9156001004001187857", "9156004000001267043"
TERMINALS_MAX = 4
# After the last trouble all must come to rest within this time; the longest pause between attempts is a minute.
_REST_S = 900.0
_DEADLINE_S = 5.0


def account_of(terminal: str) -> str:
    return f"90200000{terminal[2:]}01"


class Keys:
    """What is made once for many runs: keys, certificates, accounts. Nothing of a run depends on their values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        custody = provision(folder / "keys")
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

    def __init__(self, plan: Plan, keys: Keys, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        for name in ("journal", "host"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(keys.folder / "keys", folder / "keys")
        chance = partial(stream_of_chance, plan.seed)
        self.chance = chance("town")
        self.diary = Diary()
        self.agenda = Agenda()
        self.clock = WallClock()
        self.network = Network(self.agenda, self.diary, chance("network"))
        self.custody = SoftwareCustody(folder / "keys")
        self.catalogue = Catalogue(load_service(f"{SERVICES}.{name}", {}) for name in _SERVED)
        self.disk = Disk(folder / "journal", chance("disk"), self.diary)
        self.witness = Witness(self.diary, self.fail)
        self.disk.on_durable = self.witness.durable
        self.host = Host(
            self.network, folder / "host", keys.accounts, WallClock(), chance("host"), self.witness.at_host
        )
        self.ends: list[Callable[[], None]] = []  # of the faults that are on
        self.certificates = {name: certificate for name, (_, certificate) in keys.terminals.items()}
        self.rows: dict[str, TerminalRow] = {}
        self.terminals: list[Terminal] = []
        for (name, (key, certificate)), _ in zip(keys.terminals.items(), plan.deeds, strict=False):
            row = self.rows[name] = _row(name, certificate)
            self.terminals.append(
                Terminal(
                    _identity(row.facts), key, self.catalogue.grammar, self.network, self.diary, self.clock,
                    chance(name), {"farmer": FARMER, "card": CARD}, self.witness.at_terminal,
                )
            )  # fmt: skip
        self.life: Life | None = None
        self.core: Core | None = None
        self.lives = 0
        self.transitions: Counter[str] = Counter()  # of the transaction table, also those that were never taken
        self._dies_again_in = 0
        self._nursery: trio.Nursery
        self._scope = trio.CancelScope()
        self._problem = ""

    # -- what trouble does to the switch -------------------------------------------------------------------------------

    def kill_in(self, steps: int, again_in: int = 0) -> None:
        """End the switch's process after so many steps of its tasks; ``again_in`` counts those of its next life."""
        if self.life is not None and self.life.alive:
            self.life.dies_at_step = self.life.steps + steps
        self._dies_again_in = again_in

    def rush(self, who: int) -> None:
        """A terminal sends more at once than the switch takes on."""
        terminal = self.terminals[who % len(self.terminals)]
        self._nursery.start_soon(self._guarded, partial(terminal.live, [Deed(0.0, "rush", 1)]))

    def change_registry(self, who: int) -> None:
        """An operator changes a row; its session ends, as it does in a running switch."""
        name = self.terminals[who % len(self.terminals)].name
        row = self.rows[name]
        self.rows[name] = replace(row, rate_per_second=row.rate_per_second + 1)
        if self.life is not None and self.life.alive and self.core is not None:
            for peer in self.core.pump:
                if peer.row is not None and peer.row.facts.terminal == name:
                    self.core.pump.close(peer, Closing.REVOKED)

    # -- the run -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        trouble = Trouble(self)
        for fault in self.plan.faults:
            self.agenda.at(fault.at_s, partial(trouble.begin, fault))
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.host.start()
                for work in (self.agenda.run, self.host.serve, self._supervise):
                    nursery.start_soon(self._guarded, work)
                await self._guarded(self._day)
                nursery.cancel_scope.cancel()
        if self._problem:
            raise Broken(self._problem)
        self.witness.judge(self)

    def fail(self, problem: str) -> None:
        """Something that must always hold does not: the run ends here. The first problem counts."""
        self._problem = self._problem or problem
        if self.life is not None:
            self.life.kill()
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
        if self.life is not None:
            self.life.kill()
        self.host.kill()

    def _fair_weather(self) -> None:
        self.diary.note("town", "no more trouble")
        for end in self.ends:
            end()
        self.ends.clear()
        self.disk.loses_power_at_next_commit = False
        self.host.start()

    async def _rest(self) -> None:
        """Everybody asks for what he does not know; then nothing is in flight and nothing is owed."""
        with trio.move_on_after(_REST_S) as patience:
            async with trio.open_nursery() as nursery:
                for terminal in self.terminals:
                    nursery.start_soon(terminal.settle)
            while not self._at_rest():
                await trio.sleep(1.0)
        if patience.cancelled_caught:
            raise Broken(f"{_REST_S:.0f} s after the last trouble there is still work open: {self._open_work()}")
        if self.life is not None:
            self.life.kill()

    def _at_rest(self) -> bool:
        core, life = self.core, self.life
        return (
            core is not None
            and life is not None
            and life.alive
            and not len(core.duplicates)
            and not core.forwarder.owed
        )

    def _open_work(self) -> str:
        core = self.core
        if core is None:
            return "the switch does not start"
        waiting = [terminal.name for terminal in self.terminals if not terminal.finished]
        return f"{len(core.duplicates)} in flight, {core.forwarder.owed} owed, {waiting} waiting"

    async def _supervise(self) -> None:
        """Start the switch again and again, as a service manager does. Raises what the switch dies of by itself."""
        while True:
            self.life = life = Life()
            self.lives += 1
            life.dies_at_step, self._dies_again_in = self._dies_again_in, 0
            self.diary.note(SWITCH, "starts")
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._live, life)
            except* JournalError as refused:
                self.diary.note(SWITCH, f"cannot start: {refused.exceptions[0]}")
                life.kill()
            if self.core is not None:
                self.transitions.update(self.core.machine.counts())
            self.core = None
            self.network.ignore(SWITCH)
            self.network.drop(SWITCH)
            self.diary.note(SWITCH, "is dead")
            await trio.sleep(self.chance.uniform(0.2, 3.0))

    async def _live(self, life: Life) -> None:
        await life.run(partial(self._work, life))

    async def _work(self, life: Life) -> None:
        await trio.lowlevel.checkpoint()
        life.on_death.append(partial(self.network.ignore, SWITCH))
        life.on_death.append(lambda: self.network.drop(SWITCH))
        journal = SimulatedJournal(self.disk, life)
        readiness = Readiness()
        link = Iso8583Link(
            HOST, [partial(self.network.dial, SWITCH, HOST)] * 2, HostFormat(), self.chance,
            now_us=self.clock.now_us,
        )  # fmt: skip
        limits = PumpLimits(sign_in_s=10.0, idle_s=900.0, stalled_s=10.0, outbox_bytes=8 * 1024)
        async with trio.open_nursery() as behind, trio.open_nursery() as before:
            core = Core(
                World(
                    self.catalogue, self.custody, journal, self.clock, self.chance, self.rows.get,
                    {"core-banking": Route(link, _DEADLINE_S)}, 8,
                    lambda codec, on_closed: Pump(codec, limits, on_closed, readiness),
                    lambda journal, custody, on_signed: InLoopWriter(
                        journal, custody, on_signed, self.disk, life, self._nursery.start_soon
                    ),
                )
            )  # fmt: skip
            self.core = core

            def accept(connection: Connection) -> None:
                socket = readiness.socket(connection)
                ends: Any = socket  # a socket and the TLS connection on it in one
                core.pump.add(ends, ends, self.certificates[connection.client], connection.binding)

            core.start(behind, before)
            self.network.listen(SWITCH, accept)


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
