"""The ISO 8583 codec: the compiled twin equals the readable one, and both agree with an independent package."""

from importlib.machinery import EXTENSION_SUFFIXES

import iso8583
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.codecs import Iso8583Codec, Sm4Cmac, _iso8583
from fengshou.hsm import sm4
from fengshou.protocol.backend import Fields
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.iso8583 import (
    CHARACTER_FORMAT,
    HOST_FIELDS,
    MESSAGE_BYTES_MAX,
    Charset,
    HostField,
    HostFormat,
    Kind,
    LengthPacking,
    OriginalData,
    Packing,
    Pad,
    answer_mti,
    original_data,
    transmission_time,
)
from fengshou.protocol.iso8583_mac import ForgedMessage, decode_with_mac, frame_with_mac
from fengshou.protocol.iso8583_reference import ReferenceIso8583Codec

FORMATS = {
    "packed": HostFormat(),
    "character": CHARACTER_FORMAT,
    "mixed": HostFormat(
        mti=Packing.ASCII,
        numbers=Packing.BCD,
        lengths=LengthPacking.BINARY,
        charset=Charset.GB18030,
        fixed_pad=Pad.TRAILING_ZERO,
        variable_pad=Pad.TRAILING_F,
    ),
}
TWINS = {name: (Iso8583Codec(row), ReferenceIso8583Codec(row)) for name, row in FORMATS.items()}

PURCHASE: Fields = {
    0: "0200",
    2: "6217001234567890123",
    3: "000000",
    4: "000000123450",
    7: "1124053000",
    11: "123456",
    22: "021",
    32: "01020000",
    37: "432100123456",
    41: "POS00001",
    42: "MERCHANT0000001",
    49: "156",
    103: "6217001234567890",
}


def test_the_compiled_codec_is_the_one_in_use() -> None:
    assert _iso8583.__file__.endswith(tuple(EXTENSION_SUFFIXES))


# Laid out by hand from the standard, so that both twins cannot be wrong together.
SMALL: Fields = {0: "0210", 2: "6217001234567890123", 22: "021", 39: "00"}
BY_HAND = {
    "packed": bytes.fromhex("0210 4000040002000000 19 62170012345678901230 0021 3030"),
    "character": b"0210400004000200000019621700123456789012302100",
    "mixed": b"0210" + bytes.fromhex("4000040002000000 13 6217001234567890123f 0210 3030"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_are_as_laid_out_by_hand(name: str) -> None:
    for codec in TWINS[name]:
        assert codec.encode(SMALL) == BY_HAND[name]
        assert codec.decode(BY_HAND[name]) == SMALL
        assert codec.frame(SMALL) == len(BY_HAND[name]).to_bytes(2, "big") + BY_HAND[name]


# What Hypothesis makes of a row: mostly lawful values, and some that are not.


def lawful(row: HostField, charset: Charset) -> st.SearchStrategy[str | bytes]:
    least = 0 if row.length_digits else row.size
    match row.kind:
        case Kind.N:
            return st.text("0123456789", min_size=least, max_size=row.size)
        case Kind.Z:
            return st.text("0123456789=", min_size=least, max_size=row.size)
        case Kind.B:
            return st.binary(min_size=least, max_size=row.size)
        case Kind.ANS if charset is Charset.GB18030 and row.length_digits:
            return st.text("樱桃茶蓝莓 A1", max_size=row.size // 2)
        case _:
            return st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=least, max_size=row.size)


JUNK = st.one_of(
    st.text(max_size=8),
    st.text("０１²٣=d ", max_size=6),
    st.binary(max_size=8),
    st.integers(),
    st.none(),
    st.booleans(),
    st.text("9", min_size=0, max_size=130),
    st.sampled_from(["\ud800", "\x7f", "\x00", "é", "\x85"]),
)


@st.composite
def messages(draw: st.DrawFn, host_format: HostFormat) -> Fields:
    rows = draw(st.lists(st.sampled_from(HOST_FIELDS), unique_by=lambda row: row.number, max_size=14))
    mti = draw(st.text("0123456789", min_size=4, max_size=4))
    return {0: mti} | {row.number: draw(lawful(row, host_format.charset)) for row in rows}


def outcome(function: object, *arguments: object) -> object:
    """What a call returns, or where and why it refuses."""
    try:
        return function(*arguments)  # type: ignore[operator]
    except UntrustedBytesError as refused:
        return refused.error, refused.field


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_lawful_messages_come_back_and_twins_agree(name: str, data: st.DataObject) -> None:
    compiled, reference = TWINS[name]
    fields = data.draw(messages(FORMATS[name]))
    encoded = reference.encode(fields)
    assert compiled.encode(fields) == encoded
    assert compiled.decode(encoded) == reference.decode(encoded) == fields
    assert list(compiled.decode(encoded)) == list(reference.decode(encoded))
    assert compiled.frame(fields) == reference.frame(fields)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_twins_agree_about_mutated_bytes(name: str, data: st.DataObject) -> None:
    compiled, reference = TWINS[name]
    mutated = bytearray(reference.encode(data.draw(messages(FORMATS[name]))))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(mutated) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "add", "splice"])):
            case "flip":
                mutated[position] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del mutated[max(position, 1) :]
            case "add":
                mutated += data.draw(st.binary(min_size=1, max_size=4))
            case "splice":
                mutated[position:position] = data.draw(st.binary(min_size=1, max_size=4))
    message = bytes(mutated)
    assert outcome(compiled.decode, message) == outcome(reference.decode, message)


