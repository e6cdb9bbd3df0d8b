"""TlsStream as a Trio stream: concurrency, cancellation, size, and every way in which an end can come."""

import random
from collections.abc import Callable

import pytest
import trio
import trio.testing

from fengshou.hsm.channel import ChannelError, Fault, TlsStream, client_context, terminal_server_context

from .conftest import SWITCH_NAME, Channel, Network

OverChannel = Callable[[Channel], None]


async def read_exactly(stream: TlsStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await stream.receive_some()
        assert part, "the stream ended early"
        data += part
    return data


def test_trio_own_stream_suite_holds(network: Network) -> None:
    """Trio's generic checks of a two-way stream: conflicts, closing, checkpoints, cancelled calls."""
    server = terminal_server_context(network.switch(), network.trust)
    client = client_context(network.terminal(), network.trust)

    async def join(left: trio.abc.Stream, right: trio.abc.Stream) -> tuple[TlsStream, TlsStream]:
        switch, terminal = TlsStream.server(left, server), TlsStream.client(right, client, SWITCH_NAME)

        async def take_tickets() -> None:
            await terminal.do_handshake()
            await terminal.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_tickets)
            await switch.do_handshake()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return switch, terminal

    async def make() -> tuple[TlsStream, TlsStream]:
        return await join(*trio.testing.memory_stream_pair())

    async def make_clogged() -> tuple[TlsStream, TlsStream]:
        return await join(*trio.testing.lockstep_stream_pair())

    async def main() -> None:
        with trio.fail_after(20):
            await trio.testing.check_two_way_stream(make, make_clogged)

    trio.run(main)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 1_000_003, 8_000_000])
def test_large_and_small_transfers_arrive_whole(over_channel: OverChannel, size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.send_all, data)
            assert await read_exactly(switch, size) == data

    over_channel(body)


def test_both_directions_at_once(over_channel: OverChannel) -> None:
    data = random.Random(1).randbytes(2_000_000)

    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        async def check(stream: TlsStream) -> None:
            assert await read_exactly(stream, len(data)) == data

        async with trio.open_nursery() as nursery:
            for end in (switch, terminal):
                nursery.start_soon(end.send_all, data)
                nursery.start_soon(check, end)

    over_channel(body)


def test_bytes_in_transit_show_nothing(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        pipe = terminal.transport.send_stream  # type: ignore[attr-defined]
        pipe.send_all_hook = None
        await terminal.send_all(b"account 6231722254919298906")
        seen = pipe.get_data_nowait()
        assert b"6231722254919298906" not in seen
        switch.transport.receive_stream.put_data(seen)  # type: ignore[attr-defined]
        assert await switch.receive_some() == b"account 6231722254919298906"

    over_channel(body)


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_receive_some_gives_no_more_than_asked(over_channel: OverChannel, limit: int) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        await terminal.send_all(b"abc")
        got = await switch.receive_some(limit)
        assert got == b"abc"[:limit]
        assert got + await read_exactly(switch, 3 - len(got)) == b"abc"
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="max_bytes"):
                await switch.receive_some(wrong)

    over_channel(body)


