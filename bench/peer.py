"""Runs the bare peer, ``bench.bare``, beside a switch: each part in a process of its own, and what it did."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.measure import BenchFailed
from fengshou.switch.load import CoreProbe, Pace
from fengshou.switch.load.processes import cpu_s


@dataclass(frozen=True, slots=True)
class Bare:
    """What the bare peer did in a window."""

    rate: float
    cpu_us: float
    core: Pace


class _Child:
    """A part of the bare peer in a process of its own; its standard output is read line by line."""

    def __init__(self, *arguments: str) -> None:
        self._told = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.bare", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._told,
            cwd=Path(__file__).resolve().parents[1],
        )
        self.pid = self._process.pid
        self.last = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.last = line

    def wait_for_output(self) -> None:
        deadline = time.monotonic() + 30
        while not self.last:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise BenchFailed(f"the bare peer printed nothing:\n{self.told()}")
            time.sleep(0.01)

    def finish(self) -> None:
        self._process.wait()
        self._reader.join()
        if self._process.returncode:
            raise BenchFailed(f"the bare peer failed:\n{self.told()}")

    def told(self) -> str:
        """The end of its standard error."""
        self._told.seek(0)
        return self._told.read().decode(errors="replace")[-2000:]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def run_bare(seconds: float, warm_up_s: float, connections: int, in_flight: int, switch: int, probe: CoreProbe) -> Bare:
    """The peer on the cores of the process ``switch``, which has nothing to do meanwhile. Its host is the same
    without MACs; ``in_flight`` requests of each connection keep going.

    Raises BenchFailed.
    """
    port, host_port = _free_port(), _free_port()
    children = [_Child("host", str(host_port))]
    try:
        children[0].wait_for_output()
        children.append(peer := _Child("switch", str(port), str(host_port)))
        os.sched_setaffinity(peer.pid, os.sched_getaffinity(switch))
        peer.wait_for_output()
        for_s, at_once = str(warm_up_s + seconds + 1), str(in_flight * connections)
        children.append(load := _Child("load", str(port), for_s, at_once, str(connections)))
        load.wait_for_output()
        time.sleep(warm_up_s)
        with probe.window() as core:
            begun, answered, used = time.perf_counter(), int(load.last), cpu_s([peer.pid])
            time.sleep(seconds)
            took, answered, used = time.perf_counter() - begun, int(load.last) - answered, cpu_s([peer.pid]) - used
        load.finish()
    finally:
        for child in children:
            child.kill()
    if not answered:
        raise BenchFailed(f"the bare peer answered nothing:\n{peer.told()}")
    return Bare(answered / took, used / answered * 1e6, core)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
