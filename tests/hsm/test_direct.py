"""The connection without pyOpenSSL between says what pyOpenSSL's says, over real sockets and whatever happens there."""

import gc
import select
import socket
import struct
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest
from OpenSSL import SSL

from fengshou.codecs import DirectConnection
from fengshou.hsm import _openssl
from fengshou.hsm.channel import client_context, direct, terminal_server_context

from .conftest import Network

RECORD = 16 * 1024
Connection = SSL.Connection | DirectConnection
Twin = Callable[[SSL.Connection], Connection]


class Ends:
    """Both ends of a channel: ``ours`` is under test, ``theirs`` is a pyOpenSSL connection on ``wire``."""

    def __init__(self, server: SSL.Context, client: SSL.Context, twin: Twin) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.wire = socket.create_connection(listener.getsockname())
            self.socket, _ = listener.accept()
        self.wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.theirs, mine = SSL.Connection(client, self.wire), SSL.Connection(server, self.socket)
        self.theirs.set_connect_state()
        mine.set_accept_state()
        self.wire.setblocking(False)
        self.socket.setblocking(False)
        for connection in (self.theirs, mine, self.theirs, mine):
            with suppress(SSL.WantReadError):
                connection.do_handshake()
        self.ours = twin(mine)

    def arrived(self) -> None:
        assert select.select([self.socket], [], [], 5)[0], "nothing has arrived"

    def receive(self) -> bytes:
        self.arrived()
        return self.ours.recv(RECORD)

    def fill(self, stream: bytes) -> int:
        """Send until the sockets hold no more; how many bytes were taken."""
        sent = 0
        with suppress(SSL.WantWriteError):
            while True:
                sent += self.ours.send(memoryview(stream)[sent:])
        return sent

    def read_theirs(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            assert select.select([self.wire], [], [], 5)[0], f"{count - len(data)} bytes have not arrived"
            with suppress(SSL.WantReadError):  # a ticket
                data += self.theirs.recv(RECORD)
        return data


@pytest.fixture(scope="module")
def contexts(network: Network) -> tuple[SSL.Context, SSL.Context]:
    server = terminal_server_context(network.switch(), network.trust)
    return server, client_context(network.terminal(), network.trust)


Met = Callable[[Twin], AbstractContextManager[Ends]]


@pytest.fixture
def met(contexts: tuple[SSL.Context, SSL.Context]) -> Met:
    @contextmanager
    def met(twin: Twin) -> Iterator[Ends]:
        ends = Ends(*contexts, twin)
        with ends.wire, ends.socket:
            yield ends

    return met


def pyopenssl(connection: SSL.Connection) -> SSL.Connection:
    return connection


@pytest.fixture(params=[direct, pyopenssl])
def ends(met: Met, request: pytest.FixtureRequest) -> Iterator[Ends]:
    with met(request.param) as ends:
        yield ends


def test_the_compiled_twin_is_the_one_in_use(met: Met) -> None:
    with met(direct) as ends:
        assert isinstance(ends.ours, DirectConnection)


def test_bytes_go_both_ways_and_a_read_ends_with_its_record(ends: Ends) -> None:
    ends.theirs.send(b"first")
    ends.theirs.send(b"second")
    assert (ends.receive(), ends.receive()) == (b"first", b"second")
    assert ends.ours.send(b"answer") == 6
    assert ends.ours.send(memoryview(b"an answer")[3:]) == 6
    assert ends.read_theirs(12) == b"answeranswer"
    ends.theirs.send(b"in two parts")
    ends.arrived()
    assert (ends.ours.recv(3), ends.ours.recv(RECORD)) == (b"in ", b"two parts")


def test_one_read_takes_the_longest_record(ends: Ends) -> None:
    ends.theirs.send(bytes(RECORD))
    ends.theirs.send(b"next")
    received = b""
    while len(received) < RECORD:  # the record's bytes come in more than one segment
        with suppress(SSL.WantReadError):
            received += ends.receive()
            assert len(received) == RECORD
    assert ends.receive() == b"next"


def _nothing(ends: Ends) -> None:
    pass


def _half_a_record(ends: Ends) -> None:
    ends.wire.send(b"\x17\x03\x03\x00\x40" + bytes(20))
    ends.arrived()


def _close_notify(ends: Ends) -> None:
    ends.theirs.shutdown()
    ends.arrived()


def _end_of_stream(ends: Ends) -> None:
    ends.wire.shutdown(socket.SHUT_WR)
    ends.arrived()


def _end_within_a_record(ends: Ends) -> None:
    ends.wire.send(b"\x17\x03\x03\x00\x40" + bytes(20))
    ends.wire.shutdown(socket.SHUT_WR)
    ends.arrived()


def _reset(ends: Ends) -> None:
    ends.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.wire.close()
    ends.arrived()


def _forged_record(ends: Ends) -> None:
    ends.wire.send(b"\x17\x03\x03\x00\x40" + bytes(64))
    ends.arrived()


def _no_tls(ends: Ends) -> None:
    ends.wire.send(b"GET / HTTP/1.1\r\n\r\n")
    ends.arrived()


def _too_long_a_record(ends: Ends) -> None:
    ends.wire.send(b"\x17\x03\x03\xff\xff" + bytes(2000))
    ends.arrived()


@pytest.mark.parametrize(
    ("happens", "error", "says"),
    [
        (_nothing, SSL.WantReadError, ""),
        (_half_a_record, SSL.WantReadError, ""),
        (_close_notify, SSL.ZeroReturnError, ""),
        (_end_of_stream, SSL.SysCallError, "Unexpected EOF"),
        (_end_within_a_record, SSL.SysCallError, "Unexpected EOF"),
        (_reset, SSL.SysCallError, "ECONNRESET"),
        (_forged_record, SSL.Error, "decryption failed or bad record mac"),
        (_no_tls, SSL.Error, "bad record type"),
        (_too_long_a_record, SSL.Error, "encrypted length too long"),
    ],
)
def test_what_goes_wrong_is_told_as_by_pyopenssl(
    ends: Ends, happens: Callable[[Ends], None], error: type[SSL.Error], says: str
) -> None:
    happens(ends)
    with pytest.raises(error) as raised:
        ends.ours.recv(RECORD)
    assert type(raised.value) is error
    assert says in str(raised.value)


def test_what_another_connection_left_in_the_queue_of_errors_is_not_ours(met: Met) -> None:
    """The queue is the thread's, and pyOpenSSL explains a failure by its oldest entry."""
    with met(direct) as ends:
        _end_of_stream(ends)
        _openssl._lib.ERR_put_error(_openssl._lib.ERR_LIB_EVP, 0, 99, b"", 0)
        with pytest.raises(SSL.SysCallError, match="Unexpected EOF"):
            ends.ours.recv(RECORD)


def test_a_full_socket_takes_whole_records_and_then_says_so(ends: Ends) -> None:
    stream = b"".join(b"%07d," % number for number in range(2 << 20))  # more than the sockets hold
    sent = ends.fill(stream)
    assert 0 < sent < len(stream)
    assert sent % RECORD == 0
    assert ends.read_theirs(sent) == stream[:sent]
    # Of the next record a part is on its way already: its bytes have to be offered again.
    more = ends.ours.send(memoryview(stream)[sent : sent + 2 * RECORD])
    assert ends.read_theirs(more) == stream[sent : sent + more]


def test_a_connection_lives_as_long_as_who_uses_it(met: Met) -> None:
    kept: list[weakref.ref[SSL.Connection]] = []

    def twin(connection: SSL.Connection) -> Connection:
        kept.append(weakref.ref(connection))
        return direct(connection)

    with met(twin) as ends:
        gc.collect()
        assert ends.ours.send(b"alive") == 5
        assert ends.read_theirs(5) == b"alive"
        assert not ends.ours.shutdown()  # theirs has not come yet
        with pytest.raises(SSL.ZeroReturnError):
            ends.read_theirs(1)
        del ends.ours
        gc.collect()
        assert kept[0]() is None


@pytest.mark.parametrize("name", list(_openssl._DIRECT))
def test_bindings_that_are_made_otherwise_are_not_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(_openssl._DIRECT, name, "long(*)(SSL *)")
    assert _openssl._direct_calls() is None


@pytest.mark.parametrize(("owner", "name"), [(_openssl._lib, "_original_lib"), (SSL.Connection, "_raise_ssl_error")])
def test_bindings_that_lack_something_are_not_used(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    assert _openssl._direct_calls() is not None
    monkeypatch.delattr(owner, name)
    assert _openssl._direct_calls() is None


def test_without_them_a_connection_is_pyopenssls(monkeypatch: pytest.MonkeyPatch, met: Met) -> None:
    monkeypatch.setattr(_openssl, "_CALLS", None)
    with met(direct) as ends:
        assert isinstance(ends.ours, SSL.Connection)
