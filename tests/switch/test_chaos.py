"""Everything at once, with real processes: switch, host and terminals die at random moments, the network between them
delays, holds and breaks; afterwards journal, books and terminals agree to the fen.

``FENGSHOU_CHAOS=N`` makes N rounds instead of a few; ``FENGSHOU_CHAOS_SEED`` chooses which.
"""

import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from fengshou.protocol import elements as de
from fengshou.switch.processes import ProcessFailed
from fengshou.terminals.answers import BatchClosed, Request, Response, TerminalError
from fengshou.terminals.client import Patience, TerminalClient, connect
from fengshou.terminals.identity import Counters as TerminalCounters
from tests.switch.proxy import Proxy
from tests.switch.town import TERMINALS, Town, purchase, reversal

ROUNDS = int(os.environ.get("FENGSHOU_CHAOS", "3"))
SEED = int(os.environ.get("FENGSHOU_CHAOS_SEED", "1"))
_HURT = Callable[[], Awaitable[None]]


class Shop:
    """A terminal that trades until it is told to stop; its power may fail, its counters stay."""

    def __init__(self, chaos: "Chaos", terminal: str) -> None:
        self._chaos = chaos
        self._home = chaos.town.home(terminal)
        self._counters = TerminalCounters()
        self._power = trio.CancelScope()
        self.asked: list[Request] = []
        self.told: dict[tuple[int, int], Response] = {}

    def lose_power(self) -> None:
        self._power.cancel()

    async def run(self) -> None:
        turn = 0
        while not self._chaos.over.is_set():
            with trio.CancelScope() as self._power:
                async with self._client() as client:
                    await self._sign_in(client)
                    while not self._chaos.over.is_set():
                        turn += 1
                        await self._sell(client, turn)

    def _client(self):
        home = self._home
        return connect(
            ("127.0.0.1", self._chaos.terminals_side.port), home.context(), home.switch_name, home.identity,
            home.signer(), self._counters, self._chaos.town.catalogue.grammar,
            Patience(connect_s=4.0, answer_s=5.0, trade_s=90.0, longest_delay_s=0.5),
        )  # fmt: skip

    async def _sign_in(self, client: TerminalClient) -> None:
        """A request has the batch of the sign-in before it, so the first of a day needs one."""
        while True:
            try:
                if (await client.sign_in()).approved:
                    return
            except TerminalError:
                pass
            await trio.sleep(0.2)

    async def _sell(self, client: TerminalClient, turn: int) -> None:
        request = client.request("farm-purchase", purchase(100 + turn % 50))
        await self._ask(client, request)
        await trio.sleep(0.05)
        if turn % 5 == 0:
            undo = reversal(request.batch, request.stan, int(request.values[de.AMOUNT]))
            await self._ask(client, client.request("reversal", undo))

    async def _ask(self, client: TerminalClient, request: Request) -> None:
        """Until there is an answer with an RRN, or it is plain that there will be none."""
        self.asked.append(request)
        while True:
            try:
                response = await client.retry(request)
            except BatchClosed:
                return
            except TerminalError:
                await trio.sleep(0.1)
                continue
            if response.rrn is not None:
                key = (request.batch, request.stan)
                assert self.told.setdefault(key, response).body == response.body
                return
            if response.action not in "BD" and response.code not in ("96", "22"):
                return
            await trio.sleep(0.1)

    async def settle(self) -> None:
        """What was not answered gets its answer, and of what was, the latest is answered alike."""
        async with self._client() as client:
            await self._sign_in(client)
            unanswered = [request for request in self.asked if (request.batch, request.stan) not in self.told]
            for request in [*unanswered, *self.asked[-10:]]:
                if request.batch == self._counters.batch:
                    await self._ask(client, request)


