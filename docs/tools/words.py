"""What the generated tables say in words of members that have no words of their own in the code."""

from collections.abc import Mapping

from fengshou.hsm.channel import Fault
from fengshou.protocol.errors import WireError
from fengshou.protocol.record import RecordKind
from fengshou.routing.events import FeedState
from fengshou.terminals.pump import Closing

WIRE_ERRORS: Mapping[WireError, str] = {
    WireError.FRAME_TOO_LONG: "length above its bound, or a third byte of length. The connection is closed",
    WireError.FRAME_TOO_SHORT: "length below 3. The connection is closed",
    WireError.LENGTH_MALFORMED: "length in two bytes of which the second is 00. The connection is closed",
    WireError.UNKNOWN_VERSION: "the two version bits are not 01",
    WireError.UNKNOWN_TEMPLATE: "no such template at this switch",
    WireError.UNKNOWN_FLAG: "a request with a bit of the low nibble other than REPEAT",
    WireError.UNKNOWN_FIELD: "a presence bit behind the last optional field is set",
    WireError.FORM_UNSUPPORTED: "DELTA on a template without a delta form, or in a session that was not granted it",
    WireError.TRUNCATED: "the frame ends inside a field or the signature",
    WireError.TRAILING_BYTES: "bytes after the last field or the signature",
    WireError.VARINT_MALFORMED: "a varint that is not the shortest form, or longer than 9 bytes",
    WireError.VALUE_OUT_OF_RANGE: "a value outside the bound of its element",
    WireError.TEXT_MALFORMED: "a nibble that is no digit, a pad that is not F, text that is not ASCII or UTF-8",
    WireError.SIGNATURE_MISSING: "a request of a signed template without SIGNED",
    WireError.SIGNATURE_UNEXPECTED: "SIGNED on an unsigned template or on an answer",
    WireError.BASE_LOST: "a delta names a request that is not known here, or does not fit it. Code R0",
}

RECORD_KINDS: Mapping[RecordKind, str] = {
    RecordKind.SESSION: "a sign-in or sign-off was accepted, or what keys the terminal holds",
    RecordKind.INTENT: "a request was verified and accepted; nothing has been done for it yet",
    RecordKind.OUTCOME: "how the intent in `refers` ended; this is what a receipt proves",
    RecordKind.REVERSAL: "the back end answered the reversal of the intent in `refers`",
    RecordKind.REFUSAL: "a message was refused before it became an intent",
    RecordKind.LATE: "the back end answered the intent in `refers` after its outcome was given as unknown",
    RecordKind.ADVICE: "the back end answered what the switch had approved without it, the intent in `refers`",
}

CLOSINGS: Mapping[Closing, str] = {
    Closing.BY_PEER: "the terminal ended the connection in good order; nothing",
    Closing.BROKEN: "connection or TLS record damaged, mostly by a lost radio link; many at once: look at the network",
    Closing.GARBAGE: "a frame length that cannot be; the terminal's program or something between is broken",
    Closing.SLOW_READER: (
        "the terminal did not take its answers (`limits.outbox-bytes`, `limits.stalled-s`); it repeats and gets them"
    ),
    Closing.SILENT: "no sign-in within `limits.sign-in-s`; many of them: somebody holds connections open",
    Closing.IDLE: "nothing was heard for `limits.idle-s`; terminals should echo more often than that",
    Closing.SUPERSEDED: "the terminal signed in over a newer connection; often: two devices with one identity",
    Closing.REVOKED: "terminal, application or certificate was blocked, changed or revoked while it was signed in",
    Closing.DRAINED: "the switch stopped",
}

FAULTS: Mapping[Fault, str] = {
    Fault.NOT_TLS: "something else was spoken: a scanner, a browser, a health check without TLS",
    Fault.NOTHING_IN_COMMON: "the peer has no RFC 8998 suite, group or signature; wrong firmware or `listen.profile`",
    Fault.NO_CERTIFICATE: "the peer showed none; enrol the terminal",
    Fault.OTHER_AUTHORITY: "issued by another authority than those in `listen.authorities`",
    Fault.NOT_YET_VALID: "its validity begins later than now: look at this machine's clock, and at the authority's",
    Fault.EXPIRED: "renew the certificate; if many at once, look at this machine's clock",
    Fault.REVOKED: "on the revocation list; if by mistake, issue a new certificate: revocation is for good",
    Fault.NO_REVOCATION_LIST: "the list is missing or out of date: nobody gets in. `fengshou pki crl`",
    Fault.WRONG_USE: "a certificate of another profile, for example a server's where a terminal's is due",
    Fault.BAD_CERTIFICATE: "malformed, or no SM2 certificate; treat as an attack until known",
    Fault.WRONG_NAME: "a back end's certificate does not have the name in `name`",
    Fault.REFUSED_US: "the peer sent an alert: it does not trust our certificate or cannot use our suites",
    Fault.VANISHED: "the connection ended without close_notify: a lost link",
    Fault.BROKEN: "a damaged record or a breach of TLS",
}

FEED_STATES: Mapping[FeedState, str] = {
    FeedState.CONNECTING: "the store cannot be reached; events wait in the journal and are not lost. Start the store",
    FeedState.DELIVERING: "nothing",
    FeedState.STORE_BEHIND: "an old copy was put back. Restore a newer one: the journal no longer has what is between",
    FeedState.STORE_AHEAD: "the store has seen events of another journal. Check which of the two was replaced",
}

