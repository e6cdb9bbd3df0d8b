"""Messages of an ISO 8583 link that nobody on the way can change: DE 64, or DE 128 behind a second bitmap.

The MAC is the first 8 bytes of SM4-CMAC (GB/T 15852.1) under the zone's authentication key, over the message from its
MTI to its last element before the MAC, which always stands last. DE 53 says the epoch of the key. Network management
(08xx) goes without: it moves no money, and the keys that it brings are authenticated by their blocks.

The two functions are the readable authority of which ``codecs.Iso8583Codec.frame_with_mac`` and ``decode_with_mac`` are
the twins.
"""

from collections.abc import Mapping
from hmac import compare_digest
from typing import Protocol

from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import LENGTH_BYTES, MTI, Codec, SecurityControl

MAC_BYTES = 8
MAC, MAC_2, SECURITY_CONTROL = 64, 128, 53
NO_PIN = SecurityControl().digits  # DE 53 of a message without a PIN block, before it names a key
_CONTROL_DIGITS = len(NO_PIN)
_PLACEHOLDER = bytes(MAC_BYTES)


class Authenticator(Protocol):
    """One key for MACs."""

    def mac(self, data: bytes) -> bytes:
        """At least 8 bytes; a message has the first 8."""
        ...


# Keys by epoch. What is not there, or no longer, is a KeyError.
Authenticators = Mapping[int, Authenticator]


class ForgedMessage(Exception):
    """A message whose MAC is missing or does not hold; ``fields`` are what it says, to be believed by nobody."""

    def __init__(self, fields: Fields) -> None:
        super().__init__("the MAC does not hold")
        self.fields = fields


class MacCodec(Codec, Protocol):
    """A codec that knows MACs too."""

    def frame_with_mac(self, keys: Authenticators, epoch: int, fields: Fields) -> bytes:
        """``frame`` with a MAC under the epoch that DE 53 of the fields names, or else ``epoch``.

        Raises UntrustedBytesError, and the KeyError of ``keys``.
        """
        ...

    def decode_with_mac(self, keys: Authenticators, message: bytes) -> dict[int, str | bytes]:
        """The fields without their MAC. Raises UntrustedBytesError, ForgedMessage."""
        ...


def frame_with_mac(codec: Codec, keys: Authenticators, epoch: int, fields: Fields) -> bytes:
    """See ``MacCodec``."""
    if _is_network(fields):
        return codec.frame(fields)
    control = fields.get(SECURITY_CONTROL, NO_PIN)
    epoch = mac_epoch_of(control) or epoch
    if (
        isinstance(control, str) and control.isascii() and len(control) == _CONTROL_DIGITS
    ):  # any other is refused by the codec
        control = f"{control[:5]}{epoch:03d}{control[8:]}"
    number = MAC_2 if max(fields, default=0) > MAC else MAC
    covered = codec.encode({**fields, SECURITY_CONTROL: control, number: _PLACEHOLDER})[:-MAC_BYTES]
    message = covered + keys[epoch].mac(covered)[:MAC_BYTES]
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


def decode_with_mac(codec: Codec, keys: Authenticators, message: bytes) -> dict[int, str | bytes]:
    """See ``MacCodec``."""
    fields = codec.decode(message)
    if _is_network(fields):
        return fields
    mac = fields.pop(MAC_2 if MAC_2 in fields else MAC, b"")
    try:
        key = keys[mac_epoch_of(fields.get(SECURITY_CONTROL))]
    except KeyError:
        raise ForgedMessage(fields) from None
    covered, last = message[:-MAC_BYTES], message[-MAC_BYTES:]
    if mac != last or not compare_digest(key.mac(covered)[:MAC_BYTES], last):
        raise ForgedMessage(fields)
    return fields


def mac_epoch_of(control: object) -> int:
    """``SecurityControl.mac_epoch`` of DE 53; 0 when it is not there, or not of that form."""
    if isinstance(control, str) and len(control) == _CONTROL_DIGITS and control.isascii() and control.isdecimal():
        return int(control[5:8])
    return 0


def _is_network(fields: Fields) -> bool:
    mti = fields.get(MTI)
    return isinstance(mti, str) and mti[1:2] == "8"
