"""ISO 8583:1987 as hosts speak it: the elements as data, and the choices that differ from bank to bank.

A row is a data element; its format text says everything about its form. ``n..19`` reads: kind n, two length digits
(LLVAR), at most 19. No dots mean exactly that size, three dots LLLVAR.

====  ==============================  =========================================================
kind  value                           size counts
====  ==============================  =========================================================
n     str of decimal digits           digits
z     str of digits and ``=``         digits (track data, ISO/IEC 7813; packed, ``=`` is nibble D)
an    str of printable ASCII          characters
ans   str in the format's charset     bytes of that charset
b     bytes                           bytes
====  ==============================  =========================================================

A message in memory is a mapping of element number to value; element 0 is the MTI. The readable codec of these rows is
``iso8583_reference``, the compiled one ``fengshou.codecs.Iso8583Codec``.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property, lru_cache
from typing import Protocol

from fengshou.protocol.backend import Fields
from fengshou.protocol.elements import Privacy

MTI = 0  # the key of the message type identifier in a mapping of fields
ELEMENT_MAX = 128

# A message is what follows its 2-byte length. The rows below sum to less than 6 KiB; a length beyond this bound is
# garbage, and must not make the reader wait for 64 KiB of it.
MESSAGE_BYTES_MAX = 8192
LENGTH_BYTES = 2


class Kind(Enum):
    N = "n"
    Z = "z"
    AN = "an"
    ANS = "ans"
    B = "b"


_FORMAT = re.compile(r"(n|z|ans|an|b)(|\.\.|\.\.\.)(\d{1,3})")


@dataclass(frozen=True)
class HostField:
    """A data element of the host format. Raises ValueError for a format text that does not parse."""

    number: int
    name: str
    format: str
    privacy: Privacy = Privacy.C1

    kind: Kind = field(init=False, compare=False)
    length_digits: int = field(init=False, compare=False)  # 0 fixed, 2 LLVAR, 3 LLLVAR
    size: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parts = _FORMAT.fullmatch(self.format)
        if parts is None or not 2 <= self.number <= ELEMENT_MAX or self.number == 65:
            raise ValueError(f"DE {self.number} ({self.name}): {self.format!r} is not a format of ISO 8583:1987")
        kind, dots, size = Kind(parts[1]), len(parts[2]), int(parts[3])
        if size < 1 or (dots == 2 and size > 99):
            raise ValueError(f"DE {self.number} ({self.name}): size {size} does not fit {self.format!r}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "length_digits", dots)
        object.__setattr__(self, "size", size)


C2, C3 = Privacy.C2, Privacy.C3

# ISO 8583:1987 section 4.4 with the formats of China UnionPay host links.
HOST_FIELDS: tuple[HostField, ...] = (
    HostField(2, "pan", "n..19", C2),
    HostField(3, "processing_code", "n6"),
    HostField(4, "amount", "n12"),
    HostField(5, "settlement_amount", "n12"),
    HostField(7, "transmission_time", "n10"),
    HostField(11, "stan", "n6"),
    HostField(12, "local_time", "n6"),
    HostField(13, "local_date", "n4"),
    HostField(14, "expiry", "n4", C3),
    HostField(15, "settlement_date", "n4"),
    HostField(18, "merchant_type", "n4"),
    HostField(22, "entry_mode", "n3"),
    HostField(23, "card_sequence", "n3"),
    HostField(25, "condition", "n2"),
    HostField(26, "pin_capture", "n2"),
    HostField(28, "transaction_fee", "an9"),
    HostField(32, "acquirer", "n..11"),
    HostField(33, "forwarder", "n..11"),
    HostField(35, "track2", "z..37", C3),
    HostField(36, "track3", "z...104", C3),
    HostField(37, "rrn", "an12"),
    HostField(38, "authorisation", "an6"),
    HostField(39, "response_code", "an2"),
    HostField(41, "terminal", "ans8"),
    HostField(42, "merchant", "ans15"),
    HostField(43, "merchant_name", "ans40"),
    HostField(44, "additional_response", "ans..25"),
    HostField(48, "additional_data", "ans...512", C2),
    HostField(49, "currency", "an3"),
    HostField(52, "pin_block", "b16", C3),  # one block of SM4; the standard's b8 is one of DES
    HostField(53, "security_control", "n16"),
    HostField(54, "balances", "an...40", C2),
    HostField(55, "icc_data", "b...255", C3),
    HostField(57, "additional_private", "ans...100", C2),
    HostField(59, "detail", "ans...600", C2),
    HostField(60, "reserved_60", "ans...100"),
    HostField(61, "original_message", "ans...200", C2),
    HostField(62, "reserved_62", "ans...512", C2),
    HostField(63, "reserved_63", "ans...512", C2),
    HostField(64, "mac", "b8"),
    HostField(66, "settlement_code", "n1"),
    HostField(70, "network_code", "n3"),
    HostField(90, "original_data", "n42"),
    HostField(100, "receiver", "n..11"),
    HostField(102, "from_account", "ans..28", C2),
    HostField(103, "to_account", "ans..28", C2),
    HostField(128, "mac_2", "b8"),
)


class Packing(Enum):
    """How digits stand on the wire: two to a byte, or as characters. A bitmap is binary or its 16 hex characters."""

    BCD = "bcd"
    ASCII = "ascii"


class LengthPacking(Enum):
    BCD = "bcd"
    ASCII = "ascii"
    BINARY = "binary"  # big-endian; 1 byte for LLVAR, 2 for LLLVAR


class Pad(Enum):
    """The nibble that makes an odd count of packed digits whole bytes."""

    LEADING_ZERO = "leading-zero"
    TRAILING_ZERO = "trailing-zero"
    TRAILING_F = "trailing-f"


class Charset(Enum):
    ASCII = "ascii"
    GB18030 = "gb18030"


@dataclass(frozen=True)
class HostFormat:
    """One bank's dialect. The default is packed; ``CHARACTER_FORMAT`` is the other common one.

    Raises ValueError when two rows have one number.
    """

    mti: Packing = Packing.BCD
    bitmap: Packing = Packing.BCD
    numbers: Packing = Packing.BCD
    lengths: LengthPacking = LengthPacking.BCD
    charset: Charset = Charset.ASCII
    fixed_pad: Pad = Pad.LEADING_ZERO
    variable_pad: Pad = Pad.TRAILING_ZERO
    fields: tuple[HostField, ...] = HOST_FIELDS

    def __post_init__(self) -> None:
        if len(self.by_number) != len(self.fields):
            raise ValueError("two rows of the host format have one number")

    @cached_property
    def by_number(self) -> dict[int, HostField]:
        return {row.number: row for row in self.fields}


CHARACTER_FORMAT = HostFormat(
    mti=Packing.ASCII, bitmap=Packing.ASCII, numbers=Packing.ASCII, lengths=LengthPacking.ASCII
)


class Codec(Protocol):
    """The face that the readable and the compiled codec share. Whatever is wrong, it is an UntrustedBytesError."""

    def encode(self, fields: Fields) -> bytes:
        """The message, without its length. Raises UntrustedBytesError for fields that the format cannot carry."""
        ...

    def frame(self, fields: Fields) -> bytes:
        """The message after its 2-byte big-endian length: what is sent."""
        ...

    def decode(self, message: bytes) -> dict[int, str | bytes]:
        """The fields of one whole message. Raises UntrustedBytesError."""
        ...

    def split(self, data: bytes | bytearray | memoryview) -> tuple[list[bytes], int]:
        """The whole messages at the start of a stream, without lengths, and how many bytes they took.

        An empty message is a keep-alive of the peer and is left out. Raises UntrustedBytesError (frame-too-long) only
        when such a length stands first, so that the messages before it are never lost.
        """
        ...


# DE 70 of 0800 messages.
SIGN_ON = "001"
SIGN_OFF = "002"
KEY_CHANGE = "161"
ECHO = "301"

_SM4 = 3  # digit 2 of DE 53, as China UnionPay numbers algorithms
PIN_NONE, PIN_UNIONPAY, PIN_ISO_4 = 0, 2, 4  # digit 1


@dataclass(frozen=True, slots=True)
class SecurityControl:
    """DE 53, n16: under which keys PIN block and MAC of a message stand; in a key change, which key is brought.

    Digits: layout of the PIN block, algorithm (3 SM4), epoch of the PIN key (3), of the authentication key (3), zeros.
    """

    pin_format: int = PIN_NONE
    pin_epoch: int = 0
    mac_epoch: int = 0

    @classmethod
    def parse(cls, digits: str) -> "SecurityControl":
        """From the 16 digits of DE 53, whose form the codec has checked."""
        return cls(int(digits[0]), int(digits[2:5]), int(digits[5:8]))

    @property
    def digits(self) -> str:
        return f"{self.pin_format}{_SM4}{self.pin_epoch:03d}{self.mac_epoch:03d}".ljust(16, "0")


@lru_cache(maxsize=256)  # few are in use, and a peer makes up as many as it likes
def answer_mti(mti: str) -> str:
    """The MTI of the answer: 0200 and its repeat 0201 give 0210, 0420 gives 0430."""
    return f"{mti[:2]}{int(mti[2]) + 1}0"


# What follows derives host fields from the journal's own data; the link, the services and automatic reversals agree
# because they all use it.

BANK_TIME = timedelta(hours=8)  # UTC+8 everywhere in the network


@lru_cache(maxsize=4096)
def _transmission_time(second: int) -> str:
    return (datetime.fromtimestamp(second, UTC) + BANK_TIME).strftime("%m%d%H%M%S")


def transmission_time(received_us: int) -> str:
    """DE 7, MMDDhhmmss in UTC+8. ``received_us`` is microseconds since 1970-01-01T00:00:00Z."""
    return _transmission_time(received_us // 1_000_000)


def host_stan(rrn: int) -> str:
    """DE 11 towards a host: the last six digits of the RRN."""
    return str(rrn % 1_000_000).zfill(6)


@lru_cache(maxsize=256)
def institution(number: int) -> str:
    """DE 32 or DE 33. Institution numbers of China UnionPay have at least 8 digits; some begin with zero."""
    return str(number).zfill(8)


# DE 39 of a reversal says why.
REVERSED_NO_RESPONSE = "98"
REVERSED_TERMINAL_FAULT = "96"
REVERSED_MAC_WRONG = "A0"
REVERSED_OTHER = "06"

# A host's answers to a reversal after which nothing is left to undo.
REVERSAL_DONE = frozenset(("00", "25", "12"))


@dataclass(frozen=True, slots=True)
class OriginalData:
    """DE 90, n42: which message a reversal undoes."""

    mti: str
    stan: str
    transmission_time: str
    acquirer: int
    forwarder: int = 0

    @classmethod
    def parse(cls, digits: str) -> "OriginalData":
        """From the 42 digits of DE 90, whose form the codec has checked."""
        return cls(digits[:4], digits[4:10], digits[10:20], int(digits[20:31]), int(digits[31:42]))

    @property
    def digits(self) -> str:
        return f"{self.mti}{self.stan}{self.transmission_time}{self.acquirer:011d}{self.forwarder:011d}"


def original_data(mti: int, rrn: int, received_us: int, acquirer: int) -> str:
    """DE 90 for a message that the link sent: its MTI (never that of a repeat), RRN and time of receipt."""
    return OriginalData(f"{mti:04d}", host_stan(rrn), transmission_time(received_us), acquirer).digits
