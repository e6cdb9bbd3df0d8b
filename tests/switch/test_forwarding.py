"""One depot under a clock of its own: order, repeats, rests, back ends that are down, and disks that fail."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, cast

import trio
import trio.testing

from fengshou.protocol.service import Iso8583Call, Reply
from fengshou.protocol.transaction import DUE, Duty, Event, Machine, State
from fengshou.routing.destination import Completion, Failure, Outbound, Trace
from fengshou.switch.debts import Debt, Ledger, Verdict, verdict
from fengshou.switch.forwarding import WINDOW, Depot
from fengshou.switch.journal.store import Entry, Journal, JournalError
from fengshou.switch.outbound import Route
from fengshou.switch.writer import Writer
from tests.switch.entries import intent, reversed_by_switch

# fmt: off
VERDICTS = (
    # duty           answer                                     verdict
    (Duty.REVERSAL,  ("00", "25", "12", "01"),                  Verdict.DONE),
    (Duty.REVERSAL,  ("64", "30", "40", "94"),                  Verdict.REFUSED),
    (Duty.REVERSAL,  ("09", "06", "68", "90", "91", "96", "98"), Verdict.AGAIN),
    (Duty.ADVICE,    ("00",),                                   Verdict.DONE),
    (Duty.ADVICE,    ("42", "62", "94", "25"),                  Verdict.REFUSED),
    (Duty.ADVICE,    ("91", "96", "98"),                        Verdict.AGAIN),
    (Duty.REPEAT,    ("00", "51", "64", "25"),                  Verdict.DONE),
    (Duty.REPEAT,    ("09", "20", "91", "96", "98"),            Verdict.AGAIN),
)
# fmt: on


def test_what_an_answer_means() -> None:
    for duty, answers, expected in VERDICTS:
        assert {code: verdict(duty, Reply(code)) for code in answers} == dict.fromkeys(answers, expected)
        assert all(verdict(duty, failure) is Verdict.AGAIN for failure in Failure)


class Host:
    """A destination that notes what it is given; the test answers."""

    def __init__(self) -> None:
        self.name, self.up, self.in_flight = "core-banking", True, 0
        self.calls: list[tuple[float, Outbound]] = []

    def submit(self, calls: Sequence[Outbound]) -> None:
        self.calls += [(trio.current_time(), call) for call in calls]

    def sent(self) -> list[tuple[int, bool]]:
        """Intent of each call, and whether it was a repeat."""
        return [(call.token.debt.intent, call.trace.repeat) for _, call in self.calls]


class Books:
    """Messages and endings without a journal; an entry is written when the disk is not full."""

    def __init__(self) -> None:
        self.written: list[Entry] = []
        self.full = 0
        self.disk = trio.Event()  # set: it takes what comes
        self.disk.set()

    def message(self, debt: Debt) -> tuple[Iso8583Call, Trace]:
        return debt.call, Trace(debt.intent, 0, "TT000001", "M", 1, repeat=debt.attempts > 0)

    def ending(self, debt: Debt, reply: Reply) -> Entry:
        return reversed_by_switch(intent(debt.intent), late_us=debt.late_us)

    async def append(self, entries: Sequence[Entry]) -> None:
        await self.disk.wait()
        if self.full:
            self.full -= 1
            raise JournalError("disk full")
        self.written += entries

    def refresh(self) -> None: ...


class Stage:
    def __init__(self) -> None:
        self.host, self.books, self.machine, self.paid = Host(), Books(), Machine(), list[int]()
        self.depot = Depot(
            Route(cast(Any, self.host), 5.0), cast(Ledger, self.books), cast(Journal, self.books),
            cast(Writer, self.books), self.machine, Random(1), lambda debt: self.paid.append(debt.intent),
        )  # fmt: skip

    def owe(self, number: int, *accounts: str, duty: Duty = Duty.REVERSAL) -> Debt:
        debt = Debt(
            number, duty, DUE[duty], "core-banking", accounts, cast(Any, None), cast(Any, None), Iso8583Call(200, {})
        )
        self.depot.add(debt)
        return debt

    async def answer(self, index: int, result: Reply | Failure, *, late: bool = False) -> None:
        self.depot.complete(Completion(self.host.calls[index][1], result, late))
        await self.settled()

    @staticmethod
    async def settled() -> None:
        await trio.testing.wait_all_tasks_blocked()


def staged(story: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        stage = Stage()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.depot.run)
            await story(stage)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_one_account_in_order_and_others_side_by_side() -> None:
    async def story(stage: Stage) -> None:
        for number, accounts in enumerate((("a",), ("a", "b"), ("b",), ("c",)), 1):
            stage.owe(number, *accounts)
        await stage.settled()
        assert stage.host.sent() == [(1, False), (4, False)]
        await stage.answer(0, Failure.UNKNOWN)
        await stage.settled()
        assert [number for number, _ in stage.host.sent()][:2] == [1, 4]
        assert 2 not in [number for number, _ in stage.host.sent()], "the first of the account is not done"
        await trio.sleep(0.6)
        assert stage.host.sent()[2] == (1, True), "again, and marked as a repeat"
        await stage.answer(2, Reply("00"))
        assert stage.host.sent()[3:] == [(2, False)]
        await stage.answer(3, Reply("25"))
        assert stage.host.sent()[4:] == [(3, False)]
        assert stage.paid == [1, 2]

    staged(story)


def test_a_destination_that_is_down_is_asked_for_nothing_until_it_is_up() -> None:
    async def story(stage: Stage) -> None:
        stage.host.up = False
        for number in range(1, 1001):
            stage.owe(number, f"account {number}")
        await trio.sleep(10)
        assert not stage.host.calls
        stage.host.up = True
        await trio.sleep(0.5)
        assert len(stage.host.calls) == WINDOW
        assert not any(repeat for _, repeat in stage.host.sent())

    staged(story)


def test_rests_grow_to_a_minute_and_differ() -> None:
    async def story(stage: Stage) -> None:
        stage.owe(1, "a")
        await stage.settled()
        rests = []
        for attempt in range(12):
            told = trio.current_time()
            await stage.answer(attempt, Failure.UNKNOWN)
            await trio.sleep(61)
            rests.append(stage.host.calls[attempt + 1][0] - told)
        assert 0.25 <= rests[0] <= 0.5
        assert all(30 <= rest <= 60 for rest in rests[-3:])
        assert len({round(rest, 3) for rest in rests[-3:]}) == 3

    staged(story)


def test_what_is_refused_for_good_lets_the_next_of_its_account_go() -> None:
    async def story(stage: Stage) -> None:
        stage.owe(1, "a")
        stage.owe(2, "a")
        await stage.settled()
        await stage.answer(0, Reply("64"))
        assert stage.host.sent() == [(1, False), (2, False)]
        assert stage.depot.refused == 1
        await stage.answer(1, Reply("00"))
        await trio.sleep(601)
        assert stage.host.sent()[2:] == [(1, True)], "asked again for people's sake"
        await stage.answer(2, Reply("00"))
        assert stage.paid == [2, 1]

    staged(story)


def test_what_is_taken_back_while_it_is_told_is_reversed() -> None:
    async def story(stage: Stage) -> None:
        debt = stage.owe(1, "a", duty=Duty.ADVICE)
        await stage.settled()
        debt.duty, debt.state = Duty.REVERSAL, stage.machine.step(debt.state, Event.OWE)
        await stage.answer(0, Reply("00"))
        assert not stage.paid, "that was the answer to the advice"
        await stage.answer(1, Reply("00"))
        assert stage.paid == [1]
        assert debt.state is State.REVERSED

    staged(story)


def test_a_demand_that_was_outlived_in_flight_is_followed_by_the_next_one() -> None:
    async def story(stage: Stage) -> None:
        debt = stage.owe(1, "a")
        await stage.settled()
        for late_us, result in ((5, Reply("00")), (6, Failure.UNKNOWN), (7, Reply("91"))):
            debt.late_us, debt.attempts = late_us, 0
            await stage.answer(-1, result)
            assert not stage.paid, "the demand that it answers is not the one that is owed"
            assert stage.host.sent()[-1] == (1, False), "another demand, not a repeat"
        await stage.answer(1, Reply("00"), late=True)
        assert not stage.paid
        await stage.answer(-1, Reply("00"))
        assert stage.paid == [1]
        assert [entry.late_us for entry in stage.books.written] == [7]

    staged(story)


def test_a_demand_that_was_outlived_while_it_rests_is_not_ended_by_its_late_answer() -> None:
    async def story(stage: Stage) -> None:
        debt = stage.owe(1, "a")
        await stage.settled()
        await stage.answer(0, Failure.UNKNOWN)
        debt.late_us, debt.attempts = 5, 0
        await stage.answer(0, Reply("00"), late=True)
        assert not stage.paid
        await trio.sleep(1)
        assert stage.host.sent() == [(1, False), (1, False)]
        await stage.answer(1, Reply("25"))
        assert stage.paid == [1]

    staged(story)


def test_a_late_answer_ends_what_rests_once() -> None:
    async def story(stage: Stage) -> None:
        debt = stage.owe(1, "a")
        await stage.settled()
        await stage.answer(0, Failure.UNKNOWN)
        await stage.answer(0, Reply("91"), late=True)
        assert debt.state is State.REVERSAL_DUE
        await stage.answer(0, Reply("00"), late=True)
        assert (debt.state, stage.paid) == (State.REVERSED, [1])
        await trio.sleep(120)
        assert len(stage.host.calls) == 1, "nothing is left to send"

    staged(story)


def test_an_answer_survives_a_full_disk() -> None:
    async def story(stage: Stage) -> None:
        stage.owe(1, "a")
        await stage.settled()
        stage.books.full = 3
        stage.depot.complete(Completion(stage.host.calls[0][1], Reply("00")))
        await trio.sleep(2)
        assert not stage.paid
        await trio.sleep(3)
        assert (stage.paid, len(stage.books.written)) == ([1], 1)

    staged(story)


def test_an_answer_that_comes_during_a_commit_is_not_slept_over() -> None:
    async def story(stage: Stage) -> None:
        stage.owe(1)
        stage.owe(2)
        await stage.settled()
        stage.books.disk = trio.Event()
        await stage.answer(0, Reply("00"))
        await stage.answer(1, Reply("00"))  # nothing else wakes the depot
        assert stage.paid == []
        stage.books.disk.set()
        await stage.settled()
        assert stage.paid == [1, 2]

    staged(story)


def test_the_back_end_works_while_its_answers_go_to_the_disk() -> None:
    async def story(stage: Stage) -> None:
        for number in range(WINDOW + 2):
            stage.owe(number)
        await stage.settled()
        assert len(stage.host.calls) == WINDOW
        stage.books.disk = trio.Event()
        await stage.answer(0, Reply("00"))
        assert len(stage.host.calls) == WINDOW + 1
        assert stage.paid == []
        stage.books.disk.set()

    staged(story)
