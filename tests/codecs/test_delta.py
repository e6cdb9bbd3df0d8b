"""The delta form: two readers that agree on every frame, two writers that write the same, and what it saves."""

import random
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fengshou.codecs import DeltaWriter, MessageCodec, _delta, _message
from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.protocol import elements as de
from fengshou.protocol.delta import ReferenceDeltaWriter
from fengshou.protocol.elements import Element, Kind, Privacy
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.history import Acknowledged, History
from fengshou.protocol.limits import DELTA_WINDOW, FRAME_BYTES_MAX, UINT_MAX
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.operators import Operator
from fengshou.protocol.session import DeltaForm, TerminalSession
from fengshou.protocol.templates import SIGN_IN, Grammar, GrammarError, Template, layout, optional, required
from fengshou.terminals.trades import read_trades

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/purchases.csv"
SIGNATURE = bytes(range(64))

# Every operator on every kind that it fits, at small bounds, so that arithmetic leaves them often.
ELEMENTS = (
    Element(113, 0, "small", "", Kind.N, maximum=9),
    Element(113, 1, "difference", "", Kind.N, maximum=300),
    Element(113, 2, "number", "", Kind.Z, maximum=300),
    Element(113, 3, "digits", "", Kind.D, size=200),
    Element(113, 4, "letters", "", Kind.AN, size=2),
    Element(113, 5, "words", "", Kind.ANS, size=12),
    Element(113, 6, "blob", "", Kind.BV, size=300),
    Element(113, 7, "digits or none", "", Kind.D, size=6),
    Element(113, 8, "words or none", "", Kind.ANS, size=200),
    Element(113, 9, "hidden", "", Kind.B, size=4, privacy=Privacy.C3),
)
SMALL, DIFFERENCE, NUMBER, DIGITS, LETTERS, WORDS, BLOB, DIGITS_OR_NONE, WORDS_OR_NONE, HIDDEN = (
    element.key for element in ELEMENTS
)
EVERYTHING = Template(
    40,
    "everything",
    200,
    layout(
        required(
            de.AMOUNT, de.STAN, de.LOCAL_TIME, de.WEIGHT, de.UNIT_PRICE, SMALL, DIFFERENCE, NUMBER, DIGITS, LETTERS,
            WORDS, BLOB,
        ),
        optional(de.TOWN, DIGITS_OR_NONE, WORDS_OR_NONE),
    ),
    (),
    operators=(
        (de.AMOUNT, Operator.DERIVED), (de.STAN, Operator.INCREMENT), (de.LOCAL_TIME, Operator.CLOCK),
        (de.WEIGHT, Operator.PLAIN), (SMALL, Operator.INCREMENT), (DIFFERENCE, Operator.DELTA),
        (DIGITS, Operator.TAIL), (WORDS, Operator.TAIL), (DIGITS_OR_NONE, Operator.TAIL),
        (WORDS_OR_NONE, Operator.TAIL),
    ),
)  # fmt: skip
OTHER = Template(41, "another", 200, EVERYTHING.request, (), operators=EVERYTHING.operators)
PLAIN = Template(42, "without operators", 200, EVERYTHING.request, ())
GRAMMAR = Grammar(ELEMENTS, (EVERYTHING, OTHER, PLAIN, FARM_PURCHASE))
REFERENCE, COMPILED = ReferenceCodec(GRAMMAR), MessageCodec(GRAMMAR)

