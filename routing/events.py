"""Delivers the journal's analytics events to a store exactly once, in order.

The store keeps the events and its cursor, the number of the last one, in one transaction; the feed keeps nothing. It
asks for the cursor, sends what follows it and believes only the cursor that comes back. When an answer is lost, the
batch may have been stored or not: the feed asks again. So nothing is missing and nothing is there twice, whichever side
dies when.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from random import Random
from typing import Any, Protocol

import msgspec
import trio

from fengshou.routing.connect import LINK_ERRORS, Backoff, Connect
from fengshou.routing.envelope import Envelope
from fengshou.routing.json_connection import ExchangeFault, JsonAnswer, JsonConnection

# One synced transaction of the store takes about as long for one event as for this many.
BATCH_EVENTS_MAX = 256
# An exchange costs about a millisecond of CPU, signed and verified on both sides, however few events it carries; nobody
# looks at a market board five times a second.
GATHER_S = 0.2
# A report of a season by product, grade and day has some thousand rows of 200 bytes.
REPORT_BYTES_MAX = 16 * 1024 * 1024


class EventSource(Protocol):
    """The journal as the feed sees it: events numbered from 1 without gaps, old ones pruned once delivered."""

    def read(self, after: int, limit: int) -> Sequence[tuple[int, bytes]]:
        """The first events numbered above ``after``, at most ``limit``: number and JSON object of each."""
        ...

    def last(self) -> int:
        """The number of the last event ever written, pruned or not; 0 at first."""
        ...

    def delivered(self, cursor: int) -> None:
        """Events up to ``cursor`` are durably stored and may be pruned."""
        ...


class StoreRefused(Exception):
    """The store answered, but not with what was asked for; the text is its reason."""


class EventStoreClient:
    """An event store behind one connection."""

    def __init__(self, connection: JsonConnection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, connect: Connect, authority: str, envelope: Envelope, timeout_s: float = 30.0
    ) -> AsyncIterator["EventStoreClient"]:
        """A client for as long as the block lasts. Raises LINK_ERRORS when there is no connection."""
        with trio.fail_after(timeout_s):
            stream = await connect()
        connection = JsonConnection(stream, authority, envelope, REPORT_BYTES_MAX)
        try:
            yield cls(connection, timeout_s)
        finally:
            await connection.aclose()

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> JsonAnswer:
        payload = b"" if body is None else msgspec.json.encode(body)
        with trio.fail_after(self._timeout_s):
            answer = await self._connection.call(method, path, payload)
        if answer.status != 200:
            raise StoreRefused(f"{answer.status} {answer.body.get('error', '')}")
        return answer

    async def cursor(self) -> int:
        """The number of the last event that is durably stored.

        This and the other calls raise StoreRefused, ExchangeFault, or TooSlowError after the time-out; after the last
        two the connection is of no more use.
        """
        return self._cursor_of(await self._call("GET", "/cursor"))

    async def store(self, first: int, events: Sequence[bytes]) -> int:
        """Store consecutive events, each a JSON object; returns the new cursor."""
        body = {"first": first, "events": [msgspec.Raw(event) for event in events]}
        return self._cursor_of(await self._call("POST", "/events", body))

    async def query(self, name: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a report."""
        rows = (await self._call("POST", f"/reports/{name}", {"arguments": arguments})).body.get("rows")
        if not isinstance(rows, list):
            raise StoreRefused("answer without rows")
        return rows

    @staticmethod
    def _cursor_of(answer: JsonAnswer) -> int:
        cursor = answer.body.get("cursor")
        if type(cursor) is not int or cursor < 0:
            raise StoreRefused("answer without a cursor")
        return cursor


class FeedState(Enum):
    CONNECTING = "connecting"
    DELIVERING = "delivering"
    # The two that need a person: going on would lose events or count them twice.
    STORE_BEHIND = "the store is behind what the journal still holds: restore the store from a newer copy"
    STORE_AHEAD = "the store holds events that this journal never wrote: it belongs to another or newer journal"


class _Diverged(Exception):
    def __init__(self, state: FeedState) -> None:
        super().__init__(state.value)
        self.state = state


class EventFeed:
    """Keeps one store up to date with one journal. The counters are for metrics; they only grow."""

    def __init__(
        self, source: EventSource, connect: Connect, authority: str, envelope: Envelope, random: Random
    ) -> None:
        self._source = source
        self._connect = connect
        self._authority = authority
        self._envelope = envelope
        self._backoff = Backoff(random)
        self._news = trio.Event()
        self.state = FeedState.CONNECTING
        self.trouble = ""  # why the last connection ended, in words
        self.cursor = 0  # the last that the store confirmed
        self.delivered = self.batches = self.failures = 0

    def notify(self) -> None:
        """The journal has new events. Cheap: call it after every commit."""
        self._news.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            try:
                async with EventStoreClient.connected(self._connect, self._authority, self._envelope) as store:
                    await self._deliver(store)
            except _Diverged as diverged:
                self.state, self.trouble = diverged.state, str(diverged)
            except (StoreRefused, ExchangeFault, *LINK_ERRORS) as error:
                self.state, self.trouble = FeedState.CONNECTING, f"{type(error).__name__}: {error}"
            self.failures += 1
            await trio.sleep(self._backoff.next_s())

    async def _deliver(self, store: EventStoreClient) -> None:
        """Send what the store lacks, batch after batch, for as long as its connection holds."""
        cursor = await store.cursor()
        if cursor > self._source.last():
            raise _Diverged(FeedState.STORE_AHEAD)
        while True:
            self._confirm(cursor)
            self._news = trio.Event()
            batch = self._source.read(cursor, BATCH_EVENTS_MAX)
            if not batch:
                await self._news.wait()
                continue
            numbers = [number for number, _ in batch]
            if numbers[0] != cursor + 1:
                raise _Diverged(FeedState.STORE_BEHIND)
            stored = await store.store(cursor + 1, [event for _, event in batch])
            if stored != numbers[-1]:
                raise StoreRefused(f"cursor {stored} after events {numbers[0]} to {numbers[-1]}")
            self.delivered += len(batch)
            self.batches += 1
            self._backoff.reset()
            cursor = stored
            if len(batch) < BATCH_EVENTS_MAX:
                self._confirm(cursor)
                await trio.sleep(GATHER_S)

    def _confirm(self, cursor: int) -> None:
        self.state = FeedState.DELIVERING
        if cursor != self.cursor:
            self.cursor = cursor
            self._source.delivered(cursor)
