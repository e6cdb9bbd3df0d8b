"""Store and forward: what the switch owes its back ends is sent until it is answered.

The debt stands in the journal from the commit that owes it until the commit of its answer, so it survives any restart.
Each destination has a depot with a task of its own, so that one that is down delays no other. A depot keeps many debts
in flight; those of one account go one after the other, in the order in which they came to be owed. A destination that
is down is asked for nothing until its links are up; a debt that it cannot take yet rests, longer each time.

An original that is approved late, after its reversal came to be owed, may have been done after the back end had judged
that reversal, and a back end that answers repeats from memory will not judge it again. So a late approval owes another
demand, with an identity of its own, which takes the place of the first one in the journal, in the commit of the record
that says so:

- the first one was never sent, or rests: it is not sent any more, the second one is;
- it is in flight: its answer ends nothing, the second one follows;
- it was answered, and its end is on its way to the disk: that end does not touch what has been owed since, whichever of
  the two is written first;
- its end is written: the second one is owed alone.

A restart finds in the journal which demand is owed, and sends that one; killed before the late approval was written, it
knows of none, as if the answer had never come. What was approved before its first demand was owed needs no other one.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random

import trio

from fengshou.protocol import codes
from fengshou.protocol.service import Reply
from fengshou.protocol.transaction import Duty, Event, Machine, State
from fengshou.routing.deadlines import Deadlines
from fengshou.routing.destination import Completion, Failure, Outbound
from fengshou.switch.debts import Attempt, Debt, Ledger, Undeliverable, Verdict, verdict
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import DayAbsent, Entry, Journal, JournalError
from fengshou.switch.lanes import Lanes
from fengshou.switch.outbound import Route
from fengshou.switch.writer import Writer

logger = logging.getLogger(__name__)

# Debts of a destination in flight at once; the rest wait, so that they do not crowd out trade.
WINDOW = 256
_FIRST_REST_S, _LONGEST_REST_S = 0.5, 60.0
# What a back end has decided against is asked again for people's sake, who may have settled it there.
_REFUSED_REST_S = 600.0
# How often links that are down are looked at.
_DOWN_S = 0.2
# Debts that are read from the journal at a time, so that trade goes on meanwhile.
_INTAKE = 200


class Depot:
    """The debts of one destination. ``add`` and ``complete`` are called by others; ``run`` does the work."""

    def __init__(
        self,
        route: Route,
        ledger: Ledger,
        journal: Journal,
        writer: Writer,
        machine: Machine,
        random: Random,
        paid: Callable[[Debt], None],
    ) -> None:
        """``paid`` is told of each debt that is answered for good."""
        self._route = route
        self._ledger = ledger
        self._journal = journal
        self._writer = writer
        self._machine = machine
        self._random = random
        self._paid = paid
        self._lanes: Lanes[Debt] = Lanes()
        self._ready: deque[Debt] = deque()
        self._resting: Deadlines[Debt] = Deadlines()
        self._completed: list[Completion] = []
        self._work = trio.Event()
        self.in_flight = self.attempts = self.refused = 0  # refused: attempts, that a back end decided against

    def add(self, debt: Debt) -> None:
        if self._lanes.enter(debt, debt.accounts):
            self._ready.append(debt)
        self._work.set()

    def complete(self, completion: Completion) -> None:
        self._completed.append(completion)
        self._work.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._work = trio.Event()  # before anything is looked at: what arrives during a commit must not be missed
            answered = self._hear_all()
            if answered and self._route.destination.up:
                self._send()  # the back end works while what it has answered goes to the disk
            await self._settle(answered)
            while (debt := self._resting.pop_due(trio.current_time())) is not None:
                if not debt.closing:  # by a late answer, meanwhile
                    self._ready.append(debt)
            if self._ready and not self._route.destination.up:
                wake_at = trio.current_time() + _DOWN_S
            else:
                self._send()
                wake_at = self._resting.next_due()
            with trio.move_on_at(wake_at):
                await self._work.wait()

    def _send(self) -> None:
        batch: list[Outbound] = []
        deadline = trio.current_time() + self._route.deadline_s
        while self._ready and self.in_flight < WINDOW:
            debt = self._ready.popleft()
            if debt.closing:  # a late answer to an earlier attempt has ended it while it rested
                continue
            batch.append(Outbound(Attempt(debt, debt.duty, debt.late_us), *self._ledger.message(debt), deadline))
            debt.state = self._machine.step(debt.state, Event.SEND)
            debt.in_flight = True
            debt.attempts += 1
            self.in_flight += 1
            self.attempts += 1
        if batch:
            self._route.destination.submit(batch)

    def _hear_all(self) -> list[tuple[Debt, Reply, Event]]:
        """The debts that answers end, with the answer and what it is; the others rest."""
        completed, self._completed = self._completed, []
        answered: list[tuple[Debt, Reply, Event]] = []
        for completion in completed:
            event = self._hear(completion)
            if event is not None:
                assert isinstance(completion.result, Reply)
                answered.append((completion.outbound.token.debt, completion.result, event))
        return answered

    async def _settle(self, answered: Sequence[tuple[Debt, Reply, Event]]) -> None:
        """Journal what has ended."""
        if not answered:
            return
        self._journal.refresh()
        ended = [(debt, self._ledger.ending(debt, reply), event) for debt, reply, event in answered]
        await self._append([entry for _, entry, _ in ended])
        for debt, entry, event in ended:
            if debt.duty is Duty.REPEAT:
                event = Event.APPROVE if entry.record.code == codes.APPROVED else Event.DECLINE
            debt.state = self._machine.step(debt.state, event)
            self._leave_lanes(debt)
            self._paid(debt)

    def _hear(self, completion: Completion) -> Event | None:
        """What an answer does to its debt; the event that is to be journalled when it ends it."""
        attempt: Attempt = completion.outbound.token
        debt, result = attempt.debt, completion.result
        if completion.late:
            if debt.closing or debt.in_flight or attempt.outlived:
                return None  # a later attempt speaks for it
        else:
            debt.in_flight = False
            self.in_flight -= 1
            if attempt.outlived:  # the terminal took back what was being told, or the original was approved late
                if attempt.duty is debt.duty:
                    debt.state = self._machine.step(debt.state, _ended(result))
                self._ready.append(debt)
                return None
        found = verdict(debt.duty, result)
        if found is Verdict.AGAIN or (found is Verdict.REFUSED and debt.duty is Duty.REVERSAL):
            if not completion.late:
                self._put_off(debt, found, result)
            return None
        debt.closing = True
        match debt.duty:
            case Duty.REVERSAL:
                return Event.REVERSE
            case Duty.ADVICE:
                return Event.ADVISE if found is Verdict.DONE else Event.DISPUTE
            case Duty.REPEAT:
                debt.state = self._machine.step(debt.state, Event.REPLY)
                return Event.APPROVE

    def _put_off(self, debt: Debt, found: Verdict, result: Reply | Failure) -> None:
        """Nothing came of an attempt."""
        debt.state = self._machine.step(debt.state, _ended(result))
        if debt.duty is Duty.REPEAT:
            debt.state = self._machine.step(debt.state, Event.KEEP)
        bound_s = min(_LONGEST_REST_S, _FIRST_REST_S * 2 ** min(debt.attempts - 1, 10))
        if found is Verdict.REFUSED and isinstance(result, Reply):
            self.refused += 1
            logger.error("the back end refuses the reversal of record %d with %s", debt.intent, result.code)
            bound_s = _REFUSED_REST_S
            self._leave_lanes(debt)  # it is decided, so order is kept; the next of its accounts may go
        self._resting.set(trio.current_time() + bound_s * (0.5 + self._random.random() / 2), debt)

    def _leave_lanes(self, debt: Debt) -> None:
        if debt.in_lanes:
            debt.in_lanes = False
            self._ready += self._lanes.leave(debt, debt.accounts)

    async def _append(self, entries: Sequence[Entry]) -> None:
        """Try until the disk takes them. What a back end has answered is not dropped."""
        with trio.CancelScope(shield=True):
            while entries:
                try:
                    await self._writer.append(entries)
                except JournalError as error:
                    logger.error("%s", error)
                    await trio.sleep(1)
                else:
                    return


def _ended(result: Reply | Failure) -> Event:
    """What the end of an attempt is that ends no debt."""
    if isinstance(result, Failure):
        return Event.LOSE if result is Failure.UNKNOWN else Event.UNSENT
    return Event.REPLY


class Forwarder:
    """All depots. ``owe`` and ``complete`` are called by the pipeline; ``run`` does the work."""

    def __init__(
        self,
        catalogue: Catalogue,
        ledger: Ledger,
        journal: Journal,
        writer: Writer,
        routes: Mapping[str, Route],
        machine: Machine,
        random: Random,
    ) -> None:
        self._catalogue = catalogue
        self._ledger = ledger
        self._journal = journal
        self._machine = machine
        self._debts: dict[int, Debt] = {}
        self._intake: deque[tuple[int, Duty, int]] = deque()  # intent, what it owes, attempts before
        self._work = trio.Event()
        self.undeliverable: dict[int, str] = {}  # intents, and why
        self.delivered = 0
        self.depots = {
            name: Depot(route, ledger, journal, writer, machine, random, self._paid) for name, route in routes.items()
        }

    @property
    def owed(self) -> int:
        """Debts that are not answered for good."""
        return len(self._debts) + len(self._intake) + len(self.undeliverable)

    def owe(self, intent: int, duty: Duty) -> None:
        """A durable record owes this."""
        self._take_in(intent, duty, 0)

    def reversal(self, intent: int) -> State | None:
        """How far the reversal of an intent is; None when no debt here is one. One that is answered has done its work,
        though its end is still on its way to the disk."""
        debt = self._debts.get(intent)
        if debt is None or debt.duty is not Duty.REVERSAL:
            return None
        return State.REVERSED if debt.closing else debt.state

    def resume(self) -> int:
        """Take on what the journal says is owed at a start. Returns how much that is."""
        self._journal.refresh()
        debts = self._journal.due()
        for intent in self._journal.open_intents():  # after recovery only those that are repeated
            service = self._catalogue.service(self._journal.record(intent).template)
            if service is not None and service.repeats:
                debts.append((intent, Duty.REPEAT))
        for intent, duty in sorted(debts, key=lambda debt: debt[0]):
            self._take_in(intent, duty, 1)  # an earlier run may have sent it
        return len(debts)

    def complete(self, completions: Sequence[Completion]) -> None:
        """Answers of back ends to what the depots sent."""
        for completion in completions:
            self.depots[completion.outbound.token.debt.destination].complete(completion)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for depot in self.depots.values():
                nursery.start_soon(depot.run)
            while True:
                self._work = trio.Event()
                if self._intake:
                    self._journal.refresh()
                    for _ in range(min(len(self._intake), _INTAKE)):
                        self._open(*self._intake.popleft())
                    await trio.lowlevel.checkpoint()
                else:
                    await self._work.wait()

    def _take_in(self, intent: int, duty: Duty, attempts: int) -> None:
        self._intake.append((intent, duty, attempts))
        self._work.set()

    def _open(self, intent: int, duty: Duty, attempts: int) -> None:
        known = self._debts.get(intent)
        if known is not None:
            if known.closing:
                known.then = duty
            elif duty is Duty.REVERSAL and known.duty is Duty.ADVICE:
                known.duty = duty
                known.state = self._machine.step(known.state, Event.OWE)
            elif (late_us := self._journal.late_us(intent)) != known.late_us:
                known.late_us, known.attempts = late_us, 0
            return
        try:
            debt = self._ledger.open(intent, duty, attempts)
            self.depots[debt.destination].add(debt)
        except (Undeliverable, DayAbsent, KeyError) as reason:
            logger.error("what record %d owes its back end cannot be sent: %s", intent, reason)
            self.undeliverable[intent] = str(reason)
        else:
            self._debts[intent] = debt

    def _paid(self, debt: Debt) -> None:
        del self._debts[debt.intent]
        self.delivered += 1
        if debt.then is not None:
            self._take_in(debt.intent, debt.then, 0)
