"""The delta form's two writers: they write the same, what they write is short, and what they refuse."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fengshou.codecs import DeltaWriter, MessageCodec, _delta
from fengshou.protocol import elements as de
from fengshou.protocol.delta import ReferenceDeltaWriter
from fengshou.protocol.elements import Element, Kind
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.history import Acknowledged, History
from fengshou.protocol.limits import DELTA_WINDOW, FRAME_BYTES_MAX
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.operators import Operator
from fengshou.protocol.session import DeltaForm, TerminalSession
from fengshou.protocol.templates import Grammar, Template, required
from fengshou.terminals.trades import read_trades
from tests.codecs.delta_talk import (
    COMPILED,
    DIFFERENCE,
    DIGITS,
    DIGITS_OR_NONE,
    EVERYTHING,
    GOODS,
    GRAMMAR,
    LETTERS,
    OTHER,
    PLAIN,
    SIGNATURE,
    SMALL,
    TIMES,
    VALUES,
    WORDS,
    Talk,
    Writers,
    stated,
    unframed,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/purchases.csv"


def test_the_compiled_writer_is_loaded() -> None:
    assert _delta.__file__.endswith(".so")


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


@settings(deadline=None, max_examples=300)
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
    talk.frame(1, {**GOODS, LETTERS: "aa", DIFFERENCE: alike})
    talk.frame(2, {**GOODS, LETTERS: "bb", DIFFERENCE: near})
    frame = talk.frame(3, {**GOODS, LETTERS: "aa", DIFFERENCE: now})
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
    writer.keep(Message(EVERYTHING.id, Flag.SIGNED, 1, dict(GOODS), SIGNATURE))
    message = Message(EVERYTHING.id, Flag.SIGNED, 2, {**GOODS, **changes}, SIGNATURE)
    forms: list[DeltaForm] = [writer, ReferenceDeltaWriter(GRAMMAR)]
    sessions = [TerminalSession(COMPILED, bytes(32), bytes(32), {}, form) for form in forms]
    for session in sessions:
        session._delta_granted = True
    in_session = [partial(session.frame, signature=SIGNATURE) for session in sessions]
    for write in (writer.keep, writer.frame, writer.body, *in_session):
        with pytest.raises(UntrustedBytesError) as caught:
            write(message)
        assert (caught.value.error, caught.value.field) == (error, field)
    message.values = {**GOODS, DIFFERENCE: 6}
    frame = writer.frame(message)
    assert frame is not None
    assert unframed(frame)[3] == 1  # the base is still there, and nothing else was kept


def test_a_template_without_a_delta_form_has_no_difference() -> None:
    message = Message(PLAIN.id, Flag.SIGNED, 1, dict(GOODS), SIGNATURE)
    for writer in (ReferenceDeltaWriter(GRAMMAR), DeltaWriter(COMPILED)):
        assert [writer.writes(template) for template in (EVERYTHING.id, PLAIN.id, 0, 64, -1)] == [True] + 4 * [False]
        for write in (writer.keep, writer.frame, writer.body):
            with pytest.raises(KeyError):
                write(message)


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
