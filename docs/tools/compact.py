"""The bytes of a difference (PROTOCOL.md section 8, delta form) with what each of them means."""

from collections.abc import Iterator, Mapping

from fengshou.protocol.delta import TAIL_HEAD, seconds_of
from fengshou.protocol.elements import Element, Kind
from fengshou.protocol.kinds import varint, wire_value, zigzag
from fengshou.protocol.message import Value
from fengshou.protocol.operators import ALWAYS_SAID, Operator
from fengshou.protocol.templates import Grammar, Template

Line = tuple[str, str]  # bytes in hexadecimal, meaning


def difference_lines(
    grammar: Grammar,
    template: Template,
    data: bytes,
    sequence: int,
    values: Mapping[int, Value],
    earlier: Mapping[int, Mapping[int, Value]],
) -> Iterator[Line]:
    """The difference with which ``data`` begins. ``earlier`` are the requests that it may name, by sequence."""
    distance = data[0]
    base = earlier[sequence - distance]
    yield data[:1].hex(), f"distance {distance}: the base has sequence {sequence - distance}"
    fields = [field for field in template.request if template.operator(field.key) not in ALWAYS_SAID]
    widths = [1 if field.required else 2 for field in fields]
    size = (sum(widths) + 7) // 8
    bits = f"{int.from_bytes(data[1 : 1 + size], 'big'):0{8 * size}b}"
    said, place = set(), 0
    for field, width in zip(fields, widths, strict=True):
        if bits[place] == "1":
            said.add(field.key)
        place += width
    named = ", ".join(grammar.path(field.key) for field in fields if field.key in said)
    yield data[1 : 1 + size].hex(), f"bits {bits}: said is {named or 'nothing'}"
    at = 1 + size
    for field in template.request:
        operator = template.operator(field.key)
        if field.key in values and (operator in ALWAYS_SAID or field.key in said):
            element = grammar.elements[field.key]
            size, meaning = _given(element, operator, data[at:], values[field.key], base.get(field.key))
            yield data[at : at + size].hex(), f"{element.path} {element.name}{meaning}"
            at += size


def _given(element: Element, operator: Operator, data: bytes, value: Value, was: Value | None) -> tuple[int, str]:
    """How many bytes say this value, and what they say."""
    if operator is Operator.TAIL:
        return _tail(element, data, str(value))
    assert isinstance(value, int)
    if operator in (Operator.CLOCK, Operator.DELTA):
        assert isinstance(was, int)
        change = seconds_of(value) - seconds_of(was) if operator is Operator.CLOCK else value - was
        wire, unit = varint(zigzag(change)), " s" if operator is Operator.CLOCK else ""
        meaning = f" {change:+}{unit} = {value}"
    else:
        wire, meaning = wire_value(element, value), f" = {value}"
    assert data.startswith(wire)
    return len(wire), meaning


def _tail(element: Element, data: bytes, value: str) -> tuple[int, str]:
    kind = data[0]
    if kind == 0:
        return 1 + len(wire_value(element, value)), f' = "{value}"'
    if kind < TAIL_HEAD:
        return 1, f" as {kind} messages before"
    kept = kind - TAIL_HEAD
    rest = len(value) - kept
    size = 1 + ((rest + 1) // 2 if element.kind is Kind.D else rest)
    return size, f', the first {kept} stay: "{value}"'
