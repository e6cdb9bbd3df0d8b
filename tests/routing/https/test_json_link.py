"""The link to a back end of signed JSON against real servers, good and bad."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import h11
import pytest
import trio
import trio.testing

from fengshou.codecs import sm3
from fengshou.hsm.channel import client_context, server_context
from fengshou.protocol.service import JsonCall, Reply
from fengshou.protocol.signing import SIGNATURE_HEADER, json_answer_message, json_request_message
from fengshou.routing.connect import tls_accept, tls_connect
from fengshou.routing.destination import Failure, Outbound
from fengshou.routing.json_link import JsonLink
from fengshou.routing.json_server import ApplicationHandler, JsonServer

MakeCall = Callable[..., Outbound]


def connect_to(address: tuple[str, int], streams: list[trio.abc.Stream] | None = None) -> Any:
    async def connect() -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(*address)
        if streams is not None:
            streams.append(stream)
        return stream

    return connect


async def read_request(stream: trio.abc.Stream, http: h11.Connection) -> tuple[bytes, bytes]:
    """Body and signature of the next request; empty when the client is gone."""
    body, signature = b"", b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            signature = bytes.fromhex(dict(event.headers)[SIGNATURE_HEADER.lower().encode()].decode())
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return body, signature


def response(body: bytes, signature: str | None, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    if signature is not None:
        lines.append(f"{SIGNATURE_HEADER}: {signature}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_answer_carries_the_trace(bench: Any, echo: Any, call: MakeCall) -> None:
    async with bench() as b:
        _, address = await b.server(echo)
        link = await b.link(connect_to(address))
        link.submit([call(516_200_000_007, item=7, rrn="forged by the service")])
        (done,) = await b.completed(1)
    assert isinstance(done.result, Reply)
    assert done.result.code == "00"
    assert done.result.body["asked"] == {
        "item": 7,
        "rrn": "516200000007",
        "terminal": "POS00001",
        "merchant": "MERCHANT0000001",
        "received": "2025-06-01T08:00:00.000001+08:00",
        "repeat": False,
    }
    assert (link.sent, link.answered, link.in_flight) == (1, 1, 0)


async def test_hundred_calls_share_four_connections(bench: Any, echo: Any, call: MakeCall) -> None:
    streams: list[trio.abc.Stream] = []
    async with bench() as b:
        _, address = await b.server(echo)
        link = await b.link(connect_to(address, streams), connections=4)
        link.submit([call(number) for number in range(100)])
        done = await b.completed(100)
        link.submit([call(number) for number in range(100, 110)])
        await b.completed(110)
        assert len(streams) == link.connects == 4
    assert sorted(completion.outbound.token for completion in done) == list(range(100))
    assert all(completion.result.code == "00" for completion in done)
    assert len(echo.seen) == 110


async def test_calls_beyond_the_bound_are_busy_at_once(bench: Any, call: MakeCall) -> None:
    async with bench() as b:
        address = await b.raw_server(lambda stream: trio.sleep_forever())
        link = await b.link(connect_to(address), connections=1, waiting_max=2)
        link.submit([call(number) for number in range(5)])
        done = await b.completed(2)
        assert {completion.outbound.token: completion.result for completion in done} == {
            3: Failure.BUSY,
            4: Failure.BUSY,
        }
        assert link.in_flight == 3


async def test_a_call_that_waited_past_its_deadline_never_left(bench: Any, call: MakeCall) -> None:
    async with bench() as b:
        address = await b.raw_server(lambda stream: trio.sleep_forever())
        link = await b.link(connect_to(address), connections=1)
        link.submit([call(1, wait_s=5)])
        await trio.testing.wait_all_tasks_blocked(0.05)
        link.submit([call(2, wait_s=0.1)])
        (done,) = await b.completed(1)
        assert (done.outbound.token, done.result) == (2, Failure.BUSY)
        assert link.sent == 1


async def test_no_connection_is_unavailable(bench: Any, sides: Any, call: MakeCall) -> None:
    async def refused() -> trio.abc.Stream:
        raise ConnectionRefusedError

    async with bench() as b:
        link = JsonLink("gov", refused, "gov.example", sides.switch, Random(1))
        link.submit([call(1)])  # even before it runs
        b.nursery.start_soon(link.run, b.sink)
        link.submit([call(2)])
        done = await b.completed(2)
        assert [completion.result for completion in done] == [Failure.UNAVAILABLE] * 2
        assert not link.up


@pytest.mark.parametrize(
    ("call_", "why"),
    [
        (JsonCall("/v1/echo", {"x": object()}), "not JSON"),
        (JsonCall("/v1/echo", {"x": "\ud800"}), "half a surrogate pair"),
        (JsonCall("/v1 /echo", {}), "space in the path"),
        (JsonCall("/v1\r\nHost: x", {}), "line break in the path"),
        (JsonCall("v1", {}), "no path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_unsendable_calls_harm_nobody(bench: Any, echo: Any, call: MakeCall, call_: JsonCall, why: str) -> None:
    async with bench() as b:
        _, address = await b.server(echo)
        link = await b.link(connect_to(address))
        bad = call(1)
        bad.call = call_
        link.submit([bad, call(2)])
        done = await b.completed(2)
    results = {completion.outbound.token: completion.result for completion in done}
    assert results[1] is Failure.UNSENDABLE, why
    assert isinstance(results[2], Reply)


BODY = b'{"code":"00"}'
DEEP = b'{"a":' + b"[" * 30_000


@dataclass(frozen=True)
class Asked:
    """What a bad server knows when it answers."""

    sides: Any
    signature: bytes
    stranger: bool = False

    def signed(self, body: bytes, *, sent: bytes = b"", status: int = 200, about: bytes = b"") -> bytes:
        """``body`` signed with ``status`` as the answer to the request or to ``about``; ``sent`` goes in its place."""
        signer = self.sides.stranger if self.stranger else self.sides.host
        signature = signer.sign_answer(status, about or self.signature, body)
        return response(sent or body, signature.hex())


CHUNKED = b"transfer-encoding: chunked\r\n\r\n11170\r\n"
HEAD = b"HTTP/1.1 200 X\r\n"
# What a server may do wrong once it has the request, and the counter that shows it.
BAD_ANSWERS: list[tuple[str, str, Callable[[Asked], bytes | None]]] = [
    ("closes",             "lost",      lambda asked: None),
    ("garbage",            "malformed", lambda asked: b"\x00\xff not http at all\r\n\r\n"),
    ("unsigned",           "forged",    lambda asked: response(BODY, None)),
    ("signature not hex",  "forged",    lambda asked: response(BODY, "zz" * 64)),
    ("signature short",    "forged",    lambda asked: response(BODY, "00" * 63)),
    ("of a stranger",      "forged",    lambda asked: replace(asked, stranger=True).signed(BODY)),
    ("body tampered",      "forged",    lambda asked: asked.signed(BODY, sent=b'{"code":"01"}')),
    ("status tampered",    "forged",    lambda asked: asked.signed(BODY, status=404)),
    ("of another request", "forged",    lambda asked: asked.signed(BODY, about=bytes(64))),
    ("not JSON",           "malformed", lambda asked: asked.signed(b"{")),
    ("not an object",      "malformed", lambda asked: asked.signed(b"[]")),
    ("not UTF-8",          "malformed", lambda asked: asked.signed(b'{"a":"\xff"}')),
    ("nested deeply",      "malformed", lambda asked: asked.signed(DEEP)),
    ("declares too much",  "malformed", lambda asked: HEAD + b"content-length: 70000\r\n\r\n"),
    ("sends too much",     "malformed", lambda asked: HEAD + CHUNKED + b"x" * 70_000),
    ("endless header",     "malformed", lambda asked: HEAD + b"x: " + b"y" * 70_000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "counter", "answer"), BAD_ANSWERS, ids=[row[0] for row in BAD_ANSWERS])
async def test_a_bad_answer_is_unknown_and_counted(
    bench: Any, sides: Any, call: MakeCall, name: str, counter: str, answer: Any
) -> None:
    async def misbehave(stream: trio.SocketStream) -> None:
        request = await read_request(stream, h11.Connection(h11.SERVER))
        data = answer(Asked(sides, request[1])) if request[1] else None
        if data is not None:
            await stream.send_all(data)
            await stream.receive_some(1)  # until the client has judged
        await stream.aclose()

    async with bench() as b:
        address = await b.raw_server(misbehave)
        link = await b.link(connect_to(address), connections=1)
        link.submit([call(1)])
        (done,) = await b.completed(1)
        assert done.result is Failure.UNKNOWN
        assert {name: getattr(link, name) for name in ("lost", "malformed", "forged")} == {
            name: int(name == counter) for name in ("lost", "malformed", "forged")
        }
        with trio.fail_after(5):  # and the link comes back
            while link.connects < 2:
                await trio.sleep(0.01)


async def test_a_replayed_answer_is_forged(bench: Any, sides: Any, call: MakeCall) -> None:
    """The true answer to a request, given again to an equal request."""
    first: list[bytes] = []

    async def replay(stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        for _ in range(2):
            _, signature = await read_request(stream, http)
            if not first:
                first.append(response(BODY, sides.host.sign_answer(200, signature, BODY).hex()))
            await stream.send_all(first[0])
            http = h11.Connection(h11.SERVER)
        await stream.receive_some(1)

    async with bench() as b:
        link = await b.link(connect_to(await b.raw_server(replay)), connections=1)
        link.submit([call(1)])
        link.submit([call(1)])
        done = await b.completed(2)
        assert isinstance(done[0].result, Reply)
        assert done[1].result is Failure.UNKNOWN
        assert link.forged == 1


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, b'{"code":"25"}', "25"),
        (400, b'{"code":"30"}', "30"),
        (503, b'{"code":"96"}', "96"),
        (500, b'{"code":"06"}', Failure.UNKNOWN),
        (200, b"{}", Failure.UNKNOWN),
        (200, b'{"code":0}', Failure.UNKNOWN),
        (200, b'{"code":"no such code"}', Failure.UNKNOWN),
    ],
)
async def test_what_a_signed_answer_means(
    bench: Any, sides: Any, call: MakeCall, status: int, body: bytes, result: Any
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        _, signature = await read_request(stream, h11.Connection(h11.SERVER))
        await stream.send_all(response(body, sides.host.sign_answer(status, signature, body).hex(), status))
        await stream.receive_some(1)

    async with bench() as b:
        link = await b.link(connect_to(await b.raw_server(serve)), connections=1)
        link.submit([call(1)])
        (done,) = await b.completed(1)
        assert (done.result.code if isinstance(done.result, Reply) else done.result) == result


async def test_late_answer_is_reported_as_late_and_the_connection_lives(bench: Any, echo: Any, call: MakeCall) -> None:
    gate = threading.Event()
    echo.hook = lambda body: gate.wait(10) and None
    async with bench() as b:
        _, address = await b.server(echo)
        link = await b.link(connect_to(address), connections=1)
        link.submit([call(1, wait_s=0.1)])
        (unknown,) = await b.completed(1)
        assert (unknown.result, unknown.late) == (Failure.UNKNOWN, False)
        gate.set()
        late = (await b.completed(2))[1]
        assert late.late
        assert isinstance(late.result, Reply)
        link.submit([call(2)])
        third = (await b.completed(3))[2]
        assert third.outbound.token == 2
        assert (link.connects, link.timed_out, link.late) == (1, 1, 1)


async def test_a_slow_answer_gives_way_to_a_waiting_call(bench: Any, call: MakeCall) -> None:
    """One connection, a host that never answers: the second call does not wait for the first one's late answer."""
    async with bench() as b:
        address = await b.raw_server(lambda stream: trio.sleep_forever())
        link = await b.link(connect_to(address), connections=1, late_wait_s=60)
        link.submit([call(1, wait_s=0.1)])
        await b.completed(1)
        link.submit([call(2, wait_s=3)])
        with trio.fail_after(5):
            while link.connects < 2:
                await trio.sleep(0.01)


