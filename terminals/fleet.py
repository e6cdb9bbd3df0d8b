"""A fleet: many simulated terminals in one process, for demonstrations and load.

Closed loop: each terminal keeps ``in_flight`` trades going and begins the next when one ends; this finds how much the
switch can do. Open loop: trades begin at a fixed rate whatever the switch does, and latency counts from when a trade
was due; this finds how long people wait. Signing costs a third of a millisecond a trade, so start several fleets as
processes of their own: plan and result are plain data, and results can be added up.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from fengshou.codecs import MessageCodec
from fengshou.protocol.message import Message
from fengshou.protocol.templates import Grammar
from fengshou.terminals.fleet_terminal import SimulatedTerminal, Tally
from fengshou.terminals.home import Home
from fengshou.terminals.trades import Trade


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a fleet shall do. ``homes`` are the folders of its terminals."""

    homes: tuple[str, ...]
    in_flight: int = 1  # trades of one terminal at once, in the closed loop
    rate: float = 0.0  # trades a second of the whole fleet, in the open loop; 0: closed loop
    seconds: float = 0.0  # begin no trade after this; 0: until the trades are at an end
    repeat_every: int = 0  # every so many trades, send one again to see that the answer is the same; 0: never
    receipt_every: int = 0  # every so many trades, ask for a receipt and verify it; 0: never
    settle: bool = False  # settle each terminal's batch at the end
    give_up_s: float = 90.0  # a trade without an answer is then unknown
    delta: bool = True  # send requests as differences where the switch grants that
    progress_s: float = 0.5


class FleetProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a fleet is."""

    sent: int
    answered: int
    approved: int
    seconds: float


class FleetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet saw. Latencies are in microseconds by bucket (``latency.highest_of``), bytes without TCP/IP."""

    terminals: int
    seconds: float
    sent: int
    answered: int
    unknown: int
    codes: dict[str, dict[str, int]]  # by template, then code
    approved_fen: dict[str, int]  # by template
    surprises: list[str]
    retries: int
    repeats_equal: int
    repeats_different: int
    connections: int
    sign_ins: int
    receipts_verified: int
    receipts_missing: int
    receipts_invalid: int
    batches_balanced: int
    batches_different: int
    latencies: dict[int, int]
    frame_bytes_up: int
    frame_bytes_down: int
    tls_bytes_up: int
    tls_bytes_down: int
    handshake_bytes_up: int
    handshake_bytes_down: int


Progress = Callable[[FleetProgress], None]


def run_fleet(plan: FleetPlan, grammar: Grammar, trades: Iterable[Trade], progress: Progress) -> FleetResult:
    """Run a fleet to its end, on uvloop. Trades that name a terminal are made by it, in their order.

    Raises HomeError, CustodyError and CountersError before anything is sent; SignInRefused; LookupError for a trade of
    a template, terminal or step that is not there; UntrustedBytesError for one that the grammar does not admit.
    """
    return uvloop.run(fleet(plan, grammar, _stream(trades), progress))


async def fleet(plan: FleetPlan, grammar: Grammar, trades: AsyncIterator[Trade], progress: Progress) -> FleetResult:
    """``run_fleet`` inside a running loop, with trades that may be made up as it goes."""
    tally = Tally()
    codec = MessageCodec(grammar)
    terminals: list[SimulatedTerminal] = []
    try:
        for folder in plan.homes:
            terminals.append(SimulatedTerminal(Home(Path(folder)), grammar, codec, tally, plan.give_up_s, plan.delta))
        start = time.perf_counter()
        run = _Run(plan, terminals, trades, start)
        ticker = asyncio.create_task(_tick(plan.progress_s, tally, start, progress))
        try:
            if plan.settle:
                for terminal in terminals:
                    terminal.begin_batch()
            await (run.open_loop() if plan.rate else run.closed_loop())
            if plan.settle:
                async with asyncio.TaskGroup() as group:
                    for terminal in terminals:
                        group.create_task(terminal.settle())
        finally:
            ticker.cancel()
        return _result(tally, len(terminals), time.perf_counter() - start)
    except BaseExceptionGroup as group:  # one trade's fault ends the run; the others were only cancelled by it
        raise group.exceptions[0] from None
    finally:
        for terminal in terminals:
            terminal.close()


