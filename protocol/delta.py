"""The delta form of a request: what differs from an earlier one of the session, its base. The readable authority.

It is transport only. What is signed, judged, compared and recorded is the message that it expands to, so a delta that
was expanded against another base than it was made from shows as a signature that does not verify. Instead of its body
a frame with the DELTA flag has::

    distance    varint, 1 .. 127: the base is the request of the same template with the sequence less this
    bits        of each element that is not PLAIN or CLOCK, in the template's order, first = most significant, whole
                bytes: a required one has 1 bit, 0 as predicted, 1 said; an optional one has 2 bits, 00 as in the base
                (there or not), 01 not there as it is in the base, 10 said
    elements    PLAIN, CLOCK, and what is said, in the template's order and the operator's form:

========== ========================= ===============================================================================
operator   predicted                 said
========== ========================= ===============================================================================
PLAIN                                the value
CLOCK                                z: seconds of the day less those of the base
COPY       the base's                the value
DELTA      the base's                z: the value less the base's
INCREMENT  the base's + distance     the value
DERIVED    ``money.amount_of``       the value
TAIL       the base's                a byte t. 0: the value. 1 .. 127: the same element of the request of the same
                                     template with the sequence less t. 128 and more: as long as the base's, of which
                                     the first t - 128 digits (kind d) or bytes (ans) stay; then the others, digits
                                     two a byte with a last nibble f behind an odd count
========== ========================= ===============================================================================

Values are in their wire form. The distance names what both ends have in their ``history``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from io import BytesIO

from fengshou.protocol import elements as de
from fengshou.protocol import limits
from fengshou.protocol.elements import Element, Kind
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.history import Acknowledged
from fengshou.protocol.kinds import (
    VARINT,
    Exactly,
    Zigzag,
    element_grammar,
    packed_digits,
    read_digits,
    varint,
    wire_value,
    zigzag,
)
from fengshou.protocol.message import Flag, Message, Value
from fengshou.protocol.money import amount_of
from fengshou.protocol.operators import ALWAYS_SAID, Operator
from fengshou.protocol.templates import Field, Grammar, Template

DAY_S = 24 * 60 * 60
TAIL_HEAD = 0x80  # and more: so many of the base's digits or bytes stay

Earlier = Callable[[int], Mapping[int, Value] | None]


# ---- in


def read(stream: BytesIO, grammar: Grammar, template: Template, sequence: int, earlier: Earlier) -> dict[int, Value]:
    """The values of a request that stands in its delta form; ``earlier`` are those of the template by sequence.

    Raises UntrustedBytesError, ``base-lost`` when the base is not known or does not fit.
    """
    distance = VARINT.parse_stream(stream)
    base = earlier(sequence - distance) if 1 <= distance <= limits.DELTA_WINDOW else None
    if base is None:
        raise UntrustedBytesError(WireError.BASE_LOST)
    said = _read_bits(stream, template)
    values: dict[int, Value] = {}
    for field in template.request:
        element, operator = grammar.elements[field.key], template.operator(field.key)
        try:
            match said[field.key]:
                case Said.AS_PREDICTED if operator is Operator.DERIVED:
                    values[field.key] = 0  # its place; what it derives from comes later
                case Said.AS_PREDICTED if operator is Operator.INCREMENT:
                    values[field.key] = _fitting(element, _integer(base, field.key) + distance)
                case Said.AS_PREDICTED:
                    if field.key in base:
                        values[field.key] = base[field.key]
                case Said.GIVEN:
                    values[field.key] = _read_given(stream, element, operator, sequence, base, earlier)
                case Said.ABSENT if field.key not in base:
                    raise UntrustedBytesError(WireError.BASE_LOST)
                case Said.UNLAWFUL:
                    raise UntrustedBytesError(WireError.UNKNOWN_FIELD)
        except UntrustedBytesError as error:
            raise UntrustedBytesError(error.error, element.path) from None
    for key, operator in template.operators:
        if operator is Operator.DERIVED and said[key] is Said.AS_PREDICTED:
            amount = amount_of(_integer(values, de.WEIGHT), _integer(values, de.UNIT_PRICE))
            try:
                values[key] = _fitting(grammar.elements[key], amount)
            except UntrustedBytesError as error:
                raise UntrustedBytesError(error.error, grammar.path(key)) from None
    return values


class Said(Enum):
    """What the bits of an element say. A required element has no second bit."""

    AS_PREDICTED = 0b00
    ABSENT = 0b01
    GIVEN = 0b10
    UNLAWFUL = 0b11


def _bits_of(template: Template, field: Field) -> int:
    if template.operator(field.key) in ALWAYS_SAID:
        return 0
    return 1 if field.required else 2


def _read_bits(stream: BytesIO, template: Template) -> dict[int, Said]:
    widths = [_bits_of(template, field) for field in template.request]
    width = (sum(widths) + 7) // 8 * 8
    bits = int.from_bytes(Exactly(width // 8).parse_stream(stream), "big")
    if bits & ((1 << (width - sum(widths))) - 1):
        raise UntrustedBytesError(WireError.UNKNOWN_FIELD)
    said = {}
    for field, count in zip(template.request, widths, strict=True):
        width -= count
        taken = bits >> width & ((1 << count) - 1)
        said[field.key] = Said(taken) if count == 2 else Said.GIVEN if taken or not count else Said.AS_PREDICTED
    return said


def _read_given(
    stream: BytesIO, element: Element, operator: Operator, sequence: int, base: Mapping[int, Value], earlier: Earlier
) -> Value:
    match operator:
        case Operator.CLOCK:
            passed: int = Zigzag(DAY_S).parse_stream(stream)
            second = seconds_of(_integer(base, element.key)) + passed
            if not 0 <= second < DAY_S:
                raise UntrustedBytesError(WireError.BASE_LOST)
            return time_of(second)
        case Operator.DELTA:
            difference: int = Zigzag(element.maximum).parse_stream(stream)
            return _fitting(element, _integer(base, element.key) + difference)
        case Operator.TAIL:
            return _read_tail(stream, element, sequence, base, earlier)
    value: Value = element_grammar(element).parse_stream(stream)
    return value


def _read_tail(stream: BytesIO, element: Element, sequence: int, base: Mapping[int, Value], earlier: Earlier) -> Value:
    told = Exactly(1).parse_stream(stream)[0]
    if told == 0:
        value: Value = element_grammar(element).parse_stream(stream)
        return value
    values = earlier(sequence - told) if told < TAIL_HEAD else base
    text = (values or {}).get(element.key)
    if not isinstance(text, str):
        raise UntrustedBytesError(WireError.BASE_LOST)
    if told < TAIL_HEAD:
        return text
    head, size = told - TAIL_HEAD, len(text.encode())
    if head > size:
        raise UntrustedBytesError(WireError.BASE_LOST)
    if element.kind is Kind.D:
        return text[:head] + read_digits(stream, size - head)
    tail: bytes = Exactly(size - head).parse_stream(stream)
    try:
        return (text.encode()[:head] + tail).decode()
    except UnicodeDecodeError:
        raise UntrustedBytesError(WireError.TEXT_MALFORMED) from None


def _integer(values: Mapping[int, Value], key: int) -> int:
    value = values[key]
    assert isinstance(value, int)
    return value


def _fitting(element: Element, number: int) -> int:
    """What arithmetic made, when the element can be it: else the base was another one."""
    if not 0 <= number <= element.maximum:
        raise UntrustedBytesError(WireError.BASE_LOST)
    return number


def seconds_of(hhmmss: int) -> int:
    return hhmmss // 10_000 * 3600 + hhmmss // 100 % 100 * 60 + hhmmss % 100


def time_of(second: int) -> int:
    return second // 3600 * 10_000 + second // 60 % 60 * 100 + second % 60


# ---- out


@dataclass(frozen=True, slots=True)
class _Row:
    """A field of a template with all that writing its difference takes."""

    element: Element
    operator: Operator
    bits: int


# Distance and values of earlier requests of the template, the nearest first.
_Near = Sequence[tuple[int, Mapping[int, Value]]]


class ReferenceDeltaWriter:
    """The terminal's end of one connection: remembers what was acknowledged and makes frames of the difference.

    The readable one; ``fengshou.codecs.DeltaWriter`` is its compiled twin. What is written or kept is valid, and of a
    template that has a delta form; another raises KeyError.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._acknowledged = Acknowledged()
        self._rows = {
            template.id: tuple(
                _Row(grammar.elements[field.key], template.operator(field.key), _bits_of(template, field))
                for field in template.request
            )
            for template in grammar.templates.values()
            if template.operators
        }
        # What a good base has in common with a request: everything required that is either the same or said in full.
        self._alike = {
            template: tuple(row.element.key for row in rows if row.operator is Operator.COPY and row.bits == 1)
            for template, rows in self._rows.items()
        }

    def clear(self) -> None:
        """The switch remembers nothing, or something else: begin anew."""
        self._acknowledged = Acknowledged()

    def writes(self, template: int) -> bool:
        """Whether the template has a delta form."""
        return template in self._rows

    def keep(self, message: Message) -> None:
        """The switch has this request."""
        if message.template not in self._rows:
            raise KeyError(message.template)
        self._acknowledged.keep(message.sequence, message.template, message.values)

    def frame(self, message: Message) -> bytes | None:
        """The shortest frame, length included, that says a valid message as a difference; None when there is none."""
        body = self.body(message)
        if body is None:
            return None
        head = bytes((limits.PROTOCOL_VERSION << 6 | message.template, message.flags | Flag.DELTA))
        frame = head + varint(message.sequence) + body + message.signature
        return varint(len(frame)) + frame if len(frame) <= limits.FRAME_BYTES_MAX else None

    def body(self, message: Message) -> bytes | None:
        """The shortest difference by which a valid message can be said; None when there is none.

        Against the nearest request of the template or the nearest that is alike; the nearest when both are as short.
        """
        common = {key: message.values[key] for key in self._alike[message.template]}
        near = list(self._acknowledged.before(message.sequence, message.template))
        alike = [(distance, base) for distance, base in near if common.items() <= base.items()]
        bodies = [self._body(message, distance, base, near) for distance, base in near[:1] + alike[:1]]
        return min((body for body in bodies if body is not None), key=len, default=None)

    def _body(self, message: Message, distance: int, base: Mapping[int, Value], near: _Near) -> bytes | None:
        values = message.values
        bits, width, parts = 0, 0, []
        for row in self._rows[message.template]:
            key = row.element.key
            value = values.get(key)
            width += row.bits
            bits <<= row.bits
            if row.bits and value == _predicted(row.operator, values, base, key, distance):
                continue
            if value is None:
                bits |= Said.ABSENT.value
                continue
            given = _given(row, value, base.get(key), near)
            if given is None:
                return None
            bits |= 1 << row.bits >> 1
            parts.append(given)
        size = (width + 7) // 8
        return bytes((distance,)) + (bits << (8 * size - width)).to_bytes(size, "big") + b"".join(parts)


