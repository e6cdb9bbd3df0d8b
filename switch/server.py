"""The switch as a process: puts the parts together, runs them, and ends them in good order.

Start: configuration, keys, registry, journal, recovery, links, listener. Stop, on SIGTERM or SIGINT: no new
connections, no new requests, wait for the back ends, journal and send what they answered, sign the last commit, close.
"""

import fcntl
import gc
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import trio

from fengshou.hsm.channel import PROFILES, Trust, terminal_server_context
from fengshou.hsm.custody import SWITCH_TLS, CustodyError, KeyInfo
from fengshou.hsm.memory import forbid_core_dumps
from fengshou.hsm.renewal import LiveContext
from fengshou.hsm.software import DEVELOPMENT
from fengshou.routing.events import EventFeed
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.switch.affinity import WHOLE, Share
from fengshou.switch.certificate_files import read_certificate
from fengshou.switch.clock import Clock
from fengshou.switch.config import ConfigError, Loaded
from fengshou.switch.core import Core, World
from fengshou.switch.custodies import custody_of, prove
from fengshou.switch.descriptors import allow_descriptors
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.journal.store import Journal
from fengshou.switch.keeper import Keeper
from fengshou.switch.links import JournalEvents, destination, feed
from fengshou.switch.outbound import Route
from fengshou.switch.renewals import Renewals
from fengshou.switch.settlement.days import keep_written
from fengshou.switch.signing_certificate import SigningCertificate
from fengshou.switch.stand_in import Limits
from fengshou.switch.stand_in import load as load_limits
from fengshou.switch.status import snapshot
from fengshou.switch.status_socket import serve_status
from fengshou.switch.workers import Line, WorkerReady, worker_path
from fengshou.switch.zones import pin_zones
from fengshou.terminals.accepting import Bound, Handed, Source
from fengshou.terminals.binding import TerminalRow
from fengshou.terminals.listener import Listener, ListenerLimits
from fengshou.terminals.pump import Closing, Pump, PumpLimits
from fengshou.terminals.registry import Registry, RegistryError

logger = logging.getLogger(__name__)

LOCK = "switch.lock"

# A connection and a sign-on take milliseconds; a host that is down takes for ever.
_LINKS_WITHIN_S = 2.0
# How late analytics may hear of what other workers have journalled.
_OTHERS_EVENTS_S = 0.2
# How long a site may still be held by a switch that was killed, and whose last workers are dying.
_DYING_S = 3.0
# How long the loop may keep the interpreter from the writer that has news of the disk, and from the handshakes. With
# CPython's 5 ms the 99th percentile at 2,000 a second was 41, 84 and 30 ms in three runs, with this 33, 30 and 25 in
# those between them, for the same CPU.
_GIL_TURN_S = 0.0005


@dataclass(slots=True)
class Ready:
    """What a started switch tells its surroundings."""

    address: tuple[str, int]
    recovered: int  # intents that were open at start
    owed: int  # reversals that were owed at start


