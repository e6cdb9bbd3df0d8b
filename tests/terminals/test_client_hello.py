"""The server name as it stands in real ClientHellos, and in what only looks like one."""

import pytest
from OpenSSL import SSL

from fengshou.terminals.client_hello import bytes_wanted, server_name


def hello(name: str = "", suites: bytes = b"TLS_SM4_GCM_SM3:TLS_AES_128_GCM_SHA256") -> bytes:
    """What a client of the TLS library says first."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tls13_ciphersuites(suites)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if name:
        connection.set_tlsext_host_name(name.encode("ascii"))
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


@pytest.mark.parametrize("name", ["", "fs000001", "fs000001.pos.example", "x" * 63])
def test_the_name_is_the_one_that_the_client_asks_for(name: str) -> None:
    data = hello(name)
    assert bytes_wanted(data) == len(data)
    assert server_name(data) == name


def test_names_know_no_case() -> None:
    assert server_name(hello("FS000001")) == "fs000001"


def test_what_is_wanted_is_told_by_the_beginning() -> None:
    data = hello("fs000001")
    assert [bytes_wanted(data[:size]) for size in (0, 1, 4)] == [5, 5, 5]
    assert {bytes_wanted(data[:size]) for size in range(5, len(data))} == {len(data)}


def test_a_hello_that_was_cut_or_altered_gives_some_name_or_none() -> None:
    data = hello("fs000001")
    assert {server_name(data[:size]) for size in range(len(data))} == {""}
    for at in range(len(data)):
        for bit in range(8):
            server_name(data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :])


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        b"\xff" * 64,
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\xff\xff" + bytes(64),  # longer than a record can be
    ],
)
def test_what_is_no_handshake_is_not_waited_for(data: bytes) -> None:
    assert bytes_wanted(data) == 0
    assert server_name(data) == ""
