"""The link to an ISO 8583 host: CPU of the switch's end, from calls handed over to their completions.

The real link over a pair of sockets. The other end is a process whose answers were made beforehand. What is counted is
the CPU of the link's own thread, event loop and sockets with it. Batches go one after another: as large as those of a
saturated pipeline, and small ones, which pay for the event loop.
"""

import itertools
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import trio

from bench.figures import Figure
from fengshou.codecs import Iso8583Codec
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import KEY_CHANGE, HostFormat, answer_mti
from fengshou.protocol.service import Iso8583Call
from fengshou.routing.connect import Connect
from fengshou.routing.destination import Completion, Outbound, Trace
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.routing.iso8583_mac import codecs_for_batches
from fengshou.routing.iso8583_matching import request_fields
from fengshou.routing.iso8583_wire import network_answer
from fengshou.routing.zone_keys import ZoneHost, ZoneKeys
from fengshou.switch.zones import found_zone

LARGE, SMALL = 64, 8
_ROUNDS = 5
_RECEIVED_US = 1_763_963_999_000_000
_NAME = "core-banking"
_DEADLINE_S = 5.0


def _calls(count: int) -> list[tuple[Iso8583Call, Trace]]:
    """Farm purchases, as the service asks the host for them."""
    fields: Fields = {
        3: "000000", 4: "000001158000", 12: "072150", 13: "0612", 15: "0612", 22: "012", 25: "00",
        48: "FARM 1.3.2 12000*9650", 102: "9156001004000000011", 103: "9156001004001187857",
    }  # fmt: skip
    return [
        (
            Iso8583Call(200, dict(fields)),
            Trace(632_800_000_000 + number, _RECEIVED_US, f"FS{number % 200:06d}", "999452007630001", 99_904_520),
        )
        for number in range(1, count + 1)
    ]


def _answer(request: Fields) -> Fields:
    repeated = {number: request[number] for number in (3, 4, 7, 11, 32, 37, 41, 49, 53) if number in request}
    return {0: answer_mti(str(request[0])), 38: "004711", 39: "00", **repeated}


def _serve(sock: socket.socket, zone: ZoneHost, answers: Sequence[bytes]) -> None:
    """The other end. Signs on and takes keys by the book; each further request is given the next prepared answer."""
    codec = Iso8583Codec(HostFormat())
    prepared = itertools.cycle(answers)

    def reply(message: bytes) -> bytes:
        if message[0] != 0x08:
            return next(prepared)
        request = codec.decode(message)
        told = zone.take(request) if request[70] == KEY_CHANGE else None
        return codec.frame(network_answer(request, told))

    buffer = b""
    with suppress(OSError):  # the link is gone
        while data := sock.recv(1 << 20):
            messages, used = codec.split(buffer + data)
            buffer = (buffer + data)[used:]
            sock.sendall(b"".join(map(reply, messages)))


class _Ends:
    """The sink: counts, and wakes who waits for the batch."""

    def __init__(self) -> None:
        self.open = 0
        self.done = trio.Event()

    def __call__(self, completions: Sequence[Completion]) -> None:
        self.open -= len(completions)
        if self.open == 0:
            self.done.set()


async def _run(connect: Connect, keys: ZoneKeys, mac: bool, sizes: Sequence[int], count: int) -> list[float]:
    """µs a transaction for each size of batch: the least of the rounds."""
    link = Iso8583Link(_NAME, [connect], HostFormat(), Random(7), zone=keys, mac=mac)
    ends = _Ends()
    calls = _calls(count)
    found = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, ends)
        while not link.up:
            await trio.sleep(0.001)
        for size in sizes:
            rounds = []
            for _ in range(_ROUNDS):
                spent = 0
                for start in range(0, count, size):
                    deadline = trio.current_time() + _DEADLINE_S
                    batch = [Outbound(None, call, trace, deadline) for call, trace in calls[start : start + size]]
                    ends.open, ends.done = len(batch), trio.Event()
                    before = time.thread_time_ns()
                    link.submit(batch)
                    await ends.done.wait()
                    spent += time.thread_time_ns() - before
                rounds.append(spent / count / 1000)
            found.append(min(rounds))
        assert link.answered == _ROUNDS * count * len(sizes), "every call is answered, and every answer is believed"
        nursery.cancel_scope.cancel()
    return found


def _measure(folder: Path, mac: bool, sizes: Sequence[int], count: int) -> list[float]:
    custody, host_custody = SoftwareCustody.initialise(folder / "switch"), SoftwareCustody.initialise(folder / "host")
    found_zone(custody, host_custody, _NAME)
    keys, zone = ZoneKeys(custody, _NAME), ZoneHost(host_custody)
    for key in keys.accepted():
        keys.hear(key, zone.take(keys.change(key)))
    codec = codecs_for_batches(HostFormat(), zone if mac else None)()
    answers = [codec.frame(_answer(request_fields(call, trace))) for call, trace in _calls(count)]
    here, there = socket.socketpair()
    host = get_context("fork").Process(target=_serve, args=(there, zone, answers), daemon=True)
    host.start()
    there.close()

    async def connect() -> trio.abc.Stream:
        return trio.SocketStream(trio.socket.from_stdlib_socket(here))

    try:
        return trio.run(_run, connect, keys, mac, sizes, count)
    finally:
        host.kill()
        host.join()


def figures(seconds: float) -> list[Figure]:
    """CPU of one call and its answer, in microseconds."""
    count = max(LARGE, round(seconds * 2000) // LARGE * LARGE)
    found = []
    for mac, key, what in ((True, "mac", "with MACs"), (False, "plain", "without MACs")):
        with TemporaryDirectory() as folder:
            values = _measure(Path(folder), mac, (LARGE, SMALL), count)
        found += [
            Figure(key=f"link.{key}.{size}", what=f"{what}, batches of {size}", value=value, unit="µs/transaction")
            for size, value in zip((LARGE, SMALL), values, strict=True)
        ]
    return found
