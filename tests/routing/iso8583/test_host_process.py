"""Link, server and embedded host as real processes over real TCP: cut, killed, stopped, and the books still agree."""

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from fengshou.ext.hosts.core_banking import ledger_report
from fengshou.protocol.iso8583 import HostFormat
from fengshou.protocol.service import Iso8583Call
from fengshou.routing.connect import Connect
from fengshou.routing.destination import Failure, Outbound, Trace
from fengshou.routing.iso8583_link import Iso8583Link
from tests.routing.iso8583.scripted import CODEC, RECEIVED_US, Ends, until

BUYER, FARMER = "6230000000000001", "6230000000000002"
OPENING_FEN = 10_000_000
AMOUNT_FEN = 100

HOST = """
import sys
from fengshou.ext.hosts.core_banking import Application
from fengshou.routing.iso8583_server import run_iso8583_server
database, accounts = sys.argv[1:]
run_iso8583_server(
    Application({"database": database, "accounts": accounts}), "127.0.0.1", 0, lambda at: print(at[1], flush=True)
)
"""


class HostProcess:
    """The embedded host; may be killed and started again over the same books."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "ledger.db"
        self._accounts = folder / "accounts.csv"
        self._accounts.write_text(
            f"number,name,kind,opening_fen\n{BUYER},buyer,account,{OPENING_FEN}\n{FARMER},farmer,account,0\n", "utf-8"
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, str(self.database), str(self._accounts)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """Exit code and what it said of errors."""
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors

    async def connect(self) -> trio.abc.Stream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    process = HostProcess(tmp_path)
    yield process
    process.end(signal.SIGKILL)


@asynccontextmanager
async def linked(connects: Sequence[Connect], ends: Ends, **options: int) -> AsyncIterator[Iso8583Link]:
    link = Iso8583Link("core", connects, HostFormat(), Random(7), **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, ends)
        await until(lambda: link.up)
        yield link
        nursery.cancel_scope.cancel()


def purchase(rrn: int, *, repeat: bool = False, seconds: float = 20.0) -> Outbound:
    trace = Trace(rrn, RECEIVED_US, f"POS{rrn % 50:05d}", "MERCHANT0000001", 1020000, repeat=repeat)
    fields = {3: "000000", 4: f"{AMOUNT_FEN:012d}", 102: BUYER, 103: FARMER}
    return Outbound(rrn, Iso8583Call(200, fields), trace, trio.current_time() + seconds)


def assert_each_once(database: Path, rrns: Sequence[int]) -> None:
    report = ledger_report(database)
    assert report["balanced"]
    assert report["by_processing_code"] == {"00": {"count": len(rrns), "fen": AMOUNT_FEN * len(rrns)}}
    assert sorted(report["transactions"]) == [f"{rrn:012d}" for rrn in sorted(rrns)]


async def test_many_calls_on_several_lines_each_post_once(host: HostProcess) -> None:
    ends = Ends()
    rrns = range(1, 3_001)
    async with linked([host.connect] * 3, ends) as link:
        await until(lambda: len(link._lines) == 3 and all(line.up for line in link._lines))
        for first in range(1, 3_001, 250):
            link.submit([purchase(rrn) for rrn in range(first, first + 250)])
            await trio.sleep(0)
        await until(lambda: len(ends.results) == len(rrns))
        assert all(line.sent for line in link._lines), "every line carried some"
    assert set(ends.results.values()) == {"00"}
    assert_each_once(host.database, rrns)


async def repeat_until_certain(link: Iso8583Link, ends: Ends) -> None:
    """Send what has no reply again, as the switch does, until everything has one."""
    with trio.fail_after(60):
        while open_rrns := [rrn for rrn, result in ends.results.items() if isinstance(result, Failure)]:
            for rrn in open_rrns:
                del ends.results[rrn]
            count = len(ends.results) + len(open_rrns)
            link.submit([purchase(rrn, repeat=True) for rrn in open_rrns])
            await until(lambda: len(ends.results) == count)  # noqa: B023
            await trio.sleep(0.02)


async def test_a_host_killed_in_the_middle_of_batches_posts_each_once(host: HostProcess) -> None:
    ends = Ends()
    rrns = range(1, 2_001)
    async with linked([host.connect] * 2, ends) as link:
        kills = 0
        for first in range(1, 2_001, 100):
            link.submit([purchase(rrn) for rrn in range(first, first + 100)])
            if first % 500 == 401:
                await trio.sleep(0.002 * (1 + kills))  # each time at another instruction
                host.end(signal.SIGKILL)
                await trio.to_thread.run_sync(host.start)
                kills += 1
        await until(lambda: len(ends.results) == len(rrns))
        unknown = sum(result is Failure.UNKNOWN for result in ends.results.values())
        assert unknown > 0, "the kills hit calls on their way"
        assert ledger_report(host.database)["balanced"]
        await repeat_until_certain(link, ends)
        assert kills == 4
    assert set(ends.results.values()) == {"00"}
    assert_each_once(host.database, rrns)


class CuttingProxy:
    """Stands between link and host and cuts each connection after so many bytes, in either direction."""

    def __init__(self, target: HostProcess, random: Random, cuts: int) -> None:
        self._target = target
        self._random = random
        self.cuts_left = cuts

    async def serve(self, client: trio.SocketStream) -> None:
        budget = [self._random.randrange(300, 30_000) if self.cuts_left > 0 else sys.maxsize]
        self.cuts_left -= 1
        upstream = await trio.open_tcp_stream("127.0.0.1", self._target.port)
        async with client, upstream, trio.open_nursery() as nursery:
            nursery.start_soon(self._pipe, client, upstream, budget, nursery.cancel_scope)
            nursery.start_soon(self._pipe, upstream, client, budget, nursery.cancel_scope)

    async def _pipe(
        self, source: trio.SocketStream, target: trio.SocketStream, budget: list[int], scope: trio.CancelScope
    ) -> None:
        try:
            while data := await source.receive_some(4096):
                allowed = data[: budget[0]]
                budget[0] -= len(allowed)
                await target.send_all(allowed)
                if budget[0] == 0:
                    break
        except trio.BrokenResourceError:
            pass
        scope.cancel()


async def test_connections_cut_anywhere_post_each_once(host: HostProcess) -> None:
    ends = Ends()
    rrns = range(1, 1_001)
    proxy = CuttingProxy(host, Random(11), cuts=12)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with linked([partial(trio.open_tcp_stream, "127.0.0.1", port)] * 2, ends) as link:
            for rrn in rrns:
                link.submit([purchase(rrn)])
                await trio.sleep(0.001)
            await until(lambda: len(ends.results) == len(rrns))
            await repeat_until_certain(link, ends)
            assert link.lost > 3
        nursery.cancel_scope.cancel()
    assert set(ends.results.values()) == {"00"}
    assert_each_once(host.database, rrns)


async def test_a_stop_answers_everything_that_was_read(host: HostProcess) -> None:
    ends = Ends()
    async with linked([host.connect], ends) as link:
        link.submit([purchase(rrn) for rrn in range(1, 501)])
        await until(lambda: len(ends.results) > 0)
        code, errors = await trio.to_thread.run_sync(host.end, signal.SIGTERM)
        await until(lambda: len(ends.results) == 500)
    assert (code, errors) == (0, "")
    answered = [rrn for rrn, result in ends.results.items() if result == "00"]
    assert_each_once(host.database, answered)
    assert set(ends.results.values()) <= {"00", Failure.UNKNOWN, Failure.UNAVAILABLE}


@contextmanager
def raw(host: HostProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", host.port), timeout=10) as connection:
        yield connection


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x04abcd"],
)
async def test_a_peer_that_is_not_understood_is_let_go_and_others_are_served(host: HostProcess, garbage: bytes) -> None:
    ends = Ends()
    with raw(host) as bad:
        bad.sendall(garbage)
        async with linked([host.connect], ends) as link:
            link.submit([purchase(1)])
            await until(lambda: ends.results == {1: "00"})
        with trio.fail_after(10):
            while await trio.to_thread.run_sync(bad.recv, 100):
                pass


async def test_peers_that_never_speak_or_never_read_stop_nobody(host: HostProcess) -> None:
    silent = [socket.create_connection(("127.0.0.1", host.port)) for _ in range(100)]
    deaf = socket.create_connection(("127.0.0.1", host.port))
    deaf.setblocking(False)
    enquiry = CODEC.frame(
        {
            0: "0200",
            3: "310000",
            7: "1124135959",
            11: "000001",
            32: "01020000",
            37: f"{1:012d}",
            41: "POS00001",
            102: BUYER,
        }
    )
    ends = Ends()
    async with linked([host.connect], ends) as link:
        flood = enquiry * 500
        for _ in range(200):  # until the host takes no more from who reads nothing
            try:
                deaf.send(flood)
            except BlockingIOError:
                break
            await trio.sleep(0.002)
        link.submit([purchase(rrn) for rrn in range(1, 101)])
        await until(lambda: len(ends.results) == 100)
    assert set(ends.results.values()) == {"00"}
    for each in (*silent, deaf):
        each.close()


def test_a_port_that_is_taken_is_an_error(host: HostProcess, tmp_path: Path) -> None:
    script = HOST.replace('"127.0.0.1", 0', f'"127.0.0.1", {host.port}')
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "other.db"), str(tmp_path / "accounts.csv")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    assert "OSError" in ended.stderr
