"""A fleet: many simulated terminals in one process, for demonstrations and load.

Closed loop: each terminal keeps ``in_flight`` trades going and begins the next when one ends; this finds how much the
switch can do. Open loop: trades begin at a fixed rate whatever the switch does, and latency counts from when a trade
was due; this finds how long people wait. Signing costs a third of a millisecond a trade, several times what the switch
takes for all of it: let terminals sign ahead, or start several fleets as processes of their own. Plan and result are
plain data, and results can be added up.
"""

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from fengshou.codecs import MessageCodec
from fengshou.protocol.templates import Grammar
from fengshou.terminals.fleet_terminal import SimulatedTerminal
from fengshou.terminals.tally import Tally
from fengshou.terminals.trades import Trade

# A wake of the open loop begins what is due by then. The loop's timers are no finer; a shorter sleep is none.
_TICK_S = 0.001
_LOOK_S = 0.1


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
    sign_ahead: int = 0  # requests of each terminal that are signed before the first is sent; about 1 KB each
    warm_up_s: float = 0.0  # latencies of trades that were due before this are not counted
    progress_s: float = 0.5


class FleetProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a fleet is. ``signed_ahead`` grows before the first trade is made."""

    signed_ahead: int
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
    signed_ahead: int
    turned_away: dict[str, int]  # codes that said: not now; each was asked again
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


Go = Callable[[], Awaitable[None]]


def run_fleet(
    plan: FleetPlan, grammar: Grammar, trades: Iterable[Trade], progress: Progress, go: Go | None = None
) -> FleetResult:
    """Run a fleet to its end, on uvloop. Trades that name a terminal are made by it, in their order.

    With ``go`` every terminal signs in first; then it is awaited, by which several fleets can begin together.

    Raises HomeError, CustodyError and CountersError before anything is sent; SignInRefused; LookupError for a trade of
    a template, terminal or step that is not there; UntrustedBytesError for one that the grammar does not admit.
    """
    return uvloop.run(_fleet(plan, grammar, trades, progress, go))


async def _fleet(
    plan: FleetPlan, grammar: Grammar, trades: Iterable[Trade], progress: Progress, go: Go | None
) -> FleetResult:
    tally = Tally()
    codec = MessageCodec(grammar)
    terminals: list[SimulatedTerminal] = []
    try:
        for folder in plan.homes:
            terminals.append(SimulatedTerminal(Path(folder), grammar, codec, tally, plan.give_up_s, plan.delta))
        run = _Run(plan, terminals, trades, tally)
        beside = [asyncio.create_task(_tick(run, progress)), asyncio.create_task(_look(terminals))]
        try:
            if plan.settle:
                for terminal in terminals:
                    terminal.begin_batch()
            if plan.sign_ahead or go is not None:
                await run.prepare()
            if go is not None:
                await go()
            await run.trade()
            if plan.settle:
                async with asyncio.TaskGroup() as group:
                    for terminal in terminals:
                        group.create_task(terminal.settle())
        finally:
            for task in beside:
                task.cancel()
        return _result(tally, len(terminals), run.seconds)
    except BaseExceptionGroup as group:  # one terminal's fault ends the run; the others were only cancelled by it
        raise group.exceptions[0] from None
    finally:
        for terminal in terminals:
            terminal.close()


class _Run:
    def __init__(
        self, plan: FleetPlan, terminals: list[SimulatedTerminal], trades: Iterable[Trade], tally: Tally
    ) -> None:
        self.tally = tally
        self.plan = plan
        self._terminals = {terminal.name: terminal for terminal in terminals}
        self._feed = _Feed(trades, frozenset(self._terminals))
        self._start = self._until = time.perf_counter()
        self._count = 0
        self._under_way = 0
        self._pacing = True  # more may begin than what is under way
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def seconds(self) -> float:
        """Since trade began."""
        return time.perf_counter() - self._start

    async def prepare(self) -> None:
        """Let each terminal sign in and then sign its share ahead."""
        async with asyncio.TaskGroup() as group:
            for terminal in self._terminals.values():
                group.create_task(terminal.sign_in())
        waiting = dict(self._terminals)
        for _ in range(self.plan.sign_ahead):
            for name, terminal in list(waiting.items()):
                trade = self._feed.next_of(name)
                if trade is not None:
                    self._feed.give_back(name, trade)
                if trade is None or not terminal.sign_ahead(trade):
                    del waiting[name]
            await asyncio.sleep(0)  # for the ticker, and for connections that are lost meanwhile
        self._feed.begin_again()

    async def trade(self) -> None:
        """Trade, to the end. Raises what made a trade impossible; the others are left then."""
        self._start = time.perf_counter()
        self._until = self._start + (self.plan.seconds or math.inf)
        self.tally.timed_from = self._start + self.plan.warm_up_s
        try:
            if self.plan.rate:
                await self._pace()
            else:
                for terminal in self._terminals.values():
                    for _ in range(self.plan.in_flight):
                        self._begin_next(terminal)
            self._pacing = False
            if self._under_way or self._over.done():
                await self._over
        finally:
            for task in self._tasks:
                task.cancel()

    async def _pace(self) -> None:
        """Begin at a fixed rate, however many are answered in time: at each wake all that are due by then."""
        names, total = list(self._terminals), self.plan.rate * self.plan.seconds or math.inf
        while self._count < total and not self._over.done():
            now = time.perf_counter()
            while (due := self._start + self._count / self.plan.rate) <= now and self._count < total:
                dealt = self._feed.deal(names[self._count % len(names)])
                if dealt is None:
                    return
                name, trade = dealt
                self._begin(self._terminals[name], trade, due)
            await asyncio.sleep(max(due - now, _TICK_S))

    def _begin_next(self, terminal: SimulatedTerminal) -> None:
        """In the closed loop."""
        now = time.perf_counter()
        if now < self._until and (trade := self._feed.next_of(terminal.name)) is not None:
            self._begin(terminal, trade, now)

    def _begin(self, terminal: SimulatedTerminal, trade: Trade, due: float) -> None:
        self._count += 1
        self._under_way += 1
        plan, count = self.plan, self._count
        terminal.begin(
            trade, due, self,
            again=bool(plan.repeat_every) and count % plan.repeat_every == 0,
            receipt=bool(plan.receipt_every) and count % plan.receipt_every == 0,
        )  # fmt: skip

    # What a terminal asks of its run

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def ended(self, terminal: SimulatedTerminal) -> None:
        self._under_way -= 1
        try:
            if not self.plan.rate:
                self._begin_next(terminal)
        except Exception as error:
            self._fail(error)
        if not self._under_way and not self._pacing and not self._over.done():
            self._over.set_result(None)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._over.done():
            self._over.set_exception(error)


class _Feed:
    """Deals trades out: those that name a terminal to it alone and in order, the others to whoever asks next."""

    def __init__(self, trades: Iterable[Trade], terminals: frozenset[str]) -> None:
        self._trades = iter(trades)
        self._terminals = terminals
        self._kept: defaultdict[str, deque[Trade]] = defaultdict(deque)
        self._given_back: defaultdict[str, deque[Trade]] = defaultdict(deque)
        self._ready: defaultdict[str, deque[Trade]] = defaultdict(deque)  # what was given back

    def deal(self, terminal: str) -> tuple[str, Trade] | None:
        """The next trade and who makes it: this terminal, unless the trade is another's."""
        if trade := self._ready_for(terminal):
            return terminal, trade
        if trade := self._next():
            return trade.terminal or terminal, trade
        for name in self._ready:
            if trade := self._ready_for(name):
                return name, trade
        return None

    def next_of(self, terminal: str) -> Trade | None:
        if trade := self._ready_for(terminal):
            return trade
        while not self._kept[terminal]:
            trade = self._next()
            if trade is None or trade.terminal in ("", terminal):
                return trade
            self._kept[trade.terminal].append(trade)
        return self._kept[terminal].popleft()

    def give_back(self, terminal: str, trade: Trade) -> None:
        """The terminal will make it, but not yet: after ``begin_again`` it gets these before any others."""
        self._given_back[terminal].append(trade)

    def begin_again(self) -> None:
        self._ready, self._given_back = self._given_back, defaultdict(deque)

    def _next(self) -> Trade | None:
        trade = next(self._trades, None)
        if trade is not None and trade.terminal and trade.terminal not in self._terminals:
            raise LookupError(f"terminal {trade.terminal} is not of this fleet")
        return trade

    def _ready_for(self, terminal: str) -> Trade | None:
        ready = self._ready.get(terminal)
        return ready.popleft() if ready else None


async def _look(terminals: Sequence[SimulatedTerminal]) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        now = time.perf_counter()
        for terminal in terminals:
            terminal.look(now)


async def _tick(run: _Run, progress: Progress) -> None:
    while True:
        await asyncio.sleep(run.plan.progress_s)
        tally = run.tally
        progress(
            FleetProgress(
                signed_ahead=tally.signed_ahead,
                sent=tally.sent,
                answered=tally.answered,
                approved=sum(codes["00"] for codes in tally.codes.values()),
                seconds=run.seconds,
            )
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
        signed_ahead=tally.signed_ahead,
        turned_away=dict(tally.turned_away),
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
