"""A fleet's link to the stand-in switch, by itself."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import uvloop
from OpenSSL import SSL

from fengshou.codecs import MessageCodec
from fengshou.protocol.limits import BINDING_BYTES
from fengshou.protocol.session import TerminalSession
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
