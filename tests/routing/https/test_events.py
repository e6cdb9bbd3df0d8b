"""Exactly-once delivery of events into the real analytics store, over broken answers, restarts and kills."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import msgspec
import pytest
import trio
import trio.testing

from fengshou.ext.hosts.analytics import Store
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.software import Kind, SoftwareCustody
from fengshou.routing.connect import Connect
from fengshou.routing.envelope import Envelope
from fengshou.routing.event_handler import EventHandler
from fengshou.routing.events import EventFeed, EventStoreClient, FeedState, StoreRefused
from fengshou.routing.json_server import Body, Refusal


class Source:
    """Numbered events in memory, pruned when delivered. ``keep`` of the pruned ones stay."""

    def __init__(self, keep: int = 0) -> None:
        self.events: dict[int, bytes] = {}
        self._last = 0
        self._keep = keep

    def write(self, count: int) -> None:
        for _ in range(count):
            self._last += 1
            self.events[self._last] = msgspec.json.encode({"kind": "test", "n": self._last})

    def read(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        return [(number, self.events[number]) for number in sorted(self.events) if number > after][:limit]

    def last(self) -> int:
        return self._last

    def delivered(self, cursor: int) -> None:
        self.events = {number: event for number, event in self.events.items() if number > cursor - self._keep}


def connect_to(address: tuple[str, int]) -> Connect:
    async def connect() -> trio.abc.Stream:
        return await trio.open_tcp_stream(*address)

    return connect


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store({"database": str(tmp_path / "analytics.duckdb")})
    yield made
    made.close()


def rows(store: Store) -> list[tuple[int, int]]:
    """What is in the store: each event's number and its own idea of it."""
    return store._database.execute("SELECT event_no, (json->>'n')::BIGINT FROM events ORDER BY event_no").fetchall()


def once_each(count: int) -> list[tuple[int, int]]:
    return [(number, number) for number in range(1, count + 1)]


async def until(feed: EventFeed, cursor: int) -> None:
    with trio.fail_after(30):
        while feed.cursor < cursor:
            await trio.sleep(0.01)


async def until_state(feed: EventFeed, state: FeedState) -> None:
    with trio.fail_after(10):
        while feed.state is not state:
            await trio.sleep(0.01)


async def test_events_arrive_in_order_once_and_are_pruned(bench: Any, sides: Any, store: Store) -> None:
    source = Source()
    source.write(1000)
    async with bench() as b:
        _, address = await b.server(EventHandler(store))
        feed = EventFeed(source, connect_to(address), "x", sides.switch, Random(1))
        b.nursery.start_soon(feed.run)
        await until(feed, 1000)
        assert feed.batches == 4  # as many as fit, not one each
        source.write(3)
        feed.notify()
        await until(feed, 1003)
        assert source.events == {}
        assert (feed.delivered, feed.failures, feed.state) == (1003, 0, FeedState.DELIVERING)
    assert rows(store) == once_each(1003)


class Failing:
    """The real handler, whose answers get lost: the batch is stored, but the server says that it failed."""

    def __init__(self, store: Store, every: int) -> None:
        self._handler = EventHandler(store)
        self._every = every
        self._calls = 0

    def answer(self, method: str, path: str, body: Body) -> Body:
        answer = self._handler.answer(method, path, body)
        self._calls += path == "/events"
        if path == "/events" and self._calls % self._every == 0:
            raise Refusal(500, "06", "lost after storing")
        return answer

    def close(self) -> None:
        self._handler.close()


async def test_a_batch_whose_answer_is_lost_is_not_stored_twice(bench: Any, sides: Any, store: Store) -> None:
    source = Source()
    source.write(1500)
    async with bench() as b:
        _, address = await b.server(Failing(store, every=2))
        feed = EventFeed(source, connect_to(address), "x", sides.switch, Random(1))
        b.nursery.start_soon(feed.run)
        await until(feed, 1500)
        assert feed.failures >= 2
    assert rows(store) == once_each(1500)


