"""Connections on their way to a worker, over real sockets."""

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from fengshou.switch.affinity import worker_of
from fengshou.switch.dispatch import Dispatcher
from fengshou.terminals.accepting import HANDED, Bound, Handed
from fengshou.terminals.listener import ListenerLimits
from tests.terminals.test_client_hello import hello

OF_FIRST, OF_SECOND = (
    next(name for name in map("fs{:06d}".format, range(100)) if worker_of(name, 2) == worker) for worker in range(2)
)
NAMES = ("fs000001", "fs000002", "fs000003", "fs000004")


class Worker:
    """The far end of a line, as a worker reads it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs = theirs
        theirs.setblocking(False)
        self.taken: list[socket.socket] = []
        self.stuck = False

    async def hand(self, sock: socket.socket) -> None:
        if self.stuck:
            await trio.sleep_forever()
        socket.send_fds(self._line, [HANDED], [sock.fileno()])

    async def run(self) -> None:
        await Handed(self._theirs, ("", 0)).each(self.taken.append, trio.lowlevel.checkpoint, Counter())

    def close(self) -> None:
        for sock in (self._line, self._theirs, *self.taken):
            sock.close()


class Stage:
    def __init__(self, dispatcher: Dispatcher, workers: list[Worker], address: tuple[str, int]) -> None:
        self.dispatcher = dispatcher
        self.workers = workers
        self.address = address
        self.dialled: list[trio.socket.SocketType] = []

    async def dial(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream(*self.address)
        self.dialled.append(stream.socket)
        return stream

    async def taken(self, count: int) -> list[tuple[int, bytes]]:
        """The worker of each connection, and what it finds in it, once there are so many."""
        with trio.fail_after(10):
            while sum(len(worker.taken) for worker in self.workers) < count:
                await trio.sleep(0.01)
        return [
            (number, sock.recv(65536, socket.MSG_PEEK))
            for number, worker in enumerate(self.workers)
            for sock in worker.taken
        ]


@asynccontextmanager
async def staged(handshakes: int = 100, handshake_s: float = 10.0) -> AsyncIterator[Stage]:
    source, workers = Bound("127.0.0.1", 0), [Worker(), Worker()]
    dispatcher = Dispatcher(source, workers, ListenerLimits(handshakes=handshakes, handshake_s=handshake_s))
    stage = Stage(dispatcher, workers, source.address)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatcher.run)
            for worker in workers:
                nursery.start_soon(worker.run)
            yield stage
            nursery.cancel_scope.cancel()
    finally:
        for part in (*workers, *stage.dialled):
            part.close()


async def test_a_connection_comes_whole_to_the_worker_of_its_name() -> None:
    async with staged() as stage:
        streams = [await stage.dial() for _ in NAMES]
        for stream, name in zip(streams, NAMES, strict=True):
            await stream.send_all(hello(name))
        found = await stage.taken(len(NAMES))
        assert sorted(number for number, _ in found) == sorted(worker_of(name, 2) for name in NAMES)
        for number, data in found:
            assert any(name.encode() in data and worker_of(name, 2) == number for name in NAMES)


async def test_who_sends_byte_by_byte_holds_up_nobody() -> None:
    async with staged() as stage:
        slow, name = await stage.dial(), NAMES[0]
        said = hello(name)
        for at in range(len(said) - 1):
            await slow.send_all(said[at : at + 1])
        quick = await stage.dial()
        await quick.send_all(hello(NAMES[1]))
        [(_, first)] = await stage.taken(1)
        assert first != said
        await slow.send_all(said[-1:])
        assert (worker_of(name, 2), said) in await stage.taken(2)


async def test_what_names_nobody_is_for_the_first_worker() -> None:
    async with staged() as stage:
        for data in (hello(), b"GET / HTTP/1.1\r\n\r\n", bytes(5)):
            await (await stage.dial()).send_all(data)
        assert [number for number, _ in await stage.taken(3)] == [0, 0, 0]


async def test_the_silent_run_out_of_time_and_the_oldest_makes_room() -> None:
    async with staged(handshakes=4, handshake_s=0.5) as stage:
        silent = [await stage.dial() for _ in range(6)]
        for stream in silent:
            with trio.fail_after(10):
                assert await stream.receive_some() == b""
        refused = stage.dispatcher.refused
        assert refused == {"handshake dropped for a newer one": 2, "handshake timed out": 4}


async def test_who_goes_before_the_end_of_its_hello_is_counted() -> None:
    async with staged() as stage:
        stream = await stage.dial()
        await stream.send_all(hello(NAMES[0])[:40])
        await stream.send_eof()
        with trio.fail_after(10):
            while not stage.dispatcher.refused["connection lost"]:
                await trio.sleep(0.01)
        assert not any(worker.taken for worker in stage.workers)


async def test_a_worker_that_takes_nothing_keeps_nobody_from_the_others() -> None:
    async with staged(handshakes=3, handshake_s=60) as stage:
        stage.workers[0].stuck = True
        for _ in range(5):
            await (await stage.dial()).send_all(hello(OF_FIRST))
        with trio.fail_after(10):
            while stage.dispatcher.refused["worker busy"] < 2:
                await trio.sleep(0.01)
        await (await stage.dial()).send_all(hello(OF_SECOND))
        assert [number for number, _ in await stage.taken(1)] == [1]
