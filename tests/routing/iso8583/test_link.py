"""The ISO 8583 link against hosts that are silent, late, wrong, slow or gone: each call ends once, and rightly."""

from collections.abc import Sequence

import pytest
import trio

from fengshou.protocol.backend import Fields
from fengshou.routing.destination import Failure
from fengshou.routing.iso8583_link import Iso8583Link
from tests.routing.iso8583.scripted import (
    CODEC,
    Connection,
    Ends,
    ScriptedHost,
    answer_to,
    outbound,
    play,
    stay_silent,
    until,
)


async def is_up(link: Iso8583Link) -> None:
    await until(lambda: link.up)


def test_sign_on_traffic_echo_when_idle_and_sign_off() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(1, trio.current_time() + 5)])
        await until(lambda: ends.results == {1: "00"})
        await trio.sleep(31)
        assert host.network == ["001", "301"]
        await host.streams[0].send_all(CODEC.frame({0: "0800", 7: "1124000000", 11: "000009", 70: "301"}))
        await trio.sleep(1)
        assert host.network == ["001", "301", "answer 00"]

    host, link, _ = play(scenario)
    assert host.network == ["001", "301", "answer 00", "002"]
    assert (link.sent, link.answered, link.connects) == (1, 1, 1)


def test_a_batch_leaves_in_one_send_and_its_answers_arrive_together() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        sends = host.sends
        link.submit([outbound(rrn, trio.current_time() + 5) for rrn in range(1, 101)])
        await until(lambda: len(ends.results) == 100)
        assert host.sends == sends + 1
        assert host.reads == [100]
        assert ends.batches == [100]

    play(scenario)


def test_thousands_in_flight_answered_backwards() -> None:
    async def backwards(host: ScriptedHost, stream: Connection, requests: Sequence[Fields]) -> None:
        if len(host.requests) == 10_000:
            await stream.send_all(b"".join(answer_to(request) for request in reversed(host.requests)))

    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        for first in range(1, 10_001, 500):
            link.submit([outbound(rrn, trio.current_time() + 60) for rrn in range(first, first + 500)])
        assert link.in_flight == 10_000
        await until(lambda: len(ends.results) == 10_000)
        assert set(ends.results.values()) == {"00"}
        assert link.in_flight == 0

    play(scenario, behave=backwards, in_flight_max=10_000, lines=2)


def test_beyond_the_bound_a_call_is_refused_at_once() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(rrn, trio.current_time() + 5) for rrn in range(1, 13)])
        await trio.sleep(0)
        await until(lambda: ends.results == {11: Failure.BUSY, 12: Failure.BUSY})
        assert link.in_flight == 10

    _, _, ends = play(scenario, behave=stay_silent, in_flight_max=10)
    assert [ends.results[rrn] for rrn in range(1, 11)] == [Failure.UNKNOWN] * 10


def test_no_line_up_means_nothing_was_done() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        link.submit([outbound(1, trio.current_time() + 5)])
        await until(lambda: ends.results == {1: Failure.UNAVAILABLE})
        await is_up(link)
        assert link.connect_failures == 3

    def refuse_three(host: ScriptedHost) -> None:
        host.connects_refused = 3

    play(scenario, prepare=refuse_three)


@pytest.mark.parametrize("network_code", ["91", None])
def test_a_host_that_does_not_take_the_sign_on_is_not_used(network_code: str | None) -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await until(lambda: link.lost >= 2)
        assert not link.up
        link.submit([outbound(1, trio.current_time() + 5)])
        await until(lambda: ends.results == {1: Failure.UNAVAILABLE})
        host.network_code = "00"
        await is_up(link)

    def refuse(host: ScriptedHost) -> None:
        host.network_code = network_code

    play(scenario, prepare=refuse)


def test_a_silent_host_is_unknown_at_the_deadline_and_its_late_answer_is_told() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        start = trio.current_time()
        link.submit([outbound(1, start + 5), outbound(2, start + 2), outbound(3, start + 8)])
        await until(lambda: 2 in ends.results)
        assert set(ends.results) == {2}
        await until(lambda: len(ends.results) == 3)
        assert set(ends.results.values()) == {Failure.UNKNOWN}
        assert trio.current_time() < start + 8.1
        late = answer_to(host.requests[0], f39="51")
        await host.streams[0].send_all(late + late)
        await until(lambda: ends.late == {1: "51"})
        assert (link.timed_out, link.late, link.unmatched) == (3, 1, 1)

    play(scenario, behave=stay_silent)