@pytest.mark.parametrize(
    ("stored", "pruned", "written", "state"),
    [
        (5,  0, 10, FeedState.DELIVERING),    # the store lags, the journal still holds all of it
        (5,  5, 10, FeedState.DELIVERING),    # the journal was pruned just so far
        (5,  6, 10, FeedState.STORE_BEHIND),  # event 6 is nowhere: going on would lose it
        (5,  0, 4,  FeedState.STORE_AHEAD),   # new events would be taken for old ones
        (0,  0, 0,  FeedState.DELIVERING),    # nothing yet
    ],
)  # fmt: skip
async def test_cursor_of_the_store_against_the_journal(
    bench: Any, sides: Any, store: Store, stored: int, pruned: int, written: int, state: FeedState
) -> None:
    earlier = Source()
    earlier.write(stored)
    store.store(1, [msgspec.json.decode(event) for _, event in earlier.read(0, stored)])
    source = Source()
    source.write(written)
    source.delivered(pruned)
    async with bench() as b:
        _, address = await b.server(EventHandler(store))
        feed = EventFeed(source, connect_to(address), "x", sides.switch, Random(1))
        b.nursery.start_soon(feed.run)
        await until_state(feed, state)
        if state is FeedState.DELIVERING:
            await until(feed, written)
            assert rows(store) == once_each(written)
        else:
            assert feed.trouble == state.value
            assert rows(store) == once_each(stored)


async def test_a_store_that_went_back_while_connected_is_caught_up(bench: Any, sides: Any, tmp_path: Path) -> None:
    """Someone restores an older copy under the running feed: the gap is refused, the feed asks again and resends."""
    source = Source(keep=1000)
    source.write(10)

    class Restorable:
        def __init__(self) -> None:
            self.handler = EventHandler(Store({"database": ":memory:"}))

        def answer(self, method: str, path: str, body: Body) -> Body:
            return self.handler.answer(method, path, body)

        def close(self) -> None:
            self.handler.close()

    restorable = Restorable()
    async with bench() as b:
        _, address = await b.server(restorable)
        feed = EventFeed(source, connect_to(address), "x", sides.switch, Random(1))
        b.nursery.start_soon(feed.run)
        await until(feed, 10)
        older = Store({"database": str(tmp_path / "older.duckdb")})
        restorable.handler = EventHandler(older)
        source.write(1)
        feed.notify()
        await until(feed, 11)
        assert rows(older) == once_each(11)
        assert "events 1 to 10 are missing" in feed.trouble
        older.close()


BAD_BODIES = [
    ("POST",   "/events",         {"first": 0, "events": []},              "400 first is not a number of an event"),
    ("POST",   "/events",         {"first": True, "events": []},           "400 first is not a number of an event"),
    ("POST",   "/events",         {"first": "1", "events": []},            "400 first is not a number of an event"),
    ("POST",   "/events",         {"first": 1},                            "400 events is not a list of objects"),
    ("POST",   "/events",         {"first": 1, "events": [1]},             "400 events is not a list of objects"),
    ("POST",   "/events",         {"first": 3, "events": [{}]},            "409 events 1 to 2 are missing"),
    ("POST",   "/cursor",         {},                                      "405 only GET is served"),
    ("GET",    "/events",         {},                                      "405 only POST is served"),
    ("GET",    "/reports/prices", {},                                      "405 only POST is served"),
    ("POST",   "/reports/nosuch", {},                                      "404 no such report"),
    ("POST",   "/reports/prices", {"arguments": 1},                        "400 arguments is not an object"),
    ("POST",   "/reports/prices", {"arguments": {"grade": "x"}},           "400 Expected `int | null`, got `str`"),
    ("POST",   "/reports/prices", {"arguments": {"by": ["day; DROP"]}},    "400 by: some of product, variety, grade,"),
    ("POST",   "/reports/prices", {"arguments": {"by": []}},               "400 by: some of product, variety, grade,"),
    ("POST",   "/reports/farmers", {"arguments": {"name": "Li"}},          "400 Object contains unknown field `name`"),
    ("GET",    "/",               {},                                      "404 nothing is at this path"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "refusal"), BAD_BODIES)