TIMES = st.builds(lambda h, m, s: h * 10_000 + m * 100 + s, st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
VALUES = st.fixed_dictionaries(
    {
        de.AMOUNT: st.integers(0, 200),
        de.STAN: st.integers(1, 999_999),
        de.LOCAL_TIME: TIMES | st.integers(0, 235_959),
        de.WEIGHT: st.integers(0, 60) | st.just(100_000_000),
        de.UNIT_PRICE: st.integers(0, 300) | st.just(100_000_000),
        SMALL: st.integers(0, 9),
        DIFFERENCE: st.integers(0, 300),
        NUMBER: st.integers(-300, 300),
        DIGITS: st.sampled_from(["1", "12345", "12346", "123", "9" * 140, "9" * 139 + "8"]),
        LETTERS: st.sampled_from(["ab", "ac"]),
        WORDS: st.sampled_from(["", "丰收", "丰妆", "abc", "abd", "äb"]),
        BLOB: st.binary(max_size=4),
    },
    optional={
        de.TOWN: st.integers(0, 3),
        DIGITS_OR_NONE: st.sampled_from(["1", "12", "13"]),
        WORDS_OR_NONE: st.sampled_from(["", "a", "b" * 150, "b" * 149 + "c"]),
    },
)


def stated(message: Message) -> bytes:
    return bytes((message.template,)) + COMPILED.encode_body(message.template, False, message.values)


def unframed(frame: bytes) -> bytes:
    return frame[1 if frame[0] < 0x80 else 2 :]


def outcome(codec: Any, frame: bytes, history: History) -> tuple[str, str]:
    try:
        return "returned", repr(codec.decode(frame, history))
    except UntrustedBytesError as error:
        return error.error.name, error.field


def assert_twins(frame: bytes, history: History) -> tuple[str, str]:
    expected = outcome(REFERENCE, frame, history)
    assert outcome(COMPILED, frame, history) == expected
    return expected


class Writers:
    """The two twins, which must write the same."""

    def __init__(self, codec: MessageCodec = COMPILED, grammar: Grammar = GRAMMAR) -> None:
        self.reference, self.compiled = ReferenceDeltaWriter(grammar), DeltaWriter(codec)

    def keep(self, message: Message) -> None:
        self.reference.keep(message)
        self.compiled.keep(message)

    def clear(self) -> None:
        self.reference.clear()
        self.compiled.clear()

    def frame(self, message: Message) -> bytes | None:
        body, frame = self.reference.body(message), self.reference.frame(message)
        assert self.compiled.body(message) == body
        assert self.compiled.frame(message) == frame
        return frame


class Talk:
    """Both ends of a session in which everything is answered at once."""

    def __init__(self) -> None:
        self.writer = Writers()
        self.history = History()
        self.last: Message | None = None

    def frame(self, sequence: int, values: dict[int, Any], template: int = EVERYTHING.id) -> bytes | None:
        """The delta of a request, which is then acknowledged."""
        message = Message(template, Flag.SIGNED, sequence, values, SIGNATURE)
        frame = self.writer.frame(message)
        self.history.keep(sequence, stated(message))
        self.writer.keep(message)
        self.last = message
        return frame


def test_the_compiled_codec_and_writer_are_loaded() -> None:
    assert _message.__file__.endswith(".so")
    assert _delta.__file__.endswith(".so")


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


# What a pool of requests and changes of them come to: so are goods, accounts and cards met again.
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        de.LOCAL_TIME: TIMES | st.integers(0, 235_959), DIFFERENCE: st.integers(0, 300),
        DIGITS: st.sampled_from(["1", "2", "12345", "12355", "123456", "123457"]),
        WORDS: st.sampled_from(["abc", "abd", "丰收"]), DIGITS_OR_NONE: st.sampled_from(["12", "13"]),
    },
)  # fmt: skip
STEPS = st.tuples(
    st.sampled_from([1, 1, 1, 2, 40, DELTA_WINDOW - 1, DELTA_WINDOW, DELTA_WINDOW + 1]),
    st.integers(0, 2),
    CHANGES,
    st.sampled_from([EVERYTHING.id, EVERYTHING.id, OTHER.id]),
    st.sampled_from(["answered", "answered", "answered", "late", "lost", "all lost"]),
)


@settings(deadline=None, max_examples=500)
@given(st.lists(VALUES, min_size=3, max_size=3), st.lists(STEPS, max_size=12))
def test_both_writers_choose_the_same_whatever_is_answered(pool: list[Any], steps: list[Any]) -> None:
    writers, sequence, late = Writers(), 0, []
    for gap, place, changes, template, fate in steps:
        sequence += gap
        message = Message(template, Flag.SIGNED, sequence, {**pool[place], **changes}, SIGNATURE)
        writers.frame(message)
        if fate == "answered":
            for known in (message, *late):
                writers.keep(known)
            late.clear()
        elif fate == "late":
            late.append(message)
        elif fate == "all lost":
            writers.clear()


