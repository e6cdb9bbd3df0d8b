"""Purchases as differences to earlier ones, against a real switch: what is granted, lost, replayed and bent."""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
import trio

from fengshou.protocol import elements as de
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.record import RecordKind
from fengshou.protocol.templates import ERROR, SIGN_IN
from fengshou.terminals.fleet import FleetPlan, run_fleet
from fengshou.terminals.identity import Counters
from fengshou.terminals.trades import Trade
from tests.switch.line import Line, code_of
from tests.switch.town import FARMER, PAN, TERMINALS, Town, purchase


@pytest.fixture
def line(town: Town) -> Iterator[Line]:
    with Line(town, TERMINALS[1], delta=True).sign_in() as line:
        yield line


def say(line: Line, message: Message) -> Message:
    return line.say(line.shortest(message), message.sequence)


def in_delta(frame: bytes | bytearray) -> bool:
    return bool(frame[2 if frame[0] < 0x80 else 3] & Flag.DELTA)


def based(line: Line) -> None:
    """One purchase that is answered, to which others may refer."""
    assert code_of(say(line, line.message("farm-purchase", purchase()))) == "00"


def test_three_hundred_purchases_of_a_session_are_recorded_as_if_they_had_been_sent_whole(
    town: Town, line: Line
) -> None:
    draw, first, sent, sizes = Random(7), town.next_record(), {}, []
    for number in range(300):
        values = purchase(draw.randint(10, 20_000), GRADE=draw.randint(1, 2), LOCAL_TIME=70_000 + number % 60)
        if draw.random() < 0.2:
            values |= {de.LOT: f"BA{draw.randint(1, 9):03d}"}
        if draw.random() < 0.1:
            values |= {de.PAN: PAN, de.ENTRY_MODE: 52}
        message = line.message("farm-purchase", values)
        frame = line.shortest(message)
        assert in_delta(frame) == (number > 0)
        sizes.append(len(frame))
        assert code_of(line.say(frame, message.sequence)) == "00"
        sent[message.values[de.STAN]] = message.values
    assert sum(sizes[1:]) / 299 < 84
    intents = town.records(first, RecordKind.INTENT)
    assert len(intents) == 300
    for record in intents:
        kept = town.recorder.values(record)
        assert sent[record.stan].items() <= kept.items()
    town.settle()
    town.require_truth()


def test_answers_that_got_lost_only_make_frames_longer(line: Line) -> None:
    """What was not acknowledged is no base: many on their way at once are all sent against the last that is."""
    based(line)
    frames, messages = [], [line.message("farm-purchase", purchase(100 + number)) for number in range(40)]
    for message in messages:
        frames.append(line.shortest(message))
    assert all(map(in_delta, frames))
    line.post(b"".join(frames))
    assert Counter(code_of(answer) for answer in line.answers(40)) == {"00": 40}


def test_a_base_that_the_switch_never_had_is_answered_r0_and_the_whole_is_taken(town: Town, line: Line) -> None:
    based(line)
    first = town.next_record()
    ghost = line.message("farm-purchase", purchase(777))  # numbered and never sent
    assert line.session._delta is not None
    line.session._delta.keep(ghost)
    message = line.message("farm-purchase", purchase(778))
    frame = line.shortest(message)
    assert in_delta(frame)
    answer = line.say(frame, message.sequence)
    assert (answer.template, code_of(answer)) == (ERROR.id, "R0")
    assert town.reasons(first) == {("R0", "base-lost"): 1}
    again, digest = line.session.prepare(message.template, message.values, repeat=True)
    again.signature = line._signer.sign(digest)
    whole = line.shortest(again)
    assert not in_delta(whole)
    assert code_of(line.say(whole, again.sequence)) == "00"
    based(line)
    assert in_delta(line.shortest(line.message("farm-purchase", purchase(779))))


def test_another_base_than_the_switchs_shows_in_the_signature(town: Town, line: Line) -> None:
    based(line)
    first = town.next_record()
    assert line.session._delta is not None
    line.session._delta.clear()
    wrong = Message(1, Flag.SIGNED, line.session._sequence, {**purchase(), de.STAN: line.last_stan, de.GRADE: 1})
    line.session._delta.keep(wrong)
    message = line.message("farm-purchase", purchase(500, GRADE=1))
    answer = say(line, message)
    assert (answer.template, code_of(answer)) == (1, "R0")
    assert town.reasons(first) == {("R0", "signature does not verify"): 1}
    assert not town.records(first, RecordKind.INTENT)


def test_a_repeat_in_the_other_form_is_the_same_content(line: Line) -> None:
    based(line)
    message = line.message("farm-purchase", purchase(345))
    first = say(line, message)
    assert code_of(first) == "00"
    for whole in (True, False, True):
        again, digest = line.session.prepare(message.template, message.values, repeat=True)
        again.signature = line._signer.sign(digest)
        frame = line.codec.encode(again) if whole else line.shortest(again)
        assert in_delta(frame) is not whole
        assert line.body(line.say(frame, again.sequence)) == line.body(first)
    changed = {**message.values, de.GRADE: 1}
    again, digest = line.session.prepare(message.template, changed)
    again.signature = line._signer.sign(digest)
    assert code_of(line.say(line.shortest(again), again.sequence)) == "94"


