"""What the tests of the delta form share: a grammar with every operator, requests of it, and both ends of a session."""

from typing import Any

from hypothesis import strategies as st

from fengshou.codecs import DeltaWriter, MessageCodec
from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.protocol import elements as de
from fengshou.protocol.delta import ReferenceDeltaWriter
from fengshou.protocol.elements import Element, Kind, Privacy
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.history import History
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.operators import Operator
from fengshou.protocol.templates import Grammar, Template, layout, optional, required

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
GOODS = {
    de.AMOUNT: 6, de.STAN: 7, de.LOCAL_TIME: 235_900, de.WEIGHT: 2, de.UNIT_PRICE: 300, SMALL: 8, DIFFERENCE: 5,
    NUMBER: 0, DIGITS: "12345", LETTERS: "ab", WORDS: "丰收", BLOB: b"",
}  # fmt: skip


def stated(message: Message) -> bytes:
    return bytes((message.template,)) + COMPILED.encode_body(message.template, False, message.values)


def unframed(frame: bytes) -> bytes:
    return frame[1 if frame[0] < 0x80 else 2 :]


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