@pytest.mark.parametrize("name", FORMATS)
@given(message=st.binary(max_size=300))
def test_twins_agree_about_random_bytes(name: str, message: bytes) -> None:
    compiled, reference = TWINS[name]
    assert outcome(compiled.decode, message) == outcome(reference.decode, message)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_twins_agree_about_values_that_do_not_fit(name: str, data: st.DataObject) -> None:
    compiled, reference = TWINS[name]
    fields = dict(data.draw(messages(FORMATS[name])))
    numbers = st.one_of(st.sampled_from([0, 2, 3, 22, 35, 39, 41, 44, 48, 52, 55]), st.integers(-2, 130))
    for number in data.draw(st.lists(st.one_of(numbers, st.just(10**30)), min_size=1, max_size=3)):
        fields[number] = data.draw(JUNK)  # type: ignore[assignment]
    assert outcome(compiled.encode, fields) == outcome(reference.encode, fields)


@given(
    sizes=st.lists(st.integers(0, 40), max_size=6),
    tail=st.binary(max_size=8),
    wrap=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_twins_split_a_stream_alike(sizes: list[int], tail: bytes, wrap: type) -> None:
    compiled, reference = TWINS["packed"]
    stream = b"".join(size.to_bytes(2, "big") + b"m" * size for size in sizes)
    assert reference.split(stream) == ([b"m" * size for size in sizes if size], len(stream))
    assert outcome(compiled.split, wrap(stream + tail)) == outcome(reference.split, wrap(stream + tail))


def test_messages_before_an_absurd_length_are_not_lost() -> None:
    for codec in TWINS["packed"]:
        frame = codec.frame(PURCHASE)
        assert codec.split(frame + b"\xff\xff....") == ([codec.encode(PURCHASE)], len(frame))
        with pytest.raises(UntrustedBytesError) as refused:
            codec.split(b"\xff\xff....")
        assert refused.value.error is WireError.FRAME_TOO_LONG


def test_a_message_that_outgrows_the_bound_is_refused_where_it_does() -> None:
    rows = tuple(HostField(number, f"large_{number}", "ans...999") for number in range(2, 14))
    fields = {0: "0200"} | {row.number: "x" * 999 for row in rows}
    for codec in (Iso8583Codec(HostFormat(fields=rows)), ReferenceIso8583Codec(HostFormat(fields=rows))):
        assert outcome(codec.encode, fields) == (WireError.FRAME_TOO_LONG, "DE 10")
        assert outcome(codec.decode, bytes(MESSAGE_BYTES_MAX + 1)) == (WireError.FRAME_TOO_LONG, "")


# --- messages with a MAC -------------------------------------------------------------------------------------------


class AnotherKey:
    """A key that is none of ours, as a device's is."""

    def __init__(self, key: Sm4Cmac) -> None:
        self.mac = key.mac


MAC_KEYS = {1: Sm4Cmac(bytes(16)), 7: Sm4Cmac(bytes(15) + b"\x07"), 200: AnotherKey(Sm4Cmac(bytes(15) + b"\xc8"))}
CONTROLS: st.SearchStrategy[object] = st.one_of(
    st.sampled_from(["0300000000000000", "4300100700000000", "0300020000000000", "0300000900000000"]),
    st.sampled_from(["03000xx700000000", "０３0000070000000", "", None, bytes(16)]),
)


def outcome_with_mac(function: object, *arguments: object) -> object:
    """The outcome; of a message that is not believed also what it says, of a key that is not there its epoch."""
    try:
        return outcome(function, *arguments)
    except ForgedMessage as forged:
        return "forged", forged.fields, list(forged.fields)
    except KeyError as error:
        return error.args


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_twins_authenticate_alike(name: str, data: st.DataObject) -> None:
    compiled, reference = TWINS[name]
    fields = dict(data.draw(messages(FORMATS[name])))
    if data.draw(st.booleans()):
        fields[53] = data.draw(CONTROLS)  # type: ignore[assignment]
    if data.draw(st.integers(0, 9)) == 0:
        fields[data.draw(st.sampled_from([0, 3, 64, 128, 129]))] = data.draw(JUNK)  # type: ignore[assignment]
    epoch = data.draw(st.sampled_from([1, 7, 8, 200]))
    framed = outcome_with_mac(compiled.frame_with_mac, MAC_KEYS, epoch, fields)
    assert framed == outcome_with_mac(frame_with_mac, reference, MAC_KEYS, epoch, fields)
    if not isinstance(framed, bytes):
        return
    message = framed[2:]
    found = compiled.decode_with_mac(MAC_KEYS, message)
    assert found == decode_with_mac(reference, MAC_KEYS, message)
    network = fields[0][1] == "8"
    assert network or {key: found[key] for key in found.keys() - {53}} == {
        key: value for key, value in fields.items() if key not in (53, 128 if max(fields) > 64 else 64)
    }
    position, bit = data.draw(st.integers(0, len(message) - 1)), data.draw(st.integers(0, 7))
    altered = bytearray(message)
    altered[position] ^= 1 << bit
    heard = outcome_with_mac(compiled.decode_with_mac, MAC_KEYS, bytes(altered))
    assert heard == outcome_with_mac(decode_with_mac, reference, MAC_KEYS, bytes(altered))
    assert isinstance(heard, tuple) or str(heard[0])[1] == "8"  # type: ignore[index]


@pytest.mark.parametrize("name", FORMATS)
@given(message=st.binary(max_size=60))
def test_twins_believe_no_random_bytes(name: str, message: bytes) -> None:
    compiled, reference = TWINS[name]
    heard = outcome_with_mac(compiled.decode_with_mac, MAC_KEYS, message)
    assert heard == outcome_with_mac(decode_with_mac, reference, MAC_KEYS, message)


def test_a_mac_is_the_cmac_of_all_before_it() -> None:
    for more, number in (({}, 128), ({103: None}, 64)):
        fields = {key: value for key, value in PURCHASE.items() if key not in more}
        frame = TWINS["packed"][0].frame_with_mac(MAC_KEYS, 7, fields)
        message = frame[2:]
        assert int.from_bytes(frame[:2], "big") == len(message)
        assert message[-8:] == sm4.cmac(bytes(15) + b"\x07", message[:-8])[:8]
        assert TWINS["packed"][1].decode(message) == {**fields, 53: "0300000700000000", number: message[-8:]}


def test_a_key_that_makes_short_macs_is_an_error() -> None:
    class Short:
        def mac(self, data: bytes) -> bytes:
            return b"1234567"

    with pytest.raises(ValueError, match="at least 8"):
        TWINS["packed"][0].frame_with_mac({1: Short()}, 1, PURCHASE)


# --- an independent implementation --------------------------------------------------------------------------------


def pyiso8583_spec(host_format: HostFormat) -> dict[str, dict[str, object]]:
    """Our rows in the terms of pyiso8583."""

    def packing(packed: Packing) -> str:
        return "b" if packed is Packing.BCD else "ascii"

    len_enc = {LengthPacking.BCD: "bcd", LengthPacking.BINARY: "b", LengthPacking.ASCII: "ascii"}[host_format.lengths]

    def field(data_enc: str, len_type: int, max_len: int) -> dict[str, object]:
        return {"data_enc": data_enc, "len_enc": len_enc, "len_type": len_type, "max_len": max_len, "desc": ""}

    spec = {
        "h": field("ascii", 0, 0),
        "t": field(packing(host_format.mti), 0, 4 if host_format.mti is Packing.ASCII else 2),
        "p": field(packing(host_format.bitmap), 0, 16 if host_format.bitmap is Packing.ASCII else 8),
        "1": field(packing(host_format.bitmap), 0, 16 if host_format.bitmap is Packing.ASCII else 8),
    }
    for row in host_format.fields:
        len_type = row.length_digits
        if len_type and host_format.lengths is not LengthPacking.ASCII:
            len_type -= 1
        match row.kind:
            case Kind.N | Kind.Z:
                entry = field(packing(host_format.numbers), len_type, row.size)
                if host_format.numbers is Packing.BCD:
                    pad = host_format.variable_pad if row.length_digits else host_format.fixed_pad
                    entry["len_count"] = "nibbles"
                    entry["left_pad" if pad is Pad.LEADING_ZERO else "right_pad"] = (
                        "F" if pad is Pad.TRAILING_F else "0"
                    )
            case Kind.B:
                entry = field("b", len_type, row.size)
            case Kind.ANS:
                entry = field(host_format.charset.value, len_type, row.size)
            case _:
                entry = field("ascii", len_type, row.size)
        spec[str(row.number)] = entry
    return spec


def pyiso8583_document(host_format: HostFormat, fields: Fields) -> dict[str, str]:
    document = {}
    for number, value in fields.items():
        text = value.hex().upper() if isinstance(value, bytes) else value
        if number and host_format.by_number[number].kind is Kind.Z and host_format.numbers is Packing.BCD:
            text = text.replace("=", "D")
        document["t" if number == 0 else str(number)] = text
    return document


@pytest.mark.parametrize("name", ["packed", "character"])
@given(data=st.data())
def test_an_independent_package_reads_and_writes_the_same(name: str, data: st.DataObject) -> None:
    host_format = FORMATS[name]
    spec = pyiso8583_spec(host_format)
    compiled, _ = TWINS[name]
    fields = data.draw(messages(host_format))
    document = pyiso8583_document(host_format, fields)
    theirs, _ = iso8583.encode(dict(document), spec)
    assert compiled.encode(fields) == bytes(theirs)
    read, _ = iso8583.decode(compiled.encode(fields), spec)
    assert {key: value for key, value in read.items() if key not in ("p", "1")} == document


# --- rows and derived fields --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["n", "n.12", "x+n8", "n..100", "an0", "n....5"])
def test_a_format_text_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="DE 4"):
        HostField(4, "amount", text)


def test_two_rows_of_one_number_are_refused() -> None:
    with pytest.raises(ValueError, match="one number"):
        HostFormat(fields=(HostField(4, "amount", "n12"), HostField(4, "sum", "n12")))


@pytest.mark.parametrize(("request_mti", "answer"), [("0200", "0210"), ("0201", "0210"), ("0420", "0430")])
def test_the_mti_of_an_answer(request_mti: str, answer: str) -> None:
    assert answer_mti(request_mti) == answer


def test_original_data_is_derived_and_read_back() -> None:
    received_us = 1_763_963_999_999_999  # 2025-11-24T05:59:59.999999Z, so 13:59:59 in UTC+8
    assert transmission_time(received_us) == "1124135959"
    digits = original_data(200, 532800123456, received_us, 1020000)
    assert digits == "0200" + "123456" + "1124135959" + "00001020000" + "00000000000"
    assert OriginalData.parse(digits) == OriginalData("0200", "123456", "1124135959", 1020000)
