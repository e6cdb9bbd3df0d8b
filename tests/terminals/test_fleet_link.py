"""A fleet's link to the stand-in switch, by itself."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import pytest
import uvloop
from OpenSSL import SSL

from fengshou.codecs import MessageCodec
from fengshou.protocol import elements as de
from fengshou.protocol.limits import BINDING_BYTES
from fengshou.protocol.message import Message
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import ECHO
from fengshou.terminals import fleet_link
from fengshou.terminals.fleet_link import FleetLink, Traffic
from tests.terminals.conftest import GRAMMAR, SIGNED, TERMINALS, Network, StandIn

# SSL_state_string_long(3); the second is told once more when the answer is there.
_BEGINS, _HELLO = b"before SSL initialization", b"SSLv3/TLS write client hello"


def test_what_was_prepared_is_what_is_sent(
    network: Network, serving: Callable[[StandIn], AbstractContextManager[None]], tmp_path: Path
) -> None:
    """Its key shares are made before there is a connection, and not once more."""
    stand_in = network.stand_in()
    states: list[bytes] = []

    def note(connection: SSL.Connection, where: int, result: int) -> None:
        if where == SSL.SSL_CB_CONNECT_LOOP:
            states.append(connection.get_state_string())

    async def go() -> None:
        home = network.home(tmp_path, TERMINALS[0], stand_in.port)
        context = home.context()
        context.set_info_callback(note)
        make = partial(TerminalSession, MessageCodec(GRAMMAR), za=home.signer().public_key.za, signed=SIGNED)
        traffic = Traffic()
        link = FleetLink(context, home.switch_name, TERMINALS[0].lower(), make, traffic)
        link.prepare()
        assert states == [_BEGINS, _HELLO]
        assert traffic.tls_up == 0
        try:
            async with asyncio.timeout(10):
                assert await link.connect(*home.address) is link.session
            assert states.count(_BEGINS) == 1
            assert len(link.binding) == BINDING_BYTES
        finally:
            link.close("that was all")
            await asyncio.sleep(0.01)  # the transport closes

    with serving(stand_in):
        uvloop.run(go())
    assert stand_in.connections == 1


_NARROW = 4096


class Wire:
    """Stands between a link and the stand-in, carries what it is given and counts it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.up = self.down = 0
        self.open = asyncio.Event()  # towards the switch
        self.open.set()
        self._carrying: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, limit=_NARROW)
        self.address = self._server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying)
        await asyncio.sleep(0.01)  # the transports close

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.append(task)
        far, on = await asyncio.open_connection("127.0.0.1", self._port, limit=_NARROW)

        async def up() -> None:
            while data := await near.read(_NARROW):
                self.up += len(data)
                await self.open.wait()
                on.write(data)
            on.close()

        async def down() -> None:
            while data := await far.read(_NARROW):
                self.down += len(data)
                back.write(data)

        with suppress(ConnectionError, asyncio.CancelledError):  # an end is cut, or the test is over
            await asyncio.gather(up(), down())
        on.close()
        back.close()


Body = Callable[[Wire, FleetLink, Traffic], Awaitable[None]]
Linked = Callable[[Body], StandIn]


@pytest.fixture
def linked(network: Network, serving: Callable[[StandIn], AbstractContextManager[None]], tmp_path: Path) -> Linked:
    """Runs a body with a wire to a stand-in, a link that is not connected, and what the link counts."""

    def linked(body: Body) -> StandIn:
        stand_in = network.stand_in()

        async def go() -> None:
            home = network.home(tmp_path, TERMINALS[0], stand_in.port)
            make = partial(TerminalSession, MessageCodec(GRAMMAR), za=home.signer().public_key.za, signed=SIGNED)
            traffic = Traffic()
            link = FleetLink(home.context(), home.switch_name, TERMINALS[0].lower(), make, traffic)
            try:
                async with asyncio.timeout(20), Wire(stand_in.port) as wire:
                    await body(wire, link, traffic)
            finally:
                link.close("that was all")

        with serving(stand_in):
            uvloop.run(go())
        return stand_in

    return linked


async def _echo(link: FleetLink, count: int) -> list[Message]:
    """Echoes, all of them on their way at once, and their answers."""
    assert link.session is not None
    replies = []
    for _ in range(count):
        message, _ = link.session.prepare(ECHO.id, {de.NETWORK_CODE: 301})
        replies.append(link.post(message, link.session.frame(message)))
    return await asyncio.gather(*replies)


def test_bytes_are_counted_as_they_go_through_the_socket(linked: Linked) -> None:
    async def body(wire: Wire, link: FleetLink, traffic: Traffic) -> None:
        await link.connect(*wire.address)
        assert traffic.frames_up == traffic.frames_down == 0
        answers = await _echo(link, 50)
        assert [answer.sequence for answer in answers] == list(range(1, 51))
        while wire.up < traffic.tls_up or traffic.tls_down < wire.down:
            await asyncio.sleep(0.01)
        assert (traffic.tls_up, traffic.tls_down) == (wire.up, wire.down)
        assert 0 < traffic.frames_up < traffic.tls_up - traffic.handshake_up
        assert 0 < traffic.frames_down < traffic.tls_down - traffic.handshake_down

    linked(body)


def test_what_the_socket_has_no_room_for_follows_in_order(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wire takes nothing for a while: more is said than sockets hold."""
    count = 10_000
    connected = fleet_link._connected

    async def narrow(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
        opened = await connected(loop, host, port)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _NARROW)
        return opened

    monkeypatch.setattr(fleet_link, "_connected", narrow)

    async def body(wire: Wire, link: FleetLink, traffic: Traffic) -> None:
        session = await link.connect(*wire.address)
        wire.open.clear()
        replies = []
        for _ in range(count):
            message, _ = session.prepare(ECHO.id, {de.NETWORK_CODE: 301})
            replies.append(link.post(message, session.frame(message)))
        taken = traffic.tls_up
        assert taken < 20 * count  # a record of an echo is longer than that
        wire.open.set()
        answers = await asyncio.gather(*replies)
        assert traffic.tls_up > 20 * count
        assert [answer.sequence for answer in answers] == list(range(1, count + 1))

    linked(body)


def test_whoever_waits_hears_once_that_the_connection_is_gone(linked: Linked) -> None:
    heard: list[str] = []

    class Ear:
        def answered(self, answer: Message) -> None:
            heard.append("an answer")

        def lost(self, reason: str) -> None:
            heard.append(reason)

    async def body(wire: Wire, link: FleetLink, traffic: Traffic) -> None:
        session = await link.connect(*wire.address)
        wire.open.clear()
        for _ in range(2):
            message, _ = session.prepare(ECHO.id, {de.NETWORK_CODE: 301})
            link.send(message, session.frame(message), Ear())
        link.forget(message.sequence)
        link.cut("in the tunnel")
        link.close("later")
        link.cut("and once more")
        message, _ = session.prepare(ECHO.id, {de.NETWORK_CODE: 301})
        link.send(message, session.frame(message), Ear())
        wire.open.set()
        await asyncio.sleep(0.05)

    linked(body)
    assert heard == ["in the tunnel", "in the tunnel"]


def test_where_nobody_listens_there_is_no_connection(linked: Linked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()

    async def body(wire: Wire, link: FleetLink, traffic: Traffic) -> None:
        with pytest.raises(ConnectionRefusedError):
            await link.connect(*nobody)
        assert link.lost

    linked(body)
