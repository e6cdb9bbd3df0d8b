"""The message codec: the compiled twin equals the construct grammar, result for result and error for error."""

import random
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fengshou.codecs import MessageCodec, PrivateKey, _message, sm3, verify_batch
from fengshou.protocol import elements as de
from fengshou.protocol import limits
from fengshou.protocol.elements import Element, Kind
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.templates import Field, Grammar, Template, layout, optional, required

# Every kind at its smallest and its largest; the key of row i is 113.i.
ELEMENTS = tuple(
    Element(113, index, f"e{index}", "", kind, size=size, maximum=maximum)
    for index, (kind, size, maximum) in enumerate(
        [
            (Kind.N, 0, 1),
            (Kind.N, 0, 127),
            (Kind.N, 0, 128),
            (Kind.N, 0, limits.UINT_MAX),
            (Kind.Z, 0, 1),
            (Kind.Z, 0, limits.UINT_MAX // 2),
            (Kind.D, 1, 0),
            (Kind.D, 255, 0),
            (Kind.AN, 1, 0),
            (Kind.AN, 40, 0),
            (Kind.ANS, 1, 0),
            (Kind.ANS, 300, 0),
            (Kind.B, 1, 0),
            (Kind.B, 64, 0),
            (Kind.BV, 1, 0),
            (Kind.BV, 300, 0),
            (Kind.BV, limits.FRAME_BYTES_MAX, 0),
        ]
    )
)
KEYS = [element.key for element in ELEMENTS]
N1, N127, N128, N63, Z1, Z62, D1, D255, AN1, AN40, ANS1, ANS300, B1, B64, BV1, BV300, BV8192 = KEYS

TEMPLATES = (
    Template(40, "all required, unsigned", 200, required(*KEYS), required(*KEYS), signed=False),
    Template(41, "all optional, signed", 200, optional(*KEYS), optional(*KEYS)),
    Template(42, "nothing", 200, (), (), signed=False),
    Template(43, "a whole byte of presence", 200, layout(required(N63), optional(*KEYS[4:12])), required(BV8192)),
    Template(
        44,
        "a purchase",
        200,
        layout(
            required(de.AMOUNT, de.STAN, de.LOCAL_TIME, de.PRODUCT, de.VARIETY, de.FROM_ACCOUNT, de.OPERATOR),
            optional(de.TEXT, N128),
        ),
        required(de.RESPONSE_CODE),
    ),
)
GRAMMAR = Grammar(ELEMENTS, TEMPLATES)
REFERENCE, COMPILED = ReferenceCodec(GRAMMAR), MessageCodec(GRAMMAR)


def outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
    """What a call comes to, told apart as exactly as ``repr`` can: types, order of dicts, error and field."""
    try:
        return "returned", repr(function(*arguments))
    except UntrustedBytesError as error:
        return error.error.name, error.field


def assert_twins(method: str, *arguments: Any) -> tuple[str, str]:
    expected = outcome(getattr(REFERENCE, method), *arguments)
    assert outcome(getattr(COMPILED, method), *arguments) == expected
    return expected


# ---- generated messages

ASCII = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


def values_of(element: Element) -> st.SearchStrategy[Any]:
    match element.kind:
        case Kind.N:
            return st.integers(0, element.maximum)
        case Kind.Z:
            return st.integers(-element.maximum, element.maximum)
        case Kind.D:
            return st.text("0123456789", min_size=1, max_size=element.size)
        case Kind.AN:
            return st.text(ASCII, min_size=element.size, max_size=element.size)
        case Kind.ANS:
            fitting = st.text(max_size=element.size // 4) | st.text(ASCII, max_size=element.size)
            return fitting.filter(lambda text: len(text.encode("utf-8", "replace")) <= element.size)
        case Kind.B:
            return st.binary(min_size=element.size, max_size=element.size)
        case Kind.BV:
            return st.binary(max_size=min(element.size, 400))


def side_values(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[int, Any]]:
    there = {field.key: values_of(GRAMMAR.elements[field.key]) for field in fields}
    return st.fixed_dictionaries(
        {field.key: there[field.key] for field in fields if field.required},
        optional={field.key: there[field.key] for field in fields if not field.required},
    )


@st.composite
def messages(draw: st.DrawFn) -> Message:
    template = draw(st.sampled_from(list(GRAMMAR.templates.values())))
    response = draw(st.booleans())
    if response:
        flags = Flag.RESPONSE | draw(st.integers(0, 15)) | draw(st.sampled_from([0, Flag.RECEIPT]))
    else:
        flags = draw(st.sampled_from([0, Flag.REPEAT, Flag.RECEIPT])) | (Flag.SIGNED if template.signed else 0)
    return Message(
        template.id,
        flags,
        draw(st.integers(0, limits.UINT_MAX)),
        draw(side_values(template.response if response else template.request)),
        draw(st.binary(min_size=64, max_size=64)) if flags & Flag.SIGNED else b"",
    )


@st.composite
def wild_messages(draw: st.DrawFn) -> Message:
    """Messages of which anything may be wrong: what a caller could hand to ``encode`` by mistake."""
    message = draw(messages())
    for key in draw(st.lists(st.sampled_from([*KEYS, 0, -1, 7, 2**16, 2**70, *message.values]), max_size=3)):
        message.values[key] = draw(st.sampled_from(ODDITIES))
    for key in draw(st.lists(st.sampled_from([*message.values, 0]), max_size=2)):
        message.values.pop(key, None)
    if draw(st.booleans()):
        message.values = dict(draw(st.permutations(list(message.values.items()))))
    message.flags = draw(st.sampled_from([message.flags, message.flags ^ draw(st.integers(0, 255)), 256, -1, True]))
    message.template = draw(st.sampled_from([message.template, message.template, 0, 1, 64, -1, 2**64]))
    message.sequence = draw(st.sampled_from([message.sequence, message.sequence, 2**63, -1, 2**64, False]))
    message.signature = draw(st.sampled_from([message.signature, message.signature, b"", bytes(63), bytes(65)]))
    return message


class Digits(str):
    __slots__ = ()


ODDITIES: list[Any] = [
    None, True, False, 1.0, [], (), bytearray(1), memoryview(b"1"), Flag.REPEAT, Digits("123"),
    0, 1, 2, 127, 128, -1, -2, 2**30, 2**31, 2**62 - 1, -(2**62) + 1, 2**62, -(2**62),
    2**63 - 1, 2**63, -(2**63), 2**64, 2**70,
    "", "0", "9" * 255, "9" * 256, "٣", "x", " ", "~", "\x7f", "\x00", "é", "\ud800", "丰收",
    "a" * 40, "é" * 20, "a" * 39 + "é", "é" * 150, "é" * 151, "丰" * 100, "丰" * 101,
    b"", b"0", bytes(2), bytes(64), bytes(300), bytes(301),
    bytes(limits.FRAME_BYTES_MAX), bytes(limits.FRAME_BYTES_MAX + 1),
]  # fmt: skip


def test_the_compiled_twin_is_loaded() -> None:
    assert _message.__file__ is not None
    assert _message.__file__.endswith(tuple(EXTENSION_SUFFIXES))


@given(messages(), st.binary(min_size=32, max_size=32), messages())
def test_twins_agree_on_messages(message: Message, za: bytes, other: Message) -> None:
    how, _ = assert_twins("encode", message)
    body = (message.template, message.is_response)
    assert_twins("encode_body", *body, message.values)
    encoded = REFERENCE.encode_body(*body, message.values)
    assert_twins("decode_body", *body, encoded)
    framed = assert_twins("frame", message.template, message.flags, message.sequence, encoded)
    assert framed == assert_twins("encode", message) or message.signature
    assert_twins("canonical", message.template, message.flags, message.sequence, message.values)
    assert_twins("digest", za, za, message, other.values)
    assert_twins("pack", message.values)
    assert_twins("unpack", REFERENCE.pack(message.values))
    assert COMPILED.unpack(COMPILED.pack(message.values)) == message.values
    columns = frozenset(list(message.values)[::3])
    assert_twins("pack_kept", message.values, columns)
    kept = [COMPILED.unpack(part) for part in COMPILED.pack_kept(message.values, columns)]
    classes = [{GRAMMAR.elements[key].privacy.value for key in part} for part in kept]
    assert [found <= {wanted} for found, wanted in zip(classes, ("C1", "C2"), strict=True)] == [True, True]
    if how == "returned":
        (frame,), used = COMPILED.split(COMPILED.encode(message) + b"\x85")
        assert used == len(COMPILED.encode(message))
        assert COMPILED.decode(frame) == message
        assert_twins("decode", frame)


@given(wild_messages(), st.dictionaries(st.sampled_from([*KEYS, 3]), st.sampled_from(ODDITIES), max_size=3))
@settings(max_examples=400)
def test_twins_agree_on_what_cannot_be_encoded(message: Message, implied: dict[int, Any]) -> None:
    assert_twins("encode", message)
    assert_twins("encode_body", message.template, True, message.values)
    assert_twins("frame", message.template, message.flags, message.sequence, message.signature)
    assert_twins("canonical", message.template, message.flags, message.sequence, message.values)
    assert_twins("digest", bytes(32), bytes(32), message, implied)
    assert_twins("pack", message.values)


@pytest.mark.parametrize("around", [0, 0x7F, limits.FRAME_BYTES_MAX])
def test_twins_agree_on_the_length_of_a_frame(around: int) -> None:
    for size in range(max(around - 8, 0), around + 2):
        assert_twins("frame", 42, Flag.RESPONSE, 300, bytes(size))


@pytest.mark.parametrize(
    "element", ELEMENTS, ids=lambda element: f"{element.kind.value}-{element.size or element.maximum}"
)
def test_twins_agree_on_every_oddity_in_every_kind(element: Element) -> None:
    accepted = 0
    for value in ODDITIES:
        how, what = assert_twins("pack", {element.key: value})
        assert_twins("canonical", 42, 0, 1, {element.key: value})
        assert_twins("encode_body", 41, False, {element.key: value})
        if how == "returned":
            accepted += 1
            # Equal values of other types (an enumeration, a subclass of str) come back as the plain type.
            back = COMPILED.unpack(COMPILED.pack({element.key: value}))[element.key]
            assert back == value
            assert type(back) in (int, str, bytes)
        else:
            assert what == element.path
    assert accepted


# ---- bytes of a peer


def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """One to three wounds: a flipped bit, a changed, lost or added byte, a cut, a splice with another frame."""
    wounded = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(wounded) + 1)
        match chance.randrange(7):
            case 0 if at < len(wounded):
                wounded[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(wounded):
                wounded[at] = chance.choice((0x00, 0x01, 0x7F, 0x80, 0xFF))
            case 2:
                del wounded[at : at + chance.randint(1, 4)]
            case 3:
                wounded[at:at] = chance.randbytes(chance.randint(1, 4))
            case 4:
                del wounded[at:]
            case 5:
                wounded += chance.randbytes(chance.randint(1, 70))
            case 6:
                wounded[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(wounded)


@given(messages(), messages(), st.randoms(use_true_random=False))
def test_twins_agree_on_mutated_bytes(message: Message, other: Message, chance: random.Random) -> None:
    sources = [
        (method, *(encode(each) for each in (message, other)))
        for method, encode in (
            ("decode", lambda each: REFERENCE.split(REFERENCE.encode(each))[0][0]),
            ("split", REFERENCE.encode),
            ("unpack", lambda each: REFERENCE.pack(each.values)),
            ("decode_body", lambda each: REFERENCE.encode_body(each.template, each.is_response, each.values)),
        )
    ]
    for method, data, donor in sources:
        place = (message.template, message.is_response) if method == "decode_body" else ()
        for _ in range(20):
            assert_twins(method, *place, mutated(data, donor, chance))


def test_twins_agree_on_random_bytes() -> None:
    chance = random.Random(113)
    heads = [limits.PROTOCOL_VERSION << 6 | template for template in GRAMMAR.templates]
    seen: set[str] = set()
    for _ in range(6000):
        noise = chance.randbytes(chance.choice((0, 1, 2, 3, 5, 20, 100, 300)))
        framed = bytes((chance.choice(heads), chance.choice((0, 0x40, 0x80)), chance.randrange(256))) + noise
        seen.add(assert_twins("decode", framed)[0])
        assert_twins("decode", noise)
        assert_twins("split", noise)
        assert_twins("unpack", chance.choice(KEYS).to_bytes(2, "big") + noise)
        assert_twins("decode_body", chance.choice((40, 41, 42, 43, 15, 1)), chance.random() < 0.5, noise)
    assert len(seen) > 6


def test_twins_agree_on_every_cut_and_every_flipped_bit() -> None:
    values = {element.key: _sample(element) for element in ELEMENTS}
    for template, flags, signature in ((40, 0, b""), (41, Flag.SIGNED, bytes(64))):
        frame = REFERENCE.encode(Message(template, flags, 300, values, signature))[2:]
        for cut in range(len(frame)):
            assert_twins("decode", frame[:cut])
        for bit in range(8 * len(frame)):
            assert_twins("decode", _flipped(frame, bit))


def _sample(element: Element) -> Any:
    match element.kind:
        case Kind.N | Kind.Z:
            return min(element.maximum, 10**9)
        case Kind.D:
            return "7" * min(element.size, 19)
        case Kind.B | Kind.BV:
            return bytes(element.size)[:64]
        case _:
            return "a" * min(element.size, 40)


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- each error by name

_V = limits.PROTOCOL_VERSION << 6
_S = bytes(64)
_BIG = Message(43, Flag.RESPONSE, 1, {BV8192: bytes(limits.FRAME_BYTES_MAX)})


@pytest.mark.parametrize(
    ("error", "field", "method", "arguments"),
    [
        (WireError.FRAME_TOO_LONG, "", "split", [b"\x81\x40"]),
        (WireError.FRAME_TOO_LONG, "", "split", [b"\xff\xff"]),
        (WireError.FRAME_TOO_LONG, "", "decode", [bytes((_V | 42, 0)) + bytes(8191)]),
        (WireError.FRAME_TOO_LONG, "", "encode", [_BIG]),
        (WireError.FRAME_TOO_SHORT, "", "split", [b"\x02\x00\x00"]),
        (WireError.FRAME_TOO_SHORT, "", "split", [b"\x00"]),
        (WireError.FRAME_TOO_SHORT, "", "decode", [bytes((_V | 42, 0))]),
        (WireError.LENGTH_MALFORMED, "", "split", [b"\x83\x00\x00\x00\x00"]),
        (WireError.UNKNOWN_VERSION, "", "decode", [bytes((42, 0, 0))]),
        (WireError.UNKNOWN_VERSION, "", "decode", [bytes((0xC0 | 42, 0, 0))]),
        (WireError.UNKNOWN_TEMPLATE, "", "decode", [bytes((_V | 45, 0, 0))]),
        (WireError.UNKNOWN_TEMPLATE, "", "decode_body", [45, False, b""]),
        (WireError.UNKNOWN_TEMPLATE, "", "encode_body", [64, False, {}]),
        (WireError.UNKNOWN_TEMPLATE, "", "canonical", [-1, 0, 1, {}]),
        (WireError.UNKNOWN_FLAG, "", "decode", [bytes((_V | 42, 0x02, 0))]),
        (WireError.UNKNOWN_FLAG, "", "decode", [bytes((_V | 42, 0x0F, 0))]),
        (WireError.UNKNOWN_FLAG, "", "encode", [Message(42, 0x100, 1)]),
        (WireError.UNKNOWN_FLAG, "", "encode", [Message(42, -1, 1)]),
        (WireError.FORM_UNSUPPORTED, "", "decode", [bytes((_V | 42, 0x20, 0))]),
        (WireError.FORM_UNSUPPORTED, "", "decode", [bytes((_V | 42, 0xA0, 0))]),
        (WireError.SIGNATURE_MISSING, "", "decode", [bytes((_V | 41, 0x00, 0, 0, 0, 0))]),
        (WireError.SIGNATURE_MISSING, "", "encode", [Message(41, Flag.SIGNED, 1)]),
        (WireError.SIGNATURE_MISSING, "", "encode", [Message(41, Flag.SIGNED, 1, {}, bytes(63))]),
        (WireError.SIGNATURE_UNEXPECTED, "", "decode", [bytes((_V | 42, 0x40, 0)) + _S]),
        (WireError.SIGNATURE_UNEXPECTED, "", "decode", [bytes((_V | 41, 0xC0, 0, 0, 0, 0)) + _S]),
        (WireError.SIGNATURE_UNEXPECTED, "", "encode", [Message(42, 0, 1, {}, _S)]),
        (WireError.VARINT_MALFORMED, "", "decode", [bytes((_V | 42, 0, 0x80, 0x00))]),
        (WireError.VARINT_MALFORMED, "", "decode", [bytes((_V | 42, 0)) + b"\xff" * 9]),
        (WireError.VALUE_OUT_OF_RANGE, "", "encode", [Message(42, 0, -1)]),
        (WireError.VALUE_OUT_OF_RANGE, "", "encode", [Message(42, 0, 2**63)]),
        (WireError.TRUNCATED, "", "decode", [bytes((_V | 42, 0, 0x80))]),
        (WireError.TRUNCATED, "", "decode", [bytes((_V | 41, 0x40, 0, 0, 0))]),
        (WireError.TRUNCATED, "", "decode", [bytes((_V | 41, 0x40, 0, 0, 0, 0)) + bytes(63)]),
        (WireError.TRUNCATED, "DE 113.3", "encode_body", [43, False, {}]),
        (WireError.TRAILING_BYTES, "", "decode", [bytes((_V | 42, 0, 0, 0))]),
        (WireError.TRAILING_BYTES, "", "decode", [bytes((_V | 41, 0x40, 0, 0, 0, 0)) + bytes(65)]),
        (WireError.TRAILING_BYTES, "", "decode_body", [42, False, b"\x00"]),
        (WireError.UNKNOWN_FIELD, "", "decode_body", [41, False, b"\x00\x00\x01"]),
        (WireError.UNKNOWN_FIELD, "", "decode_body", [41, False, b"\x00\x00\x40"]),
        (WireError.UNKNOWN_FIELD, "DE 4", "encode_body", [42, False, {de.AMOUNT: 1}]),
        (WireError.UNKNOWN_FIELD, "DE 200.1", "pack", [{200 << 8 | 1: 1}]),
        (WireError.UNKNOWN_FIELD, "DE 200.1", "unpack", [b"\xc8\x01\x00"]),
        (WireError.UNKNOWN_FIELD, "DE 113", "unpack", [b"\x71\x00\x01\x71\x00\x01"]),
        (WireError.UNKNOWN_FIELD, "DE 113", "unpack", [b"\x71\x01\x01\x71\x00\x01"]),
        (WireError.TRUNCATED, "", "unpack", [b"\x71"]),
        (WireError.TRUNCATED, "DE 113", "unpack", [b"\x71\x00"]),
        (WireError.VALUE_OUT_OF_RANGE, "DE 113", "unpack", [b"\x71\x00\x02"]),
        (WireError.VALUE_OUT_OF_RANGE, "DE 113.4", "unpack", [b"\x71\x04\x03"]),
        (WireError.VALUE_OUT_OF_RANGE, "DE 113.6", "unpack", [b"\x71\x06\x00"]),
        (WireError.VALUE_OUT_OF_RANGE, "DE 113.6", "unpack", [b"\x71\x06\x02\x11"]),
        (WireError.VALUE_OUT_OF_RANGE, "DE 113.10", "unpack", [b"\x71\x0a\x02ab"]),
        (WireError.TEXT_MALFORMED, "DE 113.6", "unpack", [b"\x71\x06\x01\x10"]),
        (WireError.TEXT_MALFORMED, "DE 113.6", "unpack", [b"\x71\x06\x01\xaf"]),
        (WireError.TEXT_MALFORMED, "DE 113.8", "unpack", [b"\x71\x08\x7f"]),
        (WireError.TEXT_MALFORMED, "DE 113.10", "unpack", [b"\x71\x0a\x01\xff"]),
        (WireError.TEXT_MALFORMED, "DE 113.11", "unpack", [b"\x71\x0b\x03\xed\xa0\x80"]),
    ],
)  # fmt: skip
def test_each_error_has_its_name(error: WireError, field: str, method: str, arguments: list[Any]) -> None:
    assert assert_twins(method, *arguments) == (error.name, field)


def test_every_error_of_the_grammar_is_in_the_table_above() -> None:
    (marks,) = (mark for mark in test_each_error_has_its_name.pytestmark if mark.name == "parametrize")
    # A base can only be lost where there is a delta form: see test_delta.
    assert {row[0] for row in marks.args[1]} == set(WireError) - {WireError.BASE_LOST}


# ---- streams and signatures


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_a_stream_splits_at_every_place(form: Callable[[bytes], Any]) -> None:
    frames = [Message(42, 0, number) for number in (1, 300)] + [Message(43, Flag.RESPONSE, 9, {BV8192: bytes(8000)})]
    encoded = [COMPILED.encode(frame) for frame in frames]
    ends = [sum(map(len, encoded[: count + 1])) for count in range(len(encoded))]
    stream = b"".join(encoded)
    for cut in [*range(20), *range(len(stream) - 3, len(stream) + 1)]:
        got, used = COMPILED.split(form(stream[:cut]))
        assert (got, used) == REFERENCE.split(form(stream[:cut]))
        assert used == max([0, *(end for end in ends if end <= cut)])
        assert [COMPILED.decode(frame) for frame in got] == frames[: len(got)]


def test_what_stands_in_the_message_wins_over_the_session() -> None:
    message = Message(41, Flag.SIGNED, 5, {N127: 7})
    digests = [
        codec.digest(bytes(32), bytes(32), message, implied)
        for codec in (REFERENCE, COMPILED)
        for implied in ({N127: 8}, {}, {N127: 7})
    ]
    assert len(set(digests)) == 1
    assert COMPILED.digest(bytes(32), bytes(32), message, {N1: 0}) not in digests
    for codec in (REFERENCE, COMPILED):
        assert sm3(codec.signed_text(bytes(32), bytes(32), message, {N127: 8})) == digests[0]


@pytest.mark.parametrize(("za", "binding"), [(31, 32), (33, 32), (32, 31), (32, 33), (0, 64)])
def test_a_digest_refuses_other_lengths(za: int, binding: int) -> None:
    for codec in (REFERENCE, COMPILED):
        with pytest.raises(ValueError, match="32 bytes"):
            codec.digest(bytes(za), bytes(binding), Message(41, Flag.SIGNED, 5), {})
        with pytest.raises(ValueError, match="32 bytes"):
            codec.signed_text(bytes(za), bytes(binding), Message(41, Flag.SIGNED, 5), {})


@pytest.mark.parametrize("keys", [{1.5: 1}, {"4": 1}, {None: 1}])
def test_keys_that_are_no_integers_are_our_error(keys: dict[Any, Any]) -> None:
    for codec in (REFERENCE, COMPILED):
        for call in (lambda c: c.pack(keys), lambda c: c.encode_body(41, False, keys)):
            with pytest.raises(TypeError):
                call(codec)


def test_no_bit_of_a_signed_message_changes_unseen() -> None:
    key = PrivateKey.generate()
    za, binding = key.public_key.za, bytes(range(32))
    implied = {de.TERMINAL: "T0000001", de.MERCHANT: "M00000000000001", de.CURRENCY: 156, de.BATCH: 12}
    values = {
        de.AMOUNT: 123_456, de.STAN: 1, de.LOCAL_TIME: 93_000, de.PRODUCT: 12, de.VARIETY: 3,
        de.FROM_ACCOUNT: "6231722254919298906", de.OPERATOR: "001", de.TEXT: "蓝莓",
    }  # fmt: skip
    message = Message(44, Flag.SIGNED, 77, values)
    message.signature = key.sign(COMPILED.digest(za, binding, message, implied))
    encoded = COMPILED.encode(message)

    def cases(data: bytes) -> list[tuple[Any, bytes, bytes]]:
        """What is left to verify of a message whose bytes the grammar accepts."""
        try:
            frames, used = COMPILED.split(data)
            if used < len(data) or len(frames) != 1:
                return []
            got = COMPILED.decode(frames[0])
            return [(key.public_key, COMPILED.digest(za, binding, got, implied), got.signature)]
        except UntrustedBytesError:
            return []

    assert verify_batch(cases(encoded)) == [True]
    accepted = [case for bit in range(8 * len(encoded)) for case in cases(_flipped(encoded, bit))]
    assert len(accepted) > 600  # most changes are grammatical: it is the signature that finds them
    assert not any(verify_batch(accepted))
