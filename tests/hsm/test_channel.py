"""Who gets a channel and who does not, over real sockets and in memory."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from fengshou.codecs import PrivateKey
from fengshou.hsm import x509
from fengshou.hsm._openssl import set_groups
from fengshou.hsm.channel import (
    INTERNATIONAL,
    NARROW,
    NATIONAL,
    ChannelError,
    ChannelProfile,
    Fault,
    Identity,
    TlsStream,
    Trust,
    client_context,
    exporter,
    peer_certificate,
    server_context,
    terminal_server_context,
)
from fengshou.hsm.custody import CustodyError
from fengshou.hsm.pem import CERTIFICATE, from_pem, to_pem
from fengshou.hsm.pki import CRL, Authority
from fengshou.hsm.software import provision, save_private_key
from fengshou.hsm.x509 import Subject

from .conftest import SWITCH_NAME, Network

HYBRID, CURVE = "curveSM2MLKEM768", "curveSM2"


Outcome = Fault | None


async def meet(
    server: SSL.Context, client: SSL.Context, name: str = SWITCH_NAME
) -> tuple[Outcome, Outcome, TlsStream, TlsStream]:
    """Both ends shake hands in memory and exchange a word: how each of them failed, and the ends."""
    left, right = trio.testing.memory_stream_pair()
    ends = TlsStream.server(left, server), TlsStream.client(right, client, name)
    outcome: list[Outcome] = [None, None]

    async def shake(index: int) -> None:
        try:
            await ends[index].do_handshake()
            if index == 1:
                # The server's judgement arrives after the client's handshake.
                await ends[index].send_all(b"ping")
                assert await ends[index].receive_some() == b"pong"
            else:
                assert await ends[index].receive_some() == b"ping"
                await ends[index].send_all(b"pong")
        except ChannelError as error:
            outcome[index] = error.fault
            await trio.aclose_forcefully(ends[index].transport)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake, 0)
            nursery.start_soon(shake, 1)
    return outcome[0], outcome[1], ends[0], ends[1]


# --- who gets in ---


@pytest.mark.parametrize(
    ("server", "client", "group"),
    [
        (NATIONAL, NATIONAL, HYBRID),
        (NATIONAL, NARROW,   CURVE),
        (NARROW,   NATIONAL, CURVE),
        (NARROW,   NARROW,   CURVE),
    ],
    ids=["both hybrid", "narrow terminal", "narrow switch", "both narrow"],
)  # fmt: skip
def test_group_is_the_best_that_both_have(
    network: Network, server: ChannelProfile, client: ChannelProfile, group: str
) -> None:
    async def main() -> None:
        failed, refused, switch, terminal = await meet(
            terminal_server_context(network.switch(), network.trust_with_list, server),
            client_context(network.terminal(), network.trust_with_list, client),
        )
        assert (failed, refused) == (None, None)
        assert switch.group == terminal.group == group
        assert switch._connection.get_cipher_name() == "TLS_SM4_GCM_SM3"
        assert switch._connection.get_protocol_version_name() == "TLSv1.3"

    trio.run(main)


def test_both_ends_derive_one_binding_and_every_channel_another(network: Network) -> None:
    server = terminal_server_context(network.switch(), network.trust)
    client = client_context(network.terminal(), network.trust)

    async def main() -> None:
        bindings = set()
        for _ in range(3):
            *_, switch, terminal = await meet(server, client)
            assert len(switch.binding) == 32
            assert switch.binding == terminal.binding
            bindings.add(switch.binding)
        assert len(bindings) == 3

    trio.run(main)


def test_the_peer_certificate_gives_the_facts_that_sign_in_compares(network: Network) -> None:
    identity, certificate = network.certify(x509.TERMINAL, Subject("K0000042", serial="SN42"))

    async def main() -> None:
        *_, switch, terminal = await meet(
            terminal_server_context(network.switch(), network.trust), client_context(identity, network.trust)
        )
        assert switch.peer == certificate
        assert switch.peer.subject.common_name == "K0000042"
        assert switch.peer.subject.serial == "SN42"
        assert switch.peer.fingerprint == certificate.fingerprint
        assert switch.peer.public_key == certificate.public_key
        assert terminal.peer.subject.names == (SWITCH_NAME, "127.0.0.1")

    trio.run(main)


def test_custody_arms_the_channel(network: Network, tmp_path: Path) -> None:
    custody = provision(tmp_path / "keys")
    certificate = network.authority.issue(
        x509.SWITCH, Subject("switch-2", names=(SWITCH_NAME,)), custody.public_key("switch.tls"), datetime.now(UTC)
    )
    path = tmp_path / "switch.crt"
    path.write_bytes(network.authority.chain(certificate))

    async def main() -> None:
        failed, refused, *_ = await meet(
            terminal_server_context(Identity.of_custody(path, custody), network.trust),
            client_context(network.terminal(), network.trust),
        )
        assert (failed, refused) == (None, None)

    trio.run(main)


def test_the_international_profile_serves_back_ends_with_other_certificates(tmp_path: Path) -> None:
    identity, trust = _p256(tmp_path)

    async def main() -> None:
        failed, refused, server, client = await meet(
            server_context(identity, trust, INTERNATIONAL), client_context(identity, trust, INTERNATIONAL), "core.bank"
        )
        assert (failed, refused) == (None, None)
        assert server.binding == client.binding
        with pytest.raises(ChannelError, match="not an SM2"):
            server.peer  # noqa: B018

    trio.run(main)


def test_the_international_profile_is_not_for_terminals(network: Network) -> None:
    with pytest.raises(ValueError, match="national"):
        terminal_server_context(network.switch(), network.trust, INTERNATIONAL)


# --- who is refused ---


def _expired(network: Network, stranger: Network) -> Identity:
    long_ago = datetime.now(UTC) - timedelta(days=3 * 365)
    return network.certify(x509.TERMINAL, Subject("P0000001", serial="SN1"), long_ago)[0]


def _not_yet(network: Network, stranger: Network) -> Identity:
    soon = datetime.now(UTC) + timedelta(days=30)
    return network.certify(x509.TERMINAL, Subject("P0000001", serial="SN1"), soon)[0]


def _revoked(network: Network, stranger: Network) -> Identity:
    identity, certificate = network.certify(x509.TERMINAL, Subject("P0000001", serial="SN1"))
    network.authority.revoke(certificate.serial, "key_compromise", datetime.now(UTC))
    network.authority.make_revocation_list(datetime.now(UTC))
    return identity


def _other_authority(network: Network, stranger: Network) -> Identity:
    return stranger.terminal()


def _publisher(network: Network, stranger: Network) -> Identity:
    return network.certify(x509.PUBLISHER, Subject("Apps"))[0]


def _host(network: Network, stranger: Network) -> Identity:
    return network.certify(x509.HOST, Subject("core-1", names=("core.bank.example",)))[0]


@pytest.mark.parametrize(
    ("client", "fault"),
    [
        (_other_authority, Fault.OTHER_AUTHORITY),
        (_expired,         Fault.EXPIRED),
        (_not_yet,         Fault.NOT_YET_VALID),
        (_revoked,         Fault.REVOKED),
        (_publisher,       Fault.WRONG_USE),
        (_host,            Fault.WRONG_USE),
    ],
)  # fmt: skip
def test_a_client_that_may_not_come_in_is_refused_with_its_fault(
    network: Network, stranger: Network, client: Callable[[Network, Network], Identity], fault: Fault
) -> None:
    identity = client(network, stranger)

    async def main() -> None:
        failed, refused, *_ = await meet(
            terminal_server_context(network.switch(), network.trust_with_list), client_context(identity, network.trust)
        )
        assert failed is fault
        assert refused is Fault.REFUSED_US

    trio.run(main)


@pytest.mark.parametrize(
    ("profile", "subject", "fault"),
    [
        (x509.TERMINAL,  Subject("P0000001", serial="SN1"),                  Fault.WRONG_USE),
        (x509.PUBLISHER, Subject("Apps"),                                    Fault.WRONG_USE),
        (x509.HOST,      Subject("core-1", names=("core.bank.example",)),    Fault.WRONG_NAME),
        (x509.HOST,      Subject(SWITCH_NAME, names=("core.bank.example",)), Fault.WRONG_NAME),
    ],
    ids=["another terminal", "a publisher", "another host", "the name as common name only"],
)  # fmt: skip
def test_nobody_else_can_play_the_switch(
    network: Network, profile: x509.Profile, subject: Subject, fault: Fault
) -> None:
    async def main() -> None:
        server = terminal_server_context(network.certify(profile, subject)[0], network.trust)
        left, right = trio.testing.memory_stream_pair()
        terminal = TlsStream.client(right, client_context(network.terminal(), network.trust), SWITCH_NAME)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with suppress(ChannelError):
                    await TlsStream.server(left, server).do_handshake()

            with pytest.raises(ChannelError) as refusal:
                await terminal.do_handshake()
            assert refusal.value.fault is fault
            with pytest.raises(trio.BrokenResourceError):
                await terminal.send_all(b"a secret")
            await terminal.aclose()

    trio.run(main)


@pytest.mark.parametrize(("name", "good"), [("127.0.0.1", True), ("127.0.0.2", False), ("SWITCH.bank.example", True)])
def test_addresses_and_names_are_compared_by_meaning(network: Network, name: str, good: bool) -> None:
    async def main() -> None:
        _, refused, *_ = await meet(
            server_context(network.switch(), network.trust), client_context(network.terminal(), network.trust), name
        )
        assert refused is (None if good else Fault.WRONG_NAME)

    trio.run(main)


def test_a_terminal_asks_for_another_name_than_it_checks(network: Network) -> None:
    server = terminal_server_context(network.switch(), network.trust)
    client = client_context(network.terminal(), network.trust)

    async def main() -> None:
        left, right = trio.testing.memory_stream_pair()
        switch = TlsStream.server(left, server)
        terminal = TlsStream.client(right, client, SWITCH_NAME, server_name=f"p0000001.{SWITCH_NAME}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(switch.do_handshake)
            nursery.start_soon(terminal.do_handshake)
        assert switch._connection.get_servername() == f"p0000001.{SWITCH_NAME}".encode()

    trio.run(main)


def _bare_client(network: Network, **options: bytes) -> SSL.Context:
    """A client that a stranger wrote: no certificate, or other suites than ours."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tls13_ciphersuites(options.get("suites", b"TLS_SM4_GCM_SM3"))
    if "curves" in options:
        set_groups(context, options["curves"].decode())
    if "version" in options:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    return context


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({},                                         Fault.NO_CERTIFICATE),
        ({"suites": b"TLS_AES_128_GCM_SHA256"},      Fault.NOTHING_IN_COMMON),
        ({"curves": b"P-256"},                       Fault.NOTHING_IN_COMMON),
        ({"version": b"1.2"},                        Fault.NOTHING_IN_COMMON),
    ],
    ids=["no certificate", "AES only", "P-256 only", "TLS 1.2"],
)  # fmt: skip
def test_a_client_without_what_we_ask_for_is_refused(network: Network, options: dict[str, bytes], fault: Fault) -> None:
    async def main() -> None:
        failed, *_ = await meet(
            terminal_server_context(network.switch(), network.trust), _bare_client(network, **options)
        )
        assert failed is fault

    trio.run(main)