def test_what_the_event_handler_refuses(store: Store, method: str, path: str, body: Body, refusal: str) -> None:
    with pytest.raises(Refusal) as caught:
        EventHandler(store).answer(method, path, body)
    assert f"{caught.value.status} {caught.value}".startswith(refusal)
    assert store.cursor() == 0


async def test_client_tells_a_refusal_from_an_answer(bench: Any, sides: Any, store: Store) -> None:
    async with bench() as b:
        _, address = await b.server(EventHandler(store))
        async with EventStoreClient.connected(connect_to(address), "x", sides.switch) as client:
            assert await client.cursor() == 0
            with pytest.raises(StoreRefused, match="409 events 1 to 6 are missing"):
                await client.store(7, [b"{}"])
            assert await client.store(1, [b"{}", b"{}"]) == 2
            assert await client.query("prices", {}) == []


PROCESS = textwrap.dedent("""
    import sys
    from fengshou.codecs import PublicKey
    from fengshou.ext.hosts.analytics import Store
    from fengshou.hsm.software import SoftwareCustody
    from fengshou.routing.envelope import Envelope
    from fengshou.routing.event_handler import EventHandler
    from fengshou.routing.json_server import run_json_server

    async def plain(raw): return raw

    keys, peer, database = sys.argv[1:]
    run_json_server(
        EventHandler(Store({"database": database})), "127.0.0.1", 0, accept=plain,
        envelope=Envelope(SoftwareCustody(keys), "host.sign", [PublicKey(bytes.fromhex(peer))]),
        on_ready=lambda address: print(address[1], flush=True),
    )
""")


async def test_kills_of_the_store_in_mid_delivery(bench: Any, tmp_path: Path) -> None:
    """kill -9 again and again while events flow; in the end each is there once."""
    total, kills = 6000, 4
    switch = SoftwareCustody.initialise(tmp_path / "switch")
    switch.create(SWITCH_SIGN, Kind.SM2)
    host = SoftwareCustody.initialise(tmp_path / "host")
    host.create("host.sign", Kind.SM2)
    envelope = Envelope(switch, SWITCH_SIGN, [host.public_key("host.sign")])
    database = tmp_path / "analytics.duckdb"
    command = [
        sys.executable, "-c", PROCESS, str(tmp_path / "host"), switch.public_key(SWITCH_SIGN).point.hex(), str(database)
    ]  # fmt: skip
    port = 0

    def start() -> "subprocess.Popen[str]":
        nonlocal port
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        return process

    async def connect() -> trio.abc.Stream:
        return await trio.open_tcp_stream("127.0.0.1", port)

    source = Source()
    random = Random(5)
    process = await trio.to_thread.run_sync(start)
    try:
        async with bench() as b:
            feed = EventFeed(source, connect, "x", envelope, random)
            b.nursery.start_soon(feed.run)
            for _ in range(kills):
                source.write(total // kills)
                feed.notify()
                target = feed.cursor + 300
                with trio.fail_after(20):
                    while feed.cursor < target:
                        await trio.sleep(0.001)
                await trio.sleep(random.random() / 100)
                process.kill()
                await trio.to_thread.run_sync(process.wait)
                assert process.stdout is not None
                process.stdout.close()
                process = await trio.to_thread.run_sync(start)
            await until(feed, total)
            assert feed.failures >= kills - 1
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
    with duckdb.connect(str(database)) as found:
        count, distinct, wrong = found.execute(
            "SELECT count(*), count(DISTINCT event_no), count(*) FILTER (event_no <> (json->>'n')::BIGINT) FROM events"
        ).fetchone()  # type: ignore[misc]
    assert (count, distinct, wrong) == (total, total, 0)
