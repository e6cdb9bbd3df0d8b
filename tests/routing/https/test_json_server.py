"""The server of signed JSON against clients that behave badly, and its orderly end."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h11
import msgspec
import pytest
import trio
from asn1crypto import core

from fengshou.protocol.signing import SIGNATURE_HEADER
from fengshou.routing.envelope import Envelope, SignatureRefused
from fengshou.routing.json_connection import ExchangeFault, Fault, JsonConnection
from fengshou.routing.json_server import JsonServer, Limits

PATH = "/v1/echo"


async def answer_to(stream: trio.abc.Stream, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to raw bytes; status 0 when the server just closed."""
    await stream.send_all(data)
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    http.send(h11.EndOfMessage())
    status, headers, body = 0, {}, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            received = await stream.receive_some(65536)
            if not received and not status:
                return 0, {}, b""
            http.receive_data(received)
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return status, headers, body


def request(
    key: Envelope | None,
    body: bytes = b"{}",
    *,
    method: str = "POST",
    path: str = PATH,
    sent: bytes | None = None,
    sent_path: str = "",
    signature: str | None = None,
) -> bytes:
    """A request signed by ``key`` over ``body`` and ``path``, of which the sender may replace what is sent."""
    if signature is None and key is not None:
        signature = key.sign_request(method, path, body).hex()
    payload = body if sent is None else sent
    lines = [f"{method} {sent_path or path} HTTP/1.1", "host: x", f"content-length: {len(payload)}"]
    if signature is not None:
        lines.append(f"{SIGNATURE_HEADER}: {signature}")
    return "\r\n".join([*lines, "", ""]).encode() + payload


LIMITS = Limits(connections=8, request_bytes=4096, request_s=0.3, idle_s=5, handshake_s=0.3)

CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
# What arrives, the status of its answer (0: closed without one), its code, and whether the answer is signed.
BAD_REQUESTS: list[tuple[str, Callable[[Any], bytes], int, str, bool]] = [
    ("no signature",         lambda s: request(None),                                               401, "63", False),
    ("signature not hex",    lambda s: request(None, signature="g" * 128),                          401, "63", False),
    ("signature short",      lambda s: request(None, signature="00" * 63),                          401, "63", False),
    ("signature zero",       lambda s: request(None, signature="00" * 64),                          401, "63", True),
    ("of a stranger",        lambda s: request(s.stranger),                                         401, "63", True),
    ("by the host itself",   lambda s: request(s.host),                                             401, "63", True),
    ("body tampered",        lambda s: request(s.switch, b'{"a":1}', sent=b'{"a":2}'),              401, "63", True),
    ("path tampered",        lambda s: request(s.switch, sent_path="/v1/other"),                    401, "63", True),
    ("not JSON",             lambda s: request(s.switch, b"{"),                                     400, "30", True),
    ("not an object",        lambda s: request(s.switch, b"[1]"),                                   400, "30", True),
    ("unknown path",         lambda s: request(s.switch, path="/v1/nothing"),                       404, "40", True),
    ("method not served",    lambda s: request(s.switch, b"", method="DELETE"),                     405, "40", True),
    ("too long, declared",   lambda s: request(s.switch, b"x" * 5000),                              413, "30", False),
    ("too long, chunked",    lambda s: CHUNKED + b"1388\r\n" + b"x" * 5000,                      413, "30", False),
    ("endless header",       lambda s: b"POST / HTTP/1.1\r\nx: " + b"y" * 20_000,                   431, "30", False),
    ("not HTTP",             lambda s: b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",                     400, "30", False),
    ("no host",              lambda s: b"POST / HTTP/1.1\r\n\r\n",                                  400, "30", False),
    ("never complete",       lambda s: b"POST / HTTP/1.1\r\nhost: x\r\n",                           408, "30", False),
    ("body never complete",  lambda s: request(s.switch, b"{}")[:-1],                               408, "30", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make", "status", "code", "signed"), BAD_REQUESTS, ids=[row[0] for row in BAD_REQUESTS]
)
async def test_a_bad_request_is_refused_before_the_application(
    bench: Any, sides: Any, echo: Any, name: str, make: Any, status: int, code: str, signed: bool
) -> None:
    async with bench() as b:
        server, address = await b.server(echo, LIMITS)
        data = make(sides)
        async with await trio.open_tcp_stream(*address) as stream:
            got, headers, body = await answer_to(stream, data)
        assert got == status
        assert msgspec.json.decode(body)["code"] == code
        signature = headers.get(SIGNATURE_HEADER.lower())
        assert (signature is not None) == signed
        if signature is not None:
            sent = next(line for line in data.split(b"\r\n") if line.startswith(SIGNATURE_HEADER.encode()))
            sides.switch.verify_answer(got, bytes.fromhex(sent.split(b" ")[1].decode()), body, bytes.fromhex(signature))
        assert echo.seen == []
        assert server.refused == 1

        # Nobody else notices.
        async with await trio.open_tcp_stream(*address) as stream:
            assert (await answer_to(stream, request(sides.switch)))[0] == 200


async def test_two_requests_in_one_segment_are_both_answered(bench: Any, sides: Any, echo: Any) -> None:
    async with bench() as b:
        _, address = await b.server(echo)
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(request(sides.switch, b'{"n":1}') + request(sides.switch, b'{"n":2}'))
            received = b""
            with trio.fail_after(5):
                while received.count(b'"code"') < 2:
                    received += await stream.receive_some()
    assert [body["n"] for body in echo.seen] == [1, 2]


async def test_a_failing_application_answers_500_and_serves_on(
    bench: Any, sides: Any, echo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_once(body: Any) -> None:
        if body.get("n") == 1:
            raise RuntimeError("secret detail")

    echo.hook = fail_once
    async with bench() as b:
        server, address = await b.server(echo)
        connection = JsonConnection(await trio.open_tcp_stream(*address), "x", sides.switch, 65536)
        failed = await connection.call("POST", PATH, b'{"n":1}')
        served = await connection.call("POST", PATH, b'{"n":2}')
        await connection.aclose()
    assert (failed.status, failed.body["code"]) == (500, "06")
    assert "secret" not in str(failed.body) + capsys.readouterr().out
    assert (served.status, server.failed) == (200, 1)


async def test_connections_that_never_speak_crowd_out_only_beyond_the_limit(bench: Any, sides: Any, echo: Any) -> None:
    async with bench() as b:
        server, address = await b.server(echo, LIMITS)
        silent = [await trio.open_tcp_stream(*address) for _ in range(7)]
        async with await trio.open_tcp_stream(*address) as last:
            assert (await answer_to(last, request(sides.switch)))[0] == 200
            async with await trio.open_tcp_stream(*address) as beyond:
                with trio.fail_after(5):
                    assert await beyond.receive_some() == b""
        for stream in silent:
            await stream.aclose()
        assert (server.crowded_out, server.accepted) == (1, 8)


async def test_idle_connections_and_slow_handshakes_are_closed(bench: Any, sides: Any, echo: Any) -> None:
    async def never(raw: trio.abc.Stream) -> trio.abc.Stream:
        await trio.sleep_forever()
        return raw

    async with bench() as b:
        _, idle = await b.server(echo, Limits(idle_s=0.1))
        slow = JsonServer(b.nursery, never, sides.host, LIMITS)
        address = await b.nursery.start(slow.serve, "127.0.0.1", 0)
        for target in (idle, address):
            async with await trio.open_tcp_stream(*target) as stream:
                with trio.fail_after(5):
                    assert await stream.receive_some() == b""
        assert slow.handshakes_failed == 1


async def test_drain_finishes_the_request_under_way(bench: Any, sides: Any, echo: Any) -> None:
    gate, entered = threading.Event(), threading.Event()

    def wait(body: Any) -> None:
        entered.set()
        gate.wait(10)

    echo.hook = wait
    answers: list[Any] = []
    async with bench() as b:
        server, address = await b.server(echo)
        idle = await trio.open_tcp_stream(*address)
        connection = JsonConnection(await trio.open_tcp_stream(*address), "x", sides.switch, 65536)

        async def ask() -> None:
            answers.append(await connection.call("POST", PATH, b"{}"))

        b.nursery.start_soon(ask)
        await trio.to_thread.run_sync(entered.wait, 10)
        server.drain()
        with trio.fail_after(5):
            assert await idle.receive_some() == b""
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream(*address)
        gate.set()
        with trio.fail_after(5):
            while not answers:
                await trio.sleep(0.01)
        assert answers[0].status == 200
        assert not connection.reusable  # told to go
        await connection.aclose()
        await idle.aclose()


async def test_a_server_that_dies_between_send_and_answer_is_lost(bench: Any, sides: Any) -> None:
    async def die(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await trio.aclose_forcefully(stream)

    async with bench() as b:
        connection = JsonConnection(await trio.open_tcp_stream(*await b.raw_server(die)), "x", sides.switch, 65536)
        with pytest.raises(ExchangeFault) as caught:
            await connection.call("POST", PATH, b"{}")
        assert caught.value.fault is Fault.LOST
        assert not connection.reusable
        await connection.aclose()


def test_sigterm_ends_the_process_and_closes_the_application(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from fengshou.hsm.software import Kind, SoftwareCustody
        from fengshou.routing.envelope import Envelope
        from fengshou.routing.json_server import run_json_server

        class Quiet:
            def answer(self, method, path, body): return {}
            def close(self): print("closed", flush=True)

        async def plain(raw): return raw

        custody = SoftwareCustody.initialise(sys.argv[1])
        custody.create("host.sign", Kind.SM2)
        run_json_server(
            Quiet(), "127.0.0.1", 0, accept=plain,
            envelope=Envelope(custody, "host.sign", [custody.public_key("host.sign")]),
            on_ready=lambda address: print(address[1], flush=True),
        )
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "keys")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert int(process.stdout.readline()) > 0
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == "closed\n"


def test_every_bit_of_a_signature_counts(sides: Any) -> None:
    body = b'{"item":1}'
    signature = sides.switch.sign_request("POST", PATH, body)
    sides.host.verify_request("POST", PATH, body, signature)
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureRefused):
            sides.host.verify_request("POST", PATH, body, bytes(changed))


def test_an_auditor_verifies_both_signatures_with_openssl(sides: Any, tmp_path: Path) -> None:
    """Only the documentation of ``protocol.signing``, the two public keys and a tool of somebody else."""
    body, answer = b'{"item":1}', b'{"code":"00"}'
    request_signature = sides.switch.sign_request("POST", PATH, body)
    answer_signature = sides.host.sign_answer(200, request_signature, answer)
    sm3 = [hashlib.new("sm3", data).digest() for data in (body, answer)]
    request_message = b"FP1G" + b"POST\n" + PATH.encode() + b"\n" + sm3[0]
    answer_message = b"FP1G" + b"200\n" + request_signature + sm3[1]

    def verify(knows: Envelope, message: bytes, signature: bytes) -> int:
        der = core.SequenceOf(
            [int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")], spec=core.Integer
        ).dump()
        (key,) = knows.peers
        for name, data in (("key.der", key.spki), ("signature.der", der), ("message", message)):
            (tmp_path / name).write_bytes(data)
        command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -sigfile signature.der -in message -rawin"
        options = "-digest sm3 -pkeyopt distid:1234567812345678"
        return subprocess.run([*command.split(), *options.split()], cwd=tmp_path, capture_output=True).returncode

    assert verify(sides.host, request_message, request_signature) == 0
    assert verify(sides.switch, answer_message, answer_signature) == 0
    assert verify(sides.switch, answer_message, request_signature) != 0


def test_no_cut_of_a_request_is_another_request(sides: Any) -> None:
    """Method, path and body cannot be moved across their borders."""
    random = Random(3)
    body = b'{"item":1}'
    signature = sides.switch.sign_request("POST", "/a/b", body)
    for method, path, other in [("POS", "T/a/b", body), ("POST/a", "/b", body), ("POST", "/a/b", body + b" ")]:
        with pytest.raises(SignatureRefused):
            sides.host.verify_request(method, path, other, signature)
    answer = sides.host.sign_answer(200, signature, body)
    with pytest.raises(SignatureRefused):
        sides.switch.verify_answer(200, random.randbytes(64), body, answer)
