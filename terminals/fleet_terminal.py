"""One simulated terminal of a fleet: the policy of ``client.TerminalClient`` on asyncio.

An ordinary trade goes straight: it is sent, and counted when its answer comes, without a task, a timer or a lock of its
own. Whatever is not ordinary, before it is sent or because no final answer came, is taken to its end by a task.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fengshou.codecs import MessageCodec
from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState
from fengshou.protocol.codes import APPROVED, RESYNC, UNKNOWN_OUTCOME, action_of
from fengshou.protocol.message import COMMAND_MASK, Message, Value
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import Grammar, Template
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.fleet_link import FleetLink, LinkLost, Reply, Waiting
from fengshou.terminals.fleet_session import ANSWER_S, SIGN_IN_FIRST, FleetSession
from fengshou.terminals.home import Home
from fengshou.terminals.identity import BATCH_MAX, BATCH_UNKNOWN, STAN_MAX, china_now, local_values
from fengshou.terminals.receipt import Exchange, Receipt, ReceiptInvalid, verify_receipt
from fengshou.terminals.settlement import settle_batches
from fengshou.terminals.signer_dialogue import SignerDialogue
from fengshou.terminals.tally import Tally
from fengshou.terminals.trades import NEVER_SENT, Trade

_RECEIPT_S = 10.0
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 2.0


class _BatchClosed(Exception):
    """A request that was sent without an answer is of an earlier batch: under the new one it would be another key."""


class _Ahead(NamedTuple):
    """A request that is signed and not sent. Its signature holds in its session and in the order of sequences only."""

    trade: Trade
    session: TerminalSession
    batch: int
    request: dict[int, Value]
    message: Message
    signature: bytes


class _Next(Enum):
    """What follows an attempt."""

    NOTHING = "its answer is final"
    AT_ONCE = "another one"
    LATER = "another one, after a rest"


class Run(Protocol):
    """Who has trades made."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let this run beside everything else."""

    def ended(self, terminal: "SimulatedTerminal") -> None:
        """A trade of this terminal has come to its end, whatever that was. Raises nothing."""


class _Pending:
    """A trade that is being made. One that goes straight waits for its answer itself."""

    __slots__ = (
        "again", "attempted", "batch", "begun", "due", "link", "message", "receipt", "request", "run", "template",
        "terminal", "trade",
    )  # fmt: skip

    # Of the last attempt.
    link: FleetLink
    message: Message

    def __init__(
        self, terminal: "SimulatedTerminal", run: Run | None, template: Template, trade: Trade, due: float,
        again: bool = False, receipt: bool = False,
    ) -> None:  # fmt: skip
        self.terminal = terminal
        self.run = run
        self.template = template
        self.trade = trade
        self.due = due
        self.again = again
        self.receipt = receipt
        self.begun = time.perf_counter()
        self.attempted = False
        self.batch = 0
        self.request: dict[int, Value] = {}

    def answered(self, answer: Message) -> None:
        self.terminal.answered(self, answer)

    def lost(self, reason: str) -> None:
        self.terminal.take_over(self, _Next.LATER)

    def ended(self) -> None:
        if self.run is not None:
            self.run.ended(self.terminal)


