"""Who does not get as far as a frame: garbage, strangers, the revoked, the silent. Each is counted, nobody waits."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from OpenSSL import SSL

from fengshou.codecs import PrivateKey
from fengshou.hsm import channel, x509
from fengshou.hsm._openssl import set_groups, set_signature_algorithms
from fengshou.hsm.channel import Fault
from fengshou.hsm.pki import AUTHORITIES, CRL, Authority
from fengshou.hsm.software import save_private_key
from fengshou.hsm.x509 import Profile, Subject
from fengshou.switch.certificate_files import read_certificate
from fengshou.terminals.identity import Counters
from tests.switch.line import Closed, Line, code_of, dial
from tests.switch.town import TERMINALS, Town, purchase, trade_now

FreshTown = Callable[..., AbstractContextManager[Town]]


def _counted(town: Town, reason: str) -> int:
    count: int = town.status()["handshakes"]["refused"].get(reason, 0)
    return count


def _context(town: Town, folder: Path, authority: Authority, profile: Profile, subject: Subject) -> SSL.Context:
    """A client's context with a new certificate of ``authority``; it trusts the town's switch."""
    key = PrivateKey.generate()
    save_private_key(folder / "key.pem", key)
    certificate = authority.issue(profile, subject, key.public_key, datetime.now(UTC))
    (folder / "chain.pem").write_bytes(authority.chain(certificate))
    identity = channel.Identity.of_key_file(folder / "chain.pem", folder / "key.pem")
    return channel.client_context(identity, channel.Trust(town.folder / "pki" / AUTHORITIES))


# Impostors: a row each -----------------------------------------------------------------------------------------------


def _bare(town: Town, folder: Path) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tls13_ciphersuites(b"TLS_SM4_GCM_SM3")
    set_groups(context, "curveSM2")
    set_signature_algorithms(context, "sm2sig_sm3")
    context.load_verify_locations(town.folder / "pki" / AUTHORITIES)
    return context


def _foreign_suites(town: Town, folder: Path) -> SSL.Context:
    return SSL.Context(SSL.TLS_CLIENT_METHOD)


def _other_authority(town: Town, folder: Path) -> SSL.Context:
    authority = Authority.initialise(folder / "pki", "Fengshou Rural Bank", datetime.now(UTC))  # the very same names
    return _context(town, folder, authority, x509.TERMINAL, Subject(TERMINALS[0], serial="SN00000001"))


def _publisher(town: Town, folder: Path) -> SSL.Context:
    return _context(town, folder, town.authority, x509.PUBLISHER, Subject(TERMINALS[0]))


def _host(town: Town, folder: Path) -> SSL.Context:
    return _context(town, folder, town.authority, x509.HOST, Subject(TERMINALS[0], names=("localhost",)))


@pytest.mark.parametrize(
    ("impostor", "fault"),
    [
        (_bare,            Fault.NO_CERTIFICATE),
        (_foreign_suites,  Fault.NOTHING_IN_COMMON),
        (_other_authority, Fault.OTHER_AUTHORITY),
        (_publisher,       Fault.WRONG_USE),
        (_host,            Fault.WRONG_USE),
    ],
)  # fmt: skip
def test_an_impostor_gets_no_channel(
    town: Town, tmp_path: Path, impostor: Callable[[Town, Path], SSL.Context], fault: Fault
) -> None:
    before = _counted(town, fault.value)
    try:
        with Line(town, TERMINALS[0], context=impostor(town, tmp_path)) as line:
            line.wait_closed()
    except SSL.Error:
        pass  # refused before the client's own handshake was done
    town.until(lambda status: status["handshakes"]["refused"].get(fault.value, 0) == before + 1)
    trio.run(trade_now, town)


GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: switch\r\n\r\n",
    "zeros": bytes(64),
    "all ones": b"\xff" * 64,
    "an ISO 8583 message": b"\x00\x08\x08\x00\x82\x20\x00\x00",
    "a frame of ours without TLS": b"\x05\x52\x00\x01\x00\x00",
    "TLS 1.2 only in name": b"\x16\x03\x03\x00\x04\x01\x00\x00\x00",
    "a handshake record that claims 64 KiB": b"\x16\x03\x01\xff\xff" + bytes(64),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_before_tls_is_closed_and_counted(town: Town, data: bytes) -> None:
    def refused(status: dict[str, dict[str, dict[str, int]]]) -> int:
        return sum(status["handshakes"]["refused"].values())

    before = refused(town.status())
    with dial(town) as sock:
        sock.sendall(data)
        _read_to_end(sock)
    town.until(lambda status: refused(status) == before + 1)
    trio.run(trade_now, town)


def _read_to_end(sock: socket.socket) -> None:
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass


def test_a_terminal_that_lost_its_link_comes_back_without_certificates(town: Town) -> None:
    before = town.status()["handshakes"]["resumed"]

    async def main() -> None:
        async with town.client(TERMINALS[0], Counters()) as client:
            for _ in range(3):
                assert (await client.trade("farm-purchase", purchase())).code == "00"
                client.drop("cut")

    trio.run(main)
    assert town.status()["handshakes"]["resumed"] == before + 2


def test_a_handshake_that_stops_half_way_times_out(town: Town) -> None:
    """A connection that has begun to speak TLS and then says no more is dropped at its deadline."""
    before = _counted(town, "handshake timed out")
    with dial(town) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        trio.run(trade_now, town)
        _read_to_end(sock)
    assert _counted(town, "handshake timed out") == before + 1


def test_a_thousand_connections_that_never_speak_keep_nobody_out(town: Town) -> None:
    before = _counted(town, "handshake timed out")
    silent = [dial(town) for _ in range(1000)]
    try:
        trio.run(trade_now, town)
        trio.run(trade_now, town, TERMINALS[1])
        town.until(lambda status: status["handshakes"]["refused"].get("handshake timed out", 0) >= before + 1000)
    finally:
        for sock in silent:
            sock.close()
    trio.run(trade_now, town)


def test_past_the_bound_the_oldest_silent_connection_makes_room(fresh_town: FreshTown) -> None:
    with fresh_town(handshakes=8, handshake_s=60) as town:
        silent = [dial(town) for _ in range(12)]
        trio.run(trade_now, town)
        for sock in silent[:4]:
            _read_to_end(sock)  # they are the ones that had to go
        assert _counted(town, "handshake dropped for a newer one") >= 4
        for sock in silent:
            sock.close()


def test_out_of_descriptors_those_who_are_in_trade_on(town: Town) -> None:
    pid = town.process("switch").pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with Line(town, TERMINALS[0]).sign_in() as line:
        in_use = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use, before[1]))
        waiting = [dial(town) for _ in range(100)]
        try:
            for _ in range(10):
                assert code_of(line.ask("farm-purchase", purchase())) == "00"
                time.sleep(0.05)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            for sock in waiting:
                sock.close()
        assert _counted(town, "accept: EMFILE") > 0
    trio.run(trade_now, town)


def test_a_channel_on_which_nobody_signs_in_is_closed(town: Town) -> None:
    before = town.status()["closed"].get("never signed in", 0)
    with Line(town, TERMINALS[0]) as line:
        line.wait_closed()
    assert town.status()["closed"]["never signed in"] == before + 1


def test_garbage_inside_tls_ends_the_connection(town: Town) -> None:
    before = town.status()["closed"].get("frames malformed", 0)
    with Line(town, TERMINALS[0]).sign_in() as line:
        line.post(b"\xff" * 100)
        line.wait_closed()
    with Line(town, TERMINALS[0]) as line:  # the same from someone who has not signed in
        line.post(b"\x00\x00\x00")
        line.wait_closed()
    assert town.status()["closed"]["frames malformed"] == before + 2
    trio.run(trade_now, town)


def test_a_damaged_record_ends_the_connection(town: Town) -> None:
    """A bit of a TLS record that changed on its way: nothing of it is believed, and nothing after it."""
    before = town.status()["closed"].get("connection broken", 0)
    with Line(town, TERMINALS[0]).sign_in() as line:
        line.socket.sendall(b"\x17\x03\x03\x00\x30" + bytes(48))
        line.wait_closed()
    assert town.status()["closed"]["connection broken"] == before + 1


def test_a_terminal_that_goes_in_good_order_is_not_taken_for_a_lost_link(town: Town) -> None:
    before = town.status()["closed"]
    trio.run(trade_now, town)
    town.until(lambda status: status["closed"].get("closed by peer", 0) == before.get("closed by peer", 0) + 1)
    assert town.status()["closed"].get("connection broken", 0) == before.get("connection broken", 0)


# Revocation ----------------------------------------------------------------------------------------------------------


def test_a_revoked_certificate_loses_its_session_and_gets_no_other(
    fresh_town: FreshTown,
) -> None:
    with fresh_town() as town:
        with Line(town, TERMINALS[0]).sign_in() as line, Line(town, TERMINALS[1]).sign_in() as other:
            assert code_of(line.ask("farm-purchase", purchase())) == "00"
            certificate = read_certificate(town.home(TERMINALS[0]).folder / "terminal.crt")
            town.authority.revoke(certificate.serial, "key_compromise", datetime.now(UTC))
            town.authority.make_revocation_list(datetime.now(UTC))
            os.kill(town.process("switch").pid, signal.SIGHUP)
            line.wait_closed()
            with pytest.raises(Closed):
                line.ask("farm-purchase", purchase())
            assert code_of(other.ask("farm-purchase", purchase())) == "00"
        try:
            with Line(town, TERMINALS[0]) as line:
                line.wait_closed()
        except SSL.Error:
            pass
        town.until(lambda status: status["handshakes"]["refused"].get(Fault.REVOKED.value) == 1)
        assert town.status()["closed"]["revoked"] == 1
        trio.run(trade_now, town, TERMINALS[1])


def test_a_revocation_list_that_cannot_be_read_changes_nothing(fresh_town: FreshTown) -> None:
    """An operator's slip while the switch runs: it says so and serves on with what it had."""
    with fresh_town() as town, Line(town, TERMINALS[0]).sign_in() as line:
        (town.folder / "pki" / CRL).write_text("no list")
        os.kill(town.process("switch").pid, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while "is not a revocation list" not in town.log("switch"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert code_of(line.ask("farm-purchase", purchase())) == "00"
        trio.run(trade_now, town, TERMINALS[1])