CONFIG: Mapping[str, str] = {
    "Config.workers": "processes that share the terminals; 1: no supervisor",
    "Config.log_level": "`debug`, `info`, `warning` or `error`",
    "Files.keys": "folder of the switch's keys, mode 0700",
    "Files.registry": "registry of terminals, sites and applications (SQLite)",
    "Files.journal": "folder of the journal (LMDB)",
    "Files.renewals": "folder in which terminals' wishes for certificates wait for the authority",
    "Files.status": "Unix socket that answers `fengshou status`",
    "Listen.certificate": "PEM: the switch's certificate, then the issuing authority's",
    "Listen.authorities": "PEM: the authorities whose terminals are trusted",
    "Listen.host": "address to listen on",
    "Listen.port": "TCP port for terminals; 0 takes a free one",
    "Listen.revoked": "PEM: revocation list; when named it must be there and in date",
    "Listen.profile": "`national`, or `narrow`: no post-quantum group, 2.3 KB less a handshake",
    "Limits.connections": "connections at once of one worker, unfinished handshakes included",
    "Limits.handshakes": "unfinished handshakes. Of those that let us wait, the oldest is dropped past it; of those "
    "that wait for us, newer ones stay outside",
    "Limits.handshake_s": "seconds for a handshake",
    "Limits.sign_in_s": "seconds that a connection may stay without a sign-in",
    "Limits.idle_s": "seconds without a byte from the terminal",
    "Limits.outbox_bytes": "bytes that a slow reader may leave unread",
    "Limits.stalled_s": "seconds that unread bytes may stand still",
    "Limits.in_flight": "requests without an outcome; past it a request gets 96 at once",
    "Limits.drain_s": "seconds that a stop waits for the back ends",
    "Limits.journal_gib": "address space of the journal in GiB; the file grows as needed",
    "CutOverSection.time": "`HH:MM` in UTC+8 at which the business day changes; from 12:00 on, what follows counts to "
    "the next calendar day",
    "CutOverSection.before_s": "seconds before it in which `services` are refused with 90",
    "CutOverSection.after_s": "seconds after it in which they are",
    "CutOverSection.services": "names of those services; nothing else stops for a cut-over",
    "Iso8583Destination.addresses": "list of `host:port`",
    "Iso8583Destination.links": "TCP links to each address",
    "Iso8583Destination.deadline_ms": "milliseconds for an answer; after it the outcome is 98 and is reversed",
    "Iso8583Destination.in_flight": "calls without an answer; past it a request gets 96",
    "Iso8583Destination.packing": "`bcd` or `ascii`: MTI, bitmap, numbers and lengths packed or as characters",
    "Iso8583Destination.zone_keys": "true: PIN and authentication key are brought to the host, see PROTOCOL section 13",
    "Iso8583Destination.mac": "true: every message bears DE 64 or 128 under the authentication key; needs zone-keys",
    "Iso8583Destination.pin_format": "layout of the PIN blocks that the host reads: `iso-4` or `unionpay`",
    "Iso8583Destination.match": "elements that the host repeats in its answer and that tell calls apart",
    "JsonPeer.address": "`host:port`",
    "JsonPeer.name": "DNS name or IP address that the server's certificate must have",
    "JsonPeer.signer": "PEM certificate of the key that signs the server's answers",
    "JsonPeer.certificate": "PEM: our certificate chain",
    "JsonPeer.authorities": "PEM: whom we trust there",
    "JsonPeer.revoked": "PEM: revocation list",
    "JsonPeer.profile": "`national`, `narrow` or `international` (AES-GCM on P-256)",
    "JsonDestination.connections": "connections, each with one call at a time",
    "JsonDestination.waiting": "calls that wait for a free connection; past it a request gets 96",
    "JsonDestination.deadline_ms": "milliseconds for an answer",
    "ServiceEntry.module": "dotted name of the service's package",
    "ServiceEntry.deadline_ms": "milliseconds for an answer, where that is less than its destination's",
    "StandInSection.limits": "the signed limits, see `fengshou stand-in --help`; read at start",
    "StandInSection.signer": "PEM certificate of the key that may sign them",
    "ServiceEntry.options": "table of options that the service defines",
    "SdfProvider.library": "the vendor's GM/T 0018 library: a path, or a name that the loader finds",
    "SdfProvider.storage_index": "the device's key pair under which its symmetric keys lie outside it",
    "SdfProvider.pairs": "by label, indices of key pairs that the device's administration made for it, an epoch each",
    "SdfProvider.symmetric": "labels whose keys the device makes by itself",
    "SdfProvider.max_bits": "`ECCref_MAX_BITS` of the vendor's header: 256 or 512",
    "SdfProvider.sessions": "sessions open at once",
    "SdfProvider.passwords": "file of mode 0600, a line for each key pair that needs it: index, space, password",
    "CardProvider.cards": "by label, its cards, an epoch each",
    "CardProvider.profile": "how the cards are spoken to: `gmt-0017` or `iso-7816`",
    "CardRow.reader": "the card's reader as `pcsc_scan` shows it, or the end of that",
    "CardRow.pin": "file of mode 0600 that holds the card's PIN",
}
