"""Renewal of a terminal's certificate: the old key answers for the new one, so nobody in between is believed.

A request is bytes that travel by any way, through the switch and a folder or a courier, to whoever has the authority's
keys. Both keys have signed it (``protocol.signing.renewal_message``); what else counts is in the authority's own index.
"""

from datetime import datetime
from pathlib import Path

import msgspec

from fengshou.codecs import BadKey, BadSignature, PublicKey, sm3
from fengshou.hsm import x509
from fengshou.hsm.pki import Authority, PkiError
from fengshou.hsm.x509 import BACKDATE, TERMINAL, Certificate, Signer, Subject
from fengshou.protocol.signing import renewal_message

# Files of a terminal in the folder by which wishes go to the authority, and answers come back.
WISH, ANSWER = ".json", ".crt"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish for a certificate of ``key`` in the place of ``certificate``; bytes are base64 in its file."""

    terminal: str
    certificate: str  # serial number of the one that it has, hexadecimal
    fingerprint: bytes  # SM3 of its DER
    key: bytes  # x || y
    proof: bytes  # r || s by that key
    consent: bytes  # r || s by the certificate's key


class RequestRefused(PkiError):
    """Nobody who may have it made this request; the text says what is wrong."""


def make_request(old: Certificate, holder: Signer, new: Signer) -> Request:
    """What a terminal asks that holds both keys."""
    key = new.public_key.point[1:]
    message = renewal_message(old.subject.common_name, old.fingerprint, key)
    return Request(
        terminal=old.subject.common_name,
        certificate=f"{old.serial:032x}",
        fingerprint=old.fingerprint,
        key=key,
        proof=new.sign(sm3(new.public_key.za + message)),
        consent=holder.sign(sm3(holder.public_key.za + message)),
    )


def verify(request: Request, old: PublicKey) -> PublicKey:
    """The new key, which both keys stand for. Raises RequestRefused."""
    message = renewal_message(request.terminal, request.fingerprint, request.key)
    try:
        new = PublicKey(b"\x04" + request.key)
        new.verify(sm3(new.za + message), request.proof)
        old.verify(sm3(old.za + message), request.consent)
    except (BadKey, BadSignature):
        raise RequestRefused(f"{request.terminal}: the keys have not signed this") from None
    if new == old:
        raise RequestRefused(f"{request.terminal}: the new key is the old one")
    return new


def load(file: Path) -> Request:
    """Raises RequestRefused."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Request)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise RequestRefused(f"{file}: {error}") from None


def renew(authority: Authority, request: Request, now: datetime, days: int | None = None) -> Certificate:
    """Issue what a request asks for; the same one again for the same request. Raises RequestRefused."""
    entries = authority.entries()
    entry = next((entry for entry in entries if entry.issued.serial == request.certificate), None)
    if entry is None or entry.issued.profile != TERMINAL.name or entry.issued.common_name != request.terminal:
        raise RequestRefused(f"{request.terminal}: its certificate {request.certificate} was not issued here")
    old = x509.parse_certificate(entry.issued.certificate)
    if entry.revoked is not None:
        raise RequestRefused(f"{request.terminal}: its certificate is revoked")
    if old.fingerprint != request.fingerprint or not old.not_before <= now <= old.not_after:
        raise RequestRefused(f"{request.terminal}: its certificate is another one or not in date")
    new = verify(request, old.public_key)
    for later in entries:
        if later.issued.common_name == request.terminal and later.revoked is None:
            issued = x509.parse_certificate(later.issued.certificate)
            if issued.public_key == new:
                return issued
    return authority.issue(TERMINAL, Subject(old.subject.common_name, serial=old.subject.serial), new, now, days)


def is_due(certificate: Certificate, now: datetime) -> bool:
    """Whether the second half of its life has begun: so much time is left for a terminal that is seldom on line."""
    begins = certificate.not_before + BACKDATE
    return now >= begins + (certificate.not_after - begins) / 2