class Switch(Core):
    """One worker with its surroundings: configuration, keys, registry, listener, feed."""

    def __init__(self, loaded: Loaded, stack: ExitStack, share: Share = WHOLE, source: Source | None = None) -> None:
        """Open files, recover, bind. ``stack`` closes what was opened. Of several workers, ``source`` gives one the
        connections of its ``share`` of terminals. Raises the errors of what it opens."""
        config, limits = loaded.config, loaded.config.limits
        self._loaded = loaded
        forbid_core_dumps()
        allow_descriptors(limits.connections)
        custody = custody_of(loaded)
        if DEVELOPMENT in custody.protection:
            logger.warning("keys are plain files in %s: for development only", loaded.path(config.files.keys))
        prove(custody)
        self.custody = custody
        self.catalogue = Catalogue(load_service(entry.module, entry.options) for entry in config.service)
        self.registry = Registry.open(loaded.path(config.files.registry), self.custody)
        stack.callback(self.registry.close)
        self._terminals = self.registry.snapshot()
        self._renewals = Renewals(
            loaded.path(config.files.renewals), loaded.path(config.files.registry), self.custody,
            loaded.path(config.listen.authorities),
        )  # fmt: skip
        self._signer = SigningCertificate(
            loaded.path("certificates/switch-sign.crt"), loaded.path(config.listen.authorities), self.custody
        )
        self.share = share
        self.journal = open_journal(loaded, share)
        stack.callback(self.journal.close)
        pump_limits = PumpLimits(limits.sign_in_s, limits.idle_s, limits.stalled_s, limits.outbox_bytes)
        super().__init__(
            World(
                catalogue=self.catalogue,
                custody=self.custody,
                journal=self.journal,
                clock=Clock(config.cut_over.rule()),
                random=Random(),
                terminals=self._terminals_now,
                routes={
                    name: Route(destination(name, row, loaded, self.custody), row.deadline_ms / 1000)
                    for name, row in config.destination.items()
                },
                in_flight_max=limits.in_flight,
                share=share,
                stand_in=_stand_in(loaded),
                deadlines_s={
                    service.name: entry.deadline_ms / 1000
                    for service, entry in zip(self.catalogue.services, config.service, strict=True)
                    if entry.deadline_ms is not None
                },
                renewals=self._renewals,
                signer=self._signer,
                pin_zones=pin_zones(config),
                make_pump=lambda codec, on_closed: Pump(codec, pump_limits, on_closed),
            )
        )
        self.feed: EventFeed | None = None
        if config.analytics is not None and share.worker == 0:
            self.feed = feed(config.analytics, loaded, self.custody, JournalEvents(self.journal, self.writer))
            self.writer.on_event = self.feed.notify
        listen = config.listen
        self._trust = Trust(loaded.path(listen.authorities), loaded.optional(listen.revoked))
        self._revoked = self._trust.revoked_serials()
        self._channel = LiveContext(
            terminal_server_context, loaded.path(listen.certificate), self.custody, SWITCH_TLS, self._trust,
            PROFILES[listen.profile],
        )  # fmt: skip
        self.listener = Listener(
            source or Bound(listen.host, listen.port), lambda: self._channel.context, self.pump,
            ListenerLimits(limits.connections, limits.handshakes, limits.handshake_s), lambda: self._revoked,
        )  # fmt: skip

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self, on_ready: Callable[[Ready], None], also: Callable[..., Awaitable[object]]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. ``also`` runs beside until the end, see ``nursery.start``."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as back_ends, trio.open_nursery() as nursery:
                owed = self.start(back_ends, nursery)
                if self.feed is not None:
                    back_ends.start_soon(self.feed.run)
                    if self.share.workers > 1:
                        nursery.start_soon(self._hear_of_events, self.feed)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._renewals.run, lambda: self.pump, self._terminals_now)
                nursery.start_soon(Keeper(self.journal, self.writer, self.custody, self.share).run)
                if self.share.worker == 0:
                    home = self._loaded.path("switch.toml").parent
                    nursery.start_soon(keep_written, self.journal, home, home / "settlement")
                await nursery.start(also)
                await self._links_up()
                nursery.start_soon(self.listener.run)
                on_ready(Ready(self.listener.address, self.recovered, owed))
                await self._until_told_to_stop(signals)
                logger.info("stopping: %d in flight", len(self.duplicates))
                await self._drain()
                nursery.cancel_scope.cancel()
                back_ends.cancel_scope.cancel()
        self.pump.shut()
        await self.writer.stop()

    async def _links_up(self) -> None:
        """Wait for the back ends, so that the first terminals are not told that there are none; but not for long: one
        that is down must not keep the others from their terminals, who wait in the socket's queue meanwhile."""
        with trio.move_on_after(_LINKS_WITHIN_S):
            while not all(route.destination.up for route in self.routes.values()):
                await trio.sleep(0.01)

    async def _hear_of_events(self, feed: EventFeed) -> None:
        """Those that other workers journal: nobody else tells of them."""
        while True:
            await trio.sleep(_OTHERS_EVENTS_S)
            self.journal.refresh()
            if self.journal.last_event > feed.cursor:
                feed.notify()

    async def _until_told_to_stop(self, signals: Any) -> None:
        async for number in signals:
            if number != signal.SIGHUP:
                return
            if self._channel.renew():
                self._close_revoked()

    def _close_revoked(self) -> None:
        """After certificates, authorities and revocation list were read again."""
        self._revoked = self._trust.revoked_serials()
        for peer in self.pump:
            if peer.certificate.serial in self._revoked:
                self.pump.close(peer, Closing.REVOKED)
        logger.info("certificates read again")

    async def _drain(self) -> None:
        self.listener.stop()
        self.pump.halt()
        with trio.move_on_after(self._loaded.config.limits.drain_s):
            await self.pipeline.drained()

    async def _watch(self) -> None:
        """What any process changes counts within half a second, for new sign-ins and for live sessions.

        That is the registry, the keys, and the files that certificates and their revocations are in.
        """
        while True:
            await trio.sleep(0.5)
            try:
                if self.custody.refresh():
                    self._keys_changed()
                    logger.info("keys read again")
                if self._channel.refresh():
                    self._close_revoked()
                if self.registry.changed():
                    self._terminals = self.registry.snapshot()
                    self._revoke()
            except (RegistryError, CustodyError, sqlite3.Error) as error:
                logger.error("registry or keys cannot be read, the last view of them stands: %s", error)

    def _keys_changed(self) -> None:
        """Custody has other epochs: back ends are brought those that they lack, terminals hear of theirs."""
        self.keys.refresh()
        for route in self.routes.values():
            if isinstance(route.destination, Iso8583Link):
                route.destination.keys_changed()

    def can_use(self, info: KeyInfo) -> bool:
        """Whether everybody who must know this key before it is used does: a back end that shares it has it."""
        zones = [route.destination.zone for route in self.routes.values() if isinstance(route.destination, Iso8583Link)]
        shared = [zone for zone in zones if zone is not None and info.label in zone.labels]
        return all((info.label, info.epoch) in zone.confirmed for zone in shared)

    def _terminals_now(self, terminal: str) -> TerminalRow | None:
        return self._terminals.get(terminal)

    def _revoke(self) -> None:
        """Close the sessions whose terminal or application is no longer what it was at sign-in."""
        for peer in self.pump:
            row = peer.row
            if row is not None and not self.sessions.review(peer, self._terminals.get(row.facts.terminal)):
                self.pump.close(peer, Closing.REVOKED)


