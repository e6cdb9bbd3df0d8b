"""TLS contexts: which suites, groups and certificates a channel admits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL, crypto

from fengshou.hsm._openssl import set_groups, set_signature_algorithms
from fengshou.hsm.custody import SWITCH_TLS, Custody, CustodyError
from fengshou.hsm.pem import REVOCATION_LIST, from_pem
from fengshou.hsm.software import load_private_key
from fengshou.hsm.x509 import Certificate, CertificateError

# A working day of a village shop: a terminal that lost its radio link comes back without a full handshake.
TICKET_SECONDS = 10 * 3600

# A server that asks for certificates must name its sessions, or OpenSSL fails whoever offers one for resumption.
_SESSION_CONTEXT = b"fengshou"

# SSL_MODE_NO_AUTO_CHAIN of openssl/ssl.h: show the certificates of the identity's file, not what could be added to them
# from the trusted ones. Every byte of a handshake is paid for on a field link.
_MODE_NO_AUTO_CHAIN = 0x8


@dataclass(frozen=True, slots=True)
class ChannelProfile:
    """Lists of OpenSSL names in order of preference, parted by colons. TLS 1.3 only, always."""

    suites: str
    groups: str
    signatures: str


# RFC 8998 section 2: the suite, the signature and the curve go together. The hybrid group resists a quantum computer
# that records today; the narrow profile saves 2.3 KB a handshake where a field link counts bytes.
NATIONAL = ChannelProfile("TLS_SM4_GCM_SM3", "?curveSM2MLKEM768:curveSM2", "sm2sig_sm3")
NARROW = ChannelProfile("TLS_SM4_GCM_SM3", "curveSM2", "sm2sig_sm3")
# For back ends whose owner has no national certificates yet; never for terminals.
INTERNATIONAL = ChannelProfile(
    "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256",
    "P-256:P-384",
    "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384",
)
PROFILES = {"national": NATIONAL, "narrow": NARROW, "international": INTERNATIONAL}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are on a channel. ``certificate`` is a PEM file: our certificate, and a server's issuer after it.

    ``arm`` puts the private key into a context, wherever the key is kept.
    """

    certificate: Path
    arm: Callable[[SSL.Context], None]

    @classmethod
    def of_custody(cls, certificate: Path, custody: Custody, label: str = SWITCH_TLS) -> "Identity":
        return cls(certificate, lambda context: custody.arm(label, context))

    @classmethod
    def of_key_file(cls, certificate: Path, key: Path) -> "Identity":
        """The key is an SM2 PEM file of mode 0600. Raises CustodyError when it is anything else."""
        load_private_key(key)
        return cls(certificate, lambda context: context.use_privatekey_file(key))


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom we believe: the authorities' certificates, and the list of what they revoked, both PEM files.

    A revocation list that is named must be there and in date, else no peer is believed.
    """

    authorities: Path
    revoked: Path | None = None

    def revoked_serials(self) -> frozenset[int]:
        """The serial numbers on the list, none without one. Raises CustodyError."""
        if self.revoked is None:
            return frozenset()
        return frozenset(entry.serial_number for found in _load_lists(self.revoked) for entry in found)

    def verify(self, certificate: Certificate, between: Sequence[Certificate] = ()) -> None:
        """That the authorities stand for a certificate now, perhaps over issuing ones ``between`` that they certified.

        For one that no handshake brings; what it may be used for is the caller's to judge, and revocation is not looked
        at. Raises CertificateError.
        """
        store = crypto.X509Store()
        try:
            store.load_locations(str(self.authorities))
            path = [crypto.X509.from_cryptography(x509.load_der_x509_certificate(one.der)) for one in between]
            end = crypto.X509.from_cryptography(x509.load_der_x509_certificate(certificate.der))
            crypto.X509StoreContext(store, end, path).verify_certificate()
        except crypto.X509StoreContextError as error:
            raise CertificateError(str(error)) from None
        except (crypto.Error, ValueError) as error:
            raise CertificateError(f"{self.authorities} or the certificate cannot be read: {error}") from None


def terminal_server_context(identity: Identity, trust: Trust, profile: ChannelProfile = NATIONAL) -> SSL.Context:
    """For the listener of terminals: certificates on both sides, resumption by ticket, least memory an idle connection.

    A resumed session is not verified again, and tickets die with their context. So that a revocation takes effect, make
    a new context from the new list; never add to the store of one in use.
    """
    if profile not in (NATIONAL, NARROW):
        raise ValueError("terminals speak the national suites only")
    context = _context(SSL.TLS_SERVER_METHOD, identity, trust, profile)
    # Tickets hold the session, the certificate included; the server remembers nothing.
    context.set_session_id(_SESSION_CONTEXT)
    context.set_timeout(TICKET_SECONDS)
    # Gives back the 16 KiB record buffers of a connection that is idle.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def server_context(identity: Identity, trust: Trust, profile: ChannelProfile = NATIONAL) -> SSL.Context:
    """For back ends: certificates on both sides, verified anew each time. Their links are few and stay up."""
    context = _context(SSL.TLS_SERVER_METHOD, identity, trust, profile)
    # In TLS 1.3 this option makes tickets mere references into a session cache, and there is none.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_id(_SESSION_CONTEXT)
    return context


def client_context(identity: Identity, trust: Trust, profile: ChannelProfile = NATIONAL) -> SSL.Context:
    """For terminals, and for the switch as client of its back ends."""
    return _context(SSL.TLS_CLIENT_METHOD, identity, trust, profile)


def _context(method: int, identity: Identity, trust: Trust, profile: ChannelProfile) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(profile.suites.encode())
    set_groups(context, profile.groups)
    set_signature_algorithms(context, profile.signatures)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(_MODE_NO_AUTO_CHAIN)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    try:
        context.use_certificate_chain_file(identity.certificate)
    except SSL.Error:
        raise CustodyError(f"{identity.certificate} is not a certificate chain in PEM") from None
    try:
        identity.arm(context)
        context.check_privatekey()
    except SSL.Error:
        raise CustodyError(f"the private key does not belong to {identity.certificate}") from None
    try:
        context.load_verify_locations(trust.authorities)
    except SSL.Error:
        raise CustodyError(f"{trust.authorities} does not hold authorities' certificates in PEM") from None
    store = context.get_cert_store()
    assert store is not None
    # Whoever stands in the file is believed. Else each handshake would verify again what the root says of the issuing
    # authority, a seventh of the CPU of a whole one.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    if trust.revoked is not None:
        _check_revocation(store, trust.revoked)
    return context


def _check_revocation(store: crypto.X509Store, path: Path) -> None:
    for found in _load_lists(path):
        store.add_crl(found)
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK)


def _load_lists(path: Path) -> list[x509.CertificateRevocationList]:
    """One of each issuing authority that is in use."""
    try:
        return [x509.load_der_x509_crl(der) for der in from_pem(REVOCATION_LIST, path.read_bytes())]
    except (OSError, ValueError):
        raise CustodyError(f"{path} is not a revocation list in PEM") from None
