"""The first thing a terminal says, read before TLS does: the server name in its ClientHello.

By it a connection is brought to the worker that has the terminal. Nothing here is believed: whoever lies about its name
comes to a worker that refuses its sign-in. Formats: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3.
"""

_RECORD_HEAD = 5
_RECORD_BYTES_MAX = 1 << 14
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_EXTENSION_SERVER_NAME, _HOST_NAME = 0, 0
_NAME_BYTES_MAX = 255


def bytes_wanted(untrusted: bytes) -> int:
    """How many bytes of the stream ``server_name`` needs, as far as its beginning tells; 0: no name will be in it."""
    if len(untrusted) < _RECORD_HEAD:
        return _RECORD_HEAD if not untrusted or untrusted[0] == _HANDSHAKE else 0
    length = int.from_bytes(untrusted[3:_RECORD_HEAD], "big")
    if untrusted[0] != _HANDSHAKE or not length or length > _RECORD_BYTES_MAX:
        return 0
    return _RECORD_HEAD + length


def server_name(untrusted: bytes) -> str:
    """The name in a record that begins a connection, in small letters; empty when there is none that can be read.

    A ClientHello that goes over several records, which none of our size does, is read as far as its first one.
    """
    try:
        return _server_name(_Reader(untrusted))
    except (_End, UnicodeDecodeError):
        return ""


class _End(Exception):
    """The bytes end before what they promise."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise _End
        data, self._at = self._data[self._at : end], end
        return data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_bytes: int) -> bytes:
        """What stands behind its own length."""
        return self.take(self.number(length_bytes))


def _server_name(record: _Reader) -> str:
    record.take(_RECORD_HEAD)
    if record.number(1) != _CLIENT_HELLO:
        return ""
    record.take(3 + 2 + 32)  # length, legacy version, random
    record.vector(1)  # legacy session id
    record.vector(2)  # cipher suites
    record.vector(1)  # legacy compression methods
    record.take(2)  # length of the extensions
    while True:
        kind, content = record.number(2), record.vector(2)
        if kind == _EXTENSION_SERVER_NAME:
            names = _Reader(content)
            names.take(2)
            if names.number(1) != _HOST_NAME:
                return ""
            name = names.vector(2)
            return name.decode("ascii").lower() if len(name) <= _NAME_BYTES_MAX else ""
