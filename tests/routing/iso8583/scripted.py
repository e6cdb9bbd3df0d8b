"""A host that does what a test says, on in-memory streams and a clock that jumps."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import trio
import trio.testing

from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import HostFormat, answer_mti
from fengshou.protocol.iso8583_reference import ReferenceIso8583Codec
from fengshou.protocol.service import Iso8583Call, Reply
from fengshou.routing.destination import Completion, Outbound, Trace
from fengshou.routing.iso8583_line import LineSettings
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.routing.iso8583_wire import drain

CODEC = ReferenceIso8583Codec(HostFormat())
RECEIVED_US = 1_763_963_999_000_000  # 2025-11-24 13:59:59 in UTC+8

Connection = trio.StapledStream[Any, Any]
Behaviour = Callable[["ScriptedHost", Connection, Sequence[Fields]], Awaitable[None]]


def answer_to(request: Fields, **fields: str | None) -> bytes:
    """The frame of an approving answer. Keywords ``f39=…`` set elements; None removes one."""
    answer = {number: request[number] for number in (7, 11, 37, 41) if number in request}
    answer |= {0: answer_mti(str(request[0])), 39: "00"}
    for name, value in fields.items():
        answer.pop(int(name[1:]), None)
        if value is not None:
            answer[int(name[1:])] = value
    return CODEC.frame(answer)


async def approve(host: "ScriptedHost", stream: Connection, requests: Sequence[Fields]) -> None:
    await stream.send_all(b"".join(answer_to(request) for request in requests))


async def stay_silent(host: "ScriptedHost", stream: Connection, requests: Sequence[Fields]) -> None:
    pass


class ScriptedHost:
    """Answers sign-on and echo with ``network_code`` (None: never) and hands business to ``behave``, read by read."""

    def __init__(self, nursery: trio.Nursery, behave: Behaviour) -> None:
        self.behave = behave
        self.network_code: str | None = "00"
        self.connects_refused = 0
        self.network: list[str] = []  # DE 70 of what was heard
        self.requests: list[Fields] = []
        self.reads: list[int] = []  # business messages in each read
        self.streams: list[Connection] = []
        self.sends = 0  # by the link, of anything
        self.blocked: trio.Event | None = None  # when set, the link's sends do not end before it
        self._nursery = nursery

    async def connect(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.connects_refused:
            self.connects_refused -= 1
            raise ConnectionRefusedError
        link_end, host_end = trio.testing.memory_stream_pair()
        pump = link_end.send_stream.send_all_hook
        assert pump is not None

        async def send_all_hook() -> None:
            self.sends += 1
            if self.blocked is not None:
                await self.blocked.wait()
            await pump()

        link_end.send_stream.send_all_hook = send_all_hook
        self.streams.append(host_end)
        self._nursery.start_soon(self._serve, host_end)
        return link_end

    async def _serve(self, stream: Connection) -> None:
        buffer = bytearray()
        try:
            while data := await stream.receive_some():
                buffer += data
                business = []
                for fields in drain(CODEC, buffer):
                    if str(fields[0])[1] != "8":
                        business.append(fields)
                    elif fields[0] == "0800":
                        self.network.append(str(fields[70]))
                        if self.network_code is not None:
                            await stream.send_all(answer_to(fields, f39=self.network_code))
                    else:
                        self.network.append(f"answer {fields[39]!s}")
                if business:
                    self.requests += business
                    self.reads.append(len(business))
                    await self.behave(self, stream, business)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


class Ends:
    """A sink that remembers: what each token came to, late answers, and how many arrived together."""

    def __init__(self) -> None:
        self.results: dict[Any, object] = {}
        self.late: dict[Any, object] = {}
        self.batches: list[int] = []

    def __call__(self, completions: Sequence[Completion]) -> None:
        self.batches.append(len(completions))
        for completion in completions:
            book = self.late if completion.late else self.results
            assert completion.outbound.token not in book, "a call ends once"
            result = completion.result
            book[completion.outbound.token] = result.code if isinstance(result, Reply) else result


def outbound(rrn: int, deadline: float, *, repeat: bool = False, fields: Fields | None = None) -> Outbound:
    """A purchase; its token is the RRN."""
    trace = Trace(rrn, RECEIVED_US, "POS00001", "MERCHANT0000001", 1020000, repeat=repeat)
    return Outbound(rrn, Iso8583Call(200, fields or {3: "000000", 4: "000000000100"}), trace, deadline)


Scenario = Callable[[ScriptedHost, Iso8583Link, Ends], Awaitable[None]]


def play(
    scenario: Scenario,
    *,
    behave: Behaviour = approve,
    lines: int = 1,
    prepare: Callable[[ScriptedHost], None] = id,
    **options: Any,
) -> tuple[ScriptedHost, Iso8583Link, Ends]:
    """Run a link against a host while the scenario lasts; then end it in order."""

    async def main() -> tuple[ScriptedHost, Iso8583Link, Ends]:
        async with trio.open_nursery() as nursery:
            host = ScriptedHost(nursery, behave)
            prepare(host)
            settings = LineSettings(echo_idle_s=30.0, network_timeout_s=5.0)
            link = Iso8583Link(
                "core", [host.connect] * lines, HostFormat(), Random(7), line=settings, now_us=lambda: 0, **options
            )
            ends = Ends()
            async with trio.open_nursery() as running:
                running.start_soon(link.run, ends)
                await scenario(host, link, ends)
                running.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return host, link, ends

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def until(condition: Callable[[], bool]) -> None:
    """Let time go on until it holds."""
    with trio.fail_after(600):
        while not condition():
            await trio.sleep(0.01)
