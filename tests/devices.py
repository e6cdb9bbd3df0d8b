"""Devices for tests: a GM/T 0018 device in software behind the real ABI, and cards of ours in virtual readers.

Fixtures that a room's ``conftest`` imports.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from fengshou.codecs import PrivateKey

_HERE = Path(__file__).parent / "hsm"
SDF_PASSWORDS = {index: f"password of pair {index}".encode() for index in range(1, 6)}
SDF_STORAGE = 3


@pytest.fixture(scope="session")
def sdf_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """The software device of sdf/, built for a size of numbers and an edition of GM/T 0018."""
    folder = tmp_path_factory.mktemp("sdf")

    def build(max_bits: int, edition: int) -> Path:
        library = folder / f"soft_sdf_{max_bits}_{edition}.so"
        if not library.exists():
            source = _HERE / "sdf" / "soft_sdf.c"
            options = ["-shared", "-fPIC", "-O1", f"-DECC_BITS={max_bits}", f"-DEDITION={edition}"]
            warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations"]
            subprocess.run(["cc", *options, *warnings, source, "-o", library, "-lcrypto"], check=True)
        return library

    return build


@pytest.fixture
def sdf_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a device with five key pairs under passwords; pair 3 is for storage."""
    folder = tmp_path / "device"
    folder.mkdir()
    for index in SDF_PASSWORDS:
        for use in ("sign", "enc"):
            (folder / f"{use}.{index}").write_bytes(PrivateKey.generate().to_scalar())
        (folder / f"pin.{index}").write_bytes(SDF_PASSWORDS[index])
    monkeypatch.setenv("SOFT_SDF", str(folder))
    return folder


@dataclass
class Slot:
    """A reader, and the card of ours that is in it."""

    reader: str
    port: int
    state: Path
    process: "subprocess.Popen[bytes] | None" = None

    def insert(self) -> None:
        """Put the card in, a new one if ``state`` was emptied, and wait until the daemon sees it."""
        self.state.mkdir(exist_ok=True)
        if not (self.state / "scalar").exists():
            (self.state / "scalar").write_bytes(PrivateKey.generate().to_scalar())
            (self.state / "pin").write_bytes(CARD_PIN)
        program = _HERE / "virtual_card.py"
        self.process = subprocess.Popen([sys.executable, program, str(self.port), self.state])
        self._wait(present=True)

    def draw(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self._wait(present=False)

    def _wait(self, *, present: bool) -> None:
        from smartcard import scard

        _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            _, states = scard.SCardGetStatusChange(context, 0, [(self.reader, scard.SCARD_STATE_UNAWARE)])
            ready = states[0][1] & (scard.SCARD_STATE_PRESENT | scard.SCARD_STATE_MUTE) == scard.SCARD_STATE_PRESENT
            if ready if present else states[0][1] & scard.SCARD_STATE_EMPTY:
                break
            time.sleep(0.01)
        else:
            raise TimeoutError(f"{self.reader}: the daemon does not see what happened to the card")
        scard.SCardReleaseContext(context)

    @property
    def signatures(self) -> int:
        path = self.state / "signatures"
        return int(path.read_text()) if path.exists() else 0


CARD_PIN = b"246813"


@pytest.fixture(scope="session")
def card_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, int]]]:
    """Names and ports of virtual readers of a PC/SC daemon of our own: two custodians', and one of a standing card.

    The daemon takes its socket as systemd would hand it over, so that it does not meet another one of this machine.
    """
    folder = tmp_path_factory.mktemp("pcsc")
    (folder / "readers").mkdir()
    ports = {"Custodians": _free_ports(2), "Standing": _free_ports(2)}
    for name, port in ports.items():
        # A driver of its own for each: vpcd keeps its slots in a static table, which two readers would share.
        driver = shutil.copy("/usr/lib/pcsc/drivers/serial/libifdvpcd.so", folder / f"{name}.so")
        (folder / "readers" / name).write_text(
            f'FRIENDLYNAME "{name}"\nDEVICENAME /dev/null:{port:#x}\nLIBPATH {driver}\nCHANNELID {port:#x}\n'
        )
    os.environ["PCSCLITE_CSOCK_NAME"] = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as listener, (folder / "log").open("wb") as log:
        listener.bind(str(folder / "socket"))
        listener.listen()
        script = 'LISTEN_FDS=1 LISTEN_PID=$$ exec /usr/sbin/pcscd --foreground --config "$0" 3<&0 0</dev/null'
        # It ends with us, even when we are killed.
        command = ["setpriv", "--pdeathsig", "TERM", "sh", "-c", script, str(folder / "readers")]
        daemon = subprocess.Popen(command, stdin=listener.fileno(), stdout=log, stderr=log)
    # The daemon numbers its readers as it finds their files; slots are the last number.
    names = sorted(_readers())
    yield [(name, ports[name.split()[0]] + int(name.split()[-1])) for name in names]
    daemon.terminate()
    daemon.wait()


def _readers() -> list[str]:
    from smartcard.System import readers

    return [str(reader) for reader in readers()]


def _free_ports(count: int) -> int:
    """The first of neighbouring ports that are free, as a reader with slots takes them."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                for offset in range(1, count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except (OSError, OverflowError):
                continue
            return port


@pytest.fixture
def slots(card_readers: list[tuple[str, int]], tmp_path: Path) -> Iterator[list[Slot]]:
    """The custodians' readers, empty."""
    made = [Slot(reader, port, tmp_path / f"card-{port}") for reader, port in card_readers[:2]]
    yield made
    for slot in made:
        slot.draw()


@pytest.fixture(scope="session")
def standing_card(card_readers: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slot]:
    """A card that stays in its reader: the daemon needs half a second to notice a new one."""
    reader, port = card_readers[2]
    slot = Slot(reader, port, tmp_path_factory.mktemp("standing") / "card")
    slot.insert()
    yield slot
    slot.draw()