class _Run:
    def __init__(
        self,
        plan: FleetPlan,
        terminals: list[SimulatedTerminal],
        trades: AsyncIterator[Trade],
        start: float,
    ) -> None:
        self._plan = plan
        self._terminals = {terminal.name: terminal for terminal in terminals}
        self._feed = _Feed(trades, frozenset(self._terminals))
        self._start = start
        self._count = 0

    async def closed_loop(self) -> None:
        async with asyncio.TaskGroup() as group:
            for terminal in self._terminals.values():
                for _ in range(self._plan.in_flight):
                    group.create_task(self._work(terminal))

    async def open_loop(self) -> None:
        names = list(self._terminals)
        async with asyncio.TaskGroup() as group:
            while self._goes_on() and (trade := await self._feed.next()) is not None:
                due = self._start + self._count / self._plan.rate
                await asyncio.sleep(due - time.perf_counter())
                terminal = self._terminals[trade.terminal or names[self._count % len(names)]]
                group.create_task(self._make(terminal, trade, due))

    async def _work(self, terminal: SimulatedTerminal) -> None:
        while self._goes_on() and (trade := await self._feed.next_of(terminal.name)) is not None:
            await self._make(terminal, trade, time.perf_counter())

    def _make(self, terminal: SimulatedTerminal, trade: Trade, due: float) -> Coroutine[Any, Any, Message | None]:
        self._count += 1
        plan, count = self._plan, self._count
        return terminal.trade(
            trade, due,
            again=bool(plan.repeat_every) and count % plan.repeat_every == 0,
            receipt=bool(plan.receipt_every) and count % plan.receipt_every == 0,
        )  # fmt: skip

    def _goes_on(self) -> bool:
        return not self._plan.seconds or time.perf_counter() - self._start < self._plan.seconds


class _Feed:
    """Deals trades out: those that name a terminal to it alone and in order, the others to whoever asks next."""

    def __init__(self, trades: AsyncIterator[Trade], terminals: frozenset[str]) -> None:
        self._trades = trades
        self._terminals = terminals
        self._kept: defaultdict[str, deque[Trade]] = defaultdict(deque)
        self._turn = asyncio.Lock()

    async def next(self) -> Trade | None:
        trade = await anext(self._trades, None)
        if trade is not None and trade.terminal and trade.terminal not in self._terminals:
            raise LookupError(f"terminal {trade.terminal} is not of this fleet")
        return trade

    async def next_of(self, terminal: str) -> Trade | None:
        async with self._turn:
            while not self._kept[terminal]:
                trade = await self.next()
                if trade is None or trade.terminal in ("", terminal):
                    return trade
                self._kept[trade.terminal].append(trade)
            return self._kept[terminal].popleft()


async def _stream(trades: Iterable[Trade]) -> AsyncIterator[Trade]:
    for trade in trades:
        yield trade


async def _tick(every_s: float, tally: Tally, start: float, progress: Progress) -> None:
    while True:
        await asyncio.sleep(every_s)
        progress(_progress(tally, start))


def _progress(tally: Tally, start: float) -> FleetProgress:
    return FleetProgress(
        sent=tally.sent,
        answered=tally.answered,
        approved=sum(codes["00"] for codes in tally.codes.values()),
        seconds=time.perf_counter() - start,
    )


def _result(tally: Tally, terminals: int, seconds: float) -> FleetResult:
    traffic = tally.traffic
    return FleetResult(
        terminals=terminals,
        seconds=seconds,
        sent=tally.sent,
        answered=tally.answered,
        unknown=tally.unknown,
        codes={template: dict(codes) for template, codes in tally.codes.items()},
        approved_fen=dict(tally.approved_fen),
        surprises=tally.surprises,
        retries=tally.retries,
        repeats_equal=tally.repeats_equal,
        repeats_different=tally.repeats_different,
        connections=tally.connections,
        sign_ins=tally.sign_ins,
        receipts_verified=tally.receipts_verified,
        receipts_missing=tally.receipts_missing,
        receipts_invalid=tally.receipts_invalid,
        batches_balanced=tally.batches_balanced,
        batches_different=tally.batches_different,
        latencies=tally.latencies.buckets,
        frame_bytes_up=traffic.frames_up,
        frame_bytes_down=traffic.frames_down,
        tls_bytes_up=traffic.tls_up,
        tls_bytes_down=traffic.tls_down,
        handshake_bytes_up=traffic.handshake_up,
        handshake_bytes_down=traffic.handshake_down,
    )
