"""A further issuing authority: both are trusted and both revoke, until the old one is retired."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from fengshou.codecs import PrivateKey
from fengshou.hsm.channel import ChannelError, Identity, TlsStream, Trust, client_context, server_context
from fengshou.hsm.files import write_public
from fengshou.hsm.pki import AUTHORITIES, CRL, Authority, PkiError
from fengshou.hsm.software import save_private_key
from fengshou.hsm.x509 import SWITCH, TERMINAL, Certificate, Profile, Subject, verify_certificate

NOW = datetime.now(UTC)


class Network:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.initialise(folder / "pki", "Bank", NOW)

    def certify(self, profile: Profile, name: str) -> tuple[Certificate, Identity]:
        key = PrivateKey.generate()
        names = ("switch.bank.example",) if profile is SWITCH else ()
        certificate = self.authority.issue(profile, Subject(name, serial="SN1", names=names), key.public_key, NOW)
        save_private_key(self.folder / f"{name}.key", key)
        write_public(self.folder / f"{name}.crt", self.authority.chain(certificate))
        return certificate, Identity.of_key_file(self.folder / f"{name}.crt", self.folder / f"{name}.key")

    def trust(self) -> Trust:
        return Trust(self.folder / "pki" / AUTHORITIES, self.folder / "pki" / CRL)


def meet(server: Identity, client: Identity, trust: Trust, clients_trust: Trust) -> None:
    """Raises ChannelError unless both believe each other."""

    errors: list[ChannelError] = []

    async def shake(end: TlsStream) -> None:
        try:
            await end.do_handshake()
        except ChannelError as error:
            errors.append(error)
            await trio.aclose_forcefully(end)

    async def run() -> None:
        left, right = trio.testing.memory_stream_pair()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shake, TlsStream.server(left, server_context(server, trust)))
                context = client_context(client, clients_trust)
                nursery.start_soon(shake, TlsStream.client(right, context, "switch.bank.example"))

    trio.run(run)
    if errors:
        raise errors[0]


def test_terminals_of_either_authority_get_in_until_the_old_one_is_retired(tmp_path: Path) -> None:
    network = Network(tmp_path)
    _, switch = network.certify(SWITCH, "switch-1")
    old, old_terminal = network.certify(TERMINAL, "P0000001")
    _, lost_terminal = network.certify(TERMINAL, "P0000002")
    # A terminal in the field keeps the trust that it was delivered with.
    shutil.copy(tmp_path / "pki" / AUTHORITIES, tmp_path / "delivered.crt")
    delivered = Trust(tmp_path / "delivered.crt")

    network.authority = network.authority.renew_issuing(NOW)
    new, new_terminal = network.certify(TERMINAL, "P0000003")
    _, new_switch = network.certify(SWITCH, "switch-2")
    assert (old.issuer, new.issuer) == ("Bank Issuing CA", "Bank Issuing CA 2")
    root, newest, before = network.authority.authorities()
    verify_certificate(newest, root.public_key)
    verify_certificate(new, newest.public_key)
    verify_certificate(old, before.public_key)
    for server in (switch, new_switch):
        for terminal in (old_terminal, new_terminal):
            meet(server, terminal, network.trust(), delivered)

    for entry in network.authority.entries():
        if entry.issued.common_name == "P0000002":
            network.authority.revoke(int(entry.issued.serial, 16), "key_compromise", NOW)
    network.authority.make_revocation_list(NOW)
    assert len(network.trust().revoked_serials()) == 1
    with pytest.raises(ChannelError, match="revoked"):
        meet(new_switch, lost_terminal, network.trust(), delivered)
    meet(new_switch, new_terminal, network.trust(), delivered)

    assert network.authority.retire_issuing(NOW) == ["Bank Issuing CA"]
    with pytest.raises(ChannelError):
        meet(new_switch, old_terminal, network.trust(), delivered)
    meet(new_switch, new_terminal, network.trust(), delivered)
    with pytest.raises(PkiError, match="one issuing authority only"):
        network.authority.retire_issuing(NOW)


def test_only_the_root_makes_one(tmp_path: Path) -> None:
    network = Network(tmp_path)
    (tmp_path / "pki/root").rename(tmp_path / "safe")
    with pytest.raises(PkiError, match="only the root makes"):
        network.authority.renew_issuing(NOW)
    (tmp_path / "safe").rename(tmp_path / "pki/root")
    assert network.authority.renew_issuing(NOW).certificate.subject.common_name == "Bank Issuing CA 2"


def test_a_renewal_that_was_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(tmp_path)
    with monkeypatch.context() as cut:
        cut.setattr(Authority, "make_revocation_list", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            network.authority.renew_issuing(NOW)
    network.certify(TERMINAL, "P0000001")  # the old one issues meanwhile
    authority = Authority(tmp_path / "pki").renew_issuing(NOW)
    assert [one.subject.common_name for one in authority.authorities()[1:]] == ["Bank Issuing CA 2", "Bank Issuing CA"]
