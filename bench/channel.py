"""The channel of terminals: a record in and one out, as the pump reads and writes them.

Many connections over loopback, each with a request to read, and then each with an answer to write. Both ends are in
one thread; what is counted is the CPU of the switch's end, in which the kernel delivers the answer to the other one
as well.
"""

import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import SSL

from bench.figures import Figure
from bench.handshakes import identity
from fengshou.hsm import x509
from fengshou.hsm.channel import NARROW, Trust, client_context, direct, terminal_server_context
from fengshou.hsm.pki import AUTHORITIES, Authority
from fengshou.hsm.x509 import Subject
from fengshou.terminals.listener import tune
from fengshou.terminals.pump import Channel

_CONNECTIONS = 200
_REQUEST, _ANSWER = bytes(77), bytes(60)  # a farm purchase in the delta form, with its length
_READ_BYTES = 16 * 1024


def figures(seconds: float) -> list[Figure]:
    """Both ways of it in turns, the least of many rounds: what disturbs only ever adds."""
    with TemporaryDirectory() as name:
        server, client = _contexts(Path(name))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs = [_connected(listener, server, client) for _ in range(_CONNECTIONS)]
    theirs = [their for _, their in pairs]
    ways: dict[str, list[Channel]] = {
        "direct": [direct(our) for our, _ in pairs],
        "pyopenssl": [our for our, _ in pairs],
    }
    least = dict.fromkeys(ways, float("inf"))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for way, ours in ways.items():
            least[way] = min(least[way], _round_us(ours, theirs))
    for our, their in pairs:
        our.close()  # the socket: pyOpenSSL passes on what it does not know
        their.close()
    return [
        Figure(key="channel.direct", what="SM4-GCM, straight to OpenSSL", value=least["direct"],
               unit="µs/transaction", peer="channel.pyopenssl"),
        Figure(key="channel.pyopenssl", what="SM4-GCM, by pyOpenSSL", value=least["pyopenssl"], unit="µs/transaction"),
    ]  # fmt: skip


def _contexts(folder: Path) -> tuple[SSL.Context, SSL.Context]:
    """The switch's and a terminal's."""
    authority = Authority.initialise(folder / "pki", "Channel", datetime.now(UTC))
    trust = Trust(folder / "pki" / AUTHORITIES)
    switch = identity(authority, x509.SWITCH, Subject("switch", names=("switch.bench",)), folder / "switch")
    terminal = identity(authority, x509.TERMINAL, Subject("FL000001", serial="SN1"), folder / "terminal")
    return terminal_server_context(switch, trust, NARROW), client_context(terminal, trust, NARROW)


def _connected(
    listener: socket.socket, server: SSL.Context, client: SSL.Context
) -> tuple[SSL.Connection, SSL.Connection]:
    """Our end and theirs after a handshake."""
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    tune(near)
    tune(far)
    ours, theirs = SSL.Connection(server, far), SSL.Connection(client, near)
    ours.set_accept_state()
    theirs.set_connect_state()
    for connection in (theirs, ours, theirs, ours):
        with suppress(SSL.WantReadError):
            connection.do_handshake()
    return ours, theirs


def _round_us(ours: Sequence[Channel], theirs: Sequence[SSL.Connection]) -> float:
    """CPU of a request and its answer at our end."""
    for their in theirs:
        their.send(_REQUEST)
    start = time.thread_time_ns()
    for our in ours:
        our.recv(_READ_BYTES)
    for our in ours:
        our.send(_ANSWER)
    spent = time.thread_time_ns() - start
    for their in theirs:
        their.recv(_READ_BYTES)
    return spent / len(ours) / 1000
