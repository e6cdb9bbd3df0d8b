"""Faults that are planted in the logic, one at a time, each a mistake that somebody could make."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
import trio

from fengshou.protocol import codes
from fengshou.routing.destination import Completion, Failure
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.switch.clock import rrn_base
from fengshou.switch.duplicates import Duplicates, Found, Verdict
from fengshou.switch.exchange import Exchange
from fengshou.switch.forwarding import Depot
from fengshou.switch.inbound import Inbound
from fengshou.switch.journal.store import Entry, JournalError
from fengshou.switch.outbound import Sender
from fengshou.switch.pipeline import Pipeline
from fengshou.switch.recovery import Recovery
from fengshou.switch.rrn import RrnSource
from fengshou.switch.simulation.disk import SimulatedJournal
from fengshou.switch.writer import Then, Writer

Plant = Callable[[pytest.MonkeyPatch], None]


def reply_before_commit(patch: pytest.MonkeyPatch) -> None:
    conclude = Sender.conclude

    def hasty(self: Sender, completions: Iterable[Completion]) -> tuple[list[Exchange], list[Entry]]:
        ended, entries = conclude(self, completions)
        self.answer(ended)
        return ended, entries

    patch.setattr(Sender, "conclude", hasty)


def reversal_dropped_on_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedJournal, "due", lambda self: [])


def duplicate_key_without_body_check(patch: pytest.MonkeyPatch) -> None:
    look = Duplicates.look

    def blind(self: Duplicates, key: bytes, content: bytes) -> Found:
        known = self._journal.known(key)
        if known is not None and known.intent:
            content = self._journal.record(known.intent).content
        return look(self, key, content)

    patch.setattr(Duplicates, "look", blind)


def tombstone_ignored(patch: pytest.MonkeyPatch) -> None:
    look = Duplicates.look

    def forgetful(self: Duplicates, key: bytes, content: bytes) -> Found:
        known = self._journal.known(key)
        if known is not None and known.intent == 0:
            return Found(Verdict.FRESH)
        return look(self, key, content)

    patch.setattr(Duplicates, "look", forgetful)


def repeat_is_done_again(patch: pytest.MonkeyPatch) -> None:
    look = Duplicates.look

    def eager(self: Duplicates, key: bytes, content: bytes) -> Found:
        found = look(self, key, content)
        return Found(Verdict.FRESH) if found.verdict is Verdict.REPLAY else found

    patch.setattr(Duplicates, "look", eager)


def _elapsed_s(clock: Any) -> float:
    """Since the run began, as the machine's clock on the wall has it."""
    return float(clock.now_us() - clock.start_us) / 1e6


def timer_on_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    route = Sender.route

    def by_the_wall(self: Sender, exchanges: Iterable[Exchange]) -> list[Completion]:
        real, offset_s = trio.current_time, _elapsed_s(self._recorder._clock) - trio.current_time()
        submit = Iso8583Link.submit

        def late(link: Iso8583Link, calls: Sequence[Any]) -> None:
            for call in calls:
                call.deadline += offset_s
            submit(link, calls)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Iso8583Link, "submit", late)
            assert trio.current_time is real
            return route(self, exchanges)

    patch.setattr(Sender, "route", by_the_wall)


def unknown_outcome_is_not_reversed(patch: pytest.MonkeyPatch) -> None:
    end = Sender._end

    def careless(self: Sender, exchange: Exchange, result: Any) -> list[Entry]:
        entries = end(self, exchange, result)
        for entry in entries:
            entry.owes = 0
        return entries

    patch.setattr(Sender, "_end", careless)


def timeout_is_called_declined(patch: pytest.MonkeyPatch) -> None:
    end = Sender._end

    def hopeful(self: Sender, exchange: Exchange, result: Any) -> list[Entry]:
        return end(self, exchange, Failure.UNAVAILABLE if result is Failure.UNKNOWN else result)

    patch.setattr(Sender, "_end", hopeful)


def sent_before_journalled(patch: pytest.MonkeyPatch) -> None:
    def hasty(self: Writer, entries: Sequence[Entry], then: Then) -> None:
        if entries:
            self.later(lambda journal: journal.commit(entries))
        then(None)

    patch.setattr(Writer, "write", hasty)


def recovery_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "run", lambda self: 0)


def recovery_declines_without_reversal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "_debt", lambda *parts: 0)


def signature_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    verify = Inbound.verify

    def trusting(self: Inbound, exchanges: Iterable[Exchange]) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr("fengshou.switch.inbound.verify_batch", lambda signed: [True] * len(signed))
            verify(self, exchanges)

    patch.setattr(Inbound, "verify", trusting)


def reversal_given_up_after_one_attempt(patch: pytest.MonkeyPatch) -> None:
    def give_up(self: Depot, debt: Any, *why: Any) -> None:
        debt.closing = True
        self._leave_lanes(debt)
        self._paid(debt)

    patch.setattr(Depot, "_put_off", give_up)


def count_of_rrns_begins_anew(patch: pytest.MonkeyPatch) -> None:
    first = RrnSource.__init__

    def init(self: RrnSource, journal: Any, clock: Any, *share: Any) -> None:
        first(self, journal, clock, *share)
        today = clock.business_day(clock.now_us())
        self._last[today] = rrn_base(today)

    patch.setattr(RrnSource, "__init__", init)


def full_disk_taken_for_success(patch: pytest.MonkeyPatch) -> None:
    for told in ("_written", "_outcomes_written"):
        hear = getattr(Pipeline, told)

        def optimistic(self: Pipeline, exchanges: Any, entries: Any, error: Any, hear: Any = hear) -> None:
            hear(self, exchanges, entries, None if isinstance(error, JournalError) else error)

        patch.setattr(Pipeline, told, optimistic)


def another_code_told_than_journalled(patch: pytest.MonkeyPatch) -> None:
    answer = Sender.answer

    def kind(self: Sender, exchanges: Sequence[Exchange]) -> None:
        for exchange in exchanges:
            if exchange.conclusion is not None and exchange.conclusion.code == codes.UNKNOWN_OUTCOME:
                exchange.response = {39 << 8: "91"}
        answer(self, exchanges)

    patch.setattr(Sender, "answer", kind)


# Each plant, with the lowest seed that finds it; what changes the plans may move it, never beyond 200.
PLANTS: Mapping[Plant, int] = {
    reply_before_commit: 1,
    reversal_dropped_on_restart: 7,
    duplicate_key_without_body_check: 6,
    tombstone_ignored: 9,
    repeat_is_done_again: 1,
    timer_on_the_wall_clock: 7,
    unknown_outcome_is_not_reversed: 11,
    timeout_is_called_declined: 3,
    sent_before_journalled: 1,
    recovery_left_out: 7,
    recovery_declines_without_reversal: 28,
    signature_not_looked_at: 6,
    reversal_given_up_after_one_attempt: 21,
    count_of_rrns_begins_anew: 1,
    full_disk_taken_for_success: 12,
    another_code_told_than_journalled: 3,
}
