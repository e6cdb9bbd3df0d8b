"""What a handshake costs: bytes on the wire and the switch's CPU, whole and resumed, by profile and group."""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from OpenSSL import SSL

from bench.figures import Figure
from fengshou.codecs import PrivateKey
from fengshou.hsm import x509
from fengshou.hsm.channel import (
    NARROW,
    NATIONAL,
    ChannelProfile,
    Identity,
    Trust,
    client_context,
    session_of,
    session_reused,
    terminal_server_context,
)
from fengshou.hsm.files import write_public
from fengshou.hsm.pki import AUTHORITIES, CRL, Authority
from fengshou.hsm.software import save_private_key
from fengshou.hsm.x509 import Profile, Subject

_PROFILES = (("narrow", NARROW, "curveSM2"), ("national", NATIONAL, "curveSM2MLKEM768"))


def figures(seconds: float, folder: Path) -> list[Figure]:
    """Each kind for about so many seconds."""
    authority = Authority.initialise(folder / "pki", "Handshakes", datetime.now(UTC))
    authority.make_revocation_list(datetime.now(UTC))
    trust = Trust(folder / "pki" / AUTHORITIES, folder / "pki" / CRL)
    switch = identity(authority, x509.SWITCH, Subject("switch", names=("switch.bench",)), folder / "switch")
    terminal = identity(authority, x509.TERMINAL, Subject("FL000001", serial="SN1"), folder / "terminal")
    found = []
    for name, profile, group in _PROFILES:
        for resumed in (False, True):
            which = "resumed" if resumed else "whole"
            size, cpu_us = _measured(switch, terminal, trust, profile, seconds, resumed=resumed)
            for unit, what, value in (("bytes", "both sides", float(size)), ("µs", "the switch's CPU", cpu_us)):
                kind = "bytes" if unit == "bytes" else "cpu"
                found.append(
                    Figure(
                        key=f"weather.handshake.{name}.{which}.{kind}",
                        what=f"{which} handshake, {group}: {what}",
                        value=value,
                        unit=unit,
                        peer=f"weather.handshake.{name}.whole.{kind}" if resumed else "",
                    )
                )
    return found


def identity(authority: Authority, profile: Profile, subject: Subject, folder: Path) -> Identity:
    """Somebody with a new key and a certificate of the authority, kept in a new folder."""
    folder.mkdir()
    key = PrivateKey.generate()
    save_private_key(folder / "key.pem", key)
    certificate = authority.issue(profile, subject, key.public_key, datetime.now(UTC))
    write_public(folder / "chain.pem", authority.chain(certificate))
    return Identity.of_key_file(folder / "chain.pem", folder / "key.pem")


def _measured(
    switch: Identity, terminal: Identity, trust: Trust, profile: ChannelProfile, seconds: float, *, resumed: bool
) -> tuple[int, float]:
    """Bytes of one, tickets included, and the least CPU of one in several rounds: what disturbs only ever adds."""
    server, client = terminal_server_context(switch, trust, profile), client_context(terminal, trust, profile)
    session = _shake(server, client, None)[2] if resumed else None
    until, best_us, size = time.monotonic() + seconds, float("inf"), 0
    while time.monotonic() < until:
        rounds = [_shake(server, client, session) for _ in range(10)]
        size = rounds[0][0]
        best_us = min(best_us, sum(cpu_ns for _, cpu_ns, _ in rounds) / len(rounds) / 1000)
    return size, best_us


def _shake(
    server: SSL.Context, client: SSL.Context, session: SSL.Session | None
) -> tuple[int, int, SSL.Session | None]:
    """Bytes, nanoseconds of CPU of the server's side, and what the next one resumes by."""
    start = time.thread_time_ns()
    accepting = SSL.Connection(server, None)
    accepting.set_accept_state()
    cpu_ns = time.thread_time_ns() - start
    asking = SSL.Connection(client, None)
    asking.set_connect_state()
    if session is not None:
        asking.set_session(session)
    size = 0
    for _ in range(2):
        for data in _flights(asking):
            accepting.bio_write(data)
            size += len(data)
        start = time.thread_time_ns()
        answer = list(_flights(accepting))
        cpu_ns += time.thread_time_ns() - start
        for data in answer:
            asking.bio_write(data)
            size += len(data)
    with suppress(SSL.WantReadError):
        asking.recv(1)  # the tickets
    assert session_reused(asking) == (session is not None)
    return size, cpu_ns, session_of(asking)


def _flights(connection: SSL.Connection) -> Iterator[bytes]:
    """Go on with a handshake; what it wants to send."""
    with suppress(SSL.WantReadError):
        connection.do_handshake()
    with suppress(SSL.WantReadError):
        while True:
            yield connection.bio_read(65536)
