"""A network's certificates, both ends of a channel over streams in memory, and one custody of each provider."""

import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
import trio
import trio.testing

from fengshou.codecs import PrivateKey
from fengshou.hsm import quorum, x509
from fengshou.hsm.agent import Agent
from fengshou.hsm.channel import Identity, TlsStream, Trust, client_context, terminal_server_context
from fengshou.hsm.custody import Custody, Kind
from fengshou.hsm.memory import Secret
from fengshou.hsm.pki import AUTHORITIES, CRL, Authority
from fengshou.hsm.sdf import SdfCustody
from fengshou.hsm.software import SoftwareCustody, save_private_key
from fengshou.hsm.x509 import Certificate, Profile, Subject

SWITCH_NAME = "switch.bank.example"


@dataclass
class Network:
    """One bank: its authority and whoever it certified."""

    folder: Path
    authority: Authority
    number: "count[int]" = field(default_factory=count)

    @property
    def trust(self) -> Trust:
        return Trust(self.authority.folder / AUTHORITIES)

    @property
    def trust_with_list(self) -> Trust:
        return Trust(self.authority.folder / AUTHORITIES, self.authority.folder / CRL)

    def certify(self, profile: Profile, subject: Subject, now: datetime | None = None) -> tuple[Identity, Certificate]:
        key = PrivateKey.generate()
        certificate = self.authority.issue(profile, subject, key.public_key, now or datetime.now(UTC))
        stem = f"{next(self.number)}"
        save_private_key(self.folder / f"{stem}.key", key)
        (self.folder / f"{stem}.crt").write_bytes(self.authority.chain(certificate))
        return Identity.of_key_file(self.folder / f"{stem}.crt", self.folder / f"{stem}.key"), certificate

    def switch(self) -> Identity:
        return self.certify(x509.SWITCH, Subject("switch-1", names=(SWITCH_NAME, "127.0.0.1")))[0]

    def terminal(self, common_name: str = "P0000001") -> Identity:
        return self.certify(x509.TERMINAL, Subject(common_name, serial="SN20260001"))[0]


def _network(folder: Path, organisation: str) -> Network:
    return Network(folder, Authority.initialise(folder / "pki", organisation, datetime.now(UTC)))


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return _network(tmp_path_factory.mktemp("bank"), "Fengshou Rural Bank")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Another bank that uses the very same names."""
    return _network(tmp_path_factory.mktemp("stranger"), "Fengshou Rural Bank")


Channel = Callable[[TlsStream, TlsStream], Awaitable[None]]


@pytest.fixture(scope="session")
def over_channel(network: Network) -> Callable[[Channel], None]:
    """Runs a test body with both ends, (switch, terminal), of an established channel."""
    server, client = (
        terminal_server_context(network.switch(), network.trust),
        client_context(network.terminal(), network.trust),
    )

    async def main(body: Channel) -> None:
        left, right = trio.testing.memory_stream_pair()
        switch, terminal = TlsStream.server(left, server), TlsStream.client(right, client, SWITCH_NAME)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(switch.do_handshake)
            nursery.start_soon(terminal.do_handshake)
        await body(switch, terminal)

    return lambda body: trio.run(main, body)


# --- custody


@pytest.fixture(scope="session")
def sdf_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """The software device of sdf/, built for a size of numbers and an edition of GM/T 0018."""
    folder = tmp_path_factory.mktemp("sdf")

    def build(max_bits: int, edition: int) -> Path:
        library = folder / f"soft_sdf_{max_bits}_{edition}.so"
        if not library.exists():
            source = Path(__file__).parent / "sdf" / "soft_sdf.c"
            options = ["-shared", "-fPIC", "-O1", f"-DECC_BITS={max_bits}", f"-DEDITION={edition}"]
            warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations"]
            subprocess.run(["cc", *options, *warnings, source, "-o", library, "-lcrypto"], check=True)
        return library

    return build


@pytest.fixture
def sdf_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a device with key pairs 1 and 2 under passwords, and pair 3 for storage."""
    folder = tmp_path / "device"
    folder.mkdir()
    for index in (1, 2, 3):
        for use in ("sign", "enc"):
            (folder / f"{use}.{index}").write_bytes(PrivateKey.generate().to_scalar())
        (folder / f"pin.{index}").write_bytes(SDF_PASSWORDS[index])
    monkeypatch.setenv("SOFT_SDF", str(folder))
    return folder


SDF_PASSWORDS = {1: b"first password", 2: b"second password", 3: b"storage password"}


@pytest.fixture(scope="session")
def sealed_custody(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Secret]:
    """A sealed custody without keys, to be copied, and its master key: scrypt is slow, so once a session."""
    folder = tmp_path_factory.mktemp("sealed") / "keys"
    return folder, quorum.found(folder, 2, CUSTODIANS)


CUSTODIANS = [quorum.Passphrase(name, f"{name} remembers this") for name in ("wang", "li", "zhao")]


@pytest.fixture
def make_custody(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Custody]]:
    """Makes a provider by its name, with a key pair at ``sign`` and, where it can hold one, another at ``envelope``."""
    with ExitStack() as stack:

        def make(name: str) -> Custody:
            form, _, detail = name.partition("-")
            if form == "sdf":
                request.getfixturevalue("sdf_device")
                bits, edition = (512, 2012) if detail == "2012" else (int(detail), 2023)
                library = request.getfixturevalue("sdf_library")(bits, edition)
                device = SdfCustody(
                    tmp_path / "sdf", library, storage_index=3, max_bits=bits, passwords=SDF_PASSWORDS, sessions=4
                )
                stack.callback(device.close)
                device.adopt("sign", Kind.SM2, 1)
                device.adopt("envelope", Kind.ENVELOPE, 2)
                return device
            if form == "sealed":
                founded, master = request.getfixturevalue("sealed_custody")
                shutil.copytree(founded, tmp_path / "keys")
                agent = Agent(tmp_path / "keys", master)
                thread = Thread(target=agent.serve)
                thread.start()
                stack.callback(thread.join)
                stack.callback(agent.close)
            software = SoftwareCustody.initialise(tmp_path / "keys")
            assert software.protection == form
            software.create("sign", Kind.SM2)
            software.create("envelope", Kind.ENVELOPE)
            return software

        yield make
