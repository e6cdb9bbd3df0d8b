"""Who waits for the disk and who does not: the two halves of the way around a real journal and its writer.

The steps are stand-ins that note what was asked of them; what they do is tried where they are at home.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from fengshou.hsm.software import SoftwareCustody
from fengshou.switch.journal.store import Entry, Journal
from fengshou.switch.pipeline import Pipeline
from fengshou.switch.writer import Writer
from tests.full_disk import full_disk
from tests.switch.entries import intent, open_journal, outcome
from tests.switch.journals import disk_held, writing


class Request:
    """An exchange as the pipeline sees it."""

    def __init__(self, stan: int) -> None:
        self.stan = stan
        self.intent = intent(stan)
        self.conclusion: str | None = None


class Steps:
    """Pump, the inbound and the outbound steps. ``said`` is what happened, in its order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, list[int]]] = []
        self.changing = False
        self.routed = True  # else there is no back end, and the calls are complete at once
        self._arrivals: deque[list[Request]] = deque()
        self._arrived = trio.Event()

    def _say(self, what: str, requests: Iterable[Request]) -> None:
        stans = [request.stan for request in requests]
        if stans:
            self.said.append((what, stans))

    def arrive(self, *stans: int) -> None:
        self._arrivals.append([Request(stan) for stan in stans])
        self._arrived.set()

    async def until(self, what: str, stans: list[int]) -> None:
        """Wait until this was said."""
        with trio.fail_after(10):
            while (what, stans) not in self.said:
                await trio.sleep(0.005)

    async def ready(self) -> list[Request]:
        while not self._arrivals:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._arrivals.popleft()

    def read(self, arrivals: list[Request]) -> list[Request]:
        self._say("read", arrivals)
        return arrivals

    def verify(self, requests: list[Request]) -> None:
        pass

    def admit(self, requests: list[Request]) -> list[Entry]:
        return [request.intent for request in requests]

    def lost(self, requests: list[Request]) -> None:
        self._say("lost", requests)
        for request in requests:
            request.conclusion = "over"

    def durable(self, requests: list[Request]) -> None:
        self._say("durable", requests)

    def route(self, requests: list[Request]) -> list[Request]:
        self._say("route", requests)
        return [] if self.routed else requests

    def conclude(self, completions: Sequence[Request]) -> tuple[list[Request], list[Entry]]:
        for request in completions:
            request.conclusion = "over"
        return list(completions), [outcome(request.intent) for request in completions]

    def owe_late(self, entries: Sequence[Entry]) -> None:
        pass

    def answer(self, requests: list[Request]) -> None:
        self._say("answer", requests)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return open_journal(tmp_path)


def pipeline(steps: Steps, journal: Journal, writer: Writer) -> Pipeline:
    parts: Any = steps
    return Pipeline(parts, parts, parts, journal, writer, cast(Any, []))


async def test_the_next_batch_is_read_while_one_is_at_the_disk_and_no_third(
    journal: Journal, custody: SoftwareCustody
) -> None:
    steps = Steps()
    async with writing(journal, custody) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(pipeline(steps, journal, writer).requests)
        async with disk_held(writer):
            for stan in (1, 2, 3):
                steps.arrive(stan)
            await trio.testing.wait_all_tasks_blocked()
            assert steps.said == [("read", [1]), ("read", [2])]
        await steps.until("route", [3])
        assert [stans for what, stans in steps.said if what == "route"] == [[1], [2], [3]]
        nursery.cancel_scope.cancel()


async def test_what_follows_a_sign_in_or_a_settlement_is_read_when_that_is_durable(
    journal: Journal, custody: SoftwareCustody
) -> None:
    steps = Steps()
    async with writing(journal, custody) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(pipeline(steps, journal, writer).requests)
        steps.changing = True
        async with disk_held(writer):
            steps.arrive(1)
            steps.arrive(2)
            await trio.testing.wait_all_tasks_blocked()
            assert steps.said == [("read", [1])]
        await steps.until("route", [2])
        assert steps.said.index(("durable", [1])) < steps.said.index(("read", [2]))
        nursery.cancel_scope.cancel()


async def test_without_a_route_the_answer_waits_for_the_outcome_at_the_disk(
    journal: Journal, custody: SoftwareCustody
) -> None:
    steps = Steps()
    steps.routed = False
    async with writing(journal, custody) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(pipeline(steps, journal, writer).requests)
        steps.arrive(1)
        await steps.until("answer", [1])
        assert steps.said == [("read", [1]), ("durable", [1]), ("route", [1]), ("durable", [1]), ("answer", [1])]
        assert journal.statistics.records == 2
        nursery.cancel_scope.cancel()


async def test_outcomes_that_a_full_disk_refuses_are_written_when_it_has_room_in_their_order(
    journal: Journal, custody: SoftwareCustody, tmp_path: Path
) -> None:
    steps = Steps()
    async with writing(journal, custody) as writer, trio.open_nursery() as nursery:
        way = pipeline(steps, journal, writer)
        nursery.start_soon(way.outcomes)
        asked = [Request(stan) for stan in range(40)]
        for request in asked:
            request.intent.record.number = request.stan + 1
        with full_disk((tmp_path / "journal/data.mdb").stat().st_size):
            for request in asked[:20]:
                way.complete(cast(Any, [request]))
                await trio.sleep(0.01)
            refused = set(range(20)) - {stans[0] for what, stans in steps.said if what == "answer"}
            assert refused, "the disk was not full"
        for request in asked[20:]:
            way.complete(cast(Any, [request]))
        with trio.fail_after(20):
            while sum(what == "answer" for what, _ in steps.said) < len(asked):
                await trio.sleep(0.01)
        assert [stans for what, stans in steps.said if what == "answer"] == [[stan] for stan in range(40)]
        nursery.cancel_scope.cancel()
    journal.refresh()
    assert [journal.record(number).stan for number in range(1, 41)] == list(range(40))
