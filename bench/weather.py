"""Connection weather: everybody comes back at once, and everybody stays without a word."""

import asyncio
import resource
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import uvloop
from OpenSSL import SSL

from bench import handshakes
from bench.figures import Figure, pace_of
from bench.measure import Tell
from fengshou.codecs import MessageCodec
from fengshou.protocol import elements as de
from fengshou.protocol.message import Message
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import ECHO, SIGN_IN, Grammar
from fengshou.switch import status
from fengshou.switch.config import load
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.load import CoreProbe, Pace, probe_of
from fengshou.switch.load.processes import cpu_s, family, memory_bytes
from fengshou.switch.load.scenery import own_site
from fengshou.terminals.fleet_link import FleetLink, LinkLost, Traffic
from fengshou.terminals.home import Home
from fengshou.terminals.identity import BATCH_UNKNOWN, china_now

STORM, IDLE = 2_000, 10_000
_BACK_AIM_S, _IDLE_AIM_KIB = 5.0, 64.0
# What a process needs beside its connections: files, links, the sockets of a storm that is being served.
_SPARE_DESCRIPTORS = 512
# Handshakes of the idle that are under way at once.
_AT_ONCE = 64
_WITHIN_S = 120.0
_REST_S = 0.2
_SETTINGS = f"[limits]\nconnections = {IDLE + STORM}\nsign-in-s = 3600\nidle-s = 3600\n"


def figures(
    seconds: float, folder: Path, tell: Tell, storm: int = STORM, idle: int = IDLE
) -> tuple[list[Figure], list[str]]:
    """``seconds`` for each kind of handshake; ``storm`` terminals that come back at once, and ``idle`` connections
    beside them, take as long as they take. Also what has to be known."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tell("handshakes, one after the other")
    found = handshakes.figures(seconds, folder / "handshakes")
    idle, notes = _affordable(storm, idle)
    tell(f"making a site of {storm:,} terminals")
    with (
        own_site(folder / "storm", storm, ledger=False, switch_cores=1, settings=_SETTINGS) as (site, processes),
        probe_of(site.folder) as probe,
    ):
        pids = family(processes.running["switch"].pid)
        loaded = load(site.path("switch.toml"))
        catalogue = Catalogue(load_service(entry.module, entry.options) for entry in loaded.config.service)
        homes = sorted(site.path("terminals").iterdir())
        terminals = [_Terminal(Home(home), catalogue.grammar) for home in homes]
        found += uvloop.run(_weather(terminals, pids, idle, probe, tell))
        again = sum(terminal.again for terminal in terminals)
        refused = status.ask(site.path("status.sock"))["handshakes"]["refused"]
    if refused or again:
        notes.append(f"weather: {again} connections came to nothing; handshakes refused: {refused}")
    notes.append(
        "weather: the switch has one core; all terminals are in one process on the other, whose own work is in the "
        "times: where a terminal takes more CPU than the switch does for it, they are the terminals' times. Their key "
        "shares are made before the clock starts, as they would be on as many processors of their own. Memory is "
        "what the kernel counts as the process's own (RssAnon), after everybody has been answered."
    )
    return found, notes


def _affordable(storm: int, idle: int) -> tuple[int, list[str]]:
    """How many idle connections the limits of this machine's processes allow, which the switch inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = idle + storm + _SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        fewer = max(0, hard - storm - _SPARE_DESCRIPTORS)
        return fewer, [
            f"weather: {idle} idle connections need {wanted} descriptors (ulimit -n); {hard} are allowed here."
        ]
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return idle, []


async def _weather(
    terminals: Sequence["_Terminal"], pids: list[int], idle: int, probe: CoreProbe, tell: Tell
) -> list[Figure]:
    alone = memory_bytes(pids)
    tell("all come, with whole handshakes")
    whole = await _storm(terminals, pids, probe)
    signed_in = memory_bytes(pids)
    for terminal in terminals:
        terminal.cut()
    tell("all come back, by ticket")
    resumed = await _storm(terminals, pids, probe)
    count = len(terminals)
    found = [
        *_of_storm("whole", f"{count} terminals at once, whole handshakes", whole, count, None),
        *_of_storm("resumed", f"{count} terminals whose links were cut, by ticket", resumed, count, _BACK_AIM_S),
        Figure(
            key="weather.memory.signed_in", what="memory of a terminal that is signed in", unit="KiB",
            value=(signed_in - alone) / count / 1024, aim=_IDLE_AIM_KIB,
        ),
    ]  # fmt: skip
    before = memory_bytes(pids)
    tell(f"{idle:,} connections that stay idle")
    sockets = await _stay(terminals[0], idle)
    if idle:
        found.append(
            Figure(
                key="weather.memory.idle", what=f"memory of an idle connection, {idle} of them", unit="KiB",
                value=(memory_bytes(pids) - before) / idle / 1024, aim=_IDLE_AIM_KIB,
            )
        )  # fmt: skip
    for link in (*sockets, *(terminal.link for terminal in terminals)):
        link.close("the weather is over")
    return found


