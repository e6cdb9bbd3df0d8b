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
from bench.figures import Figure
from fengshou.codecs import MessageCodec
from fengshou.protocol import elements as de
from fengshou.protocol.message import Message
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import ECHO, SIGN_IN, Grammar
from fengshou.switch import status
from fengshou.switch.config import load
from fengshou.switch.grammar import Catalogue, load_service
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


def figures(seconds: float, folder: Path, storm: int = STORM, idle: int = IDLE) -> tuple[list[Figure], list[str]]:
    """``seconds`` for each kind of handshake; ``storm`` terminals that come back at once, and ``idle`` connections
    beside them, take as long as they take. Also what has to be known."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = handshakes.figures(seconds, folder / "handshakes")
    idle, notes = _affordable(storm, idle)
    with own_site(folder / "storm", storm, ledger=False, switch_cores=1, settings=_SETTINGS) as (site, processes):
        pids = family(processes.running["switch"].pid)
        loaded = load(site.path("switch.toml"))
        catalogue = Catalogue(load_service(entry.module, entry.options) for entry in loaded.config.service)
        homes = sorted(site.path("terminals").iterdir())
        terminals = [_Terminal(Home(home), catalogue.grammar) for home in homes]
        found += uvloop.run(_weather(terminals, pids, idle))
        again = sum(terminal.again for terminal in terminals)
        refused = status.ask(site.path("status.sock"))["handshakes"]["refused"]
    if refused or again:
        notes.append(f"weather: {again} connections came to nothing; handshakes refused: {refused}")
    notes.append(
        "weather: the switch has one core; all terminals are in one process on the other, whose own work is in the "
        "times: where a terminal takes more CPU than the switch does for it, they are the terminals' times. Memory is "
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


async def _weather(terminals: Sequence["_Terminal"], pids: list[int], idle: int) -> list[Figure]:
    alone = memory_bytes(pids)
    whole = await _storm(terminals, pids)
    signed_in = memory_bytes(pids)
    for terminal in terminals:
        terminal.cut()
    resumed = await _storm(terminals, pids)
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
        Figure(key=f"{key}.cpu", what=f"{what}: the switch's CPU", value=storm.cpu_s / count * 1e6, unit="µs/terminal"),
        Figure(key=f"{key}.own", what=f"{what}: a terminal's", value=storm.own_cpu_s / count * 1e6, unit="µs/terminal"),
    ]


class _Storm:
    """When half and all were signed in, and the CPU of the switch and of this process."""

    def __init__(self, back_s: list[float], cpu_s: float, own_cpu_s: float) -> None:
        back_s.sort()
        self.half_s, self.last_s = back_s[len(back_s) // 2], back_s[-1]
        self.cpu_s, self.own_cpu_s = cpu_s, own_cpu_s


async def _storm(terminals: Sequence["_Terminal"], pids: list[int]) -> _Storm:
    """All come at once."""
    start, before, own_before = time.perf_counter(), cpu_s(pids), time.process_time()

    async def come(terminal: _Terminal) -> float:
        await terminal.come()
        return time.perf_counter() - start

    async with asyncio.timeout(_WITHIN_S):
        back_s = await asyncio.gather(*map(come, terminals))
    return _Storm(list(back_s), cpu_s(pids) - before, time.process_time() - own_before)


async def _stay(terminal: "_Terminal", count: int) -> list[FleetLink]:
    """So many more connections, each of which was answered once and then says nothing."""
    turn = asyncio.Semaphore(_AT_ONCE)
    session = terminal.link.take_session()

    async def stay() -> FleetLink:
        async with turn:
            link, on_it = await terminal.dial(session)
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
        self.again = 0  # connections that came to nothing
        self.link: FleetLink

    async def come(self) -> None:
        """Be signed in, over as many connections as it takes."""
        while True:
            try:
                return await self._come()
            except (LinkLost, OSError):
                self.again += 1
                await asyncio.sleep(_REST_S)

    async def _come(self) -> None:
        self.link, session = await self.dial(self._session)
        values = self._home.identity.sign_in_values(china_now(), BATCH_UNKNOWN, 1)
        answer = await self.ask(self.link, session, SIGN_IN.id, values)
        assert answer.values[de.RESPONSE_CODE] == "00", answer.values

    async def dial(self, session: SSL.Session | None) -> tuple[FleetLink, TerminalSession]:
        identity = self._home.identity
        make = partial(TerminalSession, self._codec, za=self._signer.public_key.za, signed=self._signed)
        link = FleetLink(self._context, self._home.switch_name, identity.terminal.lower(), make, Traffic(), session)
        await asyncio.get_running_loop().create_connection(lambda: link, *self._home.address)
        return link, await link.established

    async def ask(
        self, link: FleetLink, session: TerminalSession, template: int, values: dict[int, int | str | bytes]
    ) -> Message:
        message, digest = session.prepare(template, values)
        return await link.post(message, session.frame(message, self._signer.sign(digest) if digest else b""))

    def cut(self) -> None:
        """The link is lost, without a word to the switch."""
        self.link.cut("cut")
        self._session = self.link.take_session()