@pytest.mark.parametrize("days", [-400, -31])
def test_an_expired_revocation_list_admits_nobody(network: Network, tmp_path: Path, days: int) -> None:
    bank = Network(tmp_path, Authority.initialise(tmp_path / "pki", "Bank", datetime.now(UTC)))
    bank.authority.make_revocation_list(datetime.now(UTC) + timedelta(days=days))

    async def main() -> None:
        failed, *_ = await meet(
            terminal_server_context(bank.switch(), bank.trust_with_list), client_context(bank.terminal(), bank.trust)
        )
        assert failed is Fault.NO_REVOCATION_LIST

    trio.run(main)


def test_the_revocation_list_of_another_authority_admits_nobody(network: Network, stranger: Network) -> None:
    trust = Trust(network.trust.authorities, stranger.authority.folder / CRL)

    async def main() -> None:
        failed, *_ = await meet(
            terminal_server_context(network.switch(), trust), client_context(network.terminal(), network.trust)
        )
        assert failed is Fault.NO_REVOCATION_LIST

    trio.run(main)


@pytest.mark.parametrize(
    ("profile", "limit"),
    [(NARROW, 4096), (NATIONAL, 6400)],
    ids=["narrow", "hybrid"],
)
def test_a_full_handshake_stays_small(network: Network, profile: ChannelProfile, limit: int) -> None:
    """Bytes of both directions, two tickets included. Each certificate is shown where it is needed, the root never."""
    server = terminal_server_context(network.switch(), network.trust, profile)
    switch, terminal, size = shake(server, client_context(network.terminal(), network.trust, profile), None)
    assert size < limit
    assert len(switch.get_peer_cert_chain(as_cryptography=True) or ()) == 0, "the leaf is not counted at a server"
    assert len(terminal.get_peer_cert_chain(as_cryptography=True) or ()) == 2


