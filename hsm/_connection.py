"""What a TLS connection says of its peer, and what a failure of it means."""

from collections.abc import Set
from datetime import datetime
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address

import trio
from OpenSSL import SSL, crypto

from fengshou.hsm import x509
from fengshou.hsm._openssl import verify_result
from fengshou.protocol.limits import BINDING_BYTES
from fengshou.protocol.signing import EXPORTER_LABEL


class Fault(Enum):
    """What the peer did wrong; few enough to count each."""

    NOT_TLS = "not TLS"
    NOTHING_IN_COMMON = "no common version, suite, group or signature algorithm"
    NO_CERTIFICATE = "no certificate"
    OTHER_AUTHORITY = "certificate of another CA"
    EXPIRED = "certificate expired"
    NOT_YET_VALID = "certificate not yet valid"
    REVOKED = "certificate revoked"
    NO_REVOCATION_LIST = "no revocation list in date"
    WRONG_USE = "certificate not for this use"
    BAD_CERTIFICATE = "certificate malformed or forged"
    WRONG_NAME = "certificate of another name"
    REFUSED_US = "the peer refused us"
    VANISHED = "the peer went away without closing"
    BROKEN = "record damaged or protocol broken"


class ChannelError(trio.BrokenResourceError):
    """The peer broke the channel or may not use it. ``fault`` says how; the text adds what the library knows."""

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(f"{fault.value}{f' ({detail})' if detail else ''}")
        self.fault = fault


_CODES = SSL.X509VerificationCodes
_CERTIFICATE_FAULTS = {
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT: Fault.OTHER_AUTHORITY,
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: Fault.OTHER_AUTHORITY,
    _CODES.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: Fault.OTHER_AUTHORITY,
    _CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: Fault.OTHER_AUTHORITY,
    _CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN: Fault.OTHER_AUTHORITY,
    _CODES.ERR_CERT_HAS_EXPIRED: Fault.EXPIRED,
    _CODES.ERR_CERT_NOT_YET_VALID: Fault.NOT_YET_VALID,
    _CODES.ERR_CERT_REVOKED: Fault.REVOKED,
    _CODES.ERR_UNABLE_TO_GET_CRL: Fault.NO_REVOCATION_LIST,
    _CODES.ERR_CRL_HAS_EXPIRED: Fault.NO_REVOCATION_LIST,
    _CODES.ERR_CRL_NOT_YET_VALID: Fault.NO_REVOCATION_LIST,
    _CODES.ERR_CRL_SIGNATURE_FAILURE: Fault.NO_REVOCATION_LIST,
    _CODES.ERR_INVALID_PURPOSE: Fault.WRONG_USE,
    _CODES.ERR_INVALID_CA: Fault.WRONG_USE,
    _CODES.ERR_KEYUSAGE_NO_CERTSIGN: Fault.WRONG_USE,
    _CODES.ERR_PATH_LENGTH_EXCEEDED: Fault.WRONG_USE,
}

# Reasons of OpenSSL's error queue (ssl/ssl_err.c), by a part of their text.
_REASONS = (
    ("peer did not return a certificate", Fault.NO_CERTIFICATE),
    ("alert", Fault.REFUSED_US),
    ("wrong version number", Fault.NOT_TLS),
    ("http request", Fault.NOT_TLS),
    ("https proxy request", Fault.NOT_TLS),
    ("packet length too long", Fault.NOT_TLS),
    ("record layer failure", Fault.NOT_TLS),
    ("unsupported protocol", Fault.NOTHING_IN_COMMON),
    ("no shared cipher", Fault.NOTHING_IN_COMMON),
    ("no suitable", Fault.NOTHING_IN_COMMON),
    ("no shared signature", Fault.NOTHING_IN_COMMON),
    ("no protocols available", Fault.NOTHING_IN_COMMON),
    ("unexpected eof", Fault.VANISHED),
)


def explain(connection: SSL.Connection, error: SSL.Error) -> ChannelError:
    """What ``error``, raised by a call on ``connection``, says of the peer."""
    if isinstance(error, SSL.SysCallError):
        return ChannelError(Fault.VANISHED)
    reasons = [reason for _library, _function, reason in error.args[0]] if error.args else []
    detail = reasons[0] if reasons else ""
    if "certificate verify failed" in reasons:
        code = verify_result(connection)
        return ChannelError(_CERTIFICATE_FAULTS.get(code, Fault.BAD_CERTIFICATE), f"X.509 verification code {code}")
    for part, fault in _REASONS:
        if any(part in reason for reason in reasons):
            return ChannelError(fault, detail)
    return ChannelError(Fault.BROKEN, detail)


def exporter(connection: SSL.Connection) -> bytes:
    """The 32-byte binding of the session: equal at both ends, different for every connection, resumed ones included."""
    return connection.export_keying_material(EXPORTER_LABEL, BINDING_BYTES)


def session_of(connection: SSL.Connection) -> SSL.Session | None:
    """What a later connection resumes by, if the switch gave a ticket; for a connection that is at its end, however
    that came: else the library voids the session together with a connection that was cut."""
    session = connection.get_session()
    connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
    return session


def check_still_valid(certificate: x509.Certificate, revoked: Set[int], now: datetime) -> None:
    """What a handshake verifies, once more: a session that is resumed brings a certificate that was verified long ago.

    ``revoked`` are serial numbers. Raises ChannelError.
    """
    if certificate.serial in revoked:
        raise ChannelError(Fault.REVOKED)
    if now > certificate.not_after:
        raise ChannelError(Fault.EXPIRED)


def peer_certificate(connection: SSL.Connection) -> x509.Certificate:
    """The facts of the certificate that the handshake verified. Raises ChannelError: none, or not one of SM2."""
    try:
        return _parsed(_peer_der(connection))
    except x509.CertificateError as error:
        raise ChannelError(Fault.BAD_CERTIFICATE, str(error)) from None


# To read one takes as long as half a resumed handshake, and those of terminals come again and again.
_parsed = lru_cache(maxsize=16_384)(x509.parse_certificate)
_names = lru_cache(maxsize=256)(x509.names_of)  # of servers, which are few


def check_peer_name(connection: SSL.Connection, name: str) -> None:
    """Raises ChannelError unless the peer's certificate has exactly this DNS name or IP address.

    Wild cards do not count, and the common name is not looked at (RFC 9525 section 6).
    """
    try:
        names = _names(_peer_der(connection))
    except x509.CertificateError as error:
        raise ChannelError(Fault.BAD_CERTIFICATE, str(error)) from None
    if _normal(name) not in (_normal(other) for other in names):
        raise ChannelError(Fault.WRONG_NAME, f"wanted {name}, it has {', '.join(names) or 'none'}")


def is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=256)
def _normal(name: str) -> str:
    return str(ip_address(name)) if is_address(name) else name.lower()


def _peer_der(connection: SSL.Connection) -> bytes:
    certificate = connection.get_peer_certificate()
    if certificate is None:
        raise ChannelError(Fault.NO_CERTIFICATE)
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