def test_only_so_many_late_calls_are_remembered() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(rrn, trio.current_time() + 1) for rrn in (1, 2, 3)])
        await until(lambda: len(ends.results) == 3)
        await host.streams[0].send_all(b"".join(map(answer_to, host.requests)))
        await until(lambda: link.late == 2)
        assert set(ends.late) == {2, 3}
        assert link.unmatched == 1

    play(scenario, behave=stay_silent, late_max=2)


def test_an_answer_that_comes_twice_counts_once() -> None:
    async def twice(host: ScriptedHost, stream: Connection, requests: Sequence[Fields]) -> None:
        await stream.send_all(answer_to(requests[0]) * 2)

    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(1, trio.current_time() + 5)])
        await until(lambda: link.unmatched == 1)
        assert ends.results == {1: "00"}
        assert not ends.late

    play(scenario, behave=twice)


# What a host sends after a good answer to the first of three calls; whether it counts as malformed.
CUT = answer_to({0: "0200", 11: "000002", 37: "000000000002", 41: "POS00001"})[:-3]
# fmt: off
BROKEN = [
    ("cut within the length",  b"\x00",                                                       0),
    ("cut within a frame",     CUT,                                                           0),
    ("an absurd length",       b"\xff\xff and so on",                                         1),
    ("garbage in a frame",     b"\x00\x08garbage!",                                           1),
    ("a bitmap that ends",     bytes.fromhex("000a 0210 8000000000000000"),                   1),
    ("an unknown element",     bytes.fromhex("000b 0210 0000000000000001 31"),                1),
    ("trailing bytes",         bytes.fromhex("000d 0210 0000000002000000 3030 31"),           1),
    ("HTTP",                   b"HTTP/1.1 400 Bad Request\r\n\r\n",                           1),
]
# fmt: on


@pytest.mark.parametrize(("what", "rest", "malformed"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_stream_that_breaks_is_unknown_for_what_was_open_and_comes_up_again(
    what: str, rest: bytes, malformed: int
) -> None:
    async def break_off(host: ScriptedHost, stream: Connection, requests: Sequence[Fields]) -> None:
        if len(host.streams) == 1:
            await stream.send_all(answer_to(requests[0]) + rest)
            await stream.send_eof()
        else:
            await stream.send_all(b"".join(map(answer_to, requests)))

    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(rrn, trio.current_time() + 60) for rrn in (1, 2, 3)])
        await until(lambda: len(ends.results) == 3)
        assert ends.results == {1: "00", 2: Failure.UNKNOWN, 3: Failure.UNKNOWN}
        await is_up(link)
        link.submit([outbound(4, trio.current_time() + 5)])
        await until(lambda: 4 in ends.results)
        assert ends.results[4] == "00"
        assert (link.lost, link.connects, link.malformed) == (1, 2, malformed)

    play(scenario, behave=break_off)


@pytest.mark.parametrize(
    "fields",
    [{"f39": None}, {"f11": "999999"}, {"f37": None}, {"f41": "POS00002"}, {"f0": "0410"}, {"f0": "0200"}],
    ids=["no code", "another STAN", "no RRN", "another terminal", "another class", "a request"],
)
def test_an_answer_that_matches_nothing_changes_nothing(fields: dict[str, str | None]) -> None:
    async def answer_wrongly(host: ScriptedHost, stream: Connection, requests: Sequence[Fields]) -> None:
        await stream.send_all(answer_to(requests[0], **fields) + answer_to(requests[1]))

    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(rrn, trio.current_time() + 5) for rrn in (1, 2)])
        await until(lambda: len(ends.results) == 2)
        assert ends.results == {1: Failure.UNKNOWN, 2: "00"}
        assert (link.unmatched, link.lost) == (1, 0)

    play(scenario, behave=answer_wrongly)