@pytest.mark.parametrize(
    ("alike", "near", "now", "distance"),
    [
        (5, 9, 9, 2),      # a byte of difference, instead of two letters
        (5, 105, 105, 1),  # two letters, which is as short as two bytes of difference
    ],
)  # fmt: skip
def test_the_shortest_is_chosen_and_of_two_the_nearest(alike: int, near: int, now: int, distance: int) -> None:
    talk = Talk()
    talk.frame(1, {**_GOODS, LETTERS: "aa", DIFFERENCE: alike})
    talk.frame(2, {**_GOODS, LETTERS: "bb", DIFFERENCE: near})
    frame = talk.frame(3, {**_GOODS, LETTERS: "aa", DIFFERENCE: now})
    assert frame is not None
    assert unframed(frame)[3] == distance


def test_a_difference_that_would_be_no_frame_any_more_is_none() -> None:
    """Longer than the whole, by a byte each for distance, bits and the missing tail."""
    text = Element(113, 0, "long text", "", Kind.ANS, size=FRAME_BYTES_MAX)
    template = Template(40, "long", 200, required(text.key), (), operators=((text.key, Operator.TAIL),))
    grammar = Grammar([text], [template])
    for size, fits in ((FRAME_BYTES_MAX - 72, True), (FRAME_BYTES_MAX - 71, False)):
        writers = Writers(MessageCodec(grammar), grammar)
        writers.keep(Message(40, Flag.SIGNED, 1, {text.key: ""}, SIGNATURE))
        frame = writers.frame(Message(40, Flag.SIGNED, 2, {text.key: "x" * size}, SIGNATURE))
        assert (frame is not None) is fits
        assert not fits or len(unframed(frame or b"")) == FRAME_BYTES_MAX


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({DIFFERENCE: 301}, WireError.VALUE_OUT_OF_RANGE, "DE 113.1"),
        ({DIFFERENCE: "5"}, WireError.VALUE_OUT_OF_RANGE, "DE 113.1"),
        ({SMALL: True}, WireError.VALUE_OUT_OF_RANGE, "DE 113"),
        ({DIGITS: "12a"}, WireError.TEXT_MALFORMED, "DE 113.3"),
        ({WORDS: "\ud800"}, WireError.TEXT_MALFORMED, "DE 113.5"),
        ({de.PAN: "1"}, WireError.UNKNOWN_FIELD, "DE 2"),
    ],
)  # fmt: skip
def test_what_is_outside_the_grammar_is_not_written(changes: Any, error: WireError, field: str) -> None:
    writer = DeltaWriter(COMPILED)
    writer.keep(Message(EVERYTHING.id, Flag.SIGNED, 1, dict(_GOODS), SIGNATURE))
    message = Message(EVERYTHING.id, Flag.SIGNED, 2, {**_GOODS, **changes}, SIGNATURE)
    forms: list[DeltaForm] = [writer, ReferenceDeltaWriter(GRAMMAR)]
    sessions = [TerminalSession(COMPILED, bytes(32), bytes(32), {}, form) for form in forms]
    for session in sessions:
        session._delta_granted = True
    in_session = [partial(session.frame, signature=SIGNATURE) for session in sessions]
    for write in (writer.keep, writer.frame, writer.body, *in_session):
        with pytest.raises(UntrustedBytesError) as caught:
            write(message)
        assert (caught.value.error, caught.value.field) == (error, field)
    message.values = {**_GOODS, DIFFERENCE: 6}
    frame = writer.frame(message)
    assert frame is not None
    assert unframed(frame)[3] == 1  # the base is still there, and nothing else was kept


