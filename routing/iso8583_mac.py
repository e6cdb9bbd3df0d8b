"""Messages of an ISO 8583 link that nobody on the way can change: DE 64, or DE 128 behind a second bitmap.

The MAC is the first 8 bytes of SM4-CMAC (GB/T 15852.1) under the zone's authentication key, over the message from its
MTI to its last element before the MAC, which always stands last. DE 53 says the epoch of the key. Network management
(08xx) goes without: it moves no money, and the keys that it brings are authenticated by their blocks.
"""

from collections.abc import Mapping
from typing import Protocol

from fengshou.hsm.custody import CustodyError, MacMismatch
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import LENGTH_BYTES, MTI, Codec, SecurityControl, mac_epoch_of, with_mac_epoch

MAC_BYTES = 8
MAC, MAC_2, SECURITY_CONTROL = 64, 128, 53
_PLACEHOLDER = bytes(MAC_BYTES)
_NO_PIN = SecurityControl().digits


class ForgedMessage(Exception):
    """A message whose MAC is missing or does not hold; ``fields`` are what it says, to be believed by nobody."""

    def __init__(self, fields: Fields) -> None:
        super().__init__("the MAC does not hold")
        self.fields = fields


class AuthenticationKeys(Protocol):
    """One end's view of the zone's authentication keys. Raises CustodyError: there is no such epoch, or no longer."""

    def mac_epoch(self) -> int:
        """The epoch to authenticate under, when the message does not say one."""
        ...

    def mac(self, epoch: int, data: bytes) -> bytes: ...

    def verify_mac(self, epoch: int, data: bytes, mac: bytes) -> None:
        """Raises MacMismatch too."""
        ...


class MacCodec:
    """A ``protocol.iso8583.Codec`` whose messages are authenticated."""

    def __init__(self, codec: Codec, keys: AuthenticationKeys) -> None:
        self._codec = codec
        self._keys = keys

    def encode(self, fields: Fields) -> bytes:
        """The message with its MAC. Raises UntrustedBytesError, and CustodyError when there is no key."""
        if _is_network(fields):
            return self._codec.encode(fields)
        control = str(fields.get(SECURITY_CONTROL, _NO_PIN))
        epoch = mac_epoch_of(control) or self._keys.mac_epoch()
        number = MAC_2 if max(fields) > MAC else MAC
        whole = self._codec.encode({**fields, SECURITY_CONTROL: with_mac_epoch(control, epoch), number: _PLACEHOLDER})
        covered = whole[:-MAC_BYTES]
        return covered + self._keys.mac(epoch, covered)[:MAC_BYTES]

    def frame(self, fields: Fields) -> bytes:
        message = self.encode(fields)
        return len(message).to_bytes(LENGTH_BYTES, "big") + message

    def decode(self, message: bytes) -> dict[int, str | bytes]:
        """The fields without their MAC. Raises UntrustedBytesError, ForgedMessage."""
        fields = self._codec.decode(message)
        if _is_network(fields):
            return fields
        mac = fields.pop(MAC_2, None) or fields.pop(MAC, None)
        try:
            if not isinstance(mac, bytes) or message[-MAC_BYTES:] != mac:
                raise MacMismatch("no MAC at the end")
            epoch = mac_epoch_of(str(fields.get(SECURITY_CONTROL, _NO_PIN)))
            self._keys.verify_mac(epoch, message[:-MAC_BYTES], mac)
        except CustodyError:
            raise ForgedMessage(fields) from None
        return fields

    def split(self, data: bytes | bytearray | memoryview) -> tuple[list[bytes], int]:
        return self._codec.split(data)


def _is_network(fields: Mapping[int, str | bytes]) -> bool:
    return str(fields[MTI])[1] == "8"
