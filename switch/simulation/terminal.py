"""A simulated terminal: the real client and its policy, a shopkeeper's day as a list, a memory of what it was told."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import cast

import trio

from fengshou.codecs import MessageCodec, PrivateKey, PublicKey
from fengshou.hsm.channel import TlsStream
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.templates import Grammar
from fengshou.switch.clock import local_time
from fengshou.switch.simulation.agenda import Diary, WallClock
from fengshou.switch.simulation.deeds import Deed, Told, farm_purchase, wish
from fengshou.switch.simulation.network import Network
from fengshou.terminals.answers import BatchClosed, Request, Response, TerminalError
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.client import Patience, TerminalClient
from fengshou.terminals.identity import CHINA, Counters, Identity
from fengshou.terminals.offline import Offline, Uploaded
from fengshou.terminals.offline_store import OfflineStore

SWITCH = "switch"
PATIENCE = Patience(connect_s=4.0, answer_s=8.0, receipt_s=4.0, trade_s=60.0, longest_delay_s=4.0)
# Longer than any trouble lasts: at the end everybody learns what became of everything.
_PERSISTENT = Patience(connect_s=4.0, answer_s=8.0, receipt_s=4.0, trade_s=3600.0, longest_delay_s=8.0)
# Answers without a journal entry that will not change: the key is another's or barred, the service is not permitted.
_REFUSED = frozenset(("30", "58", "94"))
# Answers that say that the host was not asked or did not answer.
_NOT_SERVED = frozenset(("91", "96", "98"))
# Answers that only say that it was too much at once.
_SHED = frozenset(("65", "96"))
_RUSH = 12  # requests at once, more than the switch takes on


class Broken(Exception):
    """Something that must always hold does not; the text says what, for a person."""


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


@dataclass(frozen=True, slots=True)
class Till:
    """A terminal that is on."""

    client: TerminalClient
    offline: Offline
    store: OfflineStore


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
        folder: Path,
        on_answer: Callable[["Terminal", Request, Response], None],
    ) -> None:
        """``folder`` is its disk."""
        self.identity = identity
        self.told: list[Told] = []
        self.stored = 0  # purchases without coverage
        self.uploaded: list[Uploaded] = []  # what became of them; not of those whose answers a loss of power took
        self._key = Medium(key)
        self._grammar = grammar
        self._network = network
        self._diary = diary
        self._clock = clock
        self._chance = chance
        self._on_answer = on_answer
        self._counters = Counters()
        self._log = BatchLog()
        self._codec = MessageCodec(grammar)
        self._folder = folder
        self._power = trio.CancelScope()
        self._rushes = 0
        self.finished = False

    @property
    def name(self) -> str:
        return self.identity.terminal

    def lose_power(self) -> None:
        if not self.finished:
            self._diary.effect(self.name, "terminal lost its power")
        self._network.drop(self.name)
        self._power.cancel()

    async def live(self, deeds: list[Deed]) -> None:
        """Do the deeds, with a new start after each loss of power; then ask again until every outcome is known."""
        rest = list(deeds)
        while rest:
            with trio.CancelScope() as self._power:
                await self._on(PATIENCE, lambda till: self._day(till, rest))
            if self._power.cancelled_caught:
                self._diary.note(self.name, "has no power for a while")
                await trio.sleep(self._chance.uniform(0.5, 3.0))
        self.finished = True

    async def rush(self) -> None:
        """Send more at once than the switch takes on, over a connection of its own, which takes the session over."""
        self._rushes += 1
        await self._on(PATIENCE, self._send_much, f"rush-{self._rushes}")

    async def settle(self) -> None:
        """Ask for every answer again: those that are known must come as they came before. Then trade once more."""
        self.finished = False
        await self._on(_PERSISTENT, self._ask_again)
        await self._on(_PERSISTENT, self._trade_as_ever)
        self.finished = True

    async def _on(self, patience: Patience, use: Callable[[Till], Awaitable[None]], file: str = "offline") -> None:
        async def dial() -> TlsStream:
            return cast(TlsStream, await self._network.dial(self.name, SWITCH))

        with OfflineStore(self._folder / f"{self.name}.{file}", self._codec) as store:
            async with trio.open_nursery() as nursery:
                client = _Client(
                    dial, nursery, self.identity, self._key, self._counters, self._grammar, patience, self._now,
                    self._chance, log=self._log,
                )  # fmt: skip
                client.made = lambda request: self.told.append(Told(request))
                offline = Offline(client, store, self._key, self._counters, self._now, self._chance)
                await use(Till(client, offline, store))
                nursery.cancel_scope.cancel()

    def _now(self) -> datetime:
        return local_time(self._clock.now_us()).replace(tzinfo=CHINA)

    async def _day(self, till: Till, rest: list[Deed]) -> None:
        while rest:
            await trio.sleep_until(rest[0].at_s)
            await self._quietly(till, rest.pop(0))

    async def _quietly(self, till: Till, deed: Deed) -> None:
        try:
            await self._do(till, deed)
        except TerminalError as error:
            self._diary.note(self.name, f"{deed.kind}: {type(error).__name__}")

    async def _do(self, till: Till, deed: Deed) -> None:
        client = till.client
        match deed.kind:
            case "conflict":
                await self._conflict(client)
            case "forgery":
                await self._forgery(client, deed.amount)
            case "early-reversal":
                await self._early_reversal(client, deed.amount)
            case "crossing-reversal":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._quietly, till, Deed(0.0, "farm-purchase", deed.amount))
                    await trio.sleep(self._chance.uniform(0.0, 0.3))
                    nursery.start_soon(self._quietly, till, Deed(0.0, "reversal", 1))
            case "upload":
                await self._upload(till.offline, deed.amount)
            case "settle":
                for settled in await client.settle():
                    self._diary.note(self.name, f"batch {settled.batch} {settled.state.name.lower()} {settled.code}")
            case "sign-off":
                await client.sign_off()
            case "repeat":
                for told in self.told[-3:]:
                    if told.outcome is not None and told.request.stan:
                        self._hear(await client.retry(told.request))
            case _:
                wished = wish(deed, self.told)
                if wished is not None:
                    self._hear(await client.trade(*wished))

    async def _send_much(self, till: Till) -> None:
        async with trio.open_nursery() as nursery:
            for amount in range(1, _RUSH + 1):
                nursery.start_soon(self._quietly, till, Deed(0.0, "farm-purchase", amount))

    def _hear(self, response: Response) -> None:
        request = response.request
        next(told for told in self.told if told.request is request).answers.append(response)
        key = f"{request.batch}/{request.stan}"
        self._diary.note(self.name, f"{request.template.name} {key} answered {response.code}")
        if response.code in _SHED and response.rrn is None:
            self._diary.effect(self.name, "request shed")
        self._on_answer(self, request, response)

    async def _early_reversal(self, client: TerminalClient, amount: int) -> None:
        """The original is overtaken by its own reversal."""
        await client.sign_in()
        original = client.request("farm-purchase", farm_purchase(amount))
        told = self.told[-1]
        self._hear(await client.trade("reversal", {de.AMOUNT: told.fen, **told.names}))
        self._hear(await client.retry(original))

    async def _upload(self, offline: Offline, count: int) -> None:
        """Purchases that were made without coverage, and now there is some."""
        for amount in range(1, 1 + count % 5):
            offline.store("farm-purchase", farm_purchase(amount))
            self.stored += 1
        self._note_uploaded(await offline.upload(PATIENCE.trade_s))

    def _note_uploaded(self, uploaded: list[Uploaded]) -> None:
        for one in uploaded:
            self.uploaded.append(one)
            self._diary.note(self.name, f"stored purchase {one.batch}/{one.stan} answered {one.code}")

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
        request = client.request("farm-purchase", farm_purchase(amount))
        self.told[-1].forged = True
        self._key.spoiled = True
        try:
            response = await client.retry(request)
        finally:
            self._key.spoiled = False
        self._diary.note(self.name, f"forged {request.batch}/{request.stan} answered {response.code}")

    async def _ask_again(self, till: Till) -> None:
        while len(till.store):
            try:
                self._note_uploaded(await till.offline.upload())
            except TerminalError as error:
                self._diary.note(self.name, f"uploads again: {type(error).__name__}")
                await trio.sleep(2.0)
        for told in self.told:
            if told.forged or not told.request.stan:
                continue
            while True:
                try:
                    response = await till.client.retry(told.request)
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

    async def _trade_as_ever(self, till: Till) -> None:
        """With all trouble over the host must be asked, and answer, in reasonable time."""
        while True:
            response = await till.client.trade("farm-purchase", farm_purchase(1))
            self._hear(response)
            if response.code not in _NOT_SERVED:
                return
            await trio.sleep(5.0)
