"""Both sides of a signed conversation with keys of their own, and servers that misbehave as told."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from fengshou.codecs import PrivateKey
from fengshou.hsm import x509
from fengshou.hsm.channel import Identity, Trust
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.pki import AUTHORITIES, Authority
from fengshou.hsm.software import Kind, SoftwareCustody, save_private_key
from fengshou.protocol.backend import NotServed
from fengshou.protocol.service import JsonCall
from fengshou.routing.connect import Connect
from fengshou.routing.destination import Completion, Outbound, Trace
from fengshou.routing.envelope import Envelope
from fengshou.routing.json_link import JsonLink
from fengshou.routing.json_server import ApplicationHandler, Handler, JsonServer, Limits

HOST_SIGN = "host.sign"


@dataclass(frozen=True)
class Sides:
    """The switch and a host that know each other's signing keys."""

    switch: Envelope
    host: Envelope
    stranger: Envelope  # knows both, is known to neither


@pytest.fixture(scope="session")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    def custody(label: str) -> SoftwareCustody:
        made = SoftwareCustody.initialise(tmp_path_factory.mktemp("keys") / "custody")
        made.create(label, Kind.SM2)
        return made

    switch, host, stranger = custody(SWITCH_SIGN), custody(HOST_SIGN), custody(HOST_SIGN)
    switch_key, host_key = switch.public_key(SWITCH_SIGN), host.public_key(HOST_SIGN)
    return Sides(
        Envelope(switch, SWITCH_SIGN, [host_key]),
        Envelope(host, HOST_SIGN, [switch_key]),
        Envelope(stranger, HOST_SIGN, [switch_key, host_key]),
    )


@dataclass
class Echo:
    """A ``JsonApplication`` that answers with what it was asked, and remembers it."""

    seen: list[Mapping[str, Any]] = field(default_factory=list)
    hook: Callable[[Mapping[str, Any]], None] = lambda body: None

    def answer(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if path != "/v1/echo":
            raise NotServed(path)
        self.seen.append(body)
        self.hook(body)
        return {"code": "00", "asked": body}

    def close(self) -> None:
        pass


@pytest.fixture
def echo() -> Echo:
    return Echo()


async def plain(raw: trio.abc.Stream) -> trio.abc.Stream:
    """Accept without TLS."""
    return raw


@dataclass
class Bench:
    """Starts servers and links in a nursery that ends with the test."""

    sides: Sides
    nursery: trio.Nursery
    completions: list[Completion] = field(default_factory=list)
    arrived: trio.Event = field(default_factory=trio.Event)

    async def server(self, handler: Handler | Echo, limits: Limits | None = None) -> tuple[JsonServer, tuple[str, int]]:
        serving = ApplicationHandler(handler) if isinstance(handler, Echo) else handler
        server = JsonServer(serving, plain, self.sides.host, limits)
        return server, await self.nursery.start(server.serve, "127.0.0.1", 0)

    async def raw_server(self, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> tuple[str, int]:
        """A TCP server that does with each connection what ``handler`` does."""

        async def until_the_client_leaves(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):
                await handler(stream)

        listeners = await self.nursery.start(trio.serve_tcp, until_the_client_leaves, 0)
        return ("127.0.0.1", listeners[0].socket.getsockname()[1])

    async def link(self, connect: Connect, **settings: Any) -> JsonLink:
        link = JsonLink("government", connect, "gov.example", self.sides.switch, Random(7), **settings)
        self.nursery.start_soon(link.run, self.sink)
        with trio.fail_after(10):
            while not link.up:
                await trio.sleep(0.01)
        return link

    def sink(self, completions: Any) -> None:
        self.completions += completions
        self.arrived.set()

    async def completed(self, count: int) -> list[Completion]:
        """The first ``count`` completions, once they are there."""
        with trio.fail_after(20):
            while len(self.completions) < count:
                self.arrived = trio.Event()
                await self.arrived.wait()
        return self.completions[:count]


@pytest.fixture
def bench(sides: Sides) -> Callable[[], Any]:
    @asynccontextmanager
    async def open_bench() -> AsyncIterator[Bench]:
        async with trio.open_nursery() as nursery:
            yield Bench(sides, nursery)
            nursery.cancel_scope.cancel()

    return open_bench


@pytest.fixture
def call() -> Callable[..., Outbound]:
    """Makes calls: ``token`` is their number and the RRN too."""

    def make(token: int = 1, wait_s: float = 5.0, path: str = "/v1/echo", **body: Any) -> Outbound:
        trace = Trace(token, 1_748_736_000_000_001, "POS00001", "MERCHANT0000001", 1)
        return Outbound(token, JsonCall(path, body), trace, trio.current_time() + wait_s)

    return make


@dataclass(frozen=True)
class Certified:
    """Channel identities under one authority, and one from another."""

    switch: Identity
    host: Identity
    trust: Trust
    stranger: Identity


@pytest.fixture(scope="session")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    folder = tmp_path_factory.mktemp("bank")

    def certify(authority: Authority, profile: x509.Profile, name: str) -> Identity:
        key = PrivateKey.generate()
        subject = x509.Subject(name, names=("127.0.0.1",))
        certificate = authority.issue(profile, subject, key.public_key, datetime.now(UTC))
        stem = folder / f"{authority.folder.name}-{name}"
        save_private_key(Path(f"{stem}.key"), key)
        Path(f"{stem}.crt").write_bytes(authority.chain(certificate))
        return Identity.of_key_file(Path(f"{stem}.crt"), Path(f"{stem}.key"))

    ours = Authority.initialise(folder / "pki", "Bank", datetime.now(UTC))
    theirs = Authority.initialise(folder / "other", "Other", datetime.now(UTC))
    return Certified(
        certify(ours, x509.SWITCH, "switch-1"),
        certify(ours, x509.HOST, "government"),
        Trust(ours.folder / AUTHORITIES),
        certify(theirs, x509.SWITCH, "switch-1"),
    )
