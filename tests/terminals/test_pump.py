"""Pump and listener on real sockets: frames cut anywhere, many in a record, slow readers, silence, descriptors."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from OpenSSL import SSL

from fengshou.codecs import DirectConnection, MessageCodec
from fengshou.hsm.channel import Fault, TlsStream
from fengshou.protocol import elements as de
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.session import Event, State
from fengshou.protocol.templates import ECHO, RECEIPT
from fengshou.terminals.accepting import Bound
from fengshou.terminals.listener import Listener, ListenerLimits
from fengshou.terminals.pump import Closing, Peer, Pump, PumpLimits
from tests.terminals.conftest import GRAMMAR, Network

CODEC = MessageCodec(GRAMMAR)
_PUMP_LIMITS, _LISTENER_LIMITS = PumpLimits(), ListenerLimits()


def echo(sequence: int) -> bytes:
    return CODEC.encode(Message(ECHO.id, 0, sequence))


def big_answer(sequence: int) -> bytes:
    """About as long as an answer can be."""
    values = {de.RESPONSE_CODE: "00", de.RECORD: bytes(2048), de.AUDIT_PATH: bytes(1024), de.COMMITS: bytes(4096)}
    return CODEC.encode(Message(RECEIPT.id, Flag.RESPONSE, sequence, values))


@dataclass
class Stage:
    """A listener and a pump that serve, and what they have seen."""

    context: SSL.Context
    client: SSL.Context
    listener: Listener
    pump: Pump
    frames: list[bytes] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    answer: Callable[[bytes], bytes] = lambda frame: b""
    revoked: set[int] = field(default_factory=set)  # serial numbers

    async def serve(self) -> None:
        while arrivals := await self.pump.ready():
            self.batches.append(len(arrivals))
            for peer, frame in arrivals:
                if peer not in self.peers:
                    self.peers.append(peer)
                self.frames.append(frame)
                answer = self.answer(frame)
                if answer:
                    peer.send(answer)

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not holds():
                await trio.sleep(0.005)

    async def connect(
        self,
        wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = lambda stream: stream,
        session: SSL.Session | None = None,
    ) -> TlsStream:
        transport = await trio.open_tcp_stream(*self.listener.address)
        stream = TlsStream.client(wrap(transport), self.client, "switch.test", session=session)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)
            raise
        return stream


Staging = Callable[..., "AsyncIterator[Stage]"]


@pytest.fixture(params=[DirectConnection, SSL.Connection])
def staging(
    network: Network, client_context: SSL.Context, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., object]:
    """The same with connections of either kind."""
    if request.param is SSL.Connection:
        monkeypatch.setattr("fengshou.terminals.listener.direct", lambda connection: connection)

    @asynccontextmanager
    async def stage(
        pump_limits: PumpLimits = _PUMP_LIMITS, listener_limits: ListenerLimits = _LISTENER_LIMITS
    ) -> AsyncIterator[tuple[Stage, list[Closing]]]:
        closed: list[Closing] = []
        pump = Pump(CODEC, pump_limits, lambda peer, why: closed.append(why))
        revoked: set[int] = set()
        listener = Listener(Bound("127.0.0.1", 0), lambda: network.context, pump, listener_limits, lambda: revoked)
        stage = Stage(network.context, client_context, listener, pump, revoked=revoked)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            nursery.start_soon(stage.serve)
            nursery.start_soon(pump.sweep)
            yield stage, closed
            listener.stop()
            pump.halt()
            nursery.cancel_scope.cancel()
        assert all(isinstance(peer.connection, request.param) for peer in stage.peers)
        pump.shut()

    return stage


async def test_a_frame_cut_at_every_byte_arrives_whole(staging: Callable[..., object]) -> None:
    async with staging() as (stage, _):
        stream = await stage.connect()
        data = echo(1) + big_answer(2)[:300]  # one whole frame and the beginning of another
        for at in range(len(data)):
            await stream.send_all(data[at : at + 1])
        await stage.until(lambda: len(stage.frames) == 1)
        await stream.send_all(big_answer(2)[300:] + echo(3)[:2])
        await stream.send_all(echo(3)[2:])
        await stage.until(lambda: len(stage.frames) == 3)
        assert [CODEC.decode(frame).sequence for frame in stage.frames] == [1, 2, 3]
        await stream.aclose()


class _Trickle(trio.abc.Stream):
    """Sends byte by byte: TLS records arrive in as many pieces as they have bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.slow = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for at in range(len(data) if self.slow else 1):
            await self._stream.send_all(data[at : at + 1] if self.slow else data)
            await trio.sleep(0.0005)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_record_that_comes_in_single_bytes_is_one_record(staging: Callable[..., object]) -> None:
    async with staging() as (stage, _):
        trickles: list[_Trickle] = []

        def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
            trickles.append(_Trickle(stream))
            return trickles[0]

        stream = await stage.connect(wrap)
        trickles[0].slow = True
        await stream.send_all(echo(1) + echo(2))
        await stage.until(lambda: len(stage.frames) == 2)
        await stream.aclose()


