"""A simulated terminal: the real client and its policy, a shopkeeper's day as a list, a memory of what it was told."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import cast

import trio

from fengshou.codecs import PrivateKey, PublicKey
from fengshou.hsm.channel import TlsStream
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.money import amount_of
from fengshou.protocol.templates import Grammar
from fengshou.switch.clock import local_time
from fengshou.switch.simulation.agenda import Diary, WallClock
from fengshou.switch.simulation.network import Network
from fengshou.terminals.answers import BatchClosed, Request, Response, TerminalError
from fengshou.terminals.client import Patience, TerminalClient
from fengshou.terminals.identity import CHINA, Counters, Identity

SWITCH = "switch"
PATIENCE = Patience(connect_s=4.0, answer_s=8.0, receipt_s=4.0, trade_s=60.0, longest_delay_s=4.0)
# Longer than any trouble lasts: at the end everybody learns what became of everything.
_PERSISTENT = Patience(connect_s=4.0, answer_s=8.0, receipt_s=4.0, trade_s=3600.0, longest_delay_s=8.0)
# Answers without a journal entry that will not change: the key is another's or barred, the service is not permitted.
_REFUSED = frozenset(("30", "58", "94"))
# Answers that say that the host was not asked or did not answer.
_NOT_SERVED = frozenset(("91", "96", "98"))
_PRICE_FEN = 9650
_GOODS: dict[int, Value] = {de.PRODUCT: 1, de.VARIETY: 3, de.GRADE: 2}


class Broken(Exception):
    """Something that must always hold does not; the text says what, for a person."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that the shopkeeper does. ``kind``: a template's name, or conflict, forgery, repeat, rush."""

    at_s: float
    kind: str
    amount: int


@dataclass(slots=True, eq=False)
class Told:
    """A request and the answers that it got, in the order in which they came."""

    request: Request
    answers: list[Response] = field(default_factory=list)
    forged: bool = False  # its signature was not ours

    @property
    def outcome(self) -> Response | None:
        """The first answer from the journal; one without an RRN says that nothing was begun."""
        return next((answer for answer in self.answers if answer.rrn is not None), None)


class _Client(TerminalClient):
    """The real client; whatever it asks is written down before it is sent."""

    made: Callable[[Request], None]

    def request(self, template: str, values: Mapping[int, Value]) -> Request:
        request = super().request(template, values)
        self.made(request)
        return request