class Chaos:
    """A town with a proxy on either side of its switch."""

    def __init__(self, town: Town, *, only: str = "", workers: int = 1) -> None:
        """``only`` what begins with this is done."""
        self.town = town
        self._only = only
        self._workers = workers
        self.chance = Random(SEED)
        self.terminals_side = Proxy(town.loaded.config.listen.port, self.chance)
        self.host_side = Proxy(int(_host_address(town).rpartition(":")[2]), self.chance)
        self.over = trio.Event()
        self.shops = [Shop(self, terminal) for terminal in TERMINALS[:4]]
        self.done: list[str] = []

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.terminals_side.run)
            await nursery.start(self.host_side.run)
            self._put_the_proxy_before_the_host()
            await self._start("core-banking", "government", "analytics", "switch")
            async with trio.open_nursery() as trade:
                for shop in self.shops:
                    trade.start_soon(shop.run)
                for _ in range(ROUNDS):
                    await trio.sleep(self.chance.uniform(0.1, 1.2))
                    await self._hurt()
                self.over.set()
            for shop in self.shops:
                await shop.settle()
            await trio.to_thread.run_sync(self.town.settle)
            nursery.cancel_scope.cancel()

    async def _hurt(self) -> None:
        hurts: dict[str, _HURT] = {
            "kill switch": partial(self._kill, "switch"),
            "kill host": partial(self._kill, "core-banking"),
            "kill both": self._kill_both,
            "kill worker": self._kill_worker,
            "freeze host": self._freeze,
            "break terminals": partial(_now, self.terminals_side.break_all),
            "break host links": partial(_now, self.host_side.break_all),
            "hold terminals": partial(self._hold, self.terminals_side),
            "hold host links": partial(self._hold, self.host_side),
            "delay": self._delay,
            "terminal without power": partial(_now, self.chance.choice(self.shops).lose_power),
        }
        if self._workers == 1:
            del hurts["kill worker"]
        # Kills most of all, and one to begin with.
        names = [name for name in (*hurts, "kill switch", "kill host") if name.startswith(self._only)]
        name = "kill switch" if not self.done else self.chance.choice(names)
        self.done.append(name)
        await hurts[name]()

    async def _kill(self, name: str) -> None:
        self.town.kill(name)
        await trio.sleep(self.chance.uniform(0.0, 0.5))
        await self._start(name)

    async def _kill_worker(self) -> None:
        """The supervisor starts it again; to be killed before it is back is its lot too."""
        status = await trio.to_thread.run_sync(self.town.status)
        process = self.chance.choice(status["workers"])["process"]
        if process:
            with suppress(ProcessLookupError):  # it has died since
                os.kill(process, signal.SIGKILL)

    async def _kill_both(self) -> None:
        self.town.kill("core-banking")
        await trio.sleep(self.chance.uniform(0.0, 0.3))
        self.town.kill("switch")
        await self._start("switch", "core-banking")

    async def _start(self, *names: str) -> None:
        await trio.to_thread.run_sync(self.town.start, *names)

    async def _freeze(self) -> None:
        with self.town.frozen("core-banking"):
            await trio.sleep(self.chance.uniform(0.2, 3.0))

    async def _hold(self, proxy: Proxy) -> None:
        proxy.hold()
        await trio.sleep(self.chance.uniform(0.2, 3.0))
        proxy.let_go()

    async def _delay(self) -> None:
        for proxy in (self.terminals_side, self.host_side):
            proxy.delay_s = 0.3
        await trio.sleep(2.0)
        for proxy in (self.terminals_side, self.host_side):
            proxy.delay_s = 0.0

    def report(self) -> str:
        """What was done, and to how many processes SIGKILL was sent."""
        done = Counter(self.done)
        kills = sum(n for name, n in done.items() if name.startswith("kill")) + done["kill both"]
        asked = sum(len(shop.asked) for shop in self.shops)
        return f"{kills} kills, {asked} requests; " + ", ".join(f"{name} {n}" for name, n in sorted(done.items()))

    def _put_the_proxy_before_the_host(self) -> None:
        file = self.town.folder / "switch.toml"
        text = file.read_text("utf-8")
        file.write_text(text.replace(_host_address(self.town), f"127.0.0.1:{self.host_side.port}"), "utf-8")


async def _now(hurt: Callable[[], None]) -> None:
    hurt()


def _host_address(town: Town) -> str:
    address: str = town.loaded.config.destination["core-banking"].addresses[0]
    return address


@pytest.mark.slow
@pytest.mark.parametrize(
    ("only", "workers"), [("", 1), ("kill", 1), ("", 2)], ids=["everything", "kills", "two-workers"]
)
def test_whatever_dies_and_breaks_everybody_is_told_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], only: str, workers: int
) -> None:
    town = Town(tmp_path / "site", deadline_ms=1500, workers=workers)
    with town.processes:
        chaos = Chaos(town, only=only, workers=workers)
        try:
            trio.run(chaos.run)
        except ProcessFailed as failed:
            raise AssertionError(f"after {chaos.done}: {failed}") from failed
        standing = town.require_truth()
        books = town.books()["transactions"]
        for shop in chaos.shops:
            undone = {
                (request.values[de.ORIGINAL_BATCH], request.values[de.ORIGINAL_STAN])
                for request in shop.asked
                if request.template.name == "reversal"
            }
            for request in shop.asked:
                response = shop.told.get((request.batch, request.stan))
                if response is None or request.template.name == "reversal":
                    continue
                state = books.get(f"{response.rrn:012d}", {"state": "never came"})["state"]
                if (request.batch, request.stan) in undone:
                    assert state != "posted" or response.rrn in standing, (chaos.done, response)
                else:
                    assert (state == "posted") == (response.code == "00"), (chaos.done, response, state)
        told = [response for shop in chaos.shops for response in shop.told.values()]
        assert sum(response.code == "00" for response in told) > ROUNDS
        assert len({response.rrn for response in told}) == len(told)
        with capsys.disabled():
            print(f"\n{chaos.report()}; {len(standing)} transactions stand, journal, books and terminals agree")
