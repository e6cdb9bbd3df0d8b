"""A TLS connection's bytes in and out without pyOpenSSL between: 4 to 5 µs less for a record in and one out.

``fengshou.hsm.channel.direct`` makes one of a pyOpenSSL connection, which is the readable twin; of one without a socket
``in_memory`` does, and has a twin in Python.
"""

from collections.abc import Callable
from typing import Protocol

class _Connection(Protocol):
    def shutdown(self) -> bool: ...

class TlsCalls:
    """Where calls of a TLS library are, as addresses: SSL_read(3), SSL_write(3), ERR_clear_error(3), SSL_get_error(3),
    BIO_read(3), BIO_write(3)."""

    def __init__(self, read: int, write: int, clear_errors: int, explain: int, take: int, put: int) -> None: ...

class DirectConnection:
    """A connection whose handshake is done, on a socket that does not block. The GIL is held all the time."""

    def __init__(self, calls: TlsCalls, connection: _Connection, ssl: int, fail: Callable[[int, int], object]) -> None:
        """``ssl``: where the ``SSL`` of ``connection`` is, which keeps it alive; it is of the library whose calls these
        are. ``fail`` is given a call's result and errno, and raises what it means."""

    def recv(self, most: int, /) -> bytes:
        """Bytes of one record, ``most`` at most; what is left of it comes next. Raises as ``fail`` does."""

    def send(self, data: bytes | bytearray | memoryview, /) -> int:
        """How many of these bytes, one at least, were taken: one record's. Raises as ``fail`` does."""

    def shutdown(self) -> bool:
        """As of ``connection``."""

class MemoryConnection:
    """A connection whose bytes somebody else carries. ``put`` and ``take`` serve its handshake too. Holds the GIL."""

    closed: bool  # the peer has said that nothing more comes

    def __init__(
        self, calls: TlsCalls, connection: object, ssl: int, arriving: int, leaving: int,
        fail: Callable[[int, int], object],
    ) -> None:  # fmt: skip
        """As of ``DirectConnection``; ``arriving`` and ``leaving``: where its memory BIOs are."""

    def put(self, data: bytes, /) -> None:
        """Bytes that came from the peer."""

    def read(self) -> bytes:
        """What the peer has said in the records that are whole; empty when none is. Raises as ``fail`` does."""

    def send(self, data: bytes, /) -> None:
        """Say this to the peer: ``take`` has it then. Raises as ``fail`` does."""

    def take(self) -> bytes:
        """Everything that is to go to the peer."""
