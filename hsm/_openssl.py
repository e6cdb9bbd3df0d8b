"""The few OpenSSL calls that pyOpenSSL has no public face for, in one place.

They reach the library through the bindings that pyOpenSSL itself uses; its version is pinned, and the tests of the
channel fail if a later one moves them.
"""

from contextlib import suppress
from functools import partial

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

from fengshou.codecs import DirectConnection, MemoryConnection, TlsCalls

_RECORD_BYTES_MAX = 16 * 1024  # RFC 8446 section 5.1


def set_groups(context: SSL.Context, groups: str) -> None:
    """Key exchange groups in order of preference, SSL_CTX_set1_groups_list(3). ``?`` before a name: skip if unknown."""
    if _lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) != 1:
        raise ValueError(f"the TLS library knows none of the groups {groups}")


def set_signature_algorithms(context: SSL.Context, algorithms: str) -> None:
    """Signature algorithms that are offered and accepted, SSL_CTX_set1_sigalgs_list(3)."""
    if _lib.SSL_CTX_set1_sigalgs_list(context._context, algorithms.encode()) != 1:
        raise ValueError(f"the TLS library does not know the signature algorithms {algorithms}")


def verify_result(connection: SSL.Connection) -> int:
    """Why the peer's certificate was refused, one of SSL.X509VerificationCodes; OK when it was not."""
    return int(_lib.SSL_get_verify_result(connection._ssl))


def session_reused(connection: SSL.Connection) -> bool:
    """Whether the handshake resumed an earlier session, SSL_session_reused(3)."""
    return bool(_lib.SSL_session_reused(connection._ssl))


def use_private_key(context: SSL.Context, pkcs8: bytes) -> None:
    """Put an unencrypted PKCS#8 key into a context, SSL_CTX_use_PrivateKey(3).

    Raises ValueError when the context's certificate is of another key.

    pyOpenSSL itself takes a key from a file or from ``cryptography``, which has no SM2 keys.
    """
    key = crypto.load_privatekey(crypto.FILETYPE_ASN1, pkcs8)
    if _lib.SSL_CTX_use_PrivateKey(context._context, key._pkey) != 1:
        _lib.ERR_clear_error()
        raise ValueError("the key does not belong to the certificate of this context")


# As ``codecs/_channel.pyx`` declares them.
_DIRECT = {
    "SSL_read": "int(*)(SSL *, void *, int)",
    "SSL_write": "int(*)(SSL *, void *, int)",
    "ERR_clear_error": "void(*)(void)",
    "SSL_get_error": "int(*)(SSL *, int)",
    "BIO_read": "int(*)(BIO *, void *, int)",
    "BIO_write": "int(*)(BIO *, void *, int)",
}


def _direct_calls() -> TlsCalls | None:
    """The calls of the compiled connections; None when these bindings are not made as those that we know."""
    try:
        found = [(_ffi.addressof(_lib._original_lib, name), _ffi.typeof(kind)) for name, kind in _DIRECT.items()]
        if any(_ffi.typeof(call) != kind for call, kind in found) or not callable(SSL.Connection._raise_ssl_error):
            return None
        return TlsCalls(*(int(_ffi.cast("uintptr_t", call)) for call, _ in found))
    except (AttributeError, TypeError, ValueError, _ffi.error):
        return None


_CALLS = _direct_calls()


def direct(connection: SSL.Connection) -> SSL.Connection | DirectConnection:
    """The same connection for whoever only receives, sends and shuts down, on a socket of its own: without pyOpenSSL
    between. Its errors are the same. Where that cannot be had it is ``connection`` itself."""
    if _CALLS is None:
        return connection
    return DirectConnection(_CALLS, connection, _address(connection._ssl), partial(_fail, connection))


class PlainMemoryConnection:
    """``MemoryConnection`` by pyOpenSSL: the readable twin."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self.closed = False

    def put(self, data: bytes) -> None:
        if data:
            self._connection.bio_write(data)

    def read(self) -> bytes:
        parts = []
        with suppress(SSL.WantReadError):
            try:
                while True:
                    parts.append(self._connection.recv(_RECORD_BYTES_MAX))
            except SSL.ZeroReturnError:
                self.closed = True
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def take(self) -> bytes:
        parts = []
        with suppress(SSL.WantReadError):  # nothing (more)
            while True:
                parts.append(self._connection.bio_read(_RECORD_BYTES_MAX))
        return b"".join(parts)


def in_memory(connection: SSL.Connection) -> MemoryConnection | PlainMemoryConnection:
    """The bytes of a connection that has no socket: what comes from the peer is put in, what goes to it taken out."""
    if _CALLS is None or not hasattr(connection, "_into_ssl") or not hasattr(connection, "_from_ssl"):
        return PlainMemoryConnection(connection)
    ssl, arriving, leaving = map(_address, (connection._ssl, connection._into_ssl, connection._from_ssl))
    return MemoryConnection(_CALLS, connection, ssl, arriving, leaving, partial(_fail, connection))


def _address(pointer: object) -> int:
    return int(_ffi.cast("uintptr_t", pointer))


def _fail(connection: SSL.Connection, result: int, errno: int) -> None:
    """Raise what pyOpenSSL raises when a call of the library ended so."""
    _ffi.errno = errno
    connection._raise_ssl_error(connection._ssl, result)