def test_a_terminal_needs_only_the_root(network: Network, tmp_path: Path) -> None:
    root = from_pem(CERTIFICATE, network.trust.authorities.read_bytes())[0]
    (tmp_path / "root.crt").write_bytes(to_pem(CERTIFICATE, root))

    async def main() -> None:
        failed, refused, *_ = await meet(
            terminal_server_context(network.switch(), network.trust_with_list),
            client_context(network.terminal(), Trust(tmp_path / "root.crt")),
        )
        assert (failed, refused) == (None, None)

    trio.run(main)


def test_an_authority_in_the_file_is_believed_by_itself(network: Network, tmp_path: Path) -> None:
    """No handshake goes on to its root, and what it revokes is revoked."""
    issuing = from_pem(CERTIFICATE, network.trust.authorities.read_bytes())[1]
    (tmp_path / "issuing.crt").write_bytes(to_pem(CERTIFICATE, issuing))
    trust = Trust(tmp_path / "issuing.crt", network.trust_with_list.revoked)
    terminal, certificate = network.certify(x509.TERMINAL, Subject("P0000003", serial="SN3"))

    async def main() -> Outcome:
        failed, *_ = await meet(
            terminal_server_context(network.switch(), trust), client_context(terminal, network.trust)
        )
        return failed

    network.authority.make_revocation_list(datetime.now(UTC))
    assert trio.run(main) is None
    network.authority.revoke(certificate.serial, "key_compromise", datetime.now(UTC))
    network.authority.make_revocation_list(datetime.now(UTC))
    assert trio.run(main) is Fault.REVOKED


