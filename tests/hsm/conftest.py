"""A network's certificates, made once a session, and both ends of a channel over streams in memory."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
import trio
import trio.testing

from fengshou.codecs import PrivateKey
from fengshou.hsm import x509
from fengshou.hsm.channel import Identity, TlsStream, Trust, client_context, terminal_server_context
from fengshou.hsm.pki import AUTHORITIES, CRL, Authority
from fengshou.hsm.software import save_private_key
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
