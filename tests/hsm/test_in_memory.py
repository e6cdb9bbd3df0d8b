"""A connection whose bytes somebody else carries: the compiled twin and the one by pyOpenSSL say the same."""

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress

import pytest
from OpenSSL import SSL

from fengshou.codecs import MemoryConnection
from fengshou.hsm import _openssl
from fengshou.hsm._openssl import PlainMemoryConnection
from fengshou.hsm.channel import client_context, in_memory, terminal_server_context

from .conftest import Network

RECORD = 16 * 1024
Channel = MemoryConnection | PlainMemoryConnection
Twin = Callable[[SSL.Connection], Channel]


class Ends:
    """Both ends of a channel after its handshake: ``ours`` is under test, ``theirs`` is by pyOpenSSL."""

    def __init__(self, server: SSL.Context, client: SSL.Context, twin: Twin) -> None:
        self.connection, self.peer = SSL.Connection(client, None), SSL.Connection(server, None)
        self.connection.set_connect_state()
        self.peer.set_accept_state()
        self.ours, self.theirs = twin(self.connection), PlainMemoryConnection(self.peer)
        for connection in (self.connection, self.peer, self.connection, self.peer):
            with suppress(SSL.WantReadError):
                connection.do_handshake()
            self.carry()

    def carry(self) -> None:
        self.theirs.put(self.ours.take())
        self.ours.put(self.theirs.take())


@pytest.fixture(scope="module")
def contexts(network: Network) -> tuple[SSL.Context, SSL.Context]:
    return terminal_server_context(network.switch(), network.trust), client_context(network.terminal(), network.trust)


@pytest.fixture(params=[in_memory, PlainMemoryConnection])
def ends(contexts: tuple[SSL.Context, SSL.Context], request: pytest.FixtureRequest) -> Ends:
    return Ends(*contexts, request.param)


def test_the_compiled_twin_is_the_one_in_use(contexts: tuple[SSL.Context, SSL.Context]) -> None:
    assert isinstance(Ends(*contexts, in_memory).ours, MemoryConnection)


def test_a_read_gives_all_whole_records_and_a_part_waits_for_its_rest(ends: Ends) -> None:
    assert ends.ours.read() == b""  # tickets
    ends.theirs.send(b"first")
    ends.theirs.send(b"second")
    records = ends.theirs.take()
    ends.ours.put(records[:-1])
    assert ends.ours.read() == b"first"
    ends.ours.put(b"")
    assert ends.ours.read() == b""
    ends.ours.put(records[-1:])
    assert ends.ours.read() == b"second"
    assert not ends.ours.closed


@pytest.mark.parametrize("size", [0, 1, RECORD, 5 * RECORD + 1])
def test_whatever_is_said_arrives(ends: Ends, size: int) -> None:
    said = bytes(range(256)) * (size // 256) + bytes(size % 256)
    ends.ours.send(said)
    ends.theirs.send(said[::-1])
    ends.carry()
    assert (ends.theirs.read(), ends.ours.read()) == (said, said[::-1])
    assert ends.ours.take() == b""


def test_what_was_said_before_the_end_is_heard_and_then_the_end(ends: Ends) -> None:
    ends.theirs.send(b"the last")
    ends.peer.shutdown()
    ends.carry()
    assert ends.ours.read() == b"the last"
    assert ends.ours.closed
    assert ends.ours.read() == b""


#   what comes                                                what is said of it
BROKEN = [
    (b"\x17\x03\x03\x00\x40" + bytes(64),                      "decryption failed or bad record mac"),
    (b"GET / HTTP/1.1\r\n\r\n",                                "bad record type"),
    (b"\x17\x03\x03\xff\xff" + bytes(2000),                    "encrypted length too long"),
]  # fmt: skip


@pytest.mark.parametrize(("comes", "says"), BROKEN)
def test_what_is_broken_is_told_as_by_pyopenssl(ends: Ends, comes: bytes, says: str) -> None:
    ends.ours.put(comes)
    with pytest.raises(SSL.Error, match=says) as raised:
        ends.ours.read()
    assert type(raised.value) is SSL.Error


def test_nothing_can_be_said_on_a_channel_that_is_closed(ends: Ends) -> None:
    ends.connection.shutdown()
    with pytest.raises(SSL.Error, match="protocol is shutdown"):
        ends.ours.send(b"too late")


def test_what_another_connection_left_in_the_queue_of_errors_is_not_ours(
    contexts: tuple[SSL.Context, SSL.Context],
) -> None:
    """The queue is the thread's; SSL_get_error(3) looks at it first."""
    ends = Ends(*contexts, in_memory)
    _openssl._lib.ERR_put_error(_openssl._lib.ERR_LIB_EVP, 0, 99, b"", 0)
    assert ends.ours.read() == b""


def test_a_connection_lives_as_long_as_who_uses_it(contexts: tuple[SSL.Context, SSL.Context]) -> None:
    ends = Ends(*contexts, in_memory)
    alive = weakref.ref(ends.connection)
    del ends.connection
    gc.collect()
    ends.ours.send(b"alive")
    ends.carry()
    assert ends.theirs.read() == b"alive"
    del ends.ours
    gc.collect()
    assert alive() is None


def test_without_the_librarys_calls_it_is_pyopenssls(
    monkeypatch: pytest.MonkeyPatch, contexts: tuple[SSL.Context, SSL.Context]
) -> None:
    monkeypatch.setattr(_openssl, "_CALLS", None)
    assert isinstance(Ends(*contexts, in_memory).ours, PlainMemoryConnection)