async def test_many_frames_in_a_record_are_one_batch_and_many_records_too(staging: Callable[..., object]) -> None:
    async with staging() as (stage, _):
        stage.answer = lambda frame: echo_answer(CODEC.decode(frame).sequence)
        stream = await stage.connect()
        await stream.send_all(b"".join(echo(sequence) for sequence in range(1, 1001)))
        received = bytearray()
        with trio.fail_after(10):
            while len(received) < sum(len(echo_answer(sequence)) for sequence in range(1, 1001)):
                received += await stream.receive_some()
        frames, used = CODEC.split(received)
        assert used == len(received)
        assert [CODEC.decode(frame).sequence for frame in frames] == list(range(1, 1001))
        assert max(stage.batches) > 100
        await stream.aclose()


def echo_answer(sequence: int) -> bytes:
    return CODEC.encode(Message(ECHO.id, Flag.RESPONSE, sequence, {de.RESPONSE_CODE: "00"}))


async def test_big_answers_reach_a_reader_who_takes_his_time(staging: Callable[..., object]) -> None:
    """More than the sockets hold: the rest waits in the outbox and goes out in order when there is room."""
    count = 600
    async with staging(PumpLimits(outbox_bytes=8 << 20)) as (stage, closed):
        stage.answer = lambda frame: big_answer(CODEC.decode(frame).sequence)
        stream = await stage.connect()
        await stream.send_all(b"".join(echo(sequence) for sequence in range(1, count + 1)))
        await stage.until(lambda: len(stage.frames) == count)
        received = bytearray()
        with trio.fail_after(20):
            while len(received) < count * len(big_answer(1)):
                received += await stream.receive_some()
        frames, _used = CODEC.split(received)
        assert [CODEC.decode(frame).sequence for frame in frames] == list(range(1, count + 1))
        assert not closed
        await stream.aclose()


async def test_an_outbox_that_is_full_ends_its_connection_and_no_other(staging: Callable[..., object]) -> None:
    async with staging(PumpLimits(outbox_bytes=100_000)) as (stage, closed):
        stage.answer = lambda frame: big_answer(CODEC.decode(frame).sequence)
        slow, quick = await stage.connect(), await stage.connect()
        sequence = 0
        with trio.fail_after(20):
            while not closed:
                await slow.send_all(b"".join(echo(sequence + offset) for offset in range(1, 101)))
                sequence += 100
                await trio.sleep(0.001)
        assert closed == [Closing.SLOW_READER]
        await quick.send_all(echo(1))
        assert len(await quick.receive_some()) > 0
        await trio.aclose_forcefully(slow)
        await quick.aclose()


async def test_who_takes_nothing_for_too_long_is_closed(staging: Callable[..., object]) -> None:
    async with staging(PumpLimits(outbox_bytes=64 << 20, stalled_s=0.5)) as (stage, closed):
        stage.answer = lambda frame: big_answer(CODEC.decode(frame).sequence) * 20
        stream = await stage.connect()
        await stream.send_all(b"".join(echo(sequence) for sequence in range(1, 101)))
        await stage.until(lambda: closed == [Closing.SLOW_READER])
        await trio.aclose_forcefully(stream)


async def test_the_silent_and_the_idle_are_closed(staging: Callable[..., object]) -> None:
    async with staging(PumpLimits(sign_in_s=0.5, idle_s=1.5)) as (stage, closed):
        silent, talking = await stage.connect(), await stage.connect()
        await talking.send_all(echo(1))
        await stage.until(lambda: bool(stage.peers))
        stage.peers[0].session.advance(Event.SIGN_IN)
        await stage.until(lambda: closed == [Closing.SILENT])
        await stage.until(lambda: closed == [Closing.SILENT, Closing.IDLE])
        assert await talking.receive_some() == b""  # it was told with close_notify
        assert stage.peers[0].session.state is State.CLOSED
        await silent.aclose()
        await talking.aclose()


async def test_a_peer_that_goes_is_forgotten_however_it_goes(staging: Callable[..., object]) -> None:
    async with staging() as (stage, closed):
        polite, rude, garbled = await stage.connect(), await stage.connect(), await stage.connect()
        await stage.until(lambda: len(stage.pump) == 3)
        await polite.aclose()
        await stage.until(lambda: closed == [Closing.BY_PEER])
        await trio.aclose_forcefully(rude)
        await stage.until(lambda: closed == [Closing.BY_PEER, Closing.BROKEN])
        await garbled.send_all(echo(1) + b"\xff\xff\xff")
        await stage.until(lambda: closed == [Closing.BY_PEER, Closing.BROKEN, Closing.GARBAGE])
        assert len(stage.pump) == 0
        await trio.aclose_forcefully(garbled)


