"""One simulated terminal of a fleet: the policy of ``client.TerminalClient`` on asyncio."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from fengshou.codecs import DeltaWriter, MessageCodec
from fengshou.hsm.x509 import Signer
from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState
from fengshou.protocol.codes import APPROVED, RESYNC, UNKNOWN_OUTCOME, action_of
from fengshou.protocol.message import COMMAND_SIGN_IN, Flag, Message, Value
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import KEYS, SIGN_IN, SIGNER, Grammar, Template
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.fleet_link import FleetLink, LinkLost
from fengshou.terminals.home import Home
from fengshou.terminals.identity import BATCH_MAX, BATCH_UNKNOWN, STAN_MAX, Counters, china_now, local_values
from fengshou.terminals.key_dialogue import KeyDialogue
from fengshou.terminals.receipt import Exchange, Receipt, ReceiptInvalid, verify_receipt
from fengshou.terminals.settlement import settle_batches
from fengshou.terminals.signer_dialogue import SignerDialogue
from fengshou.terminals.tally import Tally
from fengshou.terminals.trades import NEVER_SENT, Trade

# The answer comes after the switch's own deadline for back ends at the latest.
_ANSWER_S = 30.0
_RECEIPT_S = 10.0
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 2.0

_BATCH_DIFFERS = "77"
_SIGN_IN_FIRST = ("22", _BATCH_DIFFERS)


class SignInRefused(Exception):
    """The switch refused the sign-in for good; the text is its code."""


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


class SimulatedTerminal:
    """A terminal with its own key, certificate and counters. Any number of its trades may be in flight."""

    def __init__(
        self, home: Home, grammar: Grammar, codec: MessageCodec, tally: Tally, give_up_s: float, in_delta: bool
    ) -> None:
        """Trades that have no answer after ``give_up_s`` are counted as unknown."""
        self.name = home.identity.terminal
        self._home = home
        self._context = home.context()
        self._signer: Signer = home.signer()
        self._signers = SignerDialogue(home)
        self._counters: Counters = home.counters()
        self._keys = KeyDialogue(home.keys(), self.name)
        self._codec = codec
        self._templates = {template.name: template for template in grammar.templates.values()}
        self._signed = {template.id: template.signed for template in grammar.templates.values()}
        self._grammar = grammar
        self._in_delta = in_delta
        self._tally = tally
        self._give_up_s = give_up_s
        self._link: FleetLink | None = None
        self._must_sign_in = False
        self._turn = asyncio.Lock()
        self._log = BatchLog()
        self._done: dict[int, tuple[int, int]] = {}  # key of each step that a later one may take back
        self._ahead: deque[_Ahead] = deque()

    def close(self) -> None:
        if self._link is not None:
            self._link.close("the fleet is done")
        self._counters.close()

    async def sign_in(self) -> None:
        """Have a connection that is signed in, however often that has to be tried. Raises SignInRefused."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                async with self._turn:
                    await self._ready()
                return
            except LinkLost:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def sign_ahead(self, trade: Trade) -> bool:
        """Sign a trade before it is made, after ``sign_in``; those that were signed are to be made first, in order.

        False when it cannot be signed yet, because it names an earlier one or the connection is gone. What was signed
        for a session that has ended meanwhile is signed again when its turn comes.
        """
        link, template = self._link, self._templates[trade.template]
        if link is None or link.lost or link.session is None or not template.signed or trade.reverses:
            return False
        batch, request = self._new(template, trade)
        message, digest = link.session.prepare(template.id, request)
        self._ahead.append(_Ahead(trade, link.session, batch, request, message, self._signer.sign(digest)))
        self._tally.signed_ahead += 1
        return True

    async def trade(self, trade: Trade, due: float, *, again: bool = False, receipt: bool = False) -> Message | None:
        """Make one trade and count how it ended. Latency counts from ``due``, a reading of ``time.perf_counter``.

        ``again``: send it once more after its answer; the answer must be the same. Returns the answer, None when the
        outcome is unknown.
        """
        tally = self._tally
        template = self._templates[trade.template]
        try:
            async with asyncio.timeout(self._give_up_s):
                request, batch, answer = await self._through(template, trade, receipt, due)
        except (TimeoutError, _BatchClosed):
            tally.unknown += 1
            return None
        code = str(answer.values[de.RESPONSE_CODE])
        tally.codes.setdefault(template.name, Counter())[code] += 1
        self._log.note(template, batch, request, code)
        if code == APPROVED:
            amount = request.get(de.AMOUNT, 0)
            tally.approved_fen[template.name] += amount if isinstance(amount, int) else 0
        if trade.expect and code != trade.expect:
            tally.surprises.append(f"step {trade.step} {template.name}: {code} instead of {trade.expect}")
        if trade.step:
            self._done[trade.step] = batch, _stan(request)
        if again:
            await self._again(template, request, batch, answer)
        return answer

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

    async def _settle_once(self, template: str, values: Mapping[int, Value]) -> tuple[str, Mapping[int, Value]]:
        answer = await self.trade(Trade(template, values), time.perf_counter())
        return (str(answer.values[de.RESPONSE_CODE]), answer.values) if answer else (UNKNOWN_OUTCOME, {})

    # The policy

    async def _through(
        self, template: Template, trade: Trade, receipt: bool, due: float
    ) -> tuple[dict[int, Value], int, Message]:
        """The request, its batch and its final answer, over as many connections as it takes."""
        batch, request = 0, dict[int, Value]()
        self._tally.sent += 1
        attempted = False
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                async with self._turn:
                    link, session = await self._ready()
                    ahead = None if attempted or receipt else self._take_ahead(trade, session)
                    if ahead is not None:
                        batch, request, message = ahead.batch, ahead.request, ahead.message
                        answered = link.post(message, session.frame(message, ahead.signature))
                    else:
                        if not attempted:
                            batch, request = self._new(template, trade)
                        elif batch != self._counters.batch:
                            raise _BatchClosed
                        message, answered = self._post(link, session, template.id, request, attempted, receipt)
                    self._tally.retries += attempted
                    attempted = True
                try:
                    answer = await self._within(link, answered)
                    code = str(answer.values[de.RESPONSE_CODE])
                    if answer.command == COMMAND_SIGN_IN or code in _SIGN_IN_FIRST:
                        self._must_sign_in = True
                    self._keys.answered(answer.command, code)
                    if code == RESYNC:
                        continue  # the session sends it whole now
                    if code not in _SIGN_IN_FIRST and action_of(code) != "B":
                        self._tally.answered += 1
                        if due >= self._tally.timed_from:
                            self._tally.latencies.record(round((time.perf_counter() - due) * 1e6))
                        if receipt:
                            await self._receipt(link, template, request, batch, message, answer)
                        return request, batch, answer
                    self._tally.turned_away[code] += 1
                finally:
                    link.forget(message.sequence)
            except LinkLost:
                pass
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def _new(self, template: Template, trade: Trade) -> tuple[int, dict[int, Value]]:
        batch, stan = self._counters.next()
        values = {de.STAN: stan, **local_values(china_now()), **self._keys.sealed(trade.values)}
        if trade.reverses:
            original = (batch, STAN_MAX) if trade.reverses == NEVER_SENT else self._done[trade.reverses]
            values[de.ORIGINAL_BATCH], values[de.ORIGINAL_STAN] = original
        if trade.pin:
            values |= self._keys.pin_block(bytearray(trade.pin.encode()), str(values[de.PAN]))
        return batch, values

    def _take_ahead(self, trade: Trade, session: TerminalSession) -> _Ahead | None:
        """The trade as it was signed ahead, when it is the next one of this session."""
        if not self._ahead:
            return None
        if self._ahead[0].trade is not trade or self._ahead[0].session is not session:
            self._ahead.clear()
            return None
        return self._ahead.popleft()

    async def _again(self, template: Template, request: Mapping[int, Value], batch: int, first: Message) -> None:
        try:
            async with self._turn:
                link, session = await self._ready()
                if batch != self._counters.batch:
                    return
                message, answered = self._post(link, session, template.id, request, True, False)
            same = (await self._within(link, answered)).values == first.values
            link.forget(message.sequence)
        except LinkLost:
            return
        if same:
            self._tally.repeats_equal += 1
        else:
            self._tally.repeats_different += 1

    async def _receipt(
        self, link: FleetLink, template: Template, request: Mapping[int, Value], batch: int, sent: Message, got: Message
    ) -> None:
        identity = self._home.identity
        try:
            async with asyncio.timeout(_RECEIPT_S):
                follows = await link.receipt(sent.sequence)
            exchange = Exchange(
                identity.terminal, identity.merchant, batch, _stan(request), template.id,
                self._codec.encode_body(template.id, False, request),
                self._codec.encode_body(template.id, True, got.values),
            )  # fmt: skip
            proof = Receipt.from_values(follows.values)
            await self._signers.proved(partial(verify_receipt, proof, exchange=exchange), self._ask_signer)
            self._tally.receipts_verified += 1
        except (LinkLost, TimeoutError):
            self._tally.receipts_missing += 1
        except ReceiptInvalid as error:
            self._tally.receipts_invalid += 1
            self._tally.surprises.append(f"receipt of {template.name}: {error}")

    # Connection and session

    async def _ready(self) -> tuple[FleetLink, TerminalSession]:
        """A connection that is signed in. Raises LinkLost when there is none now, SignInRefused when never."""
        link = self._link
        if link is None or link.lost:
            link = self._link = await self._connect()
        session = await link.established
        if self._must_sign_in or session.implied.get(de.BATCH) != self._counters.batch:
            await self._sign_in(link, session)
        if self._keys.must_ask:
            await self._ask_keys(link, session)
        return link, session

    async def _connect(self) -> FleetLink:
        self._tally.connections += 1
        make_session = partial(
            TerminalSession,
            self._codec,
            za=self._signer.public_key.za,
            signed=self._signed,
            delta=DeltaWriter(self._codec) if self._in_delta else None,
        )
        session = self._link.take_session() if self._link is not None else None
        link = FleetLink(
            self._context, self._home.switch_name, self.name.lower(), make_session, self._tally.traffic, session
        )
        try:
            await asyncio.get_running_loop().create_connection(lambda: link, *self._home.address)
        except OSError as error:
            raise LinkLost(str(error)) from None
        try:
            async with asyncio.timeout(_ANSWER_S):
                await link.established
        except TimeoutError:
            link.close("no handshake in time")
            raise LinkLost(link.lost) from None
        return link

    async def _sign_in(self, link: FleetLink, session: TerminalSession) -> None:
        code, told = await self._sign_in_once(link, session, ask=self._counters.batch == BATCH_UNKNOWN)
        if code == _BATCH_DIFFERS:
            code, told = await self._sign_in_once(link, session, ask=True)
        if code == APPROVED and told != self._counters.batch:
            self._counters.begin(told % BATCH_MAX + 1)
            code, _ = await self._sign_in_once(link, session, ask=False)
        if code != APPROVED:
            if action_of(code) == "D":
                raise SignInRefused(f"terminal {self.name}: {code}")
            raise LinkLost(f"not now: {code}")
        self._must_sign_in = False

    async def _sign_in_once(self, link: FleetLink, session: TerminalSession, *, ask: bool) -> tuple[str, int]:
        """Code and batch of the answer."""
        batch, stan = self._counters.next()
        stated = self._home.identity.sign_in_values(china_now(), BATCH_UNKNOWN if ask else batch, stan)
        message, answer = await self._settle(link, session, SIGN_IN.id, {**stated, **self._keys.stated})
        self._tally.sign_ins += 1
        code = str(answer.values[de.RESPONSE_CODE])
        if code == APPROVED:
            session.signed_in(message, answer)
            self._keys.signed_in(answer.values)
        told = answer.values.get(de.BATCH, batch)
        assert isinstance(told, int)
        return code, told

    async def _ask_keys(self, link: FleetLink, session: TerminalSession) -> None:
        async def ask(stated: Mapping[int, Value]) -> Mapping[int, Value]:
            _, stan = self._counters.next()
            return (await self._settle(link, session, KEYS.id, {de.STAN: stan, **stated}))[1].values

        await self._keys.ask(link.binding, ask)

    async def _ask_signer(self) -> Mapping[int, Value]:
        async with self._turn:
            link, session = await self._ready()
            _, stan = self._counters.next()
            return (await self._settle(link, session, SIGNER.id, {de.STAN: stan}))[1].values

    async def _settle(
        self, link: FleetLink, session: TerminalSession, template: int, values: Mapping[int, Value]
    ) -> tuple[Message, Message]:
        """A message of the session itself, and its answer."""
        message, answered = self._post(link, session, template, values, False, False)
        answer = await self._within(link, answered)
        link.forget(message.sequence)
        return message, answer

    async def _within(self, link: FleetLink, answered: asyncio.Future[Message]) -> Message:
        """The answer. A connection that gives none in time is given up; raises LinkLost."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await answered
        except TimeoutError:
            link.close("no answer in time")
            raise LinkLost(link.lost) from None

    def _post(
        self, link: FleetLink, session: TerminalSession, template: int, values: Mapping[int, Value], repeat: bool,
        receipt: bool,
    ) -> tuple[Message, asyncio.Future[Message]]:  # fmt: skip
        self._ahead.clear()  # their sequences are lower than the one that this takes
        message, digest = session.prepare(template, values, repeat=repeat, receipt=receipt)
        frame = session.frame(message, self._signer.sign(digest) if message.flags & Flag.SIGNED else b"")
        return message, link.post(message, frame, receipt=receipt)


def _stan(values: Mapping[int, Value]) -> int:
    stan = values[de.STAN]
    assert isinstance(stan, int)
    return stan
