"""Back ends from their configuration: destinations for calls, the feed for analytics."""

import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import trio

from fengshou.codecs import PublicKey
from fengshou.hsm.channel import PROFILES, Trust, client_context
from fengshou.hsm.custody import SWITCH_SIGN, SWITCH_TLS, Custody
from fengshou.hsm.renewal import LiveContext, stamps
from fengshou.hsm.x509 import CertificateError
from fengshou.protocol.iso8583 import CHARACTER_FORMAT, HostFormat
from fengshou.routing.connect import Connect, tcp_connect, tls_connect
from fengshou.routing.destination import Destination
from fengshou.routing.envelope import Envelope
from fengshou.routing.events import EventFeed
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.routing.json_link import JsonLink
from fengshou.routing.zone_keys import ZoneKeys
from fengshou.switch.certificate_files import read_certificates
from fengshou.switch.config import Iso8583Destination, JsonDestination, JsonPeer, Loaded, address_of
from fengshou.switch.journal.store import Journal
from fengshou.switch.writer import Writer

logger = logging.getLogger(__name__)


def destination(name: str, row: Iso8583Destination | JsonDestination, loaded: Loaded, custody: Custody) -> Destination:
    """The destination that a row of the configuration describes. Raises CustodyError, CertificateError."""
    if isinstance(row, Iso8583Destination):
        connects = [tcp_connect(*address_of(address)) for address in row.addresses for _ in range(row.links)]
        host_format = CHARACTER_FORMAT if row.packing == "ascii" else HostFormat()
        return Iso8583Link(
            name, connects, host_format, Random(), in_flight_max=row.in_flight, match_fields=row.match,
            zone=ZoneKeys(custody, name) if row.zone_keys else None, mac=row.mac,
        )  # fmt: skip
    return JsonLink(
        name,
        json_connect(row, loaded, custody),
        row.address,
        json_envelope(row, loaded, custody),
        Random(),
        connections=row.connections,
        waiting_max=row.waiting,
    )


def json_connect(peer: JsonPeer, loaded: Loaded, custody: Custody) -> Connect:
    """How to reach a JSON peer over the security channel."""
    host, port = address_of(peer.address)
    trust = Trust(loaded.path(peer.authorities), loaded.optional(peer.revoked))
    context = LiveContext(
        client_context, loaded.path(peer.certificate), custody, SWITCH_TLS, trust, PROFILES[peer.profile]
    )

    async def connect() -> trio.abc.Stream:
        return await tls_connect(host, port, context(), peer.name)()

    return connect


def json_envelope(peer: JsonPeer, loaded: Loaded, custody: Custody) -> Envelope:
    """The signatures of both sides."""
    signers = SignerFiles([loaded.path(peer.signer)])
    return Envelope(custody, SWITCH_SIGN, signers.keys(), signers.changed)


class SignerFiles:
    """Whose signatures are believed: the keys of the certificates in some files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._seen = stamps(files)

    def keys(self) -> list[PublicKey]:
        """Raises CertificateError."""
        return [certificate.public_key for file in self._files for certificate in read_certificates(file)]

    def changed(self) -> list[PublicKey] | None:
        """The keys again, None when no file was changed since, or one cannot be read now."""
        now = stamps(self._files)
        if now == self._seen:
            return None
        try:
            keys = self.keys()
        except CertificateError as error:
            logger.error("signers are not read again: %s", error)
            return None
        self._seen = now
        return keys


class JournalEvents:
    """The journal as the feed's source."""

    def __init__(self, journal: Journal, writer: Writer) -> None:
        self._journal = journal
        self._writer = writer

    def read(self, after: int, limit: int) -> Sequence[tuple[int, bytes]]:
        self._journal.refresh()
        return self._journal.events(after, limit)

    def last(self) -> int:
        self._journal.refresh()
        return self._journal.last_event

    def delivered(self, cursor: int) -> None:
        self._writer.later(lambda journal: journal.forget_events(cursor))


def feed(peer: JsonPeer, loaded: Loaded, custody: Custody, source: JournalEvents) -> EventFeed:
    """The delivery of events to the analytics store."""
    return EventFeed(
        source, json_connect(peer, loaded, custody), peer.address, json_envelope(peer, loaded, custody), Random()
    )
