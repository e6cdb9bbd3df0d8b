"""Handshakes in their thread, over real sockets: who is served first, who gives way, who waits, what is counted."""

import select
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import sleep

import pytest
import trio
from OpenSSL import SSL

from fengshou.hsm.channel import ChannelError, Fault, exporter, peer_certificate
from fengshou.terminals import handshakes
from fengshou.terminals.accepting import GAVE_WAY, TIMED_OUT
from fengshou.terminals.handshakes import FAILED, Handshake, Handshakes
from tests.terminals.conftest import TERMINALS, Network

MOST, PATIENT_S = 3, 60.0
HELLO_OF_NOBODY = b"\x16\x03\x01\x02\x00\x01"


class Client:
    """A terminal's end of a connection, driven by hand."""

    def __init__(self, context: SSL.Context) -> None:
        self.socket, self.ours = socket.socketpair()
        self.socket.setblocking(False)
        self.ours.setblocking(False)
        self._connection = SSL.Connection(context, self.socket)
        self._connection.set_connect_state()

    def speak(self) -> bool:
        """Go on as far as it can; whether this end is done."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def has_heard(self) -> bool:
        """Whether the switch has sent something that was not read yet."""
        return bool(select.select([self.socket], [], [], 0)[0])

    @property
    def binding(self) -> bytes:
        return exporter(self._connection)


class Stage:
    """Handshakes with a switch's context, which can be told to wait before it begins one."""

    def __init__(self, context: SSL.Context, client: SSL.Context, most: int, within_s: float) -> None:
        self._context, self._client = context, client
        self.on_begin: Callable[[int], None] = lambda number: None  # in the thread
        self.begun = 0
        self.handshakes = Handshakes(self._next, most, within_s)
        self.clients: list[Client] = []
        self.ended: list[Handshake] = []

    def _next(self) -> SSL.Context:
        self.begun += 1
        self.on_begin(self.begun - 1)
        return self._context

    def begin(self) -> Client:
        client = Client(self._client)
        self.clients.append(client)
        self.handshakes.begin(client.ours)
        return client

    def start(self) -> None:
        self.handshakes.start(self.ended.append)

    def places(self) -> list[int]:
        return [handshake.place for handshake in self.ended]

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not holds():
                await trio.sleep(0.002)

    async def until_ended(self, count: int) -> None:
        """The clients go on meanwhile."""
        with trio.fail_after(10):
            while len(self.ended) < count:
                for client in self.clients:
                    with suppress(SSL.Error):
                        client.speak()
                await trio.sleep(0.002)


@pytest.fixture
def staged(network: Network, client_context: SSL.Context) -> Callable[..., object]:
    @asynccontextmanager
    async def stage(most: int = MOST, within_s: float = PATIENT_S) -> AsyncIterator[Stage]:
        found = Stage(network.context, client_context, most, within_s)
        try:
            yield found
        finally:
            found.on_begin = lambda number: None
            found.handshakes.stop()
            for ended in found.ended:
                ended.socket.close()
            for client in found.clients:
                client.socket.close()

    return stage


async def test_a_channel_is_there_at_both_ends(staged: Callable[..., object]) -> None:
    async with staged() as stage:
        client = stage.begin()
        stage.start()
        await stage.until_ended(1)
        (ended,) = stage.ended
        assert ended.failure is None
        assert exporter(ended.connection) == client.binding
        assert peer_certificate(ended.connection).subject.common_name == TERMINALS[0]
        assert len(stage.handshakes) == 0


async def test_steps_go_by_who_came_first_not_by_who_spoke_first(staged: Callable[..., object]) -> None:
    """The last step of the first comes before the first step of the third, although that has waited for longer."""
    async with staged() as stage:
        clients = [stage.begin() for _ in range(MOST)]
        for client in reversed(clients):
            client.speak()
        first, _, _ = clients
        heard = list[bool]()

        def on_begin(number: int) -> None:
            if number == 1:  # the first has had one step
                heard.append(not first.speak() or first.has_heard())
            elif number == 2:
                heard.append(first.has_heard())  # the tickets, which come with the last step

        stage.on_begin = on_begin
        stage.start()
        await stage.until(lambda: len(heard) == 2)
        await stage.until_ended(MOST)
        assert heard == [False, True]
        assert [handshake.failure for handshake in stage.ended] == [None] * MOST
        assert stage.places()[0] == 0


