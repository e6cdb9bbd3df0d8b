"""The core of the link without a clock: numbering, and deadlines in any order."""

from hypothesis import given
from hypothesis import strategies as st

from fengshou.protocol.service import Iso8583Call
from fengshou.routing.deadlines import NEVER
from fengshou.routing.destination import Trace
from fengshou.routing.iso8583_matching import Flight, InFlight, request_fields
from tests.routing.iso8583.scripted import RECEIVED_US, outbound

TRACE = Trace(532800123456, RECEIVED_US, "POS00001", "MERCHANT0000001", 1020000)


def test_the_trace_fills_what_the_call_leaves_out() -> None:
    assert request_fields(Iso8583Call(200, {3: "000000"}), TRACE) == {
        0: "0200",
        3: "000000",
        7: "1124135959",
        11: "123456",
        12: "135959",
        13: "1124",
        32: "01020000",
        37: "532800123456",
        41: "POS00001",
        42: "MERCHANT0000001",
        49: "156",
    }


def test_a_call_s_own_fields_win_and_a_repeat_differs_in_the_mti_alone() -> None:
    call = Iso8583Call(420, {37: "532800000001", 12: "080000", 13: "1123", 49: "344"})
    first = request_fields(call, TRACE)
    assert {number: first[number] for number in call.fields} == call.fields
    repeat = request_fields(call, Trace(**{**{s: getattr(TRACE, s) for s in TRACE.__slots__}, "repeat": True}))
    assert repeat == {**first, 0: "0421"}


def fly(in_flight: InFlight, rrn: int, deadline: float, line: object = None) -> Flight:
    sent = outbound(rrn, deadline)
    assert isinstance(sent.call, Iso8583Call)
    flight = in_flight.add(request_fields(sent.call, sent.trace), b"", sent, line)
    assert flight is not None
    flight.sent = True
    return flight


def answer(rrn: int) -> dict[int, str | bytes]:
    return {0: "0210", 11: f"{rrn:06d}", 37: f"{rrn:012d}", 41: "POS00001"}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 30)),  # with a deadline so much later than now
        st.tuples(st.just("answer"), st.integers(0, 40)),  # to the call of that number
        st.tuples(st.just("time"), st.integers(1, 15)),
        st.tuples(st.just("lose"), st.integers(0, 1)),
    ),
    max_size=60,
)


@given(steps=steps)
def test_deadlines_in_any_order_agree_with_a_plain_model(steps: list[tuple[str, int]]) -> None:
    in_flight = InFlight((11, 37, 41), 1000)
    model: dict[int, tuple[float, int]] = {}  # open calls: deadline and line
    late: set[int] = set()
    now, count = 0.0, 0
    for what, number in steps:
        match what:
            case "call":
                count += 1
                line = count % 2
                fly(in_flight, count, now + number, line)
                model[count] = (now + number, line)
            case "answer":
                taken = in_flight.take(answer(number))
                if number in model:
                    assert isinstance(taken, Flight)
                    assert taken.outbound.token == number
                    del model[number]
                else:
                    assert (taken is not None) is (number in late)
                    late.discard(number)
            case "time":
                now += number
                overdue = {rrn for rrn, (deadline, _) in model.items() if deadline <= now}
                expired = [flight.outbound for flight in in_flight.expire(now)]
                assert {out.token for out in expired} == overdue
                assert [out.deadline for out in expired] == sorted(out.deadline for out in expired)
                late |= overdue
                for rrn in overdue:
                    del model[rrn]
            case "lose":
                lost = {rrn for rrn, (_, line) in model.items() if line == number}
                assert {flight.outbound.token for flight in in_flight.lose(number)} == lost
                late |= lost
                for rrn in lost:
                    del model[rrn]
        assert len(in_flight) == len(model)
        assert in_flight.next_due() == min((deadline for deadline, _ in model.values()), default=NEVER)


def test_answered_calls_leave_nothing_behind() -> None:
    in_flight = InFlight((11, 37, 41), 1000)
    fly(in_flight, 1, 50.0)
    in_flight.take(answer(1))
    for rrn in range(2, 1000):
        fly(in_flight, rrn, float(rrn))
        in_flight.take(answer(rrn))
        in_flight.next_due()
    assert len(in_flight._deadlines) == 0
