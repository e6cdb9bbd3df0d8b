"""Faults that are planted around the way of a transaction: services, days, back ends, keys, operators."""

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import msgspec
import pytest

from fengshou.hsm.custody import SealBroken
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.service import Reply, Request
from fengshou.routing.destination import Completion
from fengshou.switch import grammar as catalogue
from fengshou.switch.admission import Admission
from fengshou.switch.debts import Debt, Ledger
from fengshou.switch.exchange import Exchange
from fengshou.switch.inbound import Inbound
from fengshou.switch.journal.store import Entry
from fengshou.switch.links import JournalEvents
from fengshou.switch.outbound import Sender
from fengshou.switch.pipeline import Pipeline
from fengshou.switch.recording import Recorder
from fengshou.switch.sessions import Sessions
from fengshou.switch.stand_in import StandIn
from tests.simulation.plants import Plant

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


def second_demand_with_the_identity_of_the_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("fengshou.switch.debts.demanded_again", lambda reversal, rrn, late_us: reversal)


def reversal_on_its_way_taken_for_enough(patch: pytest.MonkeyPatch) -> None:
    late = Sender._late

    def content(self: Sender, exchange: Exchange, result: Any) -> Entry:
        entry = late(self, exchange, result)
        if self._journal.duty(entry.owes) is not None:
            entry.owes = 0
        return entry

    patch.setattr(Sender, "_late", content)


def next_demand_kept_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    late, ending = Sender._late, Ledger.ending

    def remembered(self: Sender, exchange: Exchange, result: Any) -> Entry:
        entry = late(self, exchange, result)
        if self._journal.duty(entry.owes) is not None:
            debt = self._reversal.__self__._debts.get(entry.owes)  # type: ignore[attr-defined]
            if debt is not None and not debt.closing:
                debt.late_us, debt.attempts = entry.record.time_us, 0
            entry.owes = 0
        return entry

    def ended(self: Ledger, debt: Debt, reply: Reply) -> Entry:
        entry = ending(self, debt, reply)
        entry.late_us = self._journal.late_us(debt.intent)
        return entry

    patch.setattr(Sender, "_late", remembered)
    patch.setattr(Ledger, "ending", ended)


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
    stand_in_never_told_to_the_host: 1,
    stand_in_without_its_caps: 68,
    completion_over_what_is_held: 37,
    refunds_without_a_sum: 6,
    refund_is_reversed: 24,
    weight_times_price_unchecked: 21,
    outcome_counts_on_the_day_it_comes: 7,
    follower_counts_on_the_day_of_its_original: 6,
    late_approval_ignored: 5,
    second_demand_with_the_identity_of_the_first: 5,
    reversal_on_its_way_taken_for_enough: 56,
    next_demand_kept_in_memory_only: 98,
    one_back_end_holds_up_the_others: 1,
    overload_is_taken_on: 1,
    events_dropped_before_they_are_delivered: 1,
    rotation_forgets_the_old_epoch: 1,
    account_numbers_in_the_journal: 1,
    key_in_the_log: 1,
    barred_terminal_trades_on: 9,
}
