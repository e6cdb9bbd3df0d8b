"""The delta form: two readers that agree on every frame, what each refusal is called, and what has no delta form."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fengshou.codecs import _message
from fengshou.protocol import elements as de
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.history import History
from fengshou.protocol.limits import DELTA_WINDOW, UINT_MAX
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.operators import Operator
from fengshou.protocol.templates import SIGN_IN, Grammar, GrammarError, Template, required
from tests.codecs.delta_talk import (
    COMPILED,
    DIGITS,
    ELEMENTS,
    EVERYTHING,
    GOODS,
    HIDDEN,
    OTHER,
    PLAIN,
    REFERENCE,
    SIGNATURE,
    SMALL,
    VALUES,
    Talk,
    stated,
    unframed,
)


def outcome(codec: Any, frame: bytes, history: History) -> tuple[str, str]:
    try:
        return "returned", repr(codec.decode(frame, history))
    except UntrustedBytesError as error:
        return error.error.name, error.field


def assert_twins(frame: bytes, history: History) -> tuple[str, str]:
    expected = outcome(REFERENCE, frame, history)
    assert outcome(COMPILED, frame, history) == expected
    return expected


def test_the_compiled_codec_is_loaded() -> None:
    assert _message.__file__.endswith(".so")


# What is written is read again ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(1, 70), VALUES, st.sampled_from([EVERYTHING.id, OTHER.id])), max_size=6))
def test_what_a_session_writes_both_readers_expand_to_the_message(steps: list[tuple[int, Any, int]]) -> None:
    talk, sequence = Talk(), 0
    for gap, values, template in steps:
        sequence += gap
        before = History()
        before._sequences, before._stated = talk.history._sequences[:], list(talk.history._stated)
        frame = talk.frame(sequence, values, template)
        if frame is not None:
            assert frame[2 if frame[0] < 0x80 else 3] & Flag.DELTA
            assert assert_twins(unframed(frame), before) == ("returned", repr(REFERENCE.decode(whole(talk.last))))


def whole(message: Message | None) -> bytes:
    assert message is not None
    return unframed(COMPILED.encode(message))


@settings(deadline=None, max_examples=300)
@given(VALUES, VALUES, VALUES, st.integers(0, 2**32))
def test_mutated_deltas_and_wrong_bases_are_judged_alike(base: Any, values: Any, wrong: Any, seed: int) -> None:
    talk = Talk()
    talk.frame(3, base)
    frame = talk.frame(7, values)
    if frame is None:
        return
    draw, body = random.Random(seed), bytearray(unframed(frame))
    other, gone = History(), History()
    other.keep(3, stated(Message(EVERYTHING.id, Flag.SIGNED, 3, wrong, SIGNATURE)))
    for history in (talk.history, other, gone):
        assert_twins(bytes(body), history)
        for _ in range(12):
            broken = bytearray(body)
            for _ in range(draw.randint(1, 3)):
                broken[draw.randrange(1, len(broken) - 64)] ^= 1 << draw.randrange(8)
            if draw.random() < 0.3:
                del broken[draw.randrange(3, len(broken)) :]
            assert_twins(bytes(broken), history)


@settings(deadline=None, max_examples=400)
@given(VALUES, st.binary(max_size=40))
def test_any_bytes_behind_a_delta_head_are_judged_alike(base: Any, rest: bytes) -> None:
    talk = Talk()
    talk.frame(3, base)
    for distance in (b"", b"\x01"):  # the second reaches the base
        assert_twins(bytes((0x40 | EVERYTHING.id, Flag.SIGNED | Flag.DELTA, 4)) + distance + rest, talk.history)


# Each refusal by its name --------------------------------------------------------------------------------------------

# Time 0 s later and weight 2 are always said; three bytes of bits: amount, STAN, price, town (2), small, difference,
# number / digits, letters, words, blob, digits or none (2), words or none (2).
_SAME = b"\x00\x02"


@pytest.mark.parametrize(
    ("distance", "bits", "said", "error", "field"),
    [
        (b"\x01",     "0000", b"\x00\x02", "returned", ""),
        (b"",         "",     b"", "TRUNCATED", ""),
        (b"\x00",     "0000", _SAME, "BASE_LOST", ""),            # itself
        (b"\x02",     "0000", _SAME, "BASE_LOST", ""),            # nothing there
        (b"\x80\x01", "0000", _SAME, "BASE_LOST", ""),            # further back than anything is kept
        (b"\x81\x00", "0000", _SAME, "VARINT_MALFORMED", ""),
        (b"\x01",     "00",   b"", "TRUNCATED", ""),
        (b"\x01",     "1800", b"\x00\x02", "UNKNOWN_FIELD", "DE 48.6"),   # neither there nor not
        (b"\x01",     "0800", b"\x00\x02", "BASE_LOST", "DE 48.6"),       # taken away from a base without it
        (b"\x01",     "0000", b"\x78\x02", "BASE_LOST", "DE 12"),         # a minute later it is tomorrow
        (b"\x01",     "0000", b"\x81\xc6\x0a\x02", "VALUE_OUT_OF_RANGE", "DE 12"),  # more than a day
        (b"\x01",     "0000", b"\x00\x80\x84\xaf\x5f", "VALUE_OUT_OF_RANGE", "DE 48.4"),
        (b"\x01",     "0200", b"\x00\x02\x0b", "BASE_LOST", "DE 113.1"),  # 5 - 6
        (b"\x01",     "0200", b"\x00\x02\xd9\x04", "VALUE_OUT_OF_RANGE", "DE 113.1"),
        (b"\x01",     "0080", b"\x00\x02\x02", "BASE_LOST", "DE 113.3"),  # as in a request that is not known
        (b"\x01",     "0080", b"\x00\x02\x86", "BASE_LOST", "DE 113.3"),  # six of five digits
        (b"\x01",     "0080", b"\x00\x02\x84\x6e", "TEXT_MALFORMED", "DE 113.3"),
        (b"\x01",     "0080", b"\x00\x02\x84", "TRUNCATED", ""),
        (b"\x01",     "0080", b"\x00\x02\x85", "returned", ""),           # all five digits
        (b"\x01",     "0020", b"\x00\x02\x82abcd", "TEXT_MALFORMED", "DE 113.5"),  # through a character
        (b"\x01",     "0008", b"\x00\x02\x81", "BASE_LOST", "DE 113.7"),  # the base has none
    ],
)  # fmt: skip
def test_each_refusal_has_its_name(distance: bytes, bits: str, said: bytes, error: str, field: str) -> None:
    talk = Talk()
    talk.frame(1, dict(GOODS))
    frame = bytes((0x40 | EVERYTHING.id, Flag.SIGNED | Flag.DELTA, 2)) + distance + bytes.fromhex(bits) + said
    found = assert_twins(frame + (SIGNATURE if error != "TRUNCATED" else b""), talk.history)
    assert found[0] == error
    if field:
        assert found[1] == field


def test_what_is_derived_must_fit() -> None:
    talk = Talk()
    talk.frame(1, {**GOODS, de.UNIT_PRICE: 100_000_000})
    frame = bytes((0x40 | EVERYTHING.id, Flag.SIGNED | Flag.DELTA, 2, 1, 0, 0, 0)) + b"\x80\x94\xeb\xdc\x03"
    assert assert_twins(frame + SIGNATURE, talk.history)[0] in ("VALUE_OUT_OF_RANGE", "BASE_LOST")


@pytest.mark.parametrize(
    ("template", "flags", "granted"),
    [
        (PLAIN.id, Flag.SIGNED | Flag.DELTA, True),        # has no delta form
        (EVERYTHING.id, Flag.RESPONSE | Flag.DELTA, True),  # answers are never deltas
        (EVERYTHING.id, Flag.SIGNED | Flag.DELTA, False),  # nobody asked for it
    ],
)  # fmt: skip
def test_where_there_is_no_delta_form_the_flag_is_refused(template: int, flags: int, granted: bool) -> None:
    frame = bytes((0x40 | template, flags, 2, 1)) + SIGNATURE
    for codec in (REFERENCE, COMPILED):
        with pytest.raises(UntrustedBytesError) as caught:
            codec.decode(frame, History() if granted else None)
        assert caught.value.error is WireError.FORM_UNSUPPORTED


@pytest.mark.parametrize("codec", [REFERENCE, COMPILED])
def test_the_flag_is_not_signed_and_a_sign_in_may_bear_it(codec: Any) -> None:
    flags = Flag.SIGNED | Flag.RECEIPT
    assert codec.canonical(40, flags, 1, {}) == codec.canonical(40, flags | Flag.DELTA, 1, {})
    answer = Message(SIGN_IN.id, Flag.RESPONSE | Flag.DELTA, 1, {de.RESPONSE_CODE: "00"})
    assert codec.decode(unframed(codec.encode(answer))) == answer


def test_the_code_of_a_lost_base_asks_for_the_whole() -> None:
    assert UntrustedBytesError(WireError.BASE_LOST).code == "R0"
    assert UntrustedBytesError(WireError.TRUNCATED).code == "30"


# What is remembered --------------------------------------------------------------------------------------------------


def test_a_history_forgets_what_no_distance_reaches() -> None:
    history = History()
    for sequence in range(1, 3 * DELTA_WINDOW):
        history.keep(sequence, bytes((sequence % 251,)))
        assert history.find(sequence) == bytes((sequence % 251,))
        assert history.find(sequence - DELTA_WINDOW) == b""
    assert history.find(0) == history.find(-5) == history.find(UINT_MAX) == b""


@pytest.mark.parametrize(
    ("operators", "why"),
    [
        ([(SMALL, Operator.COPY), (SMALL, Operator.COPY)], "one only"),
        ([(de.PAN, Operator.COPY)], "that is there"),
        ([(DIGITS, Operator.DELTA)], "does not fit"),
        ([(SMALL, Operator.TAIL)], "does not fit"),
        ([(de.TOWN, Operator.DELTA)], "does not fit"),
        ([(SMALL, Operator.CLOCK)], "time of day"),
        ([(de.WEIGHT, Operator.DERIVED)], "derives from what is derived"),
    ],
)  # fmt: skip
def test_operators_that_do_not_fit_are_refused_at_start(operators: list[tuple[int, Operator]], why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        Grammar(ELEMENTS, [Template(43, "bad", 200, EVERYTHING.request, (), operators=tuple(operators))])


def test_what_authenticates_is_not_remembered() -> None:
    with pytest.raises(GrammarError, match="C3"):
        Grammar(
            ELEMENTS,
            [Template(43, "bad", 200, required(SMALL, HIDDEN), (), operators=((SMALL, Operator.COPY),))],
        )
