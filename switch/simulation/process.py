"""The switch's process: it is started, dies, stands still, is stopped in good order and started with other settings."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.protocol.iso8583 import HostFormat
from fengshou.routing.envelope import Envelope
from fengshou.routing.events import EventFeed
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.routing.json_link import JsonLink
from fengshou.switch.core import Core, World
from fengshou.switch.journal.store import JournalError
from fengshou.switch.links import JournalEvents
from fengshou.switch.outbound import Route
from fengshou.switch.simulation.disk import InLoopWriter, SimulatedJournal
from fengshou.switch.simulation.host import HOST
from fengshou.switch.simulation.network import Connection, Readiness
from fengshou.switch.simulation.offices import ANALYTICS, GOVERNMENT
from fengshou.switch.simulation.scheduling import Life
from fengshou.switch.simulation.terminal import SWITCH
from fengshou.switch.simulation.waiting import Watch, WatchedPump, watched
from fengshou.terminals.pump import Closing, PumpLimits

if TYPE_CHECKING:
    from fengshou.switch.simulation.town import Town

_LIMITS = PumpLimits(sign_in_s=10.0, idle_s=900.0, stalled_s=10.0, outbox_bytes=8 * 1024)
# Calls at the host at once: few, so that trade and debts get into each other's way.
_AT_HOST_MAX = 3
_DRAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What its configuration says, as far as trouble changes it."""

    in_flight_max: int = 8
    deadline_s: float = 5.0
    enquiry_s: float = 3.0  # deadline of balance enquiries, stricter than the route's
    government: bool = True  # whether there is a route there
    stands_in: bool = False

    def changed(self, by: int) -> "Settings":
        """Another configuration, by a number."""
        match by % 4:
            case 0:
                return replace(self, government=not self.government)
            case 1:
                return replace(self, stands_in=not self.stands_in)
            case 2:
                return replace(self, in_flight_max=12 if self.in_flight_max == 8 else 8)
        return replace(self, deadline_s=4.0 if self.deadline_s == 5.0 else 5.0)


class Process:
    """Started again and again until the run ends."""

    def __init__(self, town: "Town", settings: Settings) -> None:
        self._town = town
        self.settings = settings
        self.life: Life | None = None
        self.core: Core | None = None
        self.feed: EventFeed | None = None
        self.lives = 0
        self.transitions: Counter[str] = Counter()  # of the transaction table, also those that were never taken
        self._dies_again_in = 0
        self._reload = trio.Event()

    @property
    def running(self) -> Core | None:
        """The parts of the life that runs."""
        return self.core if self.life is not None and self.life.alive else None

    # -- what trouble does to it ---------------------------------------------------------------------------------------

    def kill_in(self, steps: int, again_in: int = 0) -> None:
        """End it after so many steps of its tasks; ``again_in`` counts those of its next life."""
        if self.life is not None and self.life.alive:
            self.life.dies_at_step = self.life.steps + steps
        self._dies_again_in = again_in

    def kill(self) -> None:
        if self.life is not None:
            self.life.kill()

    def stand_still(self) -> Callable[[], None] | None:
        """Until what is returned is called; None when it does not run."""
        life = self.life
        if life is None or not life.alive:
            return None
        self._town.diary.effect(SWITCH, "stood still")
        life.stand_still()
        return life.go_on

    def reload(self, by: int) -> None:
        """Stop it in good order and start it with other settings."""
        self.settings = self.settings.changed(by)
        self._reload.set()

    # -- its lives -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start it again and again, as a service manager does. Raises what it dies of by itself."""
        town = self._town
        while True:
            self.life = life = Life()
            self.lives += 1
            life.dies_at_step, self._dies_again_in = self._dies_again_in, 0
            dies_soon = life.dies_at_step > 0
            self._reload = trio.Event()
            town.diary.note(SWITCH, "starts")
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._live, life)
            except* JournalError as refused:
                town.diary.note(SWITCH, f"cannot start: {refused.exceptions[0]}")
            finally:
                life.kill()
                if self.core is not None:
                    self.transitions.update(self.core.machine.counts())
                self.core = self.feed = None
            if life.steps == life.dies_at_step:
                town.diary.effect(SWITCH, "killed while starting" if dies_soon else "killed")
            town.network.ignore(SWITCH)
            town.network.drop(SWITCH)
            town.diary.note(SWITCH, "is dead")
            await trio.sleep(town.chance.uniform(0.2, 3.0))

    async def _live(self, life: Life) -> None:
        await life.run(partial(self._work, life))

    async def _work(self, life: Life) -> None:
        await trio.lowlevel.checkpoint()
        town = self._town
        life.on_death.append(partial(town.network.ignore, SWITCH))
        life.on_death.append(lambda: town.network.drop(SWITCH))
        journal = SimulatedJournal(town.disk, life)
        watch = Watch(town.disk, life, town.fail, self.settings.in_flight_max)
        readiness = Readiness(watch.moment)
        async with trio.open_nursery() as behind, trio.open_nursery() as before:
            self.core = core = Core(
                World(
                    town.catalogue, town.custody, journal, town.clock, town.chance, town.rows.get,
                    {name: watched(route, watch) for name, route in self._routes().items()},
                    self.settings.in_flight_max,
                    lambda codec, on_closed: WatchedPump(codec, _LIMITS, on_closed, readiness, watch),
                    lambda journal, custody, on_signed: InLoopWriter(
                        journal, custody, on_signed, town.disk, life, town.spawn
                    ),
                    stand_in=town.stand_in if self.settings.stands_in else None,
                    deadlines_s={"balance": self.settings.enquiry_s},
                )
            )  # fmt: skip
            self.feed = EventFeed(
                JournalEvents(journal, core.writer), partial(town.network.dial, SWITCH, ANALYTICS), ANALYTICS,
                self._envelope(), town.chance,
            )  # fmt: skip
            core.writer.on_event = self.feed.notify

            def accept(connection: Connection) -> None:
                socket = readiness.socket(connection)
                ends: Any = socket  # a socket and the TLS connection on it in one
                core.pump.add(ends, ends, town.certificates[connection.client], connection.binding)

            core.start(behind, before)
            behind.start_soon(self.feed.run)
            town.network.listen(SWITCH, accept)
            await self._reload.wait()
            town.diary.effect(SWITCH, "configuration reloaded")
            town.network.ignore(SWITCH)
            core.pump.halt()
            with trio.move_on_after(_DRAIN_S):
                await core.pipeline.drained()
            before.cancel_scope.cancel()
            behind.cancel_scope.cancel()
        core.pump.shut(Closing.DRAINED)
        await core.writer.stop()

    def _routes(self) -> Mapping[str, Route]:
        town, settings = self._town, self.settings
        host = Iso8583Link(
            HOST, [partial(town.network.dial, SWITCH, HOST)] * 2, HostFormat(), town.chance,
            in_flight_max=_AT_HOST_MAX, now_us=town.clock.now_us,
        )  # fmt: skip
        routes = {"core-banking": Route(host, settings.deadline_s)}
        if settings.government:
            office = JsonLink(
                GOVERNMENT, partial(town.network.dial, SWITCH, GOVERNMENT), GOVERNMENT, self._envelope(), town.chance,
                connections=2,
            )  # fmt: skip
            routes["government"] = Route(office, settings.deadline_s)
        return routes

    def _envelope(self) -> Envelope:
        return Envelope(self._town.custody, SWITCH_SIGN, [self._town.office_key])