def test_a_template_without_a_delta_form_has_no_difference() -> None:
    message = Message(PLAIN.id, Flag.SIGNED, 1, dict(_GOODS), SIGNATURE)
    for writer in (ReferenceDeltaWriter(GRAMMAR), DeltaWriter(COMPILED)):
        assert [writer.writes(template) for template in (EVERYTHING.id, PLAIN.id, 0, 64, -1)] == [True] + 4 * [False]
        for write in (writer.keep, writer.frame, writer.body):
            with pytest.raises(KeyError):
                write(message)


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

_GOODS = {
    de.AMOUNT: 6, de.STAN: 7, de.LOCAL_TIME: 235_900, de.WEIGHT: 2, de.UNIT_PRICE: 300, SMALL: 8, DIFFERENCE: 5,
    NUMBER: 0, DIGITS: "12345", LETTERS: "ab", WORDS: "丰收", BLOB: b"",
}  # fmt: skip
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
    talk.frame(1, dict(_GOODS))
    frame = bytes((0x40 | EVERYTHING.id, Flag.SIGNED | Flag.DELTA, 2)) + distance + bytes.fromhex(bits) + said
    found = assert_twins(frame + (SIGNATURE if error != "TRUNCATED" else b""), talk.history)
    assert found[0] == error
    if field:
        assert found[1] == field


def test_what_is_derived_must_fit() -> None:
    talk = Talk()
    talk.frame(1, {**_GOODS, de.UNIT_PRICE: 100_000_000})
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


def test_a_terminal_names_nothing_that_the_switch_has_forgotten() -> None:
    known = Acknowledged()
    known.keep(1, 40, {DIGITS: "12345"})
    assert list(known.before(DELTA_WINDOW + 1, 40)) == [(DELTA_WINDOW, {DIGITS: "12345"})]
    assert not list(known.before(DELTA_WINDOW + 1, 41))
    assert not list(known.before(DELTA_WINDOW + 2, 40))
    for sequence in range(2, 10 * DELTA_WINDOW):
        known.keep(sequence, 40, {DIGITS: str(sequence)})
    assert [distance for distance, _ in known.before(10 * DELTA_WINDOW, 40)] == list(range(1, DELTA_WINDOW + 1))


def test_answers_that_come_late_do_not_make_an_old_request_the_newest() -> None:
    known = Acknowledged()
    known.keep(9, 40, {DIGITS: "1"})
    known.keep(4, 40, {DIGITS: "1"})
    assert [distance for distance, _ in known.before(10, 40)] == [1, 6]


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


# What it saves -------------------------------------------------------------------------------------------------------


def test_a_purchase_in_steady_state_takes_84_bytes_and_a_whole_one_at_most_120() -> None:
    """The season of the examples, a session a terminal, each request answered before the next."""
    sessions: dict[str, tuple[TerminalSession, History]] = {}
    stans: defaultdict[str, int] = defaultdict(int)
    wholes, deltas = [], []
    for trade in read_trades(EXAMPLES, "farm-purchase"):
        if trade.terminal not in sessions:
            session = TerminalSession(COMPILED, bytes(32), bytes(32), {1: True}, DeltaWriter(COMPILED))
            session._delta_granted = True
            sessions[trade.terminal] = session, History()
        session, history = sessions[trade.terminal]
        stans[trade.terminal] += 1
        message, _ = session.prepare(1, {de.STAN: stans[trade.terminal], **trade.values})
        frame = session.frame(message, SIGNATURE)
        wholes.append(len(COMPILED.encode(message)))
        if frame[1] & 0x3F == 1 and frame[2] & Flag.DELTA:
            deltas.append(len(frame))
        assert COMPILED.decode(unframed(frame), history) == message
        history.keep(message.sequence, stated(message))
        session.receive(
            COMPILED.encode(Message(1, Flag.RESPONSE, message.sequence, {de.RESPONSE_CODE: "00", de.RRN: 1}))
        )
    assert max(wholes) <= 120
    assert len(wholes) - len(deltas) == len(sessions)  # only the first of each session is whole
    assert sum(deltas) / len(deltas) < 84
    # A farmer, a card and a lot that all come for the first time in one purchase do not fit 96 bytes.
    assert sum(size > 96 for size in deltas) <= 11
    assert max(deltas) <= 106