def _given(row: _Row, value: Value, was: Value | None, near: _Near) -> bytes | None:
    if row.operator is Operator.TAIL:
        back = next((distance for distance, values in near if values.get(row.element.key) == value), 0)
        return bytes((back,)) if back else _tail(row.element, str(value), str(was) if was is not None else "")
    if isinstance(value, int) and isinstance(was, int):
        if row.operator is Operator.CLOCK:
            second = seconds_of(value)
            if time_of(second) != value:
                return None  # no time of day; the ladder of its service will say so
            return varint(zigzag(second - seconds_of(was)))
        if row.operator is Operator.DELTA:
            return varint(zigzag(value - was))
    return varint(value) if row.element.kind is Kind.N and isinstance(value, int) else wire_value(row.element, value)


def _predicted(
    operator: Operator, values: Mapping[int, Value], base: Mapping[int, Value], key: int, distance: int
) -> Value | None:
    if operator is Operator.INCREMENT:
        return _integer(base, key) + distance
    if operator is Operator.DERIVED:
        return amount_of(_integer(values, de.WEIGHT), _integer(values, de.UNIT_PRICE))
    return base.get(key)


def _tail(element: Element, text: str, was: str) -> bytes:
    """A new tail behind the base's head where they are as long, shorter than the whole by its count; else the whole."""
    new, old = text.encode(), was.encode()
    if old and len(new) == len(old):
        head = next((place for place, pair in enumerate(zip(new, old, strict=True)) if pair[0] != pair[1]), len(new))
        if head < TAIL_HEAD:
            rest = packed_digits(text[head:]) if element.kind is Kind.D else new[head:]
            return bytes((TAIL_HEAD + head,)) + rest
    return b"\x00" + wire_value(element, text)