def test_two_senders_or_two_receivers_conflict(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(switch.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await switch.receive_some()
            await switch.send_all(b"sending is another direction")
            nursery.cancel_scope.cancel()

    over_channel(body)


def test_a_cancelled_receive_loses_nothing(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        for number in range(20):
            with trio.move_on_after(0) as scope:
                await switch.receive_some()
            assert scope.cancelled_caught
            await terminal.send_all(bytes((number,)) * 10)
            assert await read_exactly(switch, 10) == bytes((number,)) * 10

    over_channel(body)


def test_a_cancelled_send_breaks_the_channel(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        async def stall() -> None:
            await trio.sleep_forever()

        switch.transport.send_stream.send_all_hook = stall  # type: ignore[attr-defined]
        with trio.move_on_after(0.01):
            await switch.send_all(b"half a record")
        with pytest.raises(trio.BrokenResourceError):
            await switch.send_all(b"more")
        with pytest.raises(trio.BrokenResourceError):
            await switch.receive_some()
        await switch.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await switch.send_all(b"more")

    over_channel(body)


def test_close_notify_is_an_orderly_end(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        await terminal.send_all(b"last words")
        await terminal.aclose()
        assert await switch.receive_some() == b"last words"
        assert await switch.receive_some() == b""
        assert await switch.receive_some() == b""
        await switch.aclose()
        await switch.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await terminal.receive_some()

    over_channel(body)


def test_after_the_peer_half_closed_we_can_still_answer(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        await terminal.send_all(b"request")
        terminal._connection.shutdown()
        await terminal._flush()
        assert await read_exactly(switch, 7) == b"request"
        assert await switch.receive_some() == b""
        await switch.send_all(b"answer")
        assert await read_exactly(terminal, 6) == b"answer"

    over_channel(body)


def test_an_end_without_close_notify_is_a_fault(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        await terminal.send_all(b"cut")
        await trio.aclose_forcefully(terminal.transport)
        assert await switch.receive_some() == b"cut"
        with pytest.raises(ChannelError) as end:
            await switch.receive_some()
        assert end.value.fault is Fault.VANISHED
        with pytest.raises(trio.BrokenResourceError):
            await switch.send_all(b"anybody?")
        await switch.aclose()

    over_channel(body)


def test_a_peer_that_is_gone_breaks_sending(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        await trio.aclose_forcefully(terminal.transport)
        with pytest.raises(trio.BrokenResourceError):
            await switch.send_all(b"anybody?")
        await switch.aclose()

    over_channel(body)


def test_closing_wakes_the_receiver(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await switch.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await switch.aclose()

    over_channel(body)


def test_closing_does_not_wait_for_a_peer_that_never_reads(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        async def stall() -> None:
            await trio.sleep_forever()

        switch.transport.send_stream.send_all_hook = stall  # type: ignore[attr-defined]
        with trio.move_on_after(0.01) as scope:
            await switch.aclose()
        assert scope.cancelled_caught
        with pytest.raises(trio.ClosedResourceError):
            await switch.transport.send_all(b"x")

    over_channel(body)


def test_no_bit_of_a_record_can_change(over_channel: OverChannel) -> None:
    """One flipped bit in each fifth byte of a record: never the data, always the fault."""
    length: list[int] = []

    def flip(at: int) -> Channel:
        async def body(switch: TlsStream, terminal: TlsStream) -> None:
            pipe = terminal.transport.send_stream  # type: ignore[attr-defined]
            pipe.send_all_hook = None
            await terminal.send_all(b"6 kg of tea")
            record = pipe.get_data_nowait()
            length.append(len(record))
            record[at] ^= 1
            switch.transport.receive_stream.put_data(record)  # type: ignore[attr-defined]
            switch.transport.receive_stream.put_eof()  # type: ignore[attr-defined]
            with pytest.raises(ChannelError):
                assert await switch.receive_some() == "never"

        return body

    over_channel(flip(0))
    for at in range(1, length[0], 5):
        over_channel(flip(at))


def test_a_replayed_record_is_a_fault(over_channel: OverChannel) -> None:
    async def body(switch: TlsStream, terminal: TlsStream) -> None:
        pipe = terminal.transport.send_stream  # type: ignore[attr-defined]
        pipe.send_all_hook = None
        await terminal.send_all(b"pay once")
        record = pipe.get_data_nowait()
        switch.transport.receive_stream.put_data(record + record)  # type: ignore[attr-defined]
        assert await switch.receive_some() == b"pay once"
        with pytest.raises(ChannelError):
            await switch.receive_some()

    over_channel(body)


def test_nothing_is_said_before_the_handshake(network: Network) -> None:
    async def main() -> None:
        left, _ = trio.testing.memory_stream_pair()
        switch = TlsStream.server(left, terminal_server_context(network.switch(), network.trust))
        for use in (lambda: switch.send_all(b"x"), switch.receive_some):
            with pytest.raises(RuntimeError, match="handshake"):
                await use()
        with pytest.raises(RuntimeError, match="handshake"):
            switch.binding  # noqa: B018
        await switch.aclose()

    trio.run(main)


def test_a_cancelled_handshake_leaves_nothing_behind(network: Network) -> None:
    server = terminal_server_context(network.switch(), network.trust)

    async def main() -> None:
        left, right = trio.testing.memory_stream_pair()
        switch = TlsStream.server(left, server)
        with trio.move_on_after(5) as scope:
            await switch.do_handshake()
        assert scope.cancelled_caught
        await switch.aclose()
        assert await right.receive_some() == b""

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_fifty_channels_in_one_thread(network: Network) -> None:
    server = terminal_server_context(network.switch(), network.trust)
    client = client_context(network.terminal(), network.trust)

    async def serve(stream: trio.SocketStream) -> None:
        async with TlsStream.server(stream, server) as switch:
            await switch.do_handshake()
            while data := await switch.receive_some():
                await switch.send_all(data)

    async def visit(port: int, number: int) -> None:
        data = random.Random(number).randbytes(1000 * number + 1)
        async with TlsStream.client(await trio.open_tcp_stream("127.0.0.1", port), client, SWITCH_NAME) as terminal:
            await terminal.do_handshake()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(terminal.send_all, data)
                assert await read_exactly(terminal, len(data)) == data

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            port = listener.socket.getsockname()[1]
            async with trio.open_nursery() as visitors:
                for number in range(50):
                    visitors.start_soon(visit, port, number)
            nursery.cancel_scope.cancel()

    trio.run(main)