# --- resumption ---


def shake(
    server: SSL.Context, client: SSL.Context, session: SSL.Session | None
) -> tuple[SSL.Connection, SSL.Connection, int]:
    """Both ends of a handshake in memory, and how many bytes it took."""
    ends = SSL.Connection(server, None), SSL.Connection(client, None)
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    if session is not None:
        ends[1].set_session(session)
    sent = 0
    for _ in range(4):
        for index in (1, 0):
            with suppress(SSL.WantReadError):
                ends[index].do_handshake()
            try:
                data = ends[index].bio_read(65536)
            except SSL.WantReadError:
                continue
            sent += len(data)
            ends[1 - index].bio_write(data)
    with pytest.raises(SSL.WantReadError):
        ends[1].recv(1)  # the tickets come after the handshake
    return *ends, sent


def test_a_ticket_saves_the_certificates_and_a_new_context_voids_it(network: Network) -> None:
    identity, certificate = network.certify(x509.TERMINAL, Subject("P0000007", serial="SN7"))
    server = terminal_server_context(network.switch(), network.trust_with_list)
    client = client_context(identity, network.trust)

    _, first, whole = shake(server, client, None)
    ticket = first.get_session()
    switch, terminal, resumed = shake(server, client, ticket)
    assert resumed < 0.75 * whole
    assert peer_certificate(switch) == certificate, "the session brings the certificate along"
    assert exporter(switch) == exporter(terminal) != exporter(first)

    network.authority.revoke(certificate.serial, "cessation_of_operation", datetime.now(UTC))
    network.authority.make_revocation_list(datetime.now(UTC))
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        shake(terminal_server_context(network.switch(), network.trust_with_list), client, ticket)


