"""Faults that are planted in the logic, one at a time, each a mistake that somebody could make."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import msgspec
import pytest
import trio

from fengshou.hsm.custody import SealBroken
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol import codes
from fengshou.protocol.service import Request
from fengshou.routing.destination import Completion, Failure
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.switch import grammar as catalogue
from fengshou.switch.admission import Admission
from fengshou.switch.clock import rrn_base
from fengshou.switch.duplicates import Duplicates, Found, Verdict
from fengshou.switch.exchange import Exchange
from fengshou.switch.forwarding import Depot
from fengshou.switch.inbound import Inbound
from fengshou.switch.journal import Entry, JournalError
from fengshou.switch.links import JournalEvents
from fengshou.switch.outbound import Sender
from fengshou.switch.pipeline import Pipeline
from fengshou.switch.recording import Recorder
from fengshou.switch.recovery import Recovery
from fengshou.switch.rrn import RrnSource
from fengshou.switch.sessions import Sessions
from fengshou.switch.simulation.disk import SimulatedJournal
from fengshou.switch.stand_in import StandIn

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
    append = Pipeline._append

    async def impatient(self: Pipeline, entries: Sequence[Entry]) -> bool:
        with trio.move_on_after(0.003):
            return await append(self, entries)
        return True

    async def unshielded(self: Any, entries: Sequence[Entry]) -> None:
        if entries:
            self.later(lambda journal: journal.commit(entries))

    patch.setattr("fengshou.switch.writer.Writer.append", unshielded)
    patch.setattr(Pipeline, "_append", impatient)


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
    async def optimistic(self: Pipeline, entries: Sequence[Entry]) -> bool:
        with suppress(JournalError):
            await self._writer.append(entries)
        return True

    patch.setattr(Pipeline, "_append", optimistic)


def another_code_told_than_journalled(patch: pytest.MonkeyPatch) -> None:
    answer = Sender.answer

    def kind(self: Sender, exchanges: Sequence[Exchange]) -> None:
        for exchange in exchanges:
            if exchange.conclusion is not None and exchange.conclusion.code == codes.UNKNOWN_OUTCOME:
                exchange.values = {**exchange.values, 39 << 8: "91"}
        answer(self, exchanges)

    patch.setattr(Sender, "answer", kind)


# -- standing in, offline sales --------------------------------------------------------------------------------------


def stand_in_never_told_to_the_host(patch: pytest.MonkeyPatch) -> None:
    outcome = Recorder.outcome

    def untold(self: Recorder, exchange: Exchange, **details: Any) -> Entry:
        return outcome(self, exchange, **{**details, "advice": False})

    patch.setattr(Recorder, "outcome", untold)
    patch.setattr(Inbound, "_owe_what_follows", lambda self, exchange: None)


def stand_in_without_its_caps(patch: pytest.MonkeyPatch) -> None:
    counters = StandIn.counters

    def generous(self: StandIn, *about: Any) -> Any:
        found = counters(self, *about)
        return found and tuple(msgspec.structs.replace(counter, cap=10**12) for counter in found)

    patch.setattr(StandIn, "counters", generous)


# -- what follows another transaction --------------------------------------------------------------------------------


def completion_over_what_is_held(patch: pytest.MonkeyPatch) -> None:
    _without_rung(patch, "fengshou.ext.services.completion", "amount is at most 115 % of what is held")


def refunds_without_a_sum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_service("fengshou.ext.services.refund"), "counters", lambda request: ())


def refund_is_reversed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_service("fengshou.ext.services.refund"), "repeats", False)


def weight_times_price_unchecked(patch: pytest.MonkeyPatch) -> None:
    _without_rung(patch, "fengshou.ext.services.farm_purchase", "weight × price = amount")


def _service(module: str) -> Any:
    return import_module(module).service


def _without_rung(patch: pytest.MonkeyPatch, module: str, name: str) -> None:
    service = _service(module)
    left = tuple(rung for rung in service.ladder if rung.name != name)
    assert len(left) == len(service.ladder) - 1
    load = catalogue.load_service

    def lenient(found: str, options: Any) -> Any:
        loaded = load(found, options)
        if found == module:
            patch.setattr(loaded, "ladder", left)
        return loaded

    patch.setattr("fengshou.switch.simulation.town.load_service", lenient)


# -- days, late answers, back ends -----------------------------------------------------------------------------------


def outcome_counts_on_the_day_it_comes(patch: pytest.MonkeyPatch) -> None:
    make = Recorder._outcome

    def today(self: Recorder, *about: Any) -> Any:
        record, values = make(self, *about)
        day = self._clock.business_day(self._clock.now_us())
        return msgspec.structs.replace(record, business_day=day), values

    patch.setattr(Recorder, "_outcome", today)


def follower_counts_on_the_day_of_its_original(patch: pytest.MonkeyPatch) -> None:
    for name in ("completion", "refund"):
        module = import_module(f"fengshou.ext.services.{name}")
        make = module.following_call

        def as_before(request: Request, *how: Any, make: Any = make) -> Any:
            call = make(request, *how)
            if call is None or request.original is None or request.original.call is None:
                return call
            fields = {**call.fields, 15: request.original.call.fields[15]}
            return msgspec.structs.replace(call, fields=fields)

        patch.setattr(module, "following_call", as_before)


def late_approval_ignored(patch: pytest.MonkeyPatch) -> None:
    late = Sender._late

    def deaf(self: Sender, exchange: Exchange, result: Any) -> Entry:
        entry = late(self, exchange, result)
        entry.owes = 0
        return entry

    patch.setattr(Sender, "_late", deaf)


def one_back_end_holds_up_the_others(patch: pytest.MonkeyPatch) -> None:
    complete = Pipeline.complete

    def all_together(self: Pipeline, completions: Sequence[Completion]) -> None:
        held = self.__dict__.setdefault("held", [])
        held += completions
        if len(held) >= len(self._duplicates):
            self.__dict__["held"] = []
            complete(self, held)

    patch.setattr(Pipeline, "complete", all_together)


def overload_is_taken_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Admission, "overload", lambda self, peer, waiting: None)


def events_dropped_before_they_are_delivered(patch: pytest.MonkeyPatch) -> None:
    delivered = JournalEvents.delivered
    patch.setattr(JournalEvents, "delivered", lambda self, cursor: delivered(self, cursor + 1))


# -- keys, numbers, operators ----------------------------------------------------------------------------------------


def rotation_forgets_the_old_epoch(patch: pytest.MonkeyPatch) -> None:
    unseal = SoftwareCustody.open

    def forgetful(self: SoftwareCustody, label: str, sealed: bytes, context: bytes) -> bytes:
        if sealed[0] != self.key(label).epoch:
            raise SealBroken(f"{label}: epoch {sealed[0]} is not the current one")
        return unseal(self, label, sealed, context)

    patch.setattr(SoftwareCustody, "open", forgetful)


def account_numbers_in_the_journal(patch: pytest.MonkeyPatch) -> None:
    def openly(self: Recorder, values: Any, kind: Any, content: bytes, columns: Any) -> tuple[bytes, bytes]:
        return self._codec.pack({key: value for key, value in values.items() if key not in columns}), b""

    patch.setattr(Recorder, "_keep", openly)


def key_in_the_log(patch: pytest.MonkeyPatch) -> None:
    seal = SoftwareCustody.seal

    def talkative(self: SoftwareCustody, label: str, data: bytes, context: bytes) -> bytes:
        key = self._secret(label, None)
        logging.getLogger(__name__).info("sealing under %s", bytes(key.view).hex())
        return seal(self, label, data, context)

    patch.setattr(SoftwareCustody, "seal", talkative)


def barred_terminal_trades_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sessions, "review", lambda self, peer, row: True)


# Each plant, with the lowest seed that finds it; what changes the plans may move it, never beyond 200.
PLANTS: Mapping[Plant, int] = {
    reply_before_commit: 1,
    reversal_dropped_on_restart: 7,
    duplicate_key_without_body_check: 6,
    tombstone_ignored: 9,
    repeat_is_done_again: 1,
    timer_on_the_wall_clock: 7,
    unknown_outcome_is_not_reversed: 3,
    timeout_is_called_declined: 3,
    sent_before_journalled: 1,
    recovery_left_out: 6,
    recovery_declines_without_reversal: 28,
    signature_not_looked_at: 6,
    reversal_given_up_after_one_attempt: 4,
    count_of_rrns_begins_anew: 1,
    full_disk_taken_for_success: 12,
    another_code_told_than_journalled: 3,
    stand_in_never_told_to_the_host: 1,
    stand_in_without_its_caps: 68,
    completion_over_what_is_held: 16,
    refunds_without_a_sum: 6,
    refund_is_reversed: 16,
    weight_times_price_unchecked: 21,
    outcome_counts_on_the_day_it_comes: 7,
    follower_counts_on_the_day_of_its_original: 6,
    late_approval_ignored: 5,
    one_back_end_holds_up_the_others: 1,
    overload_is_taken_on: 1,
    events_dropped_before_they_are_delivered: 1,
    rotation_forgets_the_old_epoch: 1,
    account_numbers_in_the_journal: 1,
    key_in_the_log: 1,
    barred_terminal_trades_on: 9,
}
