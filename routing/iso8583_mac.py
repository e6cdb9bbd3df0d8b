"""Authenticated messages under keys of custody, a batch at a time; what a MAC is stands in ``protocol.iso8583_mac``.

Keys are looked up once a batch: often enough that a retired one protects nothing any more, and not for each message.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from fengshou.codecs import Iso8583Codec
from fengshou.hsm.custody import CustodyError
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import LENGTH_BYTES, Codec, HostFormat
from fengshou.protocol.iso8583_mac import Authenticator, MacCodec

_NO_EPOCH = 0  # of none of the keys


class AuthenticationKeys(Protocol):
    """One end's view of the zone's authentication keys. Raises CustodyError: there is no such epoch, or no longer."""

    def mac_epoch(self) -> int:
        """The epoch to authenticate under, when the message does not say one."""
        ...

    def authenticator(self, epoch: int) -> Authenticator:
        """The key, for the work at hand: it is not kept."""
        ...


class NoSuchEpoch(CustodyError, KeyError):
    """What a codec, which knows no custody, hears of a key that is not there or may not be used."""


class _Epochs(dict[int, Authenticator]):
    """The keys that a batch has used."""

    def __init__(self, keys: AuthenticationKeys) -> None:
        super().__init__()
        self._keys = keys

    def __missing__(self, epoch: int) -> Authenticator:
        try:
            key = self[epoch] = self._keys.authenticator(epoch)
        except CustodyError as error:
            raise NoSuchEpoch(str(error)) from None
        return key


class AuthenticatedCodec:
    """A ``protocol.iso8583.Codec`` whose messages bear MACs. It is for one batch."""

    def __init__(self, codec: MacCodec, keys: AuthenticationKeys) -> None:
        self._codec = codec
        self._keys = _Epochs(keys)
        try:
            self._epoch = keys.mac_epoch()
        except CustodyError:
            self._epoch = _NO_EPOCH  # a message that names another one may have it all the same

    def encode(self, fields: Fields) -> bytes:
        return self.frame(fields)[LENGTH_BYTES:]

    def frame(self, fields: Fields) -> bytes:
        """The message with its MAC. Raises UntrustedBytesError, and CustodyError when there is no key."""
        return self._codec.frame_with_mac(self._keys, self._epoch, fields)

    def decode(self, message: bytes) -> dict[int, str | bytes]:
        """The fields without their MAC. Raises UntrustedBytesError, ForgedMessage."""
        return self._codec.decode_with_mac(self._keys, message)

    def split(self, data: bytes | bytearray | memoryview) -> tuple[list[bytes], int]:
        return self._codec.split(data)


def codecs_for_batches(host_format: HostFormat, keys: AuthenticationKeys | None) -> Callable[[], Codec]:
    """What gives the codec for one batch; its messages bear MACs when there are ``keys``."""
    codec = Iso8583Codec(host_format)
    return partial(AuthenticatedCodec, codec, keys) if keys else lambda: codec