async def test_every_call_completes_once_when_the_link_is_cancelled(bench: Any, call: MakeCall) -> None:
    async with bench() as b:
        address = await b.raw_server(lambda stream: trio.sleep_forever())
        link = await b.link(connect_to(address), connections=2)
        link.submit([call(number) for number in range(6)])
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert sorted(completion.outbound.token for completion in b.completions) == list(range(6))
    sent = [completion for completion in b.completions if completion.result is Failure.UNKNOWN]
    assert len(sent) == link.sent == 2
    assert all(c.result in (Failure.UNKNOWN, Failure.UNAVAILABLE) for c in b.completions)


async def test_server_restart_is_survived(bench: Any, echo: Any, call: MakeCall) -> None:
    async with bench() as b:
        server, address = await b.server(echo)
        link = await b.link(connect_to(address), connections=2)
        link.submit([call(1)])
        await b.completed(1)
        server.drain()
        with trio.fail_after(5):
            while link.up:
                await trio.sleep(0.01)
        link.submit([call(2)])
        assert (await b.completed(2))[1].result is Failure.UNAVAILABLE


async def test_over_the_security_channel(bench: Any, sides: Any, echo: Any, certified: Any, call: MakeCall) -> None:
    accept = tls_accept(server_context(certified.host, certified.trust))
    async with bench() as b:
        server = JsonServer(ApplicationHandler(echo), accept, sides.host)
        host, port = await b.nursery.start(server.serve, "127.0.0.1", 0)
        link = await b.link(
            tls_connect(host, port, client_context(certified.switch, certified.trust), "127.0.0.1"), connections=2
        )
        link.submit([call(number, text="农" * 5_000) for number in range(20)])
        done = await b.completed(20)
        assert all(isinstance(completion.result, Reply) for completion in done)
        assert (link.connects, server.accepted) == (2, 2)

        # A certificate of another authority: the link never serves, the others go on.
        stranger = tls_connect(host, port, client_context(certified.stranger, certified.trust), "127.0.0.1")
        stream = await stranger()  # a TLS 1.3 client hears of its refusal with the first answer
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(1)
        await stream.aclose()
        with trio.fail_after(5):
            while not server.handshakes_failed:
                await trio.sleep(0.01)
        link.submit([call(21)])
        assert isinstance((await b.completed(21))[20].result, Reply)


def test_sm3_of_signed_messages_is_the_standard_one() -> None:
    """What an auditor recomputes with another library."""
    body_digest = hashlib.new("sm3", b"{}").digest()
    assert body_digest == sm3(b"{}")
    assert json_request_message("POST", "/v1/x", body_digest) == b"FP1GPOST\n/v1/x\n" + body_digest
    assert json_answer_message(200, b"s" * 64, body_digest) == b"FP1G200\n" + b"s" * 64 + body_digest