def test_a_host_that_stops_reading_holds_only_what_was_sent() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        host.blocked = trio.Event()
        link.submit([outbound(1, trio.current_time() + 2)])
        await trio.sleep(1)
        link.submit([outbound(2, trio.current_time() + 2), outbound(3, trio.current_time() + 200)])
        await until(lambda: len(ends.results) == 3)
        # The first may have arrived; the second was not sent in time; the third was dropped with its line unsent.
        assert ends.results == {1: Failure.UNKNOWN, 2: Failure.BUSY, 3: Failure.UNAVAILABLE}
        assert link.lost == 1
        assert {request[37] for request in host.requests} <= {f"{1:012d}"}
        host.blocked = None
        await is_up(link)
        link.submit([outbound(4, trio.current_time() + 2)])
        await until(lambda: 4 in ends.results)
        assert ends.results[4] == "00"

    play(scenario)


def test_a_host_that_answers_no_echo_is_left() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        host.network_code = None
        link.submit([outbound(1, trio.current_time() + 500)])
        await until(lambda: link.lost == 1)
        assert ends.results == {1: Failure.UNKNOWN}
        host.network_code = "00"
        await is_up(link)

    play(scenario, behave=stay_silent)


def test_one_line_breaks_and_the_other_carries_on() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await until(lambda: len(host.network) == 2)
        link.submit([outbound(1, trio.current_time() + 50)])
        link.submit([outbound(2, trio.current_time() + 50)])
        await until(lambda: host.reads == [1, 1])
        host.connects_refused = 1_000
        await host.streams[0].send_eof()
        await until(lambda: len(ends.results) == 1)
        lost = next(iter(ends.results))
        assert ends.results == {lost: Failure.UNKNOWN}
        assert link.up
        # Answers for both come on the line that is left.
        await host.streams[1].send_all(b"".join(map(answer_to, host.requests)))
        await until(lambda: len(ends.results) == 2)
        assert ends.results[3 - lost] == "00"
        assert ends.late == {lost: "00"}

    play(scenario, behave=stay_silent, lines=2)


def test_the_same_call_is_not_sent_twice_at_once_but_may_be_repeated_after_its_end() -> None:
    async def answer_repeats(host: ScriptedHost, stream: Connection, requests: Sequence[Fields]) -> None:
        for request in requests:
            if request[0] == "0201":
                await stream.send_all(answer_to(request) * 2)

    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(1, trio.current_time() + 2)])
        first, ends.results = ends.results, {}
        link.submit([outbound(1, trio.current_time() + 2, repeat=True)])
        await until(lambda: ends.results == {1: Failure.BUSY})
        ends.results = first
        await until(lambda: ends.results == {1: Failure.UNKNOWN})
        ends.results = {}
        link.submit([outbound(1, trio.current_time() + 2, repeat=True)])
        await until(lambda: ends.results == {1: "00"})
        assert not ends.late, "the answer belongs to the newest attempt"
        assert [request[0] for request in host.requests] == ["0200", "0201"]

    play(scenario, behave=answer_repeats)


@pytest.mark.parametrize(
    "fields",
    [{3: "12"}, {4: "1,00"}, {48: "樱桃"}, {99: "x"}, {52: "not bytes"}],
    ids=lambda fields: f"DE {min(fields)}",
)
def test_a_call_that_the_format_cannot_carry_never_leaves_and_harms_no_other(fields: Fields) -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        deadline = trio.current_time() + 5
        link.submit([outbound(1, deadline), outbound(2, deadline, fields=fields), outbound(3, deadline)])
        await until(lambda: len(ends.results) == 3)
        assert ends.results == {1: "00", 2: Failure.UNSENDABLE, 3: "00"}

    play(scenario)


def test_a_call_whose_deadline_has_passed_is_not_sent() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(1, trio.current_time())])
        await until(lambda: ends.results == {1: Failure.BUSY})
        assert host.requests == []

    play(scenario)


def test_when_the_link_ends_open_calls_are_unknown() -> None:
    async def scenario(host: ScriptedHost, link: Iso8583Link, ends: Ends) -> None:
        await is_up(link)
        link.submit([outbound(rrn, trio.current_time() + 50) for rrn in (1, 2)])
        await until(lambda: host.reads == [2])

    host, _, ends = play(scenario, behave=stay_silent)
    assert ends.results == {1: Failure.UNKNOWN, 2: Failure.UNKNOWN}
    assert host.network == ["001", "002"]