def test_a_back_end_verifies_a_returning_peer_anew(network: Network) -> None:
    server, client = server_context(network.switch(), network.trust), client_context(network.terminal(), network.trust)
    _, first, whole = shake(server, client, None)
    _, second, again = shake(server, client, first.get_session())
    assert again >= whole
    assert exporter(first) != exporter(second)


# --- garbage ---


def test_a_client_hello_cut_anywhere_or_with_a_wrong_bit_never_passes(network: Network) -> None:
    """Nothing but ChannelError comes out, and no mutation of the first flight gets a channel without the key."""
    server = terminal_server_context(network.switch(), network.trust)
    client = SSL.Connection(client_context(network.terminal(), network.trust, NARROW), None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    hello = client.bio_read(65536)

    async def offer(data: bytes) -> None:
        left, right = trio.testing.memory_stream_pair()
        await right.send_all(data)
        await right.send_eof()
        with pytest.raises(ChannelError):
            await TlsStream.server(left, server).do_handshake()

    async def main() -> None:
        for length in range(0, len(hello), 7):
            await offer(hello[:length])
        for index in range(0, len(hello), 3):
            await offer(hello[:index] + bytes((hello[index] ^ 0x55,)) + hello[index + 1 :])

    trio.run(main)


# --- files that are wrong ---


def test_wrong_files_are_named_before_anybody_connects(network: Network, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    other = tmp_path / "other.key"
    save_private_key(other, PrivateKey.generate())
    none, good, authorities = tmp_path / "none", network.switch(), network.trust.authorities
    rows = [
        (lambda: server_context(Identity.of_key_file(empty, other), network.trust),            str(empty)),
        (lambda: server_context(Identity.of_key_file(good.certificate, other), network.trust), "does not belong"),
        (lambda: server_context(good, Trust(empty)),                                           str(empty)),
        (lambda: server_context(good, Trust(authorities, empty)),                              str(empty)),
        (lambda: server_context(good, Trust(authorities, none)),                               str(none)),
        (lambda: Identity.of_key_file(good.certificate, none),                                 str(none)),
    ]  # fmt: skip
    for make, reason in rows:
        with pytest.raises(CustodyError, match=reason):
            make()


def _p256(folder: Path) -> tuple[Identity, Trust]:
    """A self-signed certificate on P-256, as another authority's tool would make it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = pyca.Name([pyca.NameAttribute(pyca.NameOID.COMMON_NAME, "core")])
    now = datetime.now(UTC)
    serial = pyca.random_serial_number()
    certificate = (
        pyca.CertificateBuilder(name, name, key.public_key(), serial, now - timedelta(1), now + timedelta(1))
        .add_extension(pyca.SubjectAlternativeName([pyca.DNSName("core.bank")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "core.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "core.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    identity = Identity(folder / "core.crt", lambda context: context.use_privatekey_file(folder / "core.key"))
    return identity, Trust(folder / "core.crt")