async def test_sending_to_a_closed_peer_is_no_error(staging: Callable[..., object]) -> None:
    async with staging() as (stage, closed):
        stream = await stage.connect()
        await stream.send_all(echo(1))
        await stage.until(lambda: bool(stage.peers))
        peer = stage.peers[0]
        await trio.aclose_forcefully(stream)
        await stage.until(lambda: bool(closed))
        peer.send(echo_answer(1))
        stage.pump.close(peer, Closing.REVOKED)
        assert closed == [Closing.BROKEN]


async def test_many_come_and_go_and_no_descriptor_stays(staging: Callable[..., object]) -> None:
    async with staging() as (stage, closed):
        for _ in range(3):  # what libraries open once is open by now
            await trio.aclose_forcefully(await stage.connect())
        before = len(list(Path("/proc/self/fd").iterdir()))
        for turn in range(60):
            if turn % 3 == 0:
                stream = await stage.connect()
                await stream.send_all(echo(1))
                await trio.aclose_forcefully(stream)
            else:
                sock = trio.socket.socket()
                await sock.connect(stage.listener.address)
                if turn % 3 == 1:
                    await sock.send(b"GET / HTTP/1.1\r\n\r\n")
                sock.close()
        await stage.until(lambda: len(closed) == 23 and len(stage.pump) == 0)
        await stage.until(lambda: sum(stage.listener.refused.values()) == 40)
        await stage.until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
        assert stage.listener.refused["not TLS"] > 0


async def test_the_number_of_connections_is_bounded(staging: Callable[..., object]) -> None:
    async with staging(listener_limits=ListenerLimits(connections=3)) as (stage, _):
        streams = [await stage.connect() for _ in range(3)]
        await stage.until(lambda: len(stage.pump) == 3)
        with pytest.raises(trio.BrokenResourceError):
            await stage.connect()
        assert stage.listener.refused["too many connections"] == 1
        await streams.pop().aclose()
        await stage.until(lambda: len(stage.pump) == 2)
        streams.append(await stage.connect())
        for stream in streams:
            await stream.aclose()


async def test_a_halted_pump_still_sends(staging: Callable[..., object]) -> None:
    """In a drain nothing new is read, and what back ends answer yet goes out."""
    async with staging() as (stage, _):
        stream = await stage.connect()
        await stream.send_all(echo(1))
        await stage.until(lambda: bool(stage.peers))
        stage.pump.halt()
        await stream.send_all(echo(2))
        stage.peers[0].send(echo_answer(1))
        with trio.fail_after(5):
            assert CODEC.split(await stream.receive_some())[0]
        assert len(stage.frames) == 1
        await stream.aclose()


async def _served_and_cut(stage: Stage) -> SSL.Session | None:
    """What is left of a connection that was answered and then lost."""
    stage.answer = lambda frame: echo_answer(CODEC.decode(frame).sequence)
    stream = await stage.connect()
    await stream.send_all(echo(1))
    with trio.fail_after(10):
        assert await stream.receive_some()
    await trio.aclose_forcefully(stream.transport)
    assert not stream.resumed
    return stream.take_session()


async def test_a_terminal_whose_link_was_cut_comes_back_by_its_ticket(staging: Callable[..., object]) -> None:
    async with staging() as (stage, _):
        session = await _served_and_cut(stage)
        stream = await stage.connect(session=session)
        assert stream.resumed
        await stream.send_all(echo(2))
        await stage.until(lambda: len(stage.peers) == 2)
        first, second = stage.peers
        assert second.certificate == first.certificate  # as it was verified then
        assert second.session.binding == stream.binding != first.session.binding  # what is signed is of this session
        assert stage.listener.resumed == 1
        await stream.aclose()


async def test_a_ticket_does_not_outlive_a_revocation(staging: Callable[..., object]) -> None:
    async with staging() as (stage, _):
        session = await _served_and_cut(stage)
        stage.revoked.add(stage.peers[0].certificate.serial)
        for ticket in (session, None):  # nor does a certificate that the context itself would still believe
            stream = await stage.connect(session=ticket)
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            await trio.aclose_forcefully(stream)
        assert stage.listener.refused == {Fault.REVOKED.value: 2}
        assert len(stage.peers) == 1


def test_an_address_in_use_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Bound("127.0.0.1", taken.getsockname()[1])
