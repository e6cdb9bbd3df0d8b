"""A worker of a switch as a process: started, started again when it dies, handed connections, stopped.

Supervisor and worker share a Unix socket, the line. Down it go the sockets of terminals, up it comes one message when
the worker is ready. A worker dies with its supervisor, however that one ends; the site's lock is inherited by workers,
so nobody takes over the site before the last of them is gone.
"""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import trio

from fengshou.switch.affinity import Share
from fengshou.switch.config import ConfigError
from fengshou.terminals.accepting import HANDED

logger = logging.getLogger(__name__)

_FIRST_REST_S, _LONGEST_REST_S = 0.2, 10.0
# A worker that served so long did not die of what it found at its start.
_STEADY_S = 60.0
_MESSAGE_BYTES = 4096
_PR_SET_PDEATHSIG = 1  # prctl(2), linux/prctl.h


class WorkerReady(msgspec.Struct, frozen=True):
    """What a worker says once it serves. ``recovered``: intents that were open; ``owed``: reversals that it owes."""

    recovered: int
    owed: int


def worker_path(path: Path, worker: int) -> Path:
    """Where a worker answers what the switch as a whole answers at ``path``."""
    return path.with_name(f"{path.name}.{worker}")


class Worker:
    """One place in the switch, whatever process fills it."""

    def __init__(self, share: Share, command: Sequence[str], inherits: Sequence[int]) -> None:
        """``command`` starts it, when the number of its end of the line stands behind; ``inherits`` are descriptors."""
        self.share = share
        self.starts = 0
        self._command = [*command, str(share.worker), "--of", str(share.workers), "--supervisor", str(os.getpid())]
        self._inherits = inherits
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._up = trio.Event()
        self._turn = trio.StrictFIFOLock()
        self._stop = trio.Event()

    @property
    def up(self) -> bool:
        return self._up.is_set()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def keep(self, on_ready: Callable[[WorkerReady], None], task_status: trio.TaskStatus[WorkerReady]) -> None:
        """Run it until it is stopped; what dies is started again, later each time. ``on_ready`` hears of each start but
        the first, which the task status is told. Raises ConfigError: the first one never served."""
        rest_s = _FIRST_REST_S
        while not self._stop.is_set():
            began = trio.current_time()
            status = await self._run(task_status.started if not self.starts else on_ready)
            if self._stop.is_set():
                return
            if not self.starts:
                raise ConfigError(f"worker {self.share.worker} ended before it served, with status {status}")
            logger.error("worker %d ended with status %d; its terminals come back", self.share.worker, status)
            rest_s = _FIRST_REST_S if trio.current_time() - began > _STEADY_S else min(2 * rest_s, _LONGEST_REST_S)
            with trio.move_on_after(rest_s):
                await self._stop.wait()

    async def hand(self, sock: socket.socket) -> None:
        """Give it a connection, as soon as it is there. Raises OSError."""
        async with self._turn:
            while True:
                await self._up.wait()
                assert self._line is not None
                try:
                    socket.send_fds(self._line, [HANDED], [sock.fileno()])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._line)
                except (BrokenPipeError, ConnectionResetError):  # it is dying: wait for the next one
                    self._down()
                else:
                    return

    def tell(self, number: int) -> None:
        """Send it a signal."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it in good order; ``keep`` returns when it has ended."""
        self._stop.set()
        self.tell(signal.SIGTERM)

    async def _run(self, on_ready: Callable[[WorkerReady], None]) -> int:
        """One process from its start to its end; its exit status."""
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.setblocking(False)
        with line, theirs:
            process = self._process = self._spawn(theirs)
            theirs.close()
            if self._stop.is_set():
                process.terminate()
            try:
                await self._serve(line, on_ready)
                await _ended(process)
            finally:
                self._down()
                if process.poll() is None:  # cancelled
                    process.kill()
        return process.wait()

    def _spawn(self, theirs: socket.socket) -> "subprocess.Popen[bytes]":
        """Not in a thread: a worker is told of the death of the thread that started it."""
        return subprocess.Popen(
            [*self._command, "--line", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), *self._inherits),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C reaches the supervisor, and that one stops it in order
        )

    def _down(self) -> None:
        if self._up.is_set():
            self._up = trio.Event()

    async def _serve(self, line: socket.socket, on_ready: Callable[[WorkerReady], None]) -> None:
        """Until the worker's end of the line is closed."""
        while True:
            await trio.lowlevel.wait_readable(line)
            try:
                message = line.recv(_MESSAGE_BYTES)
            except ConnectionResetError:  # it ended with connections that it had not taken
                return
            if not message:
                return
            self._line = line
            self._up.set()
            self.starts += 1
            on_ready(msgspec.json.decode(message, type=WorkerReady))


async def _ended(process: "subprocess.Popen[bytes]") -> None:
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


class Line:
    """The worker's end of its line to the supervisor."""

    def __init__(self, descriptor: int, supervisor: int) -> None:
        """Raises ConfigError: nobody supervises this process (any more)."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) or os.getppid() != supervisor:
            raise ConfigError("a worker is started by `fengshou switch`, which is gone")
        try:
            self.socket = socket.socket(fileno=descriptor)
        except OSError as error:
            raise ConfigError(f"a worker is started by `fengshou switch`: {error}") from None
        self.socket.setblocking(False)

    def ready(self, news: WorkerReady) -> None:
        """Connections may come."""
        self.socket.send(msgspec.json.encode(news))


def worker_command(config: Path) -> list[str]:
    """What starts a worker with this configuration, but for its number."""
    return [sys.executable, "-m", "fengshou.switch", "worker", "--config", str(config), "--number"]
