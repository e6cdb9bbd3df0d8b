"""The parts between the pump and the back ends, put together: no file, socket, thread or clock of their own.

What touches the world is handed in, so a process (``server``) and a simulation run the very same parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import trio

from fengshou.codecs import MessageCodec
from fengshou.hsm.custody import PSEUDONYM, Custody
from fengshou.protocol.service import TerminalFacts
from fengshou.routing.destination import Completion
from fengshou.switch import recovery
from fengshou.switch.admission import Admission
from fengshou.switch.clock import Clock
from fengshou.switch.counters import Counters
from fengshou.switch.duplicates import Duplicates
from fengshou.switch.grammar import Catalogue
from fengshou.switch.inbound import Inbound
from fengshou.switch.journal import Journal
from fengshou.switch.outbound import Route, Sender
from fengshou.switch.pipeline import Pipeline
from fengshou.switch.receipt_desk import ReceiptDesk
from fengshou.switch.recording import Recorder, pseudonyms
from fengshou.switch.reversals import Debt, Reversals
from fengshou.switch.rrn import RrnSource
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


class Core:
    """One worker without its surroundings."""

    def __init__(self, world: World) -> None:
        """Gives every open intent its outcome first. Raises JournalError."""
        catalogue, journal = world.catalogue, world.journal
        self._world = world
        pseudonym = pseudonyms(world.custody)
        self.routes: dict[str, Route] = dict(world.routes)
        self.recorder = Recorder(catalogue, world.custody, world.clock)
        self.recovered = recovery.recover(journal, catalogue, self.recorder, self.facts, pseudonym)
        self.desk = ReceiptDesk(catalogue, journal, world.custody)
        self.writer = world.make_writer(journal, world.custody, self.desk.signed)
        self.duplicates = Duplicates(journal)
        counters = Counters(journal, lambda data: world.custody.mac(PSEUDONYM, data))
        admission = Admission(
            catalogue, journal, self.duplicates, counters, self.recorder, RrnSource(journal, world.clock), pseudonym,
            world.terminals, world.in_flight_max,
        )  # fmt: skip
        self.inbound = Inbound(
            catalogue, world.clock, admission, self.duplicates, counters, self.recorder, self.desk.ask
        )
        self.reversals = Reversals(
            catalogue, journal, self.writer, self.recorder, self.routes, self.facts, pseudonym, world.random
        )
        self.sender = Sender(
            catalogue, journal, self.recorder, self.duplicates, self.routes, self.reversals.owe, self.desk.later
        )
        self.closed: dict[Closing, int] = dict.fromkeys(Closing, 0)
        self.pump = world.make_pump(catalogue.codec, self._on_closed)
        self.pipeline = Pipeline(self.pump, self.inbound, self.sender, journal, self.writer, self.duplicates)

    def facts(self, terminal: str) -> TerminalFacts | None:
        """What the registry says of a terminal."""
        row = self._world.terminals(terminal)
        return row.facts if row else None

    def start(self, behind: trio.Nursery, before: trio.Nursery) -> int:
        """Start the writer, the links and the loops: those that must outlive the others in ``behind``.

        Returns how many reversals were owed.
        """
        self.writer.start()
        debts = self._world.journal.due_reversals()
        for route in self.routes.values():
            behind.start_soon(route.destination.run, self._sink)
        behind.start_soon(self.pipeline.outcomes)
        behind.start_soon(self.reversals.run)
        for intent in debts:
            self.reversals.owe(intent)
        before.start_soon(self.pipeline.requests)
        before.start_soon(self.pump.sweep)
        return len(debts)

    def _on_closed(self, peer: Peer, why: Closing) -> None:
        self.closed[why] += 1
        self.inbound.forget(peer)

    def _sink(self, completions: Sequence[Completion]) -> None:
        """Answers of back ends: to the pipeline, or to the reversals that the switch owes."""
        self.pipeline.complete([done for done in completions if not isinstance(done.outbound.token, Debt)])
        debts = [done for done in completions if isinstance(done.outbound.token, Debt)]
        if debts:
            self.reversals.complete(debts)
