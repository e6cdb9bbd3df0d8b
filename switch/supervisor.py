"""A switch of several workers: one process that accepts for all, keeps them alive, and speaks for them.

It holds the site and the listening socket, and nothing else that could be lost: transactions, keys and terminals are
the workers'. A worker that dies is started again; meanwhile its connections wait, and the others do not notice. The
first worker also seals days and feeds analytics.
"""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec
import trio

from fengshou.switch.affinity import Share
from fengshou.switch.config import ConfigError, Loaded
from fengshou.switch.descriptors import allow_descriptors
from fengshou.switch.dispatch import Dispatcher
from fengshou.switch.server import LOCK, Ready, only_one, open_journal
from fengshou.switch.status import combined
from fengshou.switch.status_socket import serve_status
from fengshou.switch.workers import Worker, WorkerReady, worker_command, worker_path
from fengshou.terminals.accepting import Bound
from fengshou.terminals.listener import ListenerLimits

logger = logging.getLogger(__name__)

# A worker drains for as long as the configuration says, then signs and closes; whatever takes longer hangs.
_CLOSING_S = 15.0
_STATUS_WITHIN_S = 2.0
_STATUS_BYTES = 65536


class Supervisor:
    """The workers of a site and the door to them."""

    def __init__(self, loaded: Loaded, lock: int) -> None:
        """Bind. ``lock`` is the descriptor that holds the site. Raises OSError."""
        config = loaded.config
        allow_descriptors(2 * config.limits.handshakes)
        self._loaded = loaded
        self._status = loaded.path(config.files.status)
        command = worker_command(loaded.file)
        self._workers = [Worker(Share(number, config.workers), command, [lock]) for number in range(config.workers)]
        self._source = Bound(config.listen.host, config.listen.port)
        limits = config.limits
        self._dispatcher = Dispatcher(
            self._source, self._workers, ListenerLimits(limits.connections, limits.handshakes, limits.handshake_s)
        )
        self._starting = trio.CancelScope()
        self._stop = trio.Event()

    async def run(self, on_ready: Callable[[Ready], None]) -> None:
        """Serve until SIGTERM or SIGINT, then let every worker end in good order. Raises ConfigError."""
        failure: ConfigError | None = None
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                try:
                    await self._serve(on_ready)
                except* ConfigError as group:
                    failure = _first(group)
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _serve(self, on_ready: Callable[[Ready], None]) -> None:
        async with trio.open_nursery() as keeping, trio.open_nursery() as nursery:
            started: list[WorkerReady] = []
            with self._starting:
                async with trio.open_nursery() as starting:
                    for worker in self._workers:
                        starting.start_soon(self._start, keeping, worker, started)
            if len(started) == len(self._workers):
                nursery.start_soon(self._dispatcher.run)
                await nursery.start(serve_status, self._status, self._answer)
                on_ready(
                    Ready(self._source.address, sum(it.recovered for it in started), sum(it.owed for it in started))
                )
                await self._stop.wait()
            self._dispatcher.stop()
            nursery.cancel_scope.cancel()
            for worker in self._workers:
                worker.stop()
            keeping.cancel_scope.deadline = trio.current_time() + self._loaded.config.limits.drain_s + _CLOSING_S

    async def _start(self, keeping: trio.Nursery, worker: Worker, started: list[WorkerReady]) -> None:
        def again(ready: WorkerReady) -> None:
            logger.warning(
                "worker %d serves again: %d open transactions, %d reversals are owed",
                worker.share.worker, ready.recovered, ready.owed,
            )  # fmt: skip

        started.append(await keeping.start(worker.keep, again))

    async def _obey(self, signals: Any) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                for worker in self._workers:
                    worker.tell(signal.SIGHUP)
            else:
                self._starting.cancel()
                self._stop.set()

    # -- status ----------------------------------------------------------------------------------------------------

    async def _answer(self) -> dict[str, Any]:
        """What the workers say, together and each for itself."""
        answers: dict[int, dict[str, Any]] = {}

        async def ask(worker: Worker) -> None:
            answer = await _ask(str(worker_path(self._status, worker.share.worker))) if worker.up else None
            if answer is not None:
                answers[worker.share.worker] = answer

        async with trio.open_nursery() as nursery:
            for worker in self._workers:
                nursery.start_soon(ask, worker)
        workers = [
            {
                "worker": worker.share.worker,
                "process": worker.pid,
                "starts": worker.starts,
                "status": answers.get(worker.share.worker),
            }
            for worker in self._workers
        ]
        ours = {"handshakes": {"refused": dict(self._dispatcher.refused)}}  # of those who never said their name
        whole = combined([*(answers[number] for number in sorted(answers)), ours])
        return {**whole, "process": os.getpid(), "workers": workers}


async def _ask(path: str) -> dict[str, Any] | None:
    """The answer of a worker; None when it does not give one soon."""
    parts = []
    with trio.move_on_after(_STATUS_WITHIN_S):
        try:
            async with await trio.open_unix_socket(path) as stream:
                async for part in stream:
                    parts.append(bytes(part))
        except (OSError, trio.BrokenResourceError):
            return None
        found: dict[str, Any] = msgspec.json.decode(b"".join(parts))
        return found
    return None


def _first(group: BaseExceptionGroup[ConfigError]) -> ConfigError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def supervise(loaded: Loaded, on_ready: Callable[[Ready], None]) -> None:
    """Run a switch of several workers until it is told to stop. Raises ConfigError, JournalError."""
    with ExitStack() as stack:
        lock = stack.enter_context(only_one(loaded.path(LOCK)))
        journal = open_journal(loaded)  # as a whole: proven to its end, before several write to it
        try:
            journal.share_out(loaded.config.workers)
        finally:
            journal.close()
        logger.info("process %d, %d workers", os.getpid(), loaded.config.workers)
        trio.run(Supervisor(loaded, lock).run, on_ready)