def test_a_replayed_delta_is_refused(line: Line) -> None:
    based(line)
    message = line.message("farm-purchase", purchase(346))
    frame = line.shortest(message)
    assert in_delta(frame)
    line.post(frame + frame)
    assert [code_of(answer) for answer in line.answers_in_order(2)].count("63") == 1


def test_a_new_connection_remembers_nothing(town: Town) -> None:
    with Line(town, TERMINALS[2], delta=True).sign_in() as line:
        based(line)
        kept = line.session._delta
        batch = line.batch
    with Line(town, TERMINALS[2], delta=True).sign_in_to(batch) as line:
        line.last_stan = 100
        assert not in_delta(line.shortest(line.message("farm-purchase", purchase(1))))
        line.session._delta = kept  # of the old connection
        line.session._sequence = 5
        answer = say(line, line.message("farm-purchase", purchase(2)))
        assert code_of(answer) == "R0"


def test_a_second_sign_in_forgets_and_one_that_does_not_ask_ends_the_form(town: Town, line: Line) -> None:
    based(line)
    based(line)
    bare = line.session._delta
    line.session._delta = None
    line.sign_in_to(line.batch)
    line.session._delta = bare
    message = line.message("farm-purchase", purchase(3))
    line.session._delta_granted = True  # a terminal that goes on as before
    frame = line.shortest(message)
    assert in_delta(frame)
    answer = line.say(frame, message.sequence)
    assert (answer.template, code_of(answer)) == (ERROR.id, "30")
    line.sign_in_to(line.batch)
    assert not in_delta(line.shortest(line.message("farm-purchase", purchase(4))))


@pytest.mark.parametrize("asks", [True, False])
def test_the_answer_to_a_sign_in_says_what_is_granted(town: Town, asks: bool) -> None:
    with Line(town, TERMINALS[3], delta=asks) as line:
        request = line.message(SIGN_IN.name, line.sign_in_values(0))
        answer = line.say(line.codec.encode(request), request.sequence)
        assert bool(answer.flags & Flag.DELTA) is asks
        refused = line.message(SIGN_IN.name, line.sign_in_values(0, MERCHANT="999999999999999"))
        answer = line.say(line.codec.encode(refused), refused.sequence)
        assert not answer.flags & Flag.DELTA
        assert code_of(answer) == "03"


def test_every_single_bit_of_a_delta_counts(town: Town, line: Line) -> None:
    """Whatever is bent: refused, nothing done. The bits of the length are not flipped: they move the next frame."""
    delta = line.session._delta
    assert delta is not None
    first, bit, bits, bases = town.next_record(), 0, 8, 0
    codes: Counter[str] = Counter()
    while bit < bits:
        base = line.message("farm-purchase", purchase(1_000))
        assert code_of(line.say(line.codec.encode(base), base.sequence)) == "00"
        bases += 1
        frames = []
        for _ in range(60):  # well within the reach of the base
            delta.clear()
            delta.keep(base)
            message = line.message("farm-purchase", purchase(2_345))
            frame = bytearray(line.shortest(message))
            assert in_delta(frame)
            bits = (len(frame) - 1) * 8
            frame[1 + bit % bits // 8] ^= 0x80 >> bit % 8
            frames.append(bytes(frame))
            bit += 1
        line.post(b"".join(frames))
        codes.update(map(code_of, line.answers_in_order(60)))
    assert set(codes) <= {"22", "30", "40", "63", "R0"}, codes
    assert len(town.records(first, RecordKind.INTENT)) == bases


def test_the_client_speaks_it_and_survives_a_lost_base(town: Town) -> None:
    async def trades() -> None:
        async with town.client(TERMINALS[4], Counters()) as client:
            for number in range(1, 30):
                response = await client.trade("farm-purchase", purchase(number * 10, TO_ACCOUNT=FARMER))
                assert response.code == "00"
                if number == 20:  # the client believes that the switch has what it never had
                    session = client._link.session
                    session._delta.keep(Message(1, Flag.SIGNED, session._sequence + 1, dict(response.request.values)))
                    session._sequence += 1
            assert client._link.session._delta_granted

    first = town.next_record()
    trio.run(trades)
    assert town.reasons(first) == {("R0", "base-lost"): 1}


def test_a_fleet_sends_fewer_bytes_with_it_than_without(town: Town) -> None:
    homes = tuple(str(town.home(terminal).folder) for terminal in TERMINALS[7:9])
    trades = [Trade("farm-purchase", purchase(100 + number), expect="00") for number in range(60)]
    sent = {}
    for delta in (False, True):
        plan = FleetPlan(homes=homes, delta=delta, in_flight=2)
        result = run_fleet(plan, town.catalogue.grammar, trades, lambda progress: None)
        assert (result.answered, result.surprises, result.retries) == (60, [], 0)
        sent[delta] = result.frame_bytes_up
    assert sent[True] < sent[False] - 60 * 12