class SimulatedTerminal:
    """A terminal with its own key, certificate and counters. Any number of its trades may be in flight."""

    def __init__(
        self, folder: Path, grammar: Grammar, codec: MessageCodec, tally: Tally, give_up_s: float, in_delta: bool
    ) -> None:
        """``folder`` is its home. Trades that have no answer after ``give_up_s`` are counted as unknown.

        Raises HomeError, CustodyError, CountersError.
        """
        home = Home(folder)
        self.name = home.identity.terminal
        self._home = home
        self._counters = home.counters()
        self._session = FleetSession(home, grammar, codec, self._counters, tally, in_delta)
        self._signers = SignerDialogue(home)
        self._codec = codec
        self._templates = {template.name: template for template in grammar.templates.values()}
        self._tally = tally
        self._give_up_s = give_up_s
        self._log = BatchLog()
        self._done: dict[int, tuple[int, int]] = {}  # key of each step that a later one may take back
        self._ahead: deque[_Ahead] = deque()
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._session.close()
        self._counters.close()

    async def sign_in(self) -> None:
        """Have a connection that is signed in, however often that has to be tried. Raises SignInRefused."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                async with self._session.turn:
                    await self._session.ready()
                return
            except LinkLost:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def sign_ahead(self, trade: Trade) -> bool:
        """Sign a trade before it is made, after ``sign_in``; those that were signed are to be made first, in order.

        False when it cannot be signed yet, because it names an earlier one or the connection is gone. What was signed
        for a session that has ended meanwhile is signed again when its turn comes.
        """
        link, template = self._session.link, self._templates[trade.template]
        if link is None or link.lost or link.session is None or not template.signed or trade.reverses:
            return False
        batch, request = self._new(trade)
        message, digest = link.session.prepare(template.id, request)
        self._ahead.append(_Ahead(trade, link.session, batch, request, message, self._session.signer.sign(digest)))
        self._tally.signed_ahead += 1
        return True

    def begin(self, trade: Trade, due: float, run: Run, *, again: bool = False, receipt: bool = False) -> None:
        """Make one trade and count how it ends, which ``run`` hears. Latency counts from ``due``, a reading of
        ``time.perf_counter``.

        ``again``: send it once more after its answer; the answer must be the same.
        """
        pending = _Pending(self, run, self._templates[trade.template], trade, due, again, receipt)
        self._tally.sent += 1
        at_hand = None if again or receipt else self._session.at_hand()
        if at_hand is None:
            self.take_over(pending, _Next.AT_ONCE)
        else:
            self._attempt(pending, *at_hand, pending)

    def look(self, now: float) -> None:
        """Give up what has waited for too long; to be called a few times a second. ``now``: as ``due``."""
        link = self._session.link
        if link is None:
            return
        for sequence, waiting in link.waiting_since(now - self._give_up_s):
            if isinstance(waiting, _Pending):
                link.forget(sequence)
                self._tally.unknown += 1
                waiting.ended()
        if link.waiting_since(now - ANSWER_S):
            link.close("no answer in time")

    def begin_batch(self) -> None:
        """Leave a batch in which an earlier fleet may have traded, so that this one can settle what it does."""
        if self._counters.batch != BATCH_UNKNOWN:
            self._counters.begin(self._counters.batch % BATCH_MAX + 1)

    async def settle(self) -> None:
        """Settle the batches in which something counts, and count how they compare."""
        for settled in await settle_batches(self._log, self._counters, self._settle_once):
            if settled.state is BatchState.BALANCED:
                self._tally.batches_balanced += 1
            else:
                self._tally.batches_different += 1

    async def _settle_once(self, name: str, values: Mapping[int, Value]) -> tuple[str, Mapping[int, Value]]:
        pending = _Pending(self, None, self._templates[name], Trade(name, values), time.perf_counter())
        self._tally.sent += 1
        answer = await self._to_the_end(pending, _Next.AT_ONCE)
        return (str(answer.values[de.RESPONSE_CODE]), answer.values) if answer else (UNKNOWN_OUTCOME, {})

    # How a trade comes to its end

    def answered(self, pending: _Pending, answer: Message) -> None:
        """The answer of a trade that went straight."""
        code = str(answer.values[de.RESPONSE_CODE])
        then = self._judge(answer, code)
        if then is _Next.NOTHING:
            self._count(pending, code)
            pending.ended()
        else:
            self.take_over(pending, then)

    def take_over(self, pending: _Pending, then: _Next) -> None:
        """Let a task take a trade to its end, because it is not, or no longer, an ordinary one."""

        async def work() -> None:
            await self._to_the_end(pending, then)
            pending.ended()

        if pending.run is not None and not self._closed:
            pending.run.start(work())

    async def _to_the_end(self, pending: _Pending, then: _Next) -> Message | None:
        """Its answer, counted; None when the outcome is unknown."""
        try:
            async with asyncio.timeout(self._give_up_s - (time.perf_counter() - pending.begun)):
                answer = await self._through(pending, then)
        except (TimeoutError, _BatchClosed):
            if pending.attempted:
                pending.link.forget(pending.message.sequence)
            self._tally.unknown += 1
            return None
        self._count(pending, str(answer.values[de.RESPONSE_CODE]))
        if pending.receipt:
            await self._receipt(pending, answer)
        if pending.again:
            await self._again(pending, answer)
        return answer

    async def _through(self, pending: _Pending, then: _Next) -> Message:
        """The final answer, over as many connections as it takes. Raises _BatchClosed, SignInRefused."""
        delay_s = _FIRST_DELAY_S
        while True:
            if then is _Next.LATER:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            try:
                async with self._session.turn:
                    reply = Reply()
                    self._attempt(pending, *await self._session.ready(), reply)
                answer = await reply.future
            except LinkLost:
                then = _Next.LATER
                continue
            then = self._judge(answer, str(answer.values[de.RESPONSE_CODE]))
            if then is _Next.NOTHING:
                return answer
            pending.link.forget(pending.message.sequence)

    def _judge(self, answer: Message, code: str) -> _Next:
        """What follows this answer; what it demands before that is noted."""
        if code == APPROVED and not answer.flags & COMMAND_MASK:
            return _Next.NOTHING  # and nothing to heed
        self._session.heed(answer.command, code)
        if code == RESYNC:
            return _Next.AT_ONCE  # the session sends it whole now
        if code in SIGN_IN_FIRST or action_of(code) == "B":
            self._tally.turned_away[code] += 1
            return _Next.LATER
        return _Next.NOTHING

    def _count(self, pending: _Pending, code: str) -> None:
        """Count a final answer."""
        tally, template, trade = self._tally, pending.template, pending.trade
        tally.answered += 1
        if pending.due >= tally.timed_from:
            tally.latencies.record(round((time.perf_counter() - pending.due) * 1e6))
        tally.codes[template.name][code] += 1
        self._log.note(template, pending.batch, pending.request, code)
        if code == APPROVED:
            amount = pending.request.get(de.AMOUNT, 0)
            tally.approved_fen[template.name] += amount if isinstance(amount, int) else 0
        if trade.expect and code != trade.expect:
            tally.surprises.append(f"step {trade.step} {template.name}: {code} instead of {trade.expect}")
        if trade.step:
            self._done[trade.step] = pending.batch, _stan(pending.request)

    # One attempt

    def _attempt(self, pending: _Pending, link: FleetLink, session: TerminalSession, waiting: Waiting) -> None:
        """Send a trade, once more if it was sent before. Raises _BatchClosed when it must not be."""
        ahead = None if pending.attempted or pending.receipt else self._take_ahead(pending.trade, link)
        if ahead is not None:
            pending.batch, pending.request, message, signature = (
                ahead.batch,
                ahead.request,
                ahead.message,
                ahead.signature,
            )
        else:
            if not pending.attempted:
                pending.batch, pending.request = self._new(pending.trade)
            elif pending.batch != self._counters.batch:
                raise _BatchClosed
            message, signature = self._signed(pending, session)
        self._tally.retries += pending.attempted
        pending.attempted = True
        pending.link, pending.message = link, message
        link.send(message, session.frame(message, signature), waiting, receipt=pending.receipt)

    def _signed(self, pending: _Pending, session: TerminalSession) -> tuple[Message, bytes]:
        message, digest = session.prepare(
            pending.template.id, pending.request, repeat=pending.attempted, receipt=pending.receipt
        )
        return message, self._session.signer.sign(digest) if digest else b""

    def _new(self, trade: Trade) -> tuple[int, dict[int, Value]]:
        """Batch and values of a request that has not been sent: its key is new."""
        batch, stan = self._counters.next()
        keys = self._session.keys
        values = {de.STAN: stan, **local_values(china_now()), **keys.sealed(trade.values)}
        if trade.reverses:
            original = (batch, STAN_MAX) if trade.reverses == NEVER_SENT else self._done[trade.reverses]
            values[de.ORIGINAL_BATCH], values[de.ORIGINAL_STAN] = original
        if trade.pin:
            values |= keys.pin_block(bytearray(trade.pin.encode()), str(values[de.PAN]))
        return batch, values

    def _take_ahead(self, trade: Trade, link: FleetLink) -> _Ahead | None:
        """The trade as it was signed ahead, when it is the next one of this session and nothing left after it."""
        if not self._ahead:
            return None
        ahead = self._ahead[0]
        if ahead.trade is not trade or ahead.session is not link.session or ahead.message.sequence <= link.sequence:
            self._ahead.clear()
            return None
        return self._ahead.popleft()

    # After the answer

    async def _again(self, pending: _Pending, first: Message) -> None:
        reply = Reply()
        try:
            async with self._session.turn:
                link, session = await self._session.ready()
                if pending.batch != self._counters.batch:
                    return
                pending.receipt = False
                message, signature = self._signed(pending, session)
                link.send(message, session.frame(message, signature), reply)
            same = (await reply.future).values == first.values
        except LinkLost:
            return
        if same:
            self._tally.repeats_equal += 1
        else:
            self._tally.repeats_different += 1

    async def _receipt(self, pending: _Pending, answer: Message) -> None:
        """Verify the receipt that follows the answer."""
        identity, template = self._home.identity, pending.template
        try:
            async with asyncio.timeout(_RECEIPT_S):
                follows = await pending.link.receipt(pending.message.sequence)
            exchange = Exchange(
                identity.terminal, identity.merchant, pending.batch, _stan(pending.request), template.id,
                self._codec.encode_body(template.id, False, pending.request),
                self._codec.encode_body(template.id, True, answer.values),
            )  # fmt: skip
            proof = Receipt.from_values(follows.values)
            await self._signers.proved(partial(verify_receipt, proof, exchange=exchange), self._session.ask_signer)
            self._tally.receipts_verified += 1
        except (LinkLost, TimeoutError):
            self._tally.receipts_missing += 1
        except ReceiptInvalid as error:
            self._tally.receipts_invalid += 1
            self._tally.surprises.append(f"receipt of {template.name}: {error}")
        finally:
            pending.link.forget(pending.message.sequence)


def _stan(values: Mapping[int, Value]) -> int:
    stan = values[de.STAN]
    assert isinstance(stan, int)
    return stan
