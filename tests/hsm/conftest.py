"""A network's certificates, both ends of a channel over streams in memory, and one custody of each provider."""

import shutil
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
from tests.devices import CARD_PIN, SDF_PASSWORDS, Slot

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
            if form == "card":
                from fengshou.hsm.card import Card, Gmt0017, Iso7816
                from fengshou.hsm.card_custody import CardCustody

                slot: Slot = request.getfixturevalue("standing_card")
                card = Card(slot.reader, Gmt0017() if detail == "gmt" else Iso7816(), CARD_PIN)
                stack.callback(card.close)
                cards = CardCustody(tmp_path / "cards", {"sign": [card]})
                cards.create("sign", Kind.SM2)
                return cards
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


_PIN_WORK = {"translate_pin", "pin_offset", "verify_pin"}
# A card signs. Its keys are made at its personalisation, so none begins that was not prepared.
_CARD = _PIN_WORK | {
    "create", "renew", "derive", "derived keys", "import_key", "export_key", "export_envelope", "mac", "verify_mac",
    "authenticator", "seal", "open", "encrypt", "decrypt", "arm",
}  # fmt: skip
_SDF = _PIN_WORK | {"derive", "derived keys", "export_key", "import under transport", "arm"}
_SDF_2012 = _SDF | {"hmac"}

#   provider       what it cannot do
PROVIDERS = {
    "development": set(),
    "sealed":      set(),
    "sdf-512":     _SDF,
    "sdf-256":     _SDF,
    "sdf-2012":    _SDF_2012,
    "card-gmt":    _CARD,
    "card-iso":    _CARD,
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``provider`` is every provider, ``able`` each that can do what the test's mark names."""
    if "provider" in metafunc.fixturenames:
        metafunc.parametrize("provider", PROVIDERS, indirect=True)
    if "provider_without" in metafunc.fixturenames:
        refused = [(name, what) for name, missing in PROVIDERS.items() for what in sorted(missing)]
        ids = [f"{name}-{what}" for name, what in refused]
        metafunc.parametrize("provider_without", refused, ids=ids, indirect=True)
    if "able" in metafunc.fixturenames:
        needed = set(metafunc.definition.get_closest_marker("needs").args)
        metafunc.parametrize("able", [name for name in PROVIDERS if not needed & PROVIDERS[name]], indirect=True)


@pytest.fixture
def provider(request: pytest.FixtureRequest, make_custody: Callable[[str], Custody]) -> Custody:
    """With one key pair at ``sign`` and, where it can hold one, another at ``envelope``."""
    return make_custody(request.param)


able = provider


@pytest.fixture
def provider_without(request: pytest.FixtureRequest, make_custody: Callable[[str], Custody]) -> tuple[Custody, str]:
    """A provider and something that it cannot do."""
    name, what = request.param
    return make_custody(name), what