@contextmanager
def only_one(file: Path) -> Iterator[int]:
    """Keep a second switch away from this site: its keys, numbers and debts are this one's. Gives the descriptor that
    holds the site, for workers to inherit. Raises ConfigError."""
    deadline = time.monotonic() + _DYING_S
    with file.open("a") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(f"another switch runs on this site: it holds {file}") from None
                time.sleep(0.05)
        yield held.fileno()


def open_journal(loaded: Loaded, share: Share = WHOLE) -> Journal:
    """The site's journal, for a share of its terminals. Raises JournalError."""
    config = loaded.config
    return Journal(loaded.path(config.files.journal), map_bytes=config.limits.journal_gib << 30, share=share)


def _stand_in(loaded: Loaded) -> Limits | None:
    """The bank's limits of standing in. Raises StandInError, CertificateError."""
    section = loaded.config.stand_in
    if section is None:
        return None
    signer = read_certificate(loaded.path(section.signer)).public_key
    return load_limits(loaded.path(section.limits), signer)


def serve(loaded: Loaded, on_ready: Callable[[Ready], None]) -> None:
    """Run a switch in this process until it is told to stop."""
    with ExitStack() as stack:
        stack.enter_context(only_one(loaded.path(LOCK)))
        _run(Switch(loaded, stack), loaded.path(loaded.config.files.status), on_ready)


def work(loaded: Loaded, share: Share, line: Line) -> None:
    """Run a worker in this process until it is told to stop."""
    listen = loaded.config.listen
    with ExitStack() as stack:
        switch = Switch(loaded, stack, share, Handed(line.socket, (listen.host, listen.port)))
        path = worker_path(loaded.path(loaded.config.files.status), share.worker)
        _run(switch, path, lambda ready: line.ready(WorkerReady(ready.recovered, ready.owed)))


def _run(switch: Switch, status_path: Path, on_ready: Callable[[Ready], None]) -> None:
    logger.info("process %d", os.getpid())
    # What is there now stays; what a request makes is freed by its reference counts. Looking for cycles at the
    # usual pace costs 7 µs a transaction and finds next to none.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    sys.setswitchinterval(_GIL_TURN_S)

    async def answer() -> dict[str, Any]:
        return snapshot(switch)

    async def status(task_status: trio.TaskStatus[None]) -> None:
        await serve_status(status_path, answer, task_status)

    trio.run(switch.run, on_ready, status)