async def test_while_others_wait_for_us_the_loop_hears_of_several_together(
    staged: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sign-ins are then one batch. It hears at once when nobody waits any more."""
    monkeypatch.setattr(handshakes, "_GATHER_S", PATIENT_S)
    async with staged() as stage:
        clients = [stage.begin() for _ in range(MOST)]
        for client in clients:
            client.speak()
        heard = list[tuple[bool, int]]()

        def on_begin(number: int) -> None:
            if number == 1:
                clients[0].speak()
            elif number == 2:  # the first has ended, and this one is the last that waits
                sleep(0.2)
                heard.append((clients[0].has_heard(), len(stage.ended)))

        stage.on_begin = on_begin
        stage.start()
        await stage.until(lambda: bool(heard))
        assert heard == [(True, 0)]
        await stage.until(lambda: len(stage.ended) == 1)
        await stage.until_ended(MOST)


async def test_of_those_that_let_us_wait_the_oldest_gives_way(staged: Callable[..., object]) -> None:
    async with staged() as stage:
        stage.start()
        for _ in range(MOST + 2):
            stage.begin()
        await stage.until(lambda: len(stage.ended) == 2)
        assert [(ended.place, ended.failure) for ended in stage.ended] == [(0, GAVE_WAY), (1, GAVE_WAY)]
        assert len(stage.handshakes) == MOST


async def test_those_that_wait_for_us_keep_their_places_and_newer_ones_wait_outside(
    staged: Callable[..., object],
) -> None:
    async with staged() as stage:
        with trio.fail_after(10):
            await stage.handshakes.room()
        go_on = threading.Event()
        stage.on_begin = lambda number: assert_true(go_on.wait(10))
        for _ in range(MOST + 1):
            stage.begin().speak()
        stage.start()
        await stage.until(lambda: stage.begun == 1)  # it has its turn, and the others are as many as may wait for us
        with trio.move_on_after(0.3) as outside:
            await stage.handshakes.room()
        assert outside.cancelled_caught
        go_on.set()
        with trio.fail_after(10):
            await stage.handshakes.room()
        await stage.until_ended(MOST + 1)
        assert [ended.failure for ended in stage.ended] == [None] * (MOST + 1)


def assert_true(holds: bool) -> None:
    assert holds


async def test_time_runs_while_we_wait_for_the_other_side_only(staged: Callable[..., object]) -> None:
    within_s = 0.5
    async with staged(within_s=within_s) as stage:
        stage.on_begin = lambda number: assert_true(not threading.Event().wait(3 * within_s))
        stage.begin().speak()
        stage.start()
        await stage.until_ended(1)
        silent = stage.begin()
        await stage.until(lambda: len(stage.ended) == 2)
        assert [ended.failure for ended in stage.ended] == [None, TIMED_OUT]
        assert silent is stage.clients[1]


async def test_one_that_begins_and_says_no_more_runs_out_of_time(staged: Callable[..., object]) -> None:
    async with staged(within_s=0.3) as stage:
        stage.start()
        stage.begin().socket.sendall(HELLO_OF_NOBODY)
        await stage.until(lambda: len(stage.ended) == 1)
        assert stage.ended[0].failure == TIMED_OUT


async def test_one_that_cannot_be_served_does_not_end_the_others(staged: Callable[..., object]) -> None:
    async with staged() as stage:
        stage.on_begin = lambda number: assert_true(number != 0)
        stage.begin().speak()
        stage.begin().speak()
        stage.start()
        await stage.until_ended(2)
        assert [(ended.place, ended.failure) for ended in stage.ended] == [(0, FAILED), (1, None)]


async def test_one_that_the_system_cannot_watch_times_out_and_the_others_go_on(
    staged: Callable[..., object], tmp_path: Path
) -> None:
    async with staged(within_s=0.3) as stage:
        stage.start()
        with (tmp_path / "file").open("wb") as unwatched:  # epoll_ctl(2) refuses files: EPERM
            stage.handshakes.begin(unwatched)
            await stage.until(lambda: len(stage.ended) == 1)
            assert stage.ended[0].failure == TIMED_OUT
        stage.begin().speak()
        await stage.until_ended(2)
        assert stage.ended[1].failure is None


async def test_whoever_has_not_ended_is_dropped_at_the_end(staged: Callable[..., object]) -> None:
    async with staged() as stage:
        stage.start()
        silent, begun = stage.begin(), stage.begin()
        begun.speak()
        await stage.until(begun.has_heard)
    assert silent.ours.fileno() == begun.ours.fileno() == -1


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"GET / HTTP/1.1\r\nHost: switch\r\n\r\n",         Fault.NOT_TLS),
        (b"\x00" * 64,                                      Fault.NOT_TLS),
        (b"\x16\x03\x01\xff\xff" + bytes(1000),             Fault.NOT_TLS),
        (b"\x16\x03\x01\x00\x10" + bytes(16),               Fault.BROKEN),
        (b"\x15\x03\x03\x00\x02\x02\x28",                   Fault.BROKEN),
        (HELLO_OF_NOBODY,                                   Fault.VANISHED),
        (b"",                                               Fault.VANISHED),
    ],
    ids=["http", "zeros", "record too long", "no client hello", "alert", "cut short", "nothing"],
)  # fmt: skip
async def test_garbage_is_named(staged: Callable[..., object], data: bytes, fault: Fault) -> None:
    async with staged() as stage:
        stage.start()
        client = stage.begin()
        client.socket.sendall(data)
        client.socket.shutdown(socket.SHUT_WR)
        await stage.until(lambda: len(stage.ended) == 1)
        failure = stage.ended[0].failure
        assert isinstance(failure, ChannelError)
        assert failure.fault is fault
