"""How each fault of a plan is brought about, and how it ends."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fengshou.hsm.custody import JOURNAL_DATA
from fengshou.switch.simulation.host import HOST
from fengshou.switch.simulation.network import Weather
from fengshou.switch.simulation.plan import FAULTS, Fault
from fengshou.switch.simulation.terminal import SWITCH, Terminal

if TYPE_CHECKING:
    from fengshou.switch.simulation.town import Town


class Trouble:
    """Brings faults about in a town."""

    def __init__(self, town: "Town") -> None:
        self._town = town
        self._means: dict[str, Callable[[Fault], Callable[[], None] | None]] = {
            "message-loss": lambda fault: self._weather(fault, lambda it: setattr(it, "lose", fault.strength)),
            "message-delay": lambda fault: self._weather(fault, lambda it: setattr(it, "delay_s", 8 * fault.strength)),
            "message-twice": lambda fault: self._weather(fault, lambda it: setattr(it, "repeat", fault.strength)),
            "message-overtaken": lambda fault: self._weather(fault, lambda it: setattr(it, "overtake", fault.strength)),
            "partition": lambda fault: self._cut((SWITCH, HOST), (HOST, SWITCH)),
            "partition-one-way": lambda fault: self._cut((SWITCH, HOST) if fault.who % 2 else (HOST, SWITCH)),
            "partition-terminal": lambda fault: self._cut(
                *(((self._name(fault), SWITCH), (SWITCH, self._name(fault)))[: 1 + fault.who % 2])
            ),
            "slow-reader": self._slow_reader,
            "reset": lambda fault: self._weather(fault, lambda it: setattr(it, "reset", fault.strength)),
            "half-open": self._half_open,
            "host-deaf": lambda fault: self._mood(fault, "deaf"),
            "host-mute": lambda fault: self._mood(fault, "mute"),
            "host-late": lambda fault: self._mood(fault, "late"),
            "host-twice": lambda fault: self._mood(fault, "twice"),
            "host-garbled": lambda fault: self._mood(fault, "garbled"),
            "host-frozen": self._freeze,
            "host-kill": self._kill_host,
            "kill": lambda fault: town.kill_in(fault.step),
            "kill-at-start": lambda fault: town.kill_in(1, again_in=1 + fault.step % 60),
            "pause": lambda fault: self._cut(*self._all_ways()),
            "disk-error": lambda fault: self._disk("failing"),
            "disk-full": lambda fault: self._disk("full"),
            "disk-slow": self._slow_disk,
            "power": self._power,
            "clock-jump": lambda fault: self._jump(int(3_600e6 * 20 * fault.strength)),
            "clock-back": lambda fault: self._jump(-int(600e6 * fault.strength)),
            "clock-drift": self._drift,
            "overload": lambda fault: town.rush(fault.who),
            "terminal-power": lambda fault: self._terminal(fault).lose_power(),
            "key-renewal": self._renew,
            "registry": lambda fault: town.change_registry(fault.who),
        }
        assert self._means.keys() == FAULTS.keys()

    def begin(self, fault: Fault) -> None:
        """Bring a fault about; its end is on the agenda."""
        town = self._town
        town.network.fault(fault.kind)
        end = self._means[fault.kind](fault)
        if end is not None:
            town.ends.append(end)

            def over() -> None:
                if end in town.ends:
                    town.ends.remove(end)
                    town.diary.note("trouble", f"{fault.kind} is over")
                    end()

            town.agenda.after(fault.for_s, over)

    def _name(self, fault: Fault) -> str:
        return self._terminal(fault).name

    def _terminal(self, fault: Fault) -> Terminal:
        return self._town.terminals[fault.who % len(self._town.terminals)]

    def _all_ways(self) -> list[tuple[str, str]]:
        others = [HOST, *(terminal.name for terminal in self._town.terminals)]
        return [way for other in others for way in ((SWITCH, other), (other, SWITCH))]

    def _weather(self, fault: Fault, change: Callable[[Weather], None]) -> Callable[[], None]:
        way = (SWITCH, HOST) if fault.who % 2 else (HOST, SWITCH)
        change(self._town.network.weather(*way))
        return lambda: self._town.network.clear(*way)

    def _cut(self, *ways: tuple[str, str]) -> Callable[[], None]:
        network = self._town.network
        for way in ways:
            network.weather(*way).cut = True

        def heal() -> None:
            for way in ways:
                network.clear(*way)

        return heal

    def _slow_reader(self, fault: Fault) -> Callable[[], None]:
        way = (SWITCH, self._name(fault))
        self._town.network.weather(*way).bytes_per_s = 20.0
        return lambda: self._town.network.clear(*way)

    def _half_open(self, fault: Fault) -> None:
        machines = (SWITCH, HOST) if fault.who % 2 else (SWITCH, self._name(fault))
        first = fault.step % 2
        self._town.network.half_open(machines[first], machines[1 - first])

    def _mood(self, fault: Fault, name: str) -> Callable[[], None]:
        setattr(self._town.host.mood, name, fault.strength)
        return lambda: setattr(self._town.host.mood, name, 0.0)

    def _freeze(self, fault: Fault) -> Callable[[], None]:
        self._town.host.mood.frozen = True
        return lambda: setattr(self._town.host.mood, "frozen", False)

    def _kill_host(self, fault: Fault) -> Callable[[], None]:
        self._town.host.kill()
        return self._town.host.start

    def _disk(self, name: str) -> Callable[[], None]:
        setattr(self._town.disk, name, True)
        return lambda: setattr(self._town.disk, name, False)

    def _slow_disk(self, fault: Fault) -> Callable[[], None]:
        self._town.disk.slow_s = 2.0 * fault.strength
        return lambda: setattr(self._town.disk, "slow_s", 0.0)

    def _power(self, fault: Fault) -> None:
        self._town.disk.loses_power_at_next_commit = True

    def _jump(self, by_us: int) -> None:
        self._town.clock.offset_us += by_us

    def _drift(self, fault: Fault) -> Callable[[], None]:
        self._town.clock.drift = 0.01 * fault.strength
        return lambda: setattr(self._town.clock, "drift", 0.0)

    def _renew(self, fault: Fault) -> None:
        custody = self._town.custody
        custody.activate(JOURNAL_DATA, custody.renew(JOURNAL_DATA).epoch)