def _of_storm(key: str, what: str, storm: "_Storm", count: int, aim: float | None) -> list[Figure]:
    key = f"weather.storm.{key}"
    return [
        Figure(key=f"{key}.last", what=f"{what}: the last is back", value=storm.last_s, unit="s", aim=aim),
        Figure(key=f"{key}.half", what=f"{what}: half are back", value=storm.half_s, unit="s"),
        Figure(
            key=f"{key}.cpu",
            what=f"{what}: the switch's CPU",
            value=storm.cpu_s / count * 1e6,
            unit="µs/terminal",
            pace=storm.core.share,
        ),
        *pace_of(f"{key}.pace", what, [storm.core.share]),
        Figure(key=f"{key}.own", what=f"{what}: a terminal's", value=storm.own_cpu_s / count * 1e6, unit="µs/terminal"),
        Figure(
            key=f"{key}.ahead",
            what=f"{what}: a terminal's before",
            value=storm.ahead_cpu_s / count * 1e6,
            unit="µs/terminal",
        ),
    ]


class _Storm:
    """When half and all were signed in, the CPU of the switch and of this process, before and in the storm, and the
    pace of the switch's core."""

    def __init__(self, back_s: list[float], cpu_s: float, ahead_cpu_s: float, own_cpu_s: float, core: Pace) -> None:
        back_s.sort()
        self.half_s, self.last_s = back_s[len(back_s) // 2], back_s[-1]
        self.cpu_s, self.ahead_cpu_s, self.own_cpu_s = cpu_s, ahead_cpu_s, own_cpu_s
        self.core = core


async def _storm(terminals: Sequence["_Terminal"], pids: list[int], probe: CoreProbe) -> _Storm:
    """All come at once: what they can work out before, each on its own processor, this one does before the clock runs.
    One after the other they would come as fast as it does that, which is no storm."""
    ahead = time.process_time()
    for terminal in terminals:
        terminal.prepare()
    ahead = time.process_time() - ahead

    async def come(terminal: _Terminal) -> float:
        await terminal.come()
        return time.perf_counter() - start

    with probe.window() as core:
        start, before, own_before = time.perf_counter(), cpu_s(pids), time.process_time()
        async with asyncio.timeout(_WITHIN_S):
            back_s = await asyncio.gather(*map(come, terminals))
        used, own_used = cpu_s(pids) - before, time.process_time() - own_before
    return _Storm(list(back_s), used, ahead, own_used, core)


async def _stay(terminal: "_Terminal", count: int) -> list[FleetLink]:
    """So many more connections, each of which was answered once and then says nothing."""
    turn = asyncio.Semaphore(_AT_ONCE)
    session = terminal.link.take_session()

    async def stay() -> FleetLink:
        async with turn:
            link = terminal.new_link(session)
            on_it = await terminal.dial(link)
            await terminal.ask(link, on_it, ECHO.id, {de.NETWORK_CODE: 301})
            return link

    return await asyncio.gather(*(stay() for _ in range(count)))


class _Terminal:
    """Connects and signs in, and keeps its ticket."""

    def __init__(self, home: Home, grammar: Grammar) -> None:
        self._home = home
        self._context, self._signer = home.context(), home.signer()
        self._codec = MessageCodec(grammar)
        self._signed = {template.id: template.signed for template in grammar.templates.values()}
        self._session: SSL.Session | None = None
        self._prepared: FleetLink | None = None
        self.again = 0  # connections that came to nothing
        self.link: FleetLink

    def prepare(self) -> None:
        """Have the first flight of the next connection at hand."""
        self._prepared = self.new_link(self._session)
        self._prepared.prepare()

    async def come(self) -> None:
        """Be signed in, over as many connections as it takes."""
        while True:
            try:
                return await self._come()
            except (LinkLost, OSError):
                self.again += 1
                await asyncio.sleep(_REST_S)

    async def _come(self) -> None:
        self.link, self._prepared = self._prepared or self.new_link(self._session), None
        session = await self.dial(self.link)
        values = self._home.identity.sign_in_values(china_now(), BATCH_UNKNOWN, 1)
        answer = await self.ask(self.link, session, SIGN_IN.id, values)
        assert answer.values[de.RESPONSE_CODE] == "00", answer.values

    def new_link(self, session: SSL.Session | None) -> FleetLink:
        identity = self._home.identity
        make = partial(TerminalSession, self._codec, za=self._signer.public_key.za, signed=self._signed)
        return FleetLink(self._context, self._home.switch_name, identity.terminal.lower(), make, Traffic(), session)

    async def dial(self, link: FleetLink) -> TerminalSession:
        return await link.connect(*self._home.address)

    async def ask(
        self, link: FleetLink, session: TerminalSession, template: int, values: dict[int, int | str | bytes]
    ) -> Message:
        message, digest = session.prepare(template, values)
        return await link.post(message, session.frame(message, self._signer.sign(digest) if digest else b""))

    def cut(self) -> None:
        """The link is lost, without a word to the switch."""
        self.link.cut("cut")
        self._session = self.link.take_session()
