"""How each fault of a plan is brought about, and how it ends."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from fengshou.hsm.custody import JOURNAL_DATA, SWITCH_SIGN
from fengshou.switch.simulation.host import HOST
from fengshou.switch.simulation.network import Weather
from fengshou.switch.simulation.offices import ANALYTICS, GOVERNMENT
from fengshou.switch.simulation.plan import FAULTS, Fault
from fengshou.switch.simulation.terminal import SWITCH, Terminal
from fengshou.terminals.binding import Status

if TYPE_CHECKING:
    from fengshou.switch.simulation.town import Town

_BACK_ENDS = (HOST, HOST, GOVERNMENT, ANALYTICS)

End = Callable[[], None]


class Trouble:
    """Brings faults about in a town."""

    def __init__(self, town: "Town") -> None:
        self._town = town
        self._means: dict[str, Callable[[Fault], End | None]] = {
            "message-loss": lambda fault: self._weather(fault, lambda it: setattr(it, "lose", fault.strength)),
            "message-delay": lambda fault: self._weather(fault, lambda it: setattr(it, "delay_s", 8 * fault.strength)),
            "message-twice": lambda fault: self._weather(fault, lambda it: setattr(it, "repeat", fault.strength)),
            "message-overtaken": lambda fault: self._weather(fault, lambda it: setattr(it, "overtake", fault.strength)),
            "partition": lambda fault: self._cut((SWITCH, self._back_end(fault)), (self._back_end(fault), SWITCH)),
            "partition-one-way": lambda fault: self._cut(self._way(fault)),
            "partition-terminal": lambda fault: self._cut(
                *(((self._name(fault), SWITCH), (SWITCH, self._name(fault)))[: 1 + fault.who % 2])
            ),
            "slow-reader": self._slow_reader,
            "reset": lambda fault: self._weather(fault, lambda it: setattr(it, "reset", fault.strength)),
            "half-open": self._half_open,
            "host-deaf": lambda fault: self._mood(fault, "deaf"),
            "host-mute": lambda fault: self._mood(fault, "mute"),
            "host-late": self._late,
            "host-twice": lambda fault: self._mood(fault, "twice"),
            "host-garbled": lambda fault: self._mood(fault, "garbled"),
            "host-unsure": lambda fault: self._mood(fault, "unsure"),
            "host-busy": lambda fault: self._mood(fault, "busy"),
            "host-behind": lambda fault: self._mood(fault, "behind"),
            "host-foreign": lambda fault: self._mood(fault, "foreign"),
            "host-frozen": self._freeze,
            "host-kill": self._kill_host,
            "office-kill": self._kill_office,
            "kill": lambda fault: town.process.kill_in(fault.step),
            "kill-at-start": lambda fault: town.process.kill_in(1, again_in=1 + fault.step % 60),
            "pause": lambda fault: town.process.stand_still(),
            "disk-error": lambda fault: self._disk("failing"),
            "disk-full": lambda fault: self._disk("full"),
            "disk-slow": self._slow_disk,
            "power": self._power,
            "clock-jump": lambda fault: self._jump("clock jumped", int(3_600e6 * 20 * fault.strength)),
            "clock-back": lambda fault: self._jump("clock went back", -int(600e6 * fault.strength)),
            "clock-drift": self._drift,
            "overload": self._rush,
            "terminal-power": lambda fault: self._terminal(fault).lose_power(),
            "key-renewal": self._renew,
            "registry": self._change_registry,
            "barred": self._bar,
            "configuration": lambda fault: town.process.reload(fault.step),
        }
        assert self._means.keys() == FAULTS.keys()

    def begin(self, fault: Fault) -> None:
        """Bring a fault about; its end is on the agenda."""
        town = self._town
        town.diary.troubles[fault.kind] += 1
        town.diary.note("trouble", fault.kind)
        end = self._means[fault.kind](fault)
        if end is not None:
            town.ends.append(end)

            def over() -> None:
                if end in town.ends:
                    town.ends.remove(end)
                    town.diary.note("trouble", f"{fault.kind} is over")
                    end()

            town.agenda.after(fault.for_s, over)

    # -- whom it is about ----------------------------------------------------------------------------------------------

    def _terminal(self, fault: Fault) -> Terminal:
        return self._town.terminals[fault.who % len(self._town.terminals)]

    def _name(self, fault: Fault) -> str:
        return self._terminal(fault).name

    def _back_end(self, fault: Fault) -> str:
        return _BACK_ENDS[fault.who // 2 % len(_BACK_ENDS)]

    def _way(self, fault: Fault) -> tuple[str, str]:
        """One direction between the switch and a back end."""
        return (SWITCH, self._back_end(fault)) if fault.who % 2 else (self._back_end(fault), SWITCH)

    # -- the network ---------------------------------------------------------------------------------------------------

    def _weather(self, fault: Fault, change: Callable[[Weather], None]) -> End:
        way = self._way(fault)
        change(self._town.network.weather(*way))
        return lambda: self._town.network.clear(*way)

    def _cut(self, *ways: tuple[str, str]) -> End:
        network = self._town.network
        for way in ways:
            network.weather(*way).cut = True

        def heal() -> None:
            for way in ways:
                network.clear(*way)

        return heal

    def _slow_reader(self, fault: Fault) -> End:
        way = (SWITCH, self._name(fault))
        self._town.network.weather(*way).bytes_per_s = 20.0
        return lambda: self._town.network.clear(*way)

    def _half_open(self, fault: Fault) -> None:
        machines = (SWITCH, self._back_end(fault)) if fault.who % 2 else (SWITCH, self._name(fault))
        first = fault.step % 2
        self._town.network.half_open(machines[first], machines[1 - first])

    # -- back ends -----------------------------------------------------------------------------------------------------

    def _mood(self, fault: Fault, name: str) -> End:
        setattr(self._town.host.mood, name, fault.strength)
        return lambda: setattr(self._town.host.mood, name, 0.0)

    def _late(self, fault: Fault) -> End:
        """Around the deadline, or certainly after it."""
        self._town.host.mood.late_s = 9.0 if fault.step % 2 else 5.5
        return self._mood(fault, "late")

    def _freeze(self, fault: Fault) -> End:
        self._town.host.mood.frozen = True
        return lambda: setattr(self._town.host.mood, "frozen", False)

    def _kill_host(self, fault: Fault) -> End:
        """At once, or at its next work."""
        host = self._town.host
        if fault.step % 4:
            host.kill()
        else:
            host.dies_at_work = True

        def start() -> None:
            host.dies_at_work = False
            host.start()

        return start

    def _kill_office(self, fault: Fault) -> End:
        office = self._town.offices[fault.who % len(self._town.offices)]
        office.kill()
        return office.start

    # -- the switch's disk and clock -----------------------------------------------------------------------------------

    def _disk(self, name: str) -> End:
        setattr(self._town.disk, name, True)
        return lambda: setattr(self._town.disk, name, False)

    def _slow_disk(self, fault: Fault) -> End:
        self._town.disk.slow_s = 2.0 * fault.strength
        return lambda: setattr(self._town.disk, "slow_s", 0.0)

    def _power(self, fault: Fault) -> End:
        self._town.disk.loses_power_at_next_commit = True
        return lambda: setattr(self._town.disk, "loses_power_at_next_commit", False)

    def _jump(self, effect: str, by_us: int) -> None:
        self._town.diary.effect(SWITCH, effect)
        self._town.clock.offset_us += by_us

    def _drift(self, fault: Fault) -> End:
        self._town.diary.effect(SWITCH, "clock drifted")
        self._town.clock.drift = 0.01 * fault.strength
        return lambda: setattr(self._town.clock, "drift", 0.0)

    # -- those who use it and those who run it -------------------------------------------------------------------------

    def _rush(self, fault: Fault) -> None:
        self._town.spawn_guarded(self._terminal(fault).rush)

    def _renew(self, fault: Fault) -> None:
        """A further epoch, current at once: what was made under the old one is still believed and opened."""
        label, effect = (
            (JOURNAL_DATA, "journal key rotated") if fault.step % 2 else (SWITCH_SIGN, "signing key rotated")
        )
        custody = self._town.custody
        custody.activate(label, custody.renew(label).epoch)
        self._town.diary.effect(SWITCH, effect)

    def _change_registry(self, fault: Fault) -> None:
        """An operator gives a terminal another rate; its session goes on."""
        self._town.change_row(self._name(fault), lambda row: replace(row, rate_per_second=row.rate_per_second + 1))
        self._town.diary.effect(SWITCH, "registry changed")

    def _bar(self, fault: Fault) -> End:
        town, name = self._town, self._name(fault)
        town.change_row(name, lambda row: replace(row, status=Status.BLOCKED))
        town.witness.barred(name)
        town.diary.effect(SWITCH, "terminal barred")

        def admit() -> None:
            town.witness.admitted(name)
            town.change_row(name, lambda row: replace(row, status=Status.ACTIVE))

        return admit
