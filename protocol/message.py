"""A message in memory: what the codecs read from and write to frames."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

Value = int | str | bytes


class Flag(IntEnum):
    """The flags byte. The low nibble is the command in a response; in a request only REPEAT may be set in it."""

    RESPONSE = 0x80
    SIGNED = 0x40
    DELTA = 0x20  # sign-in: the delta form is asked for, granted; other request: it is sent so. Never signed
    RECEIPT = 0x10  # request: a receipt is wanted; response: a receipt follows
    REPEAT = 0x01  # request: the same content was sent before


_RESPONSE = int(Flag.RESPONSE)  # plain: asked for each message

COMMAND_MASK = 0x0F

# The commands that a response can carry, numbered as the processing demands of the China UnionPay header.
COMMAND_NONE = 0
COMMAND_PARAMETERS = 1
COMMAND_SIGN_IN = 3
COMMAND_KEYS = 4
COMMAND_APP = 6
COMMAND_CERTIFICATE = 8  # ours; the others' numbers have these meanings there too
COMMANDS = {
    COMMAND_NONE: "none",
    COMMAND_PARAMETERS: "new parameters: download them",
    COMMAND_SIGN_IN: "sign in again",
    COMMAND_KEYS: "new keys: fetch them",
    COMMAND_APP: "new application: update it",
    COMMAND_CERTIFICATE: "the certificate is to be replaced: renew it",
}


@dataclass(slots=True)
class Message:
    """One request or response.

    ``values`` maps element keys to integers (kinds n, z), text (d, an, ans) or bytes (b, bv). ``signature`` is the raw
    r || s of a signed request, else empty.
    """

    template: int
    flags: int
    sequence: int
    values: dict[int, Value] = field(default_factory=dict)
    signature: bytes = b""

    @property
    def is_response(self) -> bool:
        return bool(self.flags & _RESPONSE)

    @property
    def command(self) -> int:
        return self.flags & COMMAND_MASK if self.is_response else COMMAND_NONE


def expanded(values: Mapping[int, Value], implied: Mapping[int, Value]) -> dict[int, Value]:
    """The values with those that the session implies; what stands in the message itself wins."""
    return {**implied, **values}
