"""The pipeline's own CPU by step: one thread, no sockets, no TLS, a back end that answers at once.

The steps are those of ``switch/pipeline.py``, on a real site's registry, services, custody and journal, in batches as
the pump would form them. What is missing to the whole switch is the channel, the links and the changes between threads.
"""

import shutil
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import trio

from bench.figures import Figure
from bench.purchase import EXAMPLES
from fengshou.hsm.pem import CERTIFICATE, from_pem
from fengshou.hsm.x509 import parse_certificate
from fengshou.protocol import elements as de
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.service import Reply
from fengshou.protocol.session import Event
from fengshou.routing.destination import Completion, Outbound
from fengshou.switch.config import load
from fengshou.switch.demo import prepare
from fengshou.switch.outbound import Route
from fengshou.switch.server import Switch
from fengshou.terminals.home import Home
from fengshou.terminals.pump import Peer
from fengshou.terminals.trades import read_trades

BATCH = 64
STEPS = (
    "read",
    "verify",
    "admit",
    "journal the intents",
    "durable",
    "route",
    "conclude",
    "journal the outcomes",
    "answer",
)


class _Host:
    """A destination that keeps what it is given."""

    def __init__(self) -> None:
        self.name = "core-banking"
        self.calls: list[Outbound] = []

    def submit(self, calls: Sequence[Outbound]) -> None:
        self.calls.extend(calls)


class _Outbox:
    """What a connection asks of its pump."""

    def __init__(self) -> None:
        self.sent = 0

    def send(self, peer: Peer, data: bytes) -> None:
        self.sent += len(data)


class _Clock:
    """CPU of this thread by step, and of each batch through all steps."""

    def __init__(self) -> None:
        self.ns: defaultdict[str, int] = defaultdict(int)
        self.batches_ns: list[int] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.thread_time_ns()
        yield
        self.ns[name] += time.thread_time_ns() - start

    @contextmanager
    def batch(self) -> Iterator[None]:
        before = sum(self.ns.values())
        yield
        self.batches_ns.append(sum(self.ns.values()) - before)

    def least_tenth_ns(self) -> float:
        """A batch in the tenth of them that took least: what disturbs only ever adds."""
        return fmean(sorted(self.batches_ns)[: -(-len(self.batches_ns) // 10)])


def _signed_in(switch: Switch, home: Path, outbox: _Outbox, sock: socket.socket) -> tuple[Peer, Home]:
    terminal = Home(home)
    certificate = parse_certificate(from_pem(CERTIFICATE, (home / "terminal.crt").read_bytes())[0])
    row = switch.registry.snapshot().get(terminal.identity.terminal)
    assert row is not None
    peer = Peer(cast(Any, outbox), sock, cast(Any, None), certificate, bytes(32))
    peer.session.advance(
        Event.SIGN_IN,
        {
            de.TERMINAL: row.facts.terminal, de.MERCHANT: row.facts.merchant, de.CURRENCY: 156, de.BATCH: 1,
            de.OPERATOR: "001",
        },
    )  # fmt: skip
    peer.row, peer.permitted, peer.session_record = row, row.services, 1
    return peer, terminal


def _frames(switch: Switch, peers: Sequence[tuple[Peer, Home]], count: int) -> list[tuple[Peer, bytes]]:
    """Signed purchases, each with a STAN of its own, going round the terminals."""
    codec = switch.catalogue.codec
    trades = list(read_trades(EXAMPLES / "purchases.csv", "farm-purchase"))
    signers = [home.signer() for _, home in peers]
    frames = []
    for number in range(count):
        which = number % len(peers)
        peer = peers[which][0]
        stan = number // len(peers) + 1
        values = {**trades[number % len(trades)].values, de.STAN: stan}
        message = Message(1, Flag.SIGNED, stan, values)
        digest = codec.digest(peer.certificate.public_key.za, peer.session.binding, message, dict(peer.session.implied))
        message.signature = signers[which].sign(digest)
        frames.append((peer, codec.encode(message)[1:]))
    return frames


def _through(switch: Switch, host: _Host, arrivals: Sequence[tuple[Peer, bytes]], clock: _Clock) -> None:
    """One batch, step by step."""
    inbound, sender, journal = switch.inbound, switch.sender, switch.journal
    with clock.step("read"):
        journal.refresh()
        exchanges = inbound.read(arrivals)
    with clock.step("verify"):
        inbound.verify(exchanges)
    with clock.step("admit"):
        entries = inbound.admit(exchanges)
    with clock.step("journal the intents"):
        journal.commit(entries)
    with clock.step("durable"):
        inbound.durable(exchanges)
    with clock.step("route"):
        sender.route([exchange for exchange in exchanges if exchange.conclusion is None])
        sender.answer([exchange for exchange in exchanges if exchange.conclusion is not None])
    completions = [Completion(call, Reply("00", {38: "000001"})) for call in host.calls]
    host.calls.clear()
    with clock.step("conclude"):
        ended, entries = sender.conclude(completions)
    with clock.step("journal the outcomes"):
        journal.commit(entries)
    with clock.step("answer"):
        sender.durable(ended)
        sender.answer(ended)


async def _run(folder: Path, count: int) -> tuple[_Clock, int]:
    site = prepare(folder / "site", EXAMPLES)
    clock = _Clock()
    with ExitStack() as stack:
        switch = Switch(load(site.path("switch.toml")), stack)
        host = _Host()
        switch.routes["core-banking"] = Route(cast(Any, host), 5.0)
        homes = sorted(site.path("terminals").iterdir())[:12]
        sock = stack.enter_context(socket.socket())
        peers = [_signed_in(switch, home, _Outbox(), sock) for home in homes]
        frames = _frames(switch, peers, count)
        for start in range(0, count, BATCH):
            with clock.batch():
                _through(switch, host, frames[start : start + BATCH], clock)
        approved = switch.sender.answered["00"]
        switch.listener.close()
    return clock, approved


def figures(folder: Path, count: int = 3200) -> list[Figure]:
    """CPU of each step, in microseconds a transaction, over ``count`` purchases in batches of ``BATCH``."""
    shutil.rmtree(folder, ignore_errors=True)
    clock, approved = trio.run(_run, folder, count)
    assert approved == count, f"{approved} of {count} approved"
    found = [
        Figure(key=f"pipeline.{step}", what=step, value=clock.ns[step] / count / 1000, unit="µs/transaction")
        for step in STEPS
    ]
    total = sum(figure.value for figure in found)
    return [
        *found,
        Figure(key="pipeline.all", what="all steps together", value=total, unit="µs/transaction"),
        Figure(
            key="pipeline.least", what="the same, the least tenth of the batches",
            value=clock.least_tenth_ns() / BATCH / 1000, unit="µs/transaction",
        ),
    ]  # fmt: skip
