"""The parts between the pump and the back ends, put together: no file, socket, thread or clock of their own.

What touches the world is handed in, so a process (``server``) and a simulation run the very same parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from fengshou.codecs import MessageCodec
from fengshou.hsm.custody import PSEUDONYM, Custody, PinZone
from fengshou.protocol.message import Value
from fengshou.protocol.service import TerminalFacts
from fengshou.protocol.transaction import Machine
from fengshou.routing.destination import Completion
from fengshou.switch.admission import Admission
from fengshou.switch.affinity import WHOLE, Share
from fengshou.switch.clock import Clock
from fengshou.switch.counters import Counters
from fengshou.switch.debts import Attempt, Ledger
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.forwarding import Forwarder
from fengshou.switch.grammar import Catalogue
from fengshou.switch.inbound import Inbound
from fengshou.switch.journal.store import Journal
from fengshou.switch.originals import Originals
from fengshou.switch.outbound import Route, Sender
from fengshou.switch.pins import Pins
from fengshou.switch.pipeline import Pipeline
from fengshou.switch.receipt_desk import ReceiptDesk
from fengshou.switch.recording import Recorder, pseudonyms
from fengshou.switch.recovery import Recovery
from fengshou.switch.renewals import Renewals
from fengshou.switch.rrn import RrnSource
from fengshou.switch.sessions import Sessions
from fengshou.switch.stand_in import Limits, StandIn
from fengshou.switch.terminal_keys import TerminalKeys
from fengshou.switch.writer import Writer
from fengshou.terminals.binding import TerminalRow
from fengshou.terminals.pump import Closing, Peer, Pump

MakePump = Callable[[MessageCodec, Callable[[Peer, Closing], None]], Pump]
MakeWriter = Callable[[Journal, Custody, Callable[[int], None]], Writer]


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside. ``terminals`` gives the registry's current view; ``make_*`` get what the part needs."""

    catalogue: Catalogue
    custody: Custody
    journal: Journal
    clock: Clock
    random: Random
    terminals: Callable[[str], TerminalRow | None]
    routes: Mapping[str, Route]
    in_flight_max: int
    make_pump: MakePump
    make_writer: MakeWriter = Writer
    share: Share = WHOLE  # the terminals that this worker has; the journal is opened for the same
    stand_in: Limits | None = None
    deadlines_s: Mapping[str, float] = field(default_factory=dict)  # of services that are stricter than their route
    renewals: Renewals | None = None  # of terminals' certificates; None: they are not renewed here
    signer: Callable[[], Mapping[int, Value]] = dict  # what template 22 answers; nothing: it is refused
    pin_zones: Mapping[str, PinZone] = field(default_factory=dict)  # of destinations that verify PINs


class Core:
    """One worker without its surroundings."""

    def __init__(self, world: World) -> None:
        """Gives every open intent its outcome first. Raises JournalError."""
        catalogue, journal = world.catalogue, world.journal
        self._world = world
        pseudonym = pseudonyms(world.custody)
        self.routes: dict[str, Route] = dict(world.routes)
        self.recorder = Recorder(catalogue, world.custody, world.clock)
        self.machine = Machine()
        self.keys = TerminalKeys(world.custody)
        self.recovered = Recovery(journal, catalogue, self.recorder, self.facts, pseudonym, self.machine).run()
        self.desk = ReceiptDesk(catalogue, journal, world.custody)
        self.writer = world.make_writer(journal, world.custody, self.desk.signed)
        self.duplicates = Duplicates(journal)
        originals = Originals(catalogue, journal, self.duplicates, self.recorder, pseudonym)
        counters = Counters(journal, lambda data: world.custody.mac(PSEUDONYM, data))
        admission = Admission(
            catalogue, journal, self.duplicates, counters, self.recorder, originals,
            RrnSource(journal, world.clock, world.share), pseudonym, world.terminals, world.in_flight_max,
            StandIn(world.stand_in, lambda name: name not in self.routes or self.routes[name].destination.up),
            Pins(world.custody, world.pin_zones),
            self.keys,
            world.share,
        )  # fmt: skip
        ledger = Ledger(catalogue, journal, self.recorder, originals, self.facts)
        self.forwarder = Forwarder(catalogue, ledger, journal, self.writer, self.routes, self.machine, world.random)
        self.sessions = Sessions(admission, self.recorder, self.keys, world.renewals, world.signer)
        self.inbound = Inbound(
            catalogue, world.clock, admission, self.duplicates, counters, self.recorder, self.desk.ask,
            self.forwarder.owe, self.machine, self.sessions,
        )  # fmt: skip
        self.sender = Sender(
            catalogue, journal, self.recorder, self.duplicates, self.routes, self.forwarder.owe,
            self.forwarder.reversal, self.desk.later,
            self.machine, world.deadlines_s, self.sessions.notice,
        )  # fmt: skip
        self.closed: dict[Closing, int] = dict.fromkeys(Closing, 0)
        self.pump = world.make_pump(catalogue.codec, self._on_closed)
        self.pipeline = Pipeline(self.pump, self.inbound, self.sender, journal, self.writer, self.duplicates)

    def facts(self, terminal: str) -> TerminalFacts | None:
        """What the registry says of a terminal."""
        row = self._world.terminals(terminal)
        return row.facts if row else None

    def start(self, behind: trio.Nursery, before: trio.Nursery) -> int:
        """Start the writer, the links and the loops: those that must outlive the others in ``behind``.

        Returns how much was owed to back ends.
        """
        self.writer.start()
        for route in self.routes.values():
            behind.start_soon(route.destination.run, self._sink)
        behind.start_soon(self.pipeline.outcomes)
        behind.start_soon(self.forwarder.run)
        owed = self.forwarder.resume()
        before.start_soon(self.pipeline.requests)
        before.start_soon(self.pump.sweep)
        return owed

    def _on_closed(self, peer: Peer, why: Closing) -> None:
        self.closed[why] += 1
        self.sessions.forget(peer)

    def _sink(self, completions: Sequence[Completion]) -> None:
        """Answers of back ends: to the pipeline, or to what the switch owes."""
        self.pipeline.complete([done for done in completions if not isinstance(done.outbound.token, Attempt)])
        self.forwarder.complete([done for done in completions if isinstance(done.outbound.token, Attempt)])
