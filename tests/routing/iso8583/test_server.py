"""The server end alone, with an application that misbehaves."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import LENGTH_BYTES
from tests.routing.iso8583.scripted import CODEC

MISBEHAVING = """
from fengshou.protocol.iso8583 import answer_mti
from fengshou.routing.iso8583_server import run_iso8583_server

class Application:
    def answer(self, requests):
        wishes = [request[48] for request in requests]
        if "RAISE" in wishes:
            raise RuntimeError("the disk is gone")
        if "TOO FEW" in wishes:
            return []
        code = {"UNSENDABLE": "much too long"}
        return [
            None if wish == "SILENCE" else {0: answer_mti(request[0]), 11: request[11], 39: code.get(wish, "00")}
            for request, wish in zip(requests, wishes)
        ]

    def close(self):
        print("closed", flush=True)

run_iso8583_server(Application(), "127.0.0.1", 0, lambda at: print(at[1], flush=True))
"""


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    with subprocess.Popen([sys.executable, "-c", MISBEHAVING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), timeout=10) as connection:
                yield process, connection
        finally:
            process.kill()


def request(stan: int, wish: str) -> bytes:
    return CODEC.frame({0: "0200", 11: f"{stan:06d}", 48: wish})


def receive(connection: socket.socket) -> Fields:
    length = int.from_bytes(connection.recv(LENGTH_BYTES, socket.MSG_WAITALL), "big")
    return CODEC.decode(connection.recv(length, socket.MSG_WAITALL))


@pytest.mark.parametrize("wish", ["RAISE", "TOO FEW", "UNSENDABLE", "SILENCE"])
def test_no_answer_is_made_up_and_the_next_request_is_served(
    server: tuple[subprocess.Popen[str], socket.socket], wish: str
) -> None:
    _, connection = server
    connection.sendall(request(1, wish))
    # Network management is answered without the application, so an echo tells when the first was read.
    connection.sendall(CODEC.frame({0: "0800", 7: "1124135959", 11: "000007", 70: "301"}))
    assert receive(connection) == {0: "0810", 7: "1124135959", 11: "000007", 39: "00", 70: "301"}
    connection.sendall(request(2, "APPROVE"))
    # Should both have come to one batch that failed, neither is answered: a repeat is.
    connection.settimeout(0.5)
    try:
        answer = receive(connection)
    except TimeoutError:
        connection.settimeout(10)
        connection.sendall(request(2, "APPROVE"))
        answer = receive(connection)
    assert answer == {0: "0210", 11: "000002", 39: "00"}


def test_a_frame_in_pieces_and_frames_in_one_piece(server: tuple[subprocess.Popen[str], socket.socket]) -> None:
    _, connection = server
    for byte in request(1, "APPROVE"):
        connection.sendall(bytes((byte,)))
    assert receive(connection)[11] == "000001"
    connection.sendall(b"\x00\x00" + b"\x00\x00".join(request(stan, "APPROVE") for stan in range(2, 300)))
    assert [receive(connection)[11] for _ in range(2, 300)] == [f"{stan:06d}" for stan in range(2, 300)]


def test_answers_from_a_peer_are_ignored(server: tuple[subprocess.Popen[str], socket.socket]) -> None:
    _, connection = server
    connection.sendall(CODEC.frame({0: "0210", 11: "000001", 39: "00"}) + request(2, "APPROVE"))
    assert receive(connection)[11] == "000002"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_closes_the_application_and_the_connections(
    server: tuple[subprocess.Popen[str], socket.socket], how: signal.Signals
) -> None:
    process, connection = server
    connection.sendall(request(1, "APPROVE"))
    assert receive(connection)[39] == "00"
    process.send_signal(how)
    assert connection.recv(1) == b""
    assert process.wait(10) == 0
    assert process.stdout is not None
    assert process.stdout.read() == "closed\n"
