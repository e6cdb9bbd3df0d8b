"""The kinds of elements as construct definitions: the wire form of one value, to read and to write.

What a kind is stands in the table of ``elements``. Reading raises UntrustedBytesError for bytes that are no such value,
writing raises it for values that are not of the kind; whoever calls knows the element and adds its path.
"""

from typing import Any, TypeGuard

import construct as c

from fengshou.protocol import limits
from fengshou.protocol.elements import Element, Kind
from fengshou.protocol.errors import UntrustedBytesError, WireError


def is_integer(value: object) -> TypeGuard[int]:
    """Python's truth values are integers, the grammar's are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def varint(value: int) -> bytes:
    """LEB128 in its shortest form, of an integer that is not negative."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def zigzag(value: int) -> int:
    """0, -1, 1, -2 … as 0, 1, 2, 3 …"""
    return value << 1 if value >= 0 else (-value << 1) - 1


class ShortestVarInt(c.Construct):  # type: ignore[misc]
    """LEB128 that accepts only the shortest form of an integer below 2**63, so that one value has one encoding."""

    def _parse(self, stream: Any, context: Any, path: str) -> int:
        value, shift = 0, 0
        for count in range(1, limits.VARINT_BYTES_MAX + 1):
            byte: bytes = stream.read(1)
            if not byte:
                raise UntrustedBytesError(WireError.TRUNCATED)
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                if byte[0] == 0 and count > 1:
                    break
                return value
            shift += 7
        raise UntrustedBytesError(WireError.VARINT_MALFORMED)

    def _build(self, obj: object, stream: Any, context: Any, path: str) -> object:
        if not is_integer(obj) or not 0 <= obj <= limits.UINT_MAX:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        stream.write(varint(obj))
        return obj


class Exactly(c.Construct):  # type: ignore[misc]
    """A number of bytes known from the table or read just before; fewer is ``truncated``."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def _parse(self, stream: Any, context: Any, path: str) -> bytes:
        data: bytes = stream.read(self.count)
        if len(data) < self.count:
            raise UntrustedBytesError(WireError.TRUNCATED)
        return data

    def _build(self, obj: object, stream: Any, context: Any, path: str) -> object:
        if not isinstance(obj, bytes) or len(obj) != self.count:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        stream.write(obj)
        return obj


VARINT = ShortestVarInt()


class Bounded(c.Adapter):  # type: ignore[misc]
    """An integer of kind n."""

    def __init__(self, maximum: int) -> None:
        super().__init__(VARINT)
        self.maximum = maximum

    def _decode(self, obj: int, context: Any, path: str) -> int:
        if obj > self.maximum:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        return obj

    def _encode(self, obj: object, context: Any, path: str) -> int:
        if not is_integer(obj) or not 0 <= obj <= self.maximum:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        return obj


class Zigzag(c.Adapter):  # type: ignore[misc]
    """A signed integer of kind z: 0, -1, 1, -2 … are 0, 1, 2, 3 …"""

    def __init__(self, maximum: int) -> None:
        super().__init__(VARINT)
        self.maximum = maximum

    def _decode(self, obj: int, context: Any, path: str) -> int:
        value = (obj >> 1) ^ -(obj & 1)
        if abs(value) > self.maximum:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        return value

    def _encode(self, obj: object, context: Any, path: str) -> int:
        if not is_integer(obj) or abs(obj) > self.maximum:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        return zigzag(obj)


def read_digits(stream: Any, count: int) -> str:
    """So many digits, two a byte, with a last nibble f behind an odd count."""
    nibbles: str = Exactly((count + 1) // 2).parse_stream(stream).hex()
    digits, pad = nibbles[:count], nibbles[count:]
    if not (digits.isdecimal() or count == 0) or pad not in ("", "f"):
        raise UntrustedBytesError(WireError.TEXT_MALFORMED)
    return digits


def packed_digits(digits: str) -> bytes:
    return bytes.fromhex(digits + "f" * (len(digits) % 2))


class Digits(c.Construct):  # type: ignore[misc]
    """Decimal digits, kind d: one byte of count, then packed BCD; the last nibble of an odd count is F."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def _parse(self, stream: Any, context: Any, path: str) -> str:
        count = Exactly(1)._parse(stream, context, path)[0]
        if not 1 <= count <= self.size:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        return read_digits(stream, count)

    def _build(self, obj: object, stream: Any, context: Any, path: str) -> object:
        if not isinstance(obj, str) or not 1 <= len(obj) <= self.size:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        if not (obj.isascii() and obj.isdecimal()):
            raise UntrustedBytesError(WireError.TEXT_MALFORMED)
        stream.write(bytes((len(obj),)) + packed_digits(obj))
        return obj


class Ascii(c.Adapter):  # type: ignore[misc]
    """Printable ASCII of a fixed size, kind an."""

    def __init__(self, size: int) -> None:
        super().__init__(Exactly(size))
        self.size = size

    def _decode(self, obj: bytes, context: Any, path: str) -> str:
        if any(not 0x20 <= byte <= 0x7E for byte in obj):
            raise UntrustedBytesError(WireError.TEXT_MALFORMED)
        return obj.decode("ascii")

    def _encode(self, obj: object, context: Any, path: str) -> bytes:
        if not isinstance(obj, str) or len(obj) != self.size:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        if any(not 0x20 <= ord(char) <= 0x7E for char in obj):
            raise UntrustedBytesError(WireError.TEXT_MALFORMED)
        return obj.encode("ascii")


class Variable(c.Construct):  # type: ignore[misc]
    """Bytes with their count before them, kind bv; the ground of ``Text``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def _parse(self, stream: Any, context: Any, path: str) -> bytes:
        count = VARINT._parse(stream, context, path)
        if count > self.size:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        return Exactly(count)._parse(stream, context, path)

    def _build(self, obj: object, stream: Any, context: Any, path: str) -> object:
        if not isinstance(obj, bytes) or len(obj) > self.size:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        VARINT._build(len(obj), stream, context, path)
        stream.write(obj)
        return obj


class Text(c.Adapter):  # type: ignore[misc]
    """UTF-8 text, kind ans."""

    def __init__(self, size: int) -> None:
        super().__init__(Variable(size))

    def _decode(self, obj: bytes, context: Any, path: str) -> str:
        try:
            return obj.decode("utf-8")
        except UnicodeDecodeError:
            raise UntrustedBytesError(WireError.TEXT_MALFORMED) from None

    def _encode(self, obj: object, context: Any, path: str) -> bytes:
        if not isinstance(obj, str):
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        try:
            return obj.encode("utf-8")
        except UnicodeEncodeError:
            raise UntrustedBytesError(WireError.TEXT_MALFORMED) from None


def element_grammar(element: Element) -> Any:
    """The construct of one element's value."""
    match element.kind:
        case Kind.N:
            return Bounded(element.maximum)
        case Kind.Z:
            return Zigzag(element.maximum)
        case Kind.D:
            return Digits(element.size)
        case Kind.AN:
            return Ascii(element.size)
        case Kind.ANS:
            return Text(element.size)
        case Kind.B:
            return Exactly(element.size)
        case Kind.BV:
            return Variable(element.size)


def wire_value(element: Element, value: object) -> bytes:
    """One value as it travels. Raises UntrustedBytesError, naming the element, for a value that is none of its kind."""
    try:
        return bytes(element_grammar(element).build(value))
    except UntrustedBytesError as error:
        raise UntrustedBytesError(error.error, element.path) from None