class Medium:
    """The secure medium. ``spoiled``: the next signature is somebody else's."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.spoiled = False

    @property
    def public_key(self) -> PublicKey:
        return self._key.public_key

    def sign(self, digest: bytes) -> bytes:
        signature = self._key.sign(digest)
        if self.spoiled:
            self.spoiled = False
            return signature[:40] + bytes((signature[40] ^ 1,)) + signature[41:]
        return signature


class Terminal:
    """One terminal. Its counters outlive a loss of power; what it was waiting for does not."""

    def __init__(
        self,
        identity: Identity,
        key: PrivateKey,
        grammar: Grammar,
        network: Network,
        diary: Diary,
        clock: WallClock,
        chance: Random,
        people: Mapping[str, str],
        on_answer: Callable[["Terminal", Request, Response], None],
    ) -> None:
        """``people``: accounts that the deeds use, ``farmer`` and ``card``."""
        self.identity = identity
        self.told: list[Told] = []
        self._key = Medium(key)
        self._grammar = grammar
        self._network = network
        self._diary = diary
        self._clock = clock
        self._chance = chance
        self._people = people
        self._on_answer = on_answer
        self._counters = Counters()
        self._power = trio.CancelScope()
        self.finished = False

    @property
    def name(self) -> str:
        return self.identity.terminal

    def lose_power(self) -> None:
        self._network.drop(self.name)
        self._power.cancel()

    async def live(self, deeds: list[Deed]) -> None:
        """Do the deeds, with a new start after each loss of power; then ask again until every outcome is known."""
        rest = list(deeds)
        while rest:
            with trio.CancelScope() as self._power:
                await self._on(PATIENCE, lambda client: self._day(client, rest))
            if self._power.cancelled_caught:
                self._diary.note(self.name, "has no power for a while")
                await trio.sleep(self._chance.uniform(0.5, 3.0))
        self.finished = True

    async def settle(self) -> None:
        """Ask for every answer again: those that are known must come as they came before. Then trade once more."""
        self.finished = False
        await self._on(_PERSISTENT, self._ask_again)
        await self._on(_PERSISTENT, self._trade_as_ever)
        self.finished = True

    async def _on(self, patience: Patience, use: Callable[[TerminalClient], Awaitable[None]]) -> None:
        async def dial() -> TlsStream:
            return cast(TlsStream, await self._network.dial(self.name, SWITCH))

        async with trio.open_nursery() as nursery:
            client = _Client(
                dial, nursery, self.identity, self._key, self._counters, self._grammar, patience, self._now,
                self._chance,
            )  # fmt: skip
            client.made = lambda request: self.told.append(Told(request))
            await use(client)
            nursery.cancel_scope.cancel()

    def _now(self) -> datetime:
        return local_time(self._clock.now_us()).replace(tzinfo=CHINA)

    async def _day(self, client: TerminalClient, rest: list[Deed]) -> None:
        while rest:
            await trio.sleep_until(rest[0].at_s)
            await self._quietly(client, rest.pop(0))

    async def _quietly(self, client: TerminalClient, deed: Deed) -> None:
        try:
            await self._do(client, deed)
        except TerminalError as error:
            self._diary.note(self.name, f"{deed.kind}: {type(error).__name__}")

    async def _do(self, client: TerminalClient, deed: Deed) -> None:
        match deed.kind:
            case "conflict":
                await self._conflict(client)
            case "forgery":
                await self._forgery(client, deed.amount)
            case "rush":
                async with trio.open_nursery() as nursery:
                    for amount in range(1, 13):
                        nursery.start_soon(self._quietly, client, Deed(0.0, "farm-purchase", amount))
            case "repeat":
                for told in self.told[-3:]:
                    if told.outcome is not None and told.request.stan:
                        self._hear(await client.retry(told.request))
            case _:
                values = self._values(deed.kind, deed.amount)
                if values is not None:
                    self._hear(await client.trade(deed.kind, values))

    def _hear(self, response: Response) -> None:
        request = response.request
        next(told for told in self.told if told.request is request).answers.append(response)
        key = f"{request.batch}/{request.stan}"
        self._diary.note(self.name, f"{request.template.name} {key} answered {response.code}")
        self._on_answer(self, request, response)

    async def _conflict(self, client: TerminalClient) -> None:
        """Another amount under a key that was used."""
        for told in reversed(self.told):
            if told.outcome is not None and de.AMOUNT in told.request.values:
                amount = cast(int, told.request.values[de.AMOUNT]) + 1000
                other = Request(told.request.template, {**told.request.values, de.AMOUNT: amount}, told.request.batch)
                response = await client.retry(other)
                self._diary.note(self.name, f"another body under {other.batch}/{other.stan} answered {response.code}")
                if response.approved or response.rrn is not None:
                    raise Broken(f"{self.name}: another body under the key {other.batch}/{other.stan} was accepted")
                return

    async def _forgery(self, client: TerminalClient, amount: int) -> None:
        """A request that somebody else signed."""
        await client.sign_in()
        values = self._values("farm-purchase", amount)
        assert values is not None
        request = client.request("farm-purchase", values)
        self.told[-1].forged = True
        self._key.spoiled = True
        try:
            response = await client.retry(request)
        finally:
            self._key.spoiled = False
        self._diary.note(self.name, f"forged {request.batch}/{request.stan} answered {response.code}")

    async def _ask_again(self, client: TerminalClient) -> None:
        for told in self.told:
            if told.forged or not told.request.stan:
                continue
            while True:
                try:
                    response = await client.retry(told.request)
                except BatchClosed:
                    break
                except TerminalError as error:
                    self._diary.note(self.name, f"asks again: {type(error).__name__}")
                    await trio.sleep(2.0)
                    continue
                self._hear(response)
                if response.rrn is not None or response.action in "AD" or response.code in _REFUSED:
                    break
                await trio.sleep(1.0)

    async def _trade_as_ever(self, client: TerminalClient) -> None:
        """With all trouble over the host must be asked, and answer, in reasonable time."""
        while True:
            values = self._values("farm-purchase", 1)
            assert values is not None
            response = await client.trade("farm-purchase", values)
            self._hear(response)
            if response.code not in _NOT_SERVED:
                return
            await trio.sleep(5.0)

    def _values(self, kind: str, amount: int) -> dict[int, Value] | None:
        """The values of a request; None when there is nothing to take back."""
        match kind:
            case "farm-purchase":
                weight = 100 * amount
                return {
                    de.AMOUNT: amount_of(weight, _PRICE_FEN), de.ENTRY_MODE: 12, **_GOODS, de.WEIGHT: weight,
                    de.UNIT_PRICE: _PRICE_FEN, de.TO_ACCOUNT: self._people["farmer"],
                }  # fmt: skip
            case "withdrawal":
                return {de.PAN: self._people["card"], de.AMOUNT: 1000 * amount, de.ENTRY_MODE: 51}
            case "deposit":
                return {de.AMOUNT: 100 * amount, de.ENTRY_MODE: 51, de.PAN: self._people["card"]}
            case "transfer":
                return {de.AMOUNT: 100 * amount, de.ENTRY_MODE: 12, de.TO_ACCOUNT: self._people["farmer"]}
            case "balance":
                return {de.PAN: self._people["card"], de.ENTRY_MODE: 51}
            case "reversal":
                return self._reversal()
        raise ValueError(kind)

    def _reversal(self) -> dict[int, Value] | None:
        for told in reversed(self.told):
            request = told.request
            if de.AMOUNT in request.values and request.template.name != "reversal" and not told.forged:
                return {
                    de.AMOUNT: request.values[de.AMOUNT],
                    de.ORIGINAL_BATCH: request.batch,
                    de.ORIGINAL_STAN: request.stan,
                }
        return None
