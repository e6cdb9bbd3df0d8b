"""Which answer belongs to which call, and which calls are overdue. No clock and no I/O: times are passed in.

A call is known by the fields that its answer repeats and by the first three digits of the answer's MTI, so that a
request and its repeat (0200, 0201) have one key. A call that was given up as UNKNOWN is remembered for a while: its
answer, should it come, is a late one.
"""

from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from operator import itemgetter

import msgspec

from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import MTI, answer_mti, host_stan, institution, transmission_time
from fengshou.protocol.service import Iso8583Call
from fengshou.routing.deadlines import Deadlines, Timer
from fengshou.routing.destination import Outbound, Trace

# The first three digits of an answer's MTI and the values of the fields that match.
Key = tuple[str, object]


def request_fields(call: Iso8583Call, trace: Trace) -> dict[int, str | bytes]:
    """The message of a call: what the trace says of it, under what the call itself says.

    A repeat has the last digit of its MTI set (0200 becomes 0201); all else is the same, so the host knows it again.
    """
    sent_at = transmission_time(trace.received_us)
    repeat = trace.repeat and call.mti % 2 == 0
    return {
        MTI: str(call.mti + repeat).zfill(4),
        7: sent_at,
        11: host_stan(trace.rrn),
        12: sent_at[4:],
        13: sent_at[:4],
        32: institution(trace.acquirer),
        37: str(trace.rrn).zfill(12),
        41: trace.terminal,
        42: trace.merchant,
        49: str(trace.currency).zfill(3),
        **call.fields,
    }


@lru_cache(maxsize=256)
def _answered_by(mti: str) -> str:
    """The first three digits of the MTI that answers a request."""
    return answer_mti(mti)[:3]


class Flight(msgspec.Struct, eq=False):
    """A call on its way. ``line`` is whatever carries it; ``sent``: some of the frame may have left this machine."""

    outbound: Outbound
    key: Key
    frame: bytes
    line: object
    sent: bool = False
    open: bool = True
    timer: "Timer[Flight] | None" = None


class InFlight:
    """The open calls of a destination."""

    def __init__(self, match_fields: tuple[int, ...], late_max: int) -> None:
        """``late_max`` bounds the memory of calls that were given up; the oldest is forgotten first."""
        self._match_fields = match_fields
        self._matching = itemgetter(*match_fields)
        self._late_max = late_max
        self._open: dict[Key, Flight] = {}
        self._late: OrderedDict[Key, Outbound] = OrderedDict()
        self._deadlines: Deadlines[Flight] = Deadlines()

    def __len__(self) -> int:
        return len(self._open)

    def key_of_answer(self, answer: Fields) -> Key:
        return str(answer[MTI])[:3], self._matched(answer)

    def key_of_request(self, request: Fields) -> Key:
        return _answered_by(str(request[MTI])), self._matched(request)

    def _matched(self, fields: Fields) -> object:
        try:
            return self._matching(fields)
        except KeyError:  # a field that neither a request nor its answer has matches too
            return tuple(map(fields.get, self._match_fields))

    def add(self, request: Fields, frame: bytes, outbound: Outbound, line: object) -> Flight | None:
        """Take a call; None when one with the same key is open, because their answers could not be told apart."""
        key = self.key_of_request(request)
        if key in self._open:
            return None
        self._late.pop(key, None)  # an answer belongs to the newest attempt
        flight = self._open[key] = Flight(outbound, key, frame, line)
        flight.timer = self._deadlines.set(outbound.deadline, flight)
        return flight

    def take(self, answer: Fields) -> Flight | Outbound | None:
        """Close and return the call that an answer belongs to; its Outbound alone when the answer is a late one."""
        key = self.key_of_answer(answer)
        flight = self._open.get(key)
        if flight is None:
            return self._late.pop(key, None)
        self._close(flight)
        return flight

    def next_due(self) -> float:
        """The earliest deadline of an open call; ``NEVER`` when there is none."""
        return self._deadlines.next_due()

    def expire(self, now: float) -> Iterator[Flight]:
        """Close the calls whose deadline is not after ``now``, each as it is given."""
        while flight := self._deadlines.pop_due(now):
            yield self._give_up(flight)

    def lose(self, line: object) -> Iterator[Flight]:
        """Close the calls that ``line`` carried. Costs a walk over all open calls; links are not lost often."""
        for flight in [flight for flight in self._open.values() if flight.line is line]:
            yield self._give_up(flight)

    def _give_up(self, flight: Flight) -> Flight:
        self._close(flight)
        if flight.sent:
            self._late[flight.key] = flight.outbound
            if len(self._late) > self._late_max:
                self._late.popitem(last=False)
        return flight

    def _close(self, flight: Flight) -> None:
        del self._open[flight.key]
        flight.open = False
        if flight.timer is not None:
            flight.timer.cancel()
            flight.timer = None
