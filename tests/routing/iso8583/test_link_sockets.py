"""The link over sockets of the system, which take a batch at once, or a part of it, or nothing."""

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import trio

from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import HostFormat
from fengshou.routing.destination import Failure
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.routing.iso8583_wire import drain
from tests.routing.iso8583.scripted import CODEC, Ends, answer_to, outbound, until

CALLS = 500  # some 40 KiB, more than the socket takes


class Host:
    """The other end of a socket that takes few bytes. It reads when it is told to."""

    def __init__(self) -> None:
        link_end, host_end = socket.socketpair()
        link_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._link_end = link_end
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(host_end))
        self._buffer = bytearray()
        self._connected = False

    async def connect(self) -> trio.abc.Stream:
        if self._connected:
            raise ConnectionRefusedError
        self._connected = True
        return trio.SocketStream(trio.socket.from_stdlib_socket(self._link_end))

    async def read(self) -> list[Fields]:
        """What was read until there was a whole message; nothing at the end of the stream, or after its own end."""
        with suppress(trio.ClosedResourceError):
            while data := await self.stream.receive_some(1000):
                self._buffer += data
                if messages := list(drain(CODEC, self._buffer)):
                    return messages
        return []

    async def answer(self, requests: list[Fields]) -> None:
        await self.stream.send_all(b"".join(map(answer_to, requests)))


def play(scenario: Callable[[Host, Iso8583Link, Ends], Awaitable[None]]) -> tuple[Ends, list[Fields]]:
    """Run the scenario on a line that is up; then end the link, and give what else the host heard of it."""

    async def main() -> tuple[Ends, list[Fields]]:
        host, ends = Host(), Ends()
        link = Iso8583Link("core", [host.connect], HostFormat(), Random(7), now_us=lambda: 0)
        async with trio.open_nursery() as running:
            running.start_soon(link.run, ends)
            await host.answer(await host.read())
            await until(lambda: link.up)
            await scenario(host, link, ends)
            running.cancel_scope.cancel()
        rest: list[Fields] = []
        while messages := await host.read():
            rest += messages
        await host.stream.aclose()
        return ends, rest

    return trio.run(main)


def test_a_batch_has_left_when_it_was_handed_over() -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        link.submit([outbound(rrn, trio.current_time() + 60) for rrn in (1, 2)])
        assert link.sent == 2
        requests = await host.read()
        assert [request[37] for request in requests] == ["000000000001", "000000000002"]
        await host.answer(requests)
        await until(lambda: ends.results == {1: "00", 2: "00"})

    play(scenario)


def test_what_the_socket_does_not_take_follows_in_order() -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        deadline = trio.current_time() + 60
        link.submit([outbound(rrn, deadline) for rrn in range(1, CALLS + 1)])
        link.submit([outbound(CALLS + 1, deadline)])
        assert link.sent == CALLS, "it waits behind what is being sent"
        heard: list[object] = []
        while len(heard) <= CALLS:
            requests = await host.read()
            heard += [request[37] for request in requests]
            await host.answer(requests)
        assert heard == [f"{rrn:012d}" for rrn in range(1, CALLS + 2)]
        await until(lambda: len(ends.results) == CALLS + 1)
        assert set(ends.results.values()) == {"00"}

    play(scenario)


def test_in_the_middle_of_a_message_there_is_no_sign_off() -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        link.submit([outbound(rrn, trio.current_time() + 60) for rrn in range(1, CALLS + 1)])

    ends, rest = play(scenario)
    assert set(ends.results.values()) == {Failure.UNKNOWN}
    assert 0 < len(rest) < CALLS, "the socket took a part"
    assert {message[0] for message in rest} == {"0200"}


def test_a_line_that_ends_in_order_signs_off() -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        link.submit([outbound(1, trio.current_time() + 60)])

    _, rest = play(scenario)
    assert [(message[0], message.get(70)) for message in rest] == [("0200", None), ("0800", "002")]


def test_a_batch_for_a_host_that_is_gone_ends() -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        await host.stream.aclose()
        link.submit([outbound(1, trio.current_time() + 60)])
        await until(lambda: ends.results == {1: Failure.UNKNOWN})
        assert not link.up
        link.submit([outbound(2, trio.current_time() + 60)])
        await until(lambda: ends.results.get(2) is Failure.UNAVAILABLE)

    play(scenario)
