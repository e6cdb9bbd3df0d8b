"""A terminal's wire after its handshake, for the target ``channel``."""

import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import SSL

from fengshou.codecs import DirectConnection, PrivateKey
from fengshou.hsm import channel, x509
from fengshou.hsm.pki import AUTHORITIES, Authority
from fengshou.hsm.software import save_private_key

_RECORD_BYTES = 16 * 1024
Connection = SSL.Connection | DirectConnection


@cache
def _contexts() -> tuple[SSL.Context, SSL.Context]:
    """The switch's and a terminal's."""
    now = datetime.now(UTC)
    with TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority.initialise(folder / "pki", "Fuzz", now)
        trust = channel.Trust(folder / "pki" / AUTHORITIES)

        def identity(kind: x509.Profile, subject: x509.Subject) -> channel.Identity:
            key, certificate = folder / f"{subject.common_name}.key", folder / f"{subject.common_name}.crt"
            private = PrivateKey.generate()
            save_private_key(key, private)
            certificate.write_bytes(authority.chain(authority.issue(kind, subject, private.public_key, now)))
            return channel.Identity.of_key_file(certificate, key)

        switch = identity(x509.SWITCH, x509.Subject("switch", names=("switch.test",)))
        terminal = identity(x509.TERMINAL, x509.Subject("FS000001", serial="SN1"))
        return (
            channel.terminal_server_context(switch, trust, channel.NARROW),
            channel.client_context(terminal, trust, channel.NARROW),
        )


class Wire:
    """A new channel; the end of the switch is read by ``twin``."""

    def __init__(self, twin: Callable[[SSL.Connection], Connection]) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        server, client = _contexts()
        switch, self._terminal = SSL.Connection(server, self._near), SSL.Connection(client, self._far)
        switch.set_accept_state()
        self._terminal.set_connect_state()
        for connection in (self._terminal, switch, self._terminal, switch):
            with suppress(SSL.WantReadError):
                connection.do_handshake()
        self._switch = twin(switch)

    def carry(self, said: bytes, raw: bytes, then_ends: bool) -> list[object]:
        """What the switch makes of it, its own word included, that the terminal says some bytes, a record for every
        hundred, then puts others on the wire as they are, and ends or does not."""
        for at in range(0, len(said), 100):
            self._terminal.send(said[at : at + 100])
        self._far.send(raw)
        if then_ends:
            self._far.shutdown(socket.SHUT_WR)
        found: list[object] = []
        try:
            while True:
                found.append(self._switch.recv(_RECORD_BYTES))
        except SSL.Error as error:
            found.append((type(error), error.args))
        try:
            found.append(self._switch.send(said + b"."))
        except SSL.Error as error:
            found.append((type(error), error.args))
        self._near.close()
        self._far.close()
        return found
