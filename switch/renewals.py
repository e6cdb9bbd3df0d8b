"""Renewal of terminals' certificates: told by a command, asked for in a message, issued by the authority, not here.

::

    terminal ──renewal──► TERMINAL.json ──► whoever has the authority's keys (fengshou pki renew)
    terminal ◄──00───── registry ◄─────── TERMINAL.crt ◄─┘

The keys of the authority are not the switch's, so a wish waits as a file, and the answer is a file. The switch believes
an answer that an authority which it trusts has signed for the key that was asked for. The terminal asks again until it
has it; its old certificate is good until it signs in with the new one.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from fengshou.codecs import PublicKey
from fengshou.hsm import pki_renewal, x509
from fengshou.hsm.custody import Custody, CustodyError
from fengshou.hsm.pki_renewal import ANSWER, WISH, RequestRefused
from fengshou.hsm.renewal import stamps
from fengshou.hsm.x509 import Certificate, CertificateError
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_CERTIFICATE, COMMAND_NONE
from fengshou.switch.certificate_files import read_certificate, read_certificates
from fengshou.switch.exchange import Exchange
from fengshou.terminals.binding import TerminalRow
from fengshou.terminals.pump import Peer
from fengshou.terminals.registry import Registry, RegistryError

logger = logging.getLogger(__name__)

_LOOKS_EVERY_S = 0.5
# Of who is connected for so long that the certificate comes of age meanwhile.
_REVIEWS_EVERY_S = 3600.0


class Renewals:
    """The switch's part in it."""

    def __init__(self, folder: Path, registry: Path, custody: Custody, authorities: Path) -> None:
        """``authorities`` is what terminals' certificates are believed by: the root, then the newest issuer first."""
        self._folder = folder
        self._registry = registry
        self._custody = custody
        self._authorities = authorities
        self._seen: object = None
        self._issuers: list[Certificate] = []
        self._arrived: set[tuple[str, bytes]] = set()

    # -- on the way of messages: nothing here waits -------------------------------------------------------------------

    def signed_in(self, peer: Peer, row: TerminalRow) -> None:
        peer.renewal_due = self.is_due(peer.certificate)
        if peer.certificate.fingerprint == row.renewed:
            self._arrived.add((row.facts.terminal, row.renewed))

    def is_due(self, certificate: Certificate) -> bool:
        """In the second half of its life, or of an issuing authority that another one has followed."""
        newest = self._issuers[0].subject.common_name if self._issuers else certificate.issuer
        return certificate.issuer != newest or pki_renewal.is_due(certificate, datetime.now(UTC))

    def notice(self, peer: Peer) -> int:
        """The command for a terminal that should ask for another certificate."""
        return COMMAND_CERTIFICATE if peer.renewal_due else COMMAND_NONE

    def ask(self, exchange: Exchange) -> None:
        """Answer a wish: with the certificate, or with 09 until there is one."""
        peer, values = exchange.peer, exchange.asked.values
        assert peer.row is not None
        terminal, old = peer.row.facts.terminal, peer.certificate
        key, proof, consent = values[de.NEW_KEY], values[de.KEY_PROOF], values[de.KEY_CONSENT]
        assert isinstance(key, bytes)
        assert isinstance(proof, bytes)
        assert isinstance(consent, bytes)
        wish = pki_renewal.Request(
            terminal=terminal, certificate=f"{old.serial:032x}", fingerprint=old.fingerprint, key=key, proof=proof,
            consent=consent,
        )  # fmt: skip
        try:
            new = pki_renewal.verify(wish, old.public_key)
        except RequestRefused:
            exchange.refuse("63", "the keys have not signed the renewal")
            return
        issued = self._issued(terminal, new)
        if issued is not None and issued.fingerprint == peer.row.renewed:
            exchange.answer_now({de.RESPONSE_CODE: codes.APPROVED, de.CERTIFICATE: issued.der})
            return
        if issued is None:
            self._put(terminal, wish)
        exchange.answer_now({de.RESPONSE_CODE: codes.IN_PROGRESS})

    def _issued(self, terminal: str, key: PublicKey) -> Certificate | None:
        try:
            found = read_certificate(self._folder / f"{terminal}{ANSWER}")
        except CertificateError:
            return None
        return found if found.public_key == key else None

    def _put(self, terminal: str, wish: pki_renewal.Request) -> None:
        """Not synced: what a crash takes is asked for again."""
        file = self._folder / f"{terminal}{WISH}"
        data = msgspec.json.encode(wish)
        if file.exists() and file.read_bytes() == data:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(file)

    # -- beside it ----------------------------------------------------------------------------------------------------

    async def run(self, peers: Callable[[], Iterable[Peer]], known: Callable[[str], TerminalRow | None]) -> None:
        """Believe answers, and let new certificates take the place of the old ones, until cancelled."""
        reviewed = float("-inf")
        while True:
            if self._read_authorities() or trio.current_time() - reviewed >= _REVIEWS_EVERY_S:
                reviewed = trio.current_time()
                for peer in peers():
                    peer.renewal_due = peer.row is not None and self.is_due(peer.certificate)
            try:
                await self._settle(known)
            except (OSError, sqlite3.Error, RegistryError, CustodyError) as error:
                logger.error("renewals wait: %s", error)
            await trio.sleep(_LOOKS_EVERY_S)

    async def _settle(self, known: Callable[[str], TerminalRow | None]) -> None:
        believed = list(self._believed(known))
        arrived = {item for item in self._arrived if (row := known(item[0])) and row.renewed == item[1]}
        if believed or arrived:
            # In a thread: a person's command may hold the registry's lock for a while.
            await trio.to_thread.run_sync(self._write, believed, arrived)
        self._arrived &= arrived

    def _read_authorities(self) -> bool:
        seen = stamps([self._authorities])
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._issuers = read_certificates(self._authorities)[1:]
        except CertificateError as error:
            logger.error("%s", error)
        return True

    def _believed(self, known: Callable[[str], TerminalRow | None]) -> Iterable[Certificate]:
        """Answers that the registry does not know yet."""
        if not self._folder.is_dir():
            return
        for file in self._folder.glob(f"*{ANSWER}"):
            row = known(file.stem)
            try:
                answer = read_certificate(file)
                if row is None or row.knows(answer):
                    continue
                self._check(answer, row, pki_renewal.load(file.with_suffix(WISH)))
            except (CertificateError, RequestRefused) as error:
                logger.error("the answer %s is not believed: %s", file.name, error)
                file.unlink(missing_ok=True)
            else:
                yield answer

    def _check(self, answer: Certificate, row: TerminalRow, wish: pki_renewal.Request) -> None:
        facts = row.facts
        if (answer.subject.common_name, answer.subject.serial) != (facts.terminal, facts.serial):
            raise CertificateError("it names another terminal")
        if answer.public_key.point[1:] != wish.key or wish.fingerprint != row.fingerprint:
            raise CertificateError("it is not what the terminal asked for")
        issuer = next((one for one in self._issuers if one.subject.common_name == answer.issuer), None)
        if issuer is None:
            raise CertificateError("its authority is not trusted")
        x509.verify_certificate(answer, issuer.public_key)

    def _write(self, believed: Iterable[Certificate], arrived: Iterable[tuple[str, bytes]]) -> None:
        with Registry.open(self._registry, self._custody) as registry:
            for answer in believed:
                registry.renewed(answer.subject.common_name, f"{answer.serial:032x}", answer.fingerprint)
            for terminal, fingerprint in arrived:
                registry.took_up(terminal, fingerprint)
                for suffix in (WISH, ANSWER):
                    (self._folder / f"{terminal}{suffix}").unlink(missing_ok=True)
