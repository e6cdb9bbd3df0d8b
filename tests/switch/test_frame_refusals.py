"""Frames and messages that grammar, session or signature refuse: each gets its code and goes no further."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio

from fengshou.codecs import PrivateKey
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_SIGN_IN, Flag
from fengshou.protocol.record import RecordKind
from fengshou.protocol.templates import ERROR
from tests.switch.line import Closed, Line, code_of
from tests.switch.town import TERMINALS, Town, enquiry, purchase, trade_now


@pytest.fixture
def line(town: Town) -> Iterator[Line]:
    with Line(town, TERMINALS[0]).sign_in() as line:
        yield line


@contextmanager
def nothing_done(town: Town) -> Iterator[None]:
    """No request of the block becomes an intent, and the books do not change."""
    before, first = town.books()["transactions"], town.next_record()
    yield
    assert not town.records(first, RecordKind.INTENT)
    assert town.books()["transactions"] == before


def framed(body: bytes) -> bytes:
    """Put the length in front."""
    size = len(body)
    return (bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))) + body


def body_of(frame: bytes) -> bytes:
    return frame[2:] if frame[0] & 0x80 else frame[1:]


# Frames that mean nothing: the session goes on, because where the next one begins is known ---------------------------

Wound = Callable[[bytes], bytes]

WOUNDS: list[tuple[str, str, Wound]] = [
    ("another version",           "unknown-version",       lambda body: bytes((body[0] ^ 0xC0,)) + body[1:]),
    ("no such template",          "unknown-template",      lambda body: b"\x6e" + body[1:]),
    ("template 0",                "unknown-template",      lambda body: b"\x40" + body[1:]),
    ("a reserved flag",           "unknown-flag",          lambda body: bytes((body[0], body[1] | 0x08)) + body[2:]),
    ("the delta form",            "form-unsupported",      lambda body: bytes((body[0], body[1] | 0x20)) + body[2:]),
    ("without a signature",       "signature-missing",     lambda body: bytes((body[0], body[1] ^ 0x40)) + body[2:-64]),
    ("a presence bit too many",   "unknown-field at",      lambda body: body[:3] + bytes((body[3] | 0x01,)) + body[4:]),
    ("one byte too few",          "truncated",             lambda body: body[:-1]),
    ("half of it",                "truncated",             lambda body: body[: len(body) // 2]),
    ("one byte too many",         "trailing-bytes",        lambda body: body + b"\x00"),
    ("two messages in one frame", "trailing-bytes",        lambda body: body + body),
    ("a sequence with padding",   "varint-malformed",      lambda body: body[:2] + b"\x83\x00" + body[3:]),
    ("a sequence without an end", "varint-malformed",      lambda body: body[:2] + b"\xff" * 10 + body[3:]),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "wound"), [row[1:] for row in WOUNDS], ids=[row[0] for row in WOUNDS])
def test_a_frame_that_breaks_the_grammar_gets_30(town: Town, line: Line, reason: str, wound: Wound) -> None:
    first = town.next_record()
    with nothing_done(town):
        message = line.message("farm-purchase", purchase())
        broken = wound(body_of(line.codec.encode(message)))
        line.post(framed(broken))
        response = next(iter(line.answers(1)))
        assert (response.template, code_of(response)) == (ERROR.id, "30")
    assert [code for code, why in town.reasons(first) if why.startswith(reason.removesuffix(" at"))] == ["30"]
    assert code_of(line.ask("farm-purchase", purchase())) == "00"  # the session goes on


@pytest.mark.parametrize(
    "length",
    [b"\x00", b"\x02\x52\x00", b"\xff\x7f", b"\x81\x40", b"\x80\x80\x01", b"\x85\x00", b"\x80\x00"],
    ids=["0", "2", "16383", "8193", "three bytes", "5 with padding", "0 with padding"],
)  # fmt: skip
def test_a_length_that_cannot_be_ends_the_connection(town: Town, line: Line, length: bytes) -> None:
    before = town.status()["closed"].get("frames malformed", 0)
    with nothing_done(town):
        line.post(length + bytes(10))
        line.wait_closed()
    assert town.status()["closed"]["frames malformed"] == before + 1


def test_every_single_bit_of_a_signed_purchase_counts(town: Town) -> None:
    """Each mutation is answered with a code of refusal or ends the connection; the host never hears of any."""
    codes: Counter[str] = Counter()
    with nothing_done(town), ExitStack() as lines:
        line = lines.enter_context(Line(town, TERMINALS[0]).sign_in())
        size = len(line.frame("farm-purchase", purchase()))
        for bit in range(8 * size):
            frame = bytearray(line.frame("farm-purchase", purchase()))
            assert len(frame) == size < 128
            frame[bit // 8] ^= 1 << bit % 8
            echo = line.message("echo", {})
            codes[_fate(line, bytes(frame), b"" if bit < 8 else line.codec.encode(echo))] += 1
            if bit >= 4 * 8:
                assert code_of(line.answer(echo.sequence)) == "00"
            # After length, head, flags or sequence the session may see all in another way; and sequences stay one byte.
            if bit < 4 * 8 or bit % 50 == 0:
                line = lines.enter_context(Line(town, TERMINALS[0]).sign_in())
    assert set(codes) == {"30", "63", "closed"}, codes
    assert codes["63"] > 8 * 64, codes  # every bit of the signature, and most of what it covers


def _fate(line: Line, mutated: bytes, echo: bytes) -> str:
    """The code that a mutated frame got, or that the connection was closed; it must not be passed over."""
    # A frame that claims to be longer swallows what follows, and zeros are no frame.
    line.post(mutated + (echo or bytes(256)))
    try:
        first = line.answers(1)[0]
    except Closed:
        return "closed"
    assert code_of(first) != "00"
    return code_of(first)


def test_a_frame_of_another_length_leaves_nothing_behind(town: Town, line: Line) -> None:
    """A frame in single bytes, each a record of its own, and ten frames in one record: the same to the switch."""
    frame = line.frame("farm-purchase", purchase())
    for at in range(len(frame)):
        line.post(frame[at : at + 1])
    assert code_of(line.answers(1)[0]) == "00"
    messages = [line.message("farm-purchase", purchase()) for _ in range(10)]
    line.post(b"".join(line.codec.encode(message) for message in messages))
    assert [code_of(line.answer(message.sequence)) for message in messages] == ["00"] * 10


# The session ---------------------------------------------------------------------------------------------------------


def test_a_replay_in_the_session_is_refused(town: Town, line: Line) -> None:
    first = town.next_record()
    message = line.message("farm-purchase", purchase())
    frame = line.codec.encode(message)
    assert code_of(line.say(frame, message.sequence)) == "00"
    assert code_of(line.say(frame, message.sequence)) == "63"
    assert code_of(line.ask("farm-purchase", purchase())) == "00"
    assert town.reasons(first) == {("63", "replay"): 1}


def test_an_older_sequence_is_refused_even_when_it_was_never_sent(town: Town, line: Line) -> None:
    early, late = line.message("farm-purchase", purchase()), line.message("farm-purchase", purchase())
    assert code_of(line.say(line.codec.encode(late), late.sequence)) == "00"
    assert code_of(line.say(line.codec.encode(early), early.sequence)) == "63"


def test_a_replay_in_another_session_is_refused(town: Town, line: Line) -> None:
    """The same bytes and sequence on another channel of the same terminal: the binding voids the signature."""
    message = line.message("farm-purchase", purchase())
    frame = line.codec.encode(message)
    assert code_of(line.say(frame, message.sequence)) == "00"
    first = town.next_record()
    with nothing_done(town), Line(town, TERMINALS[0]).sign_in() as later:
        while later.session.prepare(18, {})[0].sequence < message.sequence - 1:
            pass
        assert code_of(later.say(frame, message.sequence)) == "63"
    assert town.reasons(first) == {("63", "signature does not verify"): 1}


def test_a_sign_in_of_another_session_is_refused(town: Town) -> None:
    with Line(town, TERMINALS[0]) as line:
        request = line.message("sign-in", line.sign_in_values(0))
        frame = line.codec.encode(request)
        assert code_of(line.say(frame, request.sequence)) == "00"
    with Line(town, TERMINALS[0]) as later:
        assert code_of(later.say(frame, request.sequence)) == "63"
        later.message("echo", {})  # its sequence is used up by the replay
        assert code_of(later.ask("farm-purchase", purchase())) == "22"


def test_a_request_signed_by_another_key_is_refused(town: Town) -> None:
    first = town.next_record()
    with Line(town, TERMINALS[0]).sign_in() as line, nothing_done(town):
        line.become(PrivateKey.generate())
        assert code_of(line.ask("farm-purchase", purchase())) == "63"
        line.become(town.home(TERMINALS[1]).signer())
        assert code_of(line.ask("farm-purchase", purchase())) == "63"
    assert town.reasons(first) == {("63", "signature does not verify"): 2}


def test_another_terminals_certificate_cannot_sign_in(town: Town) -> None:
    """A genuine terminal that claims to be its neighbour."""
    first = town.next_record()
    own, neighbour = town.home(TERMINALS[0]), town.home(TERMINALS[1])
    with Line(town, TERMINALS[0], home=neighbour, context=own.context(), signer=own.signer()) as line:
        assert code_of(line.ask("sign-in", line.sign_in_values(0))) == "63"
        assert code_of(line.ask("farm-purchase", purchase())) == "22"
    assert town.reasons(first)["63", "the certificate names another terminal"] == 1


@pytest.mark.parametrize("template", ["farm-purchase", "receipt", "sign-off"])
def test_before_the_sign_in_everything_but_an_echo_is_told_to_sign_in(town: Town, template: str) -> None:
    values = {
        "farm-purchase": purchase(),
        "receipt": {de.ORIGINAL_BATCH: 1, de.ORIGINAL_STAN: 1},
        "sign-off": {},
    }[template]
    with Line(town, TERMINALS[0]) as line, nothing_done(town):
        response = line.ask(template, values)
        assert (code_of(response), response.command) == ("22", COMMAND_SIGN_IN)
        assert code_of(line.ask("echo", {})) == "00"


def test_a_response_from_a_terminal_is_refused(town: Town, line: Line) -> None:
    message = line.message("echo", {})
    message.flags = Flag.RESPONSE
    message.values = {de.RESPONSE_CODE: "00"}
    assert code_of(line.say(line.codec.encode(message), message.sequence)) == "30"
    assert code_of(line.ask("echo", {})) == "00"


def test_the_error_template_is_no_request(town: Town, line: Line) -> None:
    assert code_of(line.ask("error", {})) == "40"


def test_after_the_sign_off_nothing_of_the_same_record_counts(town: Town, line: Line) -> None:
    """Frames that follow a sign-off in one TLS record arrive in the same batch of the switch."""
    first = town.next_record()
    messages = [
        line.message("sign-off", {}),
        line.message("farm-purchase", purchase()),
        line.message("receipt", {de.ORIGINAL_BATCH: 1, de.ORIGINAL_STAN: 1}),
        line.message("sign-off", {}),
        line.message("echo", {}),
    ]
    with nothing_done(town):
        line.post(b"".join(line.codec.encode(message) for message in messages))
        assert [code_of(line.answer(message.sequence)) for message in messages] == ["00", "22", "22", "22", "00"]
    assert town.reasons(first) == {("22", "not signed in"): 3}
    trio.run(trade_now, town, TERMINALS[1])


def test_a_session_can_begin_again_after_its_sign_off(town: Town, line: Line) -> None:
    assert code_of(line.ask("sign-off", {})) == "00"
    assert code_of(line.ask("farm-purchase", purchase())) == "22"
    line.sign_in()
    assert code_of(line.ask("gov-enquiry", enquiry())) == "00"


# The rungs of the sign-in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("element", "value", "code"),
    [
        ("TERMINAL",     "TT999999",             "97"),
        ("TERMINAL",     "TT000002",             "63"),
        ("MERCHANT",     "000000000000000",      "03"),
        ("ACQUIRER",     1,                      "92"),
        ("SERIAL",       "SN99999999",           "97"),
        ("CREDIT_CODE",  "93370211FENG999999",   "03"),
        ("FROM_ACCOUNT", "9020000000000000",     "14"),
        ("CURRENCY",     840,                    "12"),
        ("APP",          "fengshou.other",       "58"),
        ("APP_VERSION",  "9.9",                  "58"),
        ("APP_MANIFEST", bytes(32),              "58"),
        ("BATCH",        999_999,                "77"),
    ],
)  # fmt: skip
def test_a_sign_in_that_differs_from_the_registry_is_refused(
    town: Town, element: str, value: int | str | bytes, code: str
) -> None:
    first = town.next_record()
    with Line(town, TERMINALS[0]) as line:
        response = line.ask("sign-in", line.sign_in_values(0, **{element: value}))
        assert code_of(response) == code
        assert line.ask("farm-purchase", purchase()).command == COMMAND_SIGN_IN
    (refusal,) = [record for record in town.records(first, RecordKind.REFUSAL) if record.template == 15]
    assert (refusal.code, refusal.terminal) == (code, TERMINALS[0])  # under the name that the certificate gives
