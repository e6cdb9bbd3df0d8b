"""The peer of the whole switch: what a programmer would write in an afternoon, and the load for it.

``python -m bench.bare switch PORT HOST_PORT`` takes ISO 8583 requests from terminals on uvloop, gives each a number of
its own, forwards it to the core-banking host and returns the answer. It knows no TLS, no signature, no registry, no
journal, no duplicates and no reversals, so what it saves against Fengshou is what those cost.

``python -m bench.bare host PORT`` is a host that approves and keeps nothing.

``python -m bench.bare load PORT SECONDS IN_FLIGHT CONNECTIONS`` keeps that many requests going over that many
connections and prints how many were answered, a line at a time.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from typing import cast

import iso8583
import uvloop

from bench import purchase
from fengshou.codecs import Iso8583Codec
from fengshou.ext.hosts.approver import Application
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import HostFormat
from fengshou.routing.iso8583_server import run_iso8583_server

_LOCALHOST = "127.0.0.1"
_PROGRESS_S = 0.05
BUYER, FARMER = "9020000000104729", "9156001004001187857"


class Framed(asyncio.Protocol):
    """Messages behind a length of two bytes."""

    def __init__(self, received: Callable[["Framed", bytes], None]) -> None:
        self._received = received
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        data, at = self._rest + data, 0
        while len(data) >= at + 2 and len(data) >= (end := at + 2 + int.from_bytes(data[at : at + 2], "big")):
            self._received(self, data[at + 2 : end])
            at = end
        self._rest = data[at:]

    def send(self, message: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(len(message).to_bytes(2, "big") + message)


async def switch(port: int, host_port: int) -> None:
    spec = purchase.pyiso8583_spec()
    numbers = itertools.count(int(time.time()) * 100 % 10**11)
    waiting: dict[str, tuple[Framed, str, str]] = {}

    def from_terminal(connection: Framed, data: bytes) -> None:
        fields, _ = iso8583.decode(data, spec)
        rrn = f"{next(numbers):012d}"
        waiting[rrn] = connection, fields["11"], fields["37"]
        fields["11"], fields["37"] = rrn[-6:], rrn
        message, _ = iso8583.encode(fields, spec)
        to_host.send(message)

    def from_host(_: Framed, data: bytes) -> None:
        fields, _ = iso8583.decode(data, spec)
        connection, fields["11"], fields["37"] = waiting.pop(fields["37"])
        message, _ = iso8583.encode(fields, spec)
        connection.send(message)

    loop = asyncio.get_running_loop()
    _, to_host = await loop.create_connection(lambda: Framed(from_host), _LOCALHOST, host_port)
    server = await loop.create_server(lambda: Framed(from_terminal), _LOCALHOST, port)
    print("ready", flush=True)
    await server.serve_forever()


async def load(port: int, seconds: float, in_flight: int, connections: int) -> None:
    codec = Iso8583Codec(HostFormat())
    numbers = itertools.count(1)
    answered, refused = 0, 0
    end = float("inf")

    def begin(connection: Framed) -> None:
        number = next(numbers)
        fields: Fields = {
            **purchase.HOST_FIELDS, 11: f"{number % 10**6:06d}", 37: f"{number:012d}", 102: BUYER, 103: FARMER,
        }  # fmt: skip
        connection.send(codec.encode(fields))

    def received(connection: Framed, data: bytes) -> None:
        nonlocal answered, refused
        answered += 1
        refused += codec.decode(data)[39] != "00"
        if time.perf_counter() < end:
            begin(connection)

    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Framed(received), _LOCALHOST, port) for _ in range(connections)]
    end = time.perf_counter() + seconds
    for _, connection in made * (in_flight // connections):
        begin(connection)
    while time.perf_counter() < end:
        await asyncio.sleep(_PROGRESS_S)
        print(answered, flush=True)
    if refused:
        sys.exit(f"{refused} of {answered} were refused: the comparison would not be fair")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["switch", port, host_port]:
            uvloop.run(switch(int(port), int(host_port)))
        case ["host", port]:
            run_iso8583_server(Application({}), _LOCALHOST, int(port), lambda _: print("ready", flush=True))
        case ["load", port, seconds, in_flight, connections]:
            uvloop.run(load(int(port), float(seconds), int(in_flight), int(connections)))
        case _:
            sys.exit(__doc__)
