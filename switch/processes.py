"""Starts the processes of a site and stops them in good order; for the demo, benchmarks and tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self


class ProcessFailed(Exception):
    """A process ended before it was ready, or did not get ready in time; the text has the end of its log."""


class Process:
    """One ``fengshou`` command as a process; its output goes to a log file, whose first line says that it is ready."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self._log_path = log
        self._log: IO[bytes] = log.open("ab")
        self._from = log.stat().st_size
        # Bytecode compiled with -O would drop the assertions; our own environment otherwise.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fengshou.switch", *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches whoever started us, and that one stops it in order
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, seconds: float = 30.0) -> str:
        """The address of its ``ready`` line. Raises ProcessFailed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self._output().splitlines():
                if line.startswith("ready "):
                    return line.removeprefix("ready ")
            if not self.running:
                raise ProcessFailed(f"{self.name} ended at once:\n{self._output()[-2000:]}")
            time.sleep(0.02)
        raise ProcessFailed(f"{self.name} was not ready within {seconds} s:\n{self._output()[-2000:]}")

    def _output(self) -> str:
        with self._log_path.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and SIGKILL if that does not end it in time. Returns the exit status."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()
        return self._process.returncode

    def kill(self) -> None:
        """SIGKILL, now."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


class SiteProcesses:
    """The embedded back ends and the switch of a site. Leaving the block stops them, the switch first."""

    HOSTS = ("core-banking", "government", "analytics")

    def __init__(self, home: Path) -> None:
        self.home = home
        self.running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("switch", *self.HOSTS):
            if name in self.running:
                self.running.pop(name).stop()

    def start(self, name: str) -> Process:
        """Start ``switch`` or a host without waiting for it."""
        arguments = ["switch"] if name == "switch" else ["host", name]
        process = Process(name, [*arguments, "--home", str(self.home)], self.home / f"{name}.log")
        self.running[name] = process
        return process

    def start_all(self) -> None:
        """All four, each ready when this returns. Raises ProcessFailed."""
        for name in (*self.HOSTS, "switch"):
            self.start(name)
        for process in self.running.values():
            process.wait_ready()
