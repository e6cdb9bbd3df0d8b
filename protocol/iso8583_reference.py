"""The ISO 8583 codec in plain Python: the readable authority of which ``fengshou.codecs.Iso8583Codec`` is the twin.

A message is its MTI, a bitmap of 64 bits, a second bitmap when bit 1 of the first is set, and the fields in ascending
order. Every error carries where it happened: ``MTI``, ``bitmap`` or the element.
"""

from fengshou.protocol.backend import Fields
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.iso8583 import (
    ELEMENT_MAX,
    LENGTH_BYTES,
    MESSAGE_BYTES_MAX,
    MTI,
    Charset,
    HostField,
    HostFormat,
    Kind,
    LengthPacking,
    Packing,
    Pad,
)


class ReferenceIso8583Codec:
    """Encodes and decodes messages of one host format."""

    def __init__(self, host_format: HostFormat) -> None:
        self._format = host_format
        self._rows = host_format.by_number

    def encode(self, fields: Fields) -> bytes:
        """See ``iso8583.Codec.encode``."""
        unknown = [number for number in fields if number != MTI and number not in self._rows]
        if unknown:
            raise UntrustedBytesError(WireError.UNKNOWN_FIELD, f"DE {min(unknown)}")
        out = bytearray(self._encode_mti(fields.get(MTI)))
        numbers = sorted(number for number in fields if number != MTI)
        out += self._encode_bitmap(numbers)
        for number in numbers:
            row = self._rows[number]
            out += self._encode_field(row, fields[number])
            if len(out) > MESSAGE_BYTES_MAX:
                raise UntrustedBytesError(WireError.FRAME_TOO_LONG, _path(row))
        return bytes(out)

    def decode(self, message: bytes) -> dict[int, str | bytes]:
        """See ``iso8583.Codec.decode``."""
        if len(message) > MESSAGE_BYTES_MAX:
            raise UntrustedBytesError(WireError.FRAME_TOO_LONG)
        reader = _Reader(message)
        fields: dict[int, str | bytes] = {MTI: self._decode_mti(reader)}
        for number in self._decode_bitmap(reader):
            row = self._rows.get(number)
            if row is None:
                raise UntrustedBytesError(WireError.UNKNOWN_FIELD, f"DE {number}")
            fields[number] = self._decode_field(row, reader)
        if reader.rest:
            raise UntrustedBytesError(WireError.TRAILING_BYTES)
        return fields

    def frame(self, fields: Fields) -> bytes:
        """See ``iso8583.Codec.frame``."""
        message = self.encode(fields)
        return len(message).to_bytes(LENGTH_BYTES, "big") + message

    def split(self, data: bytes | bytearray | memoryview) -> tuple[list[bytes], int]:
        """See ``iso8583.Codec.split``."""
        messages: list[bytes] = []
        used = 0
        while used + LENGTH_BYTES <= len(data):
            length = int.from_bytes(data[used : used + LENGTH_BYTES], "big")
            if length > MESSAGE_BYTES_MAX:
                if used == 0:
                    raise UntrustedBytesError(WireError.FRAME_TOO_LONG)
                break
            end = used + LENGTH_BYTES + length
            if end > len(data):
                break
            if length:
                messages.append(bytes(data[used + LENGTH_BYTES : end]))
            used = end
        return messages, used

    def _encode_mti(self, value: object) -> bytes:
        if not isinstance(value, str):
            raise UntrustedBytesError(WireError.TEXT_MALFORMED, "MTI")
        if len(value) != 4:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE, "MTI")
        _require_digits(value, "MTI")
        return bytes.fromhex(value) if self._format.mti is Packing.BCD else value.encode("ascii")

    def _decode_mti(self, reader: "_Reader") -> str:
        if self._format.mti is Packing.BCD:
            value = reader.take(2, "MTI").hex()
        else:
            value = reader.take(4, "MTI").decode("latin-1")
        _require_digits(value, "MTI")
        return value

    def _encode_bitmap(self, numbers: list[int]) -> bytes:
        width = 128 if numbers and numbers[-1] > 64 else 64
        bits = sum(1 << (width - number) for number in numbers)
        if width == 128:
            bits |= 1 << 127  # bit 1: a second bitmap follows
        bitmap = bits.to_bytes(width // 8, "big")
        return bitmap if self._format.bitmap is Packing.BCD else bitmap.hex().upper().encode("ascii")

    def _decode_bitmap(self, reader: "_Reader") -> list[int]:
        bitmap = self._decode_bitmap_half(reader)
        if bitmap[0] & 0x80:
            bitmap += self._decode_bitmap_half(reader)
        return [
            number for number in range(2, len(bitmap) * 8 + 1) if bitmap[(number - 1) // 8] & (0x80 >> (number - 1) % 8)
        ]

    def _decode_bitmap_half(self, reader: "_Reader") -> bytes:
        if self._format.bitmap is Packing.BCD:
            return reader.take(8, "bitmap")
        text = reader.take(16, "bitmap")
        if any(byte not in b"0123456789ABCDEFabcdef" for byte in text):
            raise UntrustedBytesError(WireError.TEXT_MALFORMED, "bitmap")
        return bytes.fromhex(text.decode("ascii"))

    def _encode_field(self, row: HostField, value: str | bytes) -> bytes:
        count, content = self._encode_value(row, value)
        return self._encode_length(row, count) + content

    def _encode_value(self, row: HostField, value: str | bytes) -> tuple[int, bytes]:
        """The count that stands in the length, and the content."""
        path = _path(row)
        if isinstance(value, bytes) is not (row.kind is Kind.B) or not isinstance(value, (str, bytes)):
            raise UntrustedBytesError(WireError.TEXT_MALFORMED, path)
        if isinstance(value, bytes):
            _require_count(row, len(value))
            return len(value), value
        if row.kind is Kind.ANS:
            content = self._encode_text(value, path)
            _require_count(row, len(content))
            return len(content), content
        _require_count(row, len(value))
        if row.kind is Kind.AN:
            return len(value), _printable_ascii(value, path)
        _require_digits(value.replace("=", "0") if row.kind is Kind.Z else value, path)
        return len(value), self._pack(row, value)

    def _decode_field(self, row: HostField, reader: "_Reader") -> str | bytes:
        path = _path(row)
        count = self._decode_length(row, reader)
        match row.kind:
            case Kind.B:
                return reader.take(count, path)
            case Kind.AN:
                return _text(reader.take(count, path), Charset.ASCII, path)
            case Kind.ANS:
                return _text(reader.take(count, path), self._format.charset, path)
            case Kind.N | Kind.Z:
                return self._unpack(row, count, reader)

    def _encode_length(self, row: HostField, count: int) -> bytes:
        digits = row.length_digits
        if digits == 0:
            return b""
        match self._format.lengths:
            case LengthPacking.BCD:
                return bytes.fromhex(f"{count:02d}" if digits == 2 else f"{count:04d}")
            case LengthPacking.ASCII:
                return f"{count:0{digits}d}".encode("ascii")
            case LengthPacking.BINARY:
                return count.to_bytes(digits - 1, "big")

    def _decode_length(self, row: HostField, reader: "_Reader") -> int:
        digits = row.length_digits
        if digits == 0:
            return row.size
        path = _path(row)
        match self._format.lengths:
            case LengthPacking.BINARY:
                count = int.from_bytes(reader.take(digits - 1, path), "big")
            case LengthPacking.BCD:
                count = _length_number(reader.take(digits - 1, path).hex(), path)
            case LengthPacking.ASCII:
                count = _length_number(reader.take(digits, path).decode("latin-1"), path)
        if count > row.size:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE, path)
        return count

    def _pack(self, row: HostField, value: str) -> bytes:
        if self._format.numbers is Packing.ASCII:
            return value.encode("ascii")
        nibbles = value.replace("=", "d")
        if len(nibbles) % 2:
            nibbles = _PADDED[self._pad(row)](nibbles)
        return bytes.fromhex(nibbles)

    def _unpack(self, row: HostField, count: int, reader: "_Reader") -> str:
        path = _path(row)
        if self._format.numbers is Packing.ASCII:
            value = reader.take(count, path).decode("latin-1")
            _require_digits(value.replace("=", "0") if row.kind is Kind.Z else value, path)
            return value
        nibbles = reader.take((count + 1) // 2, path).hex()
        digits = nibbles
        if count % 2:
            pad = self._pad(row)
            digits = nibbles[1:] if pad is Pad.LEADING_ZERO else nibbles[:-1]
            if _PADDED[pad](digits) != nibbles:
                raise UntrustedBytesError(WireError.TEXT_MALFORMED, path)
        if row.kind is Kind.Z:
            digits = digits.replace("d", "=")
            _require_digits(digits.replace("=", "0"), path)
        else:
            _require_digits(digits, path)
        return digits

    def _pad(self, row: HostField) -> Pad:
        return self._format.variable_pad if row.length_digits else self._format.fixed_pad

    def _encode_text(self, value: str, path: str) -> bytes:
        if self._format.charset is Charset.ASCII:
            return _printable_ascii(value, path)
        try:
            content = value.encode("gb18030")
        except UnicodeEncodeError:
            raise UntrustedBytesError(WireError.TEXT_MALFORMED, path) from None
        _require_no_controls(content, path)
        return content


class _Reader:
    """Bytes of a message, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int, path: str) -> bytes:
        if count > len(self.rest):
            raise UntrustedBytesError(WireError.TRUNCATED, path)
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


_PADDED = {
    Pad.LEADING_ZERO: lambda nibbles: "0" + nibbles,
    Pad.TRAILING_ZERO: lambda nibbles: nibbles + "0",
    Pad.TRAILING_F: lambda nibbles: nibbles + "f",
}

assert ELEMENT_MAX == 128, "two bitmaps of 64 bits"


def _path(row: HostField) -> str:
    return f"DE {row.number}"


def _require_count(row: HostField, count: int) -> None:
    if count > row.size or (row.length_digits == 0 and count != row.size):
        raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE, _path(row))


def _require_digits(text: str, path: str) -> None:
    if text and not (text.isascii() and text.isdecimal()):
        raise UntrustedBytesError(WireError.TEXT_MALFORMED, path)


def _require_no_controls(content: bytes, path: str) -> None:
    """No second byte of GB 18030 lies below 0x20 or at 0x7F, so this finds control characters in both charsets."""
    if any(byte < 0x20 or byte == 0x7F for byte in content):
        raise UntrustedBytesError(WireError.TEXT_MALFORMED, path)


def _printable_ascii(value: str, path: str) -> bytes:
    if not value.isascii():
        raise UntrustedBytesError(WireError.TEXT_MALFORMED, path)
    content = value.encode("ascii")
    _require_no_controls(content, path)
    return content


def _text(content: bytes, charset: Charset, path: str) -> str:
    _require_no_controls(content, path)
    try:
        return content.decode(charset.value)
    except UnicodeDecodeError:
        raise UntrustedBytesError(WireError.TEXT_MALFORMED, path) from None


def _length_number(digits: str, path: str) -> int:
    if not (digits.isascii() and digits.isdecimal()):
        raise UntrustedBytesError(WireError.LENGTH_MALFORMED, path)
    return int(digits)
