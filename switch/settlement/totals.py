"""What counts: the approvals that stand, by the journal alone, and the batches that they add up to.

One rule for batches, days, merchants and the comparison with a host's books: a transaction counts when it was approved
and not taken back, on its intent's business day, on the side that its template names. What is unknown was never
approved; what the switch owes its back end a reversal for is as good as taken back.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Batch, BatchState, Line, Mismatch, Side, Totals, mismatches, unpack_details
from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.protocol.transaction import Duty
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Journal, Known, batch_key, key_of
from fengshou.switch.journal.tables import Forgotten, spans
from fengshou.switch.recording import Recorder

LAST_DAY = 9999_12_31  # of any journal


@dataclass(frozen=True, slots=True)
class Counted:
    """An approval that stands. ``side`` None: an enquiry, which moves no money."""

    business_day: int
    rrn: int
    terminal: str
    merchant: str
    batch: int
    stan: int
    service: str
    side: Side | None
    fen: int


# What stands for itself names no other message; reversals, voids and settlements do.
_ABOUT_ANOTHER = (de.ORIGINAL_STAN, de.ORIGINAL_BATCH)


class Settlements:
    """Reads the journal; owns nothing but the rule."""

    def __init__(self, journal: Journal, catalogue: Catalogue, recorder: Recorder) -> None:
        self._journal = journal
        self._catalogue = catalogue
        self._recorder = recorder

    def counted(self, outcome: Record) -> Counted | None:
        """What an outcome counts for by the journal's current view; None: nothing. Raises UntrustedBytesError."""
        key = key_of(outcome.terminal, outcome.merchant, outcome.batch, outcome.stan)
        known = self._journal.known(key)
        if known is None or not known.intent:  # so long ago that only what undid it is known by its key
            known = Known(outcome.refers, outcome.number, self._journal.undone_by(key))
        return self._counted(outcome, known)

    def _counted(self, outcome: Record, known: Known) -> Counted | None:
        service = self._catalogue.service(outcome.template)
        if outcome.code != codes.APPROVED or service is None or known.undone_by:
            return None
        if self._journal.duty(known.intent) is Duty.REVERSAL:  # it is on the way
            return None
        side = self._catalogue.template(outcome.template).side
        asked = self._recorder.clear(self._journal.record(known.intent))
        if side is None and (service.moves_money or any(key in asked for key in _ABOUT_ANOTHER)):
            return None
        fen = asked.get(de.AMOUNT, 0)
        assert isinstance(fen, int)
        return Counted(
            outcome.business_day, outcome.rrn, outcome.terminal, outcome.merchant, outcome.batch, outcome.stan,
            service.name, side, fen,
        )  # fmt: skip

    def span(self, first_day: int, last_day: int) -> range:
        """The records among which the intents of these business days stand, and their outcomes too, but for the few
        that came more than a day later."""
        days = spans(self._journal.days())
        begin = next((day.first_record for day, _ in days if day.day >= first_day), self._journal.next_record)
        after = next((last for day, last in days if day.day > last_day), 0)
        return range(begin, after + 1 if after else self._journal.next_record)

    def days(self, first_day: int, last_day: int) -> Iterator[Counted | None]:
        """One item a record of ``span``, so that a reader can show how far it is: what it counts for on these days.

        A call that is repeated until it is answered, as a refund's is, may have its outcome days later; such outcomes
        follow, an item each. Raises DayAbsent when lines of these days are archived.
        """
        span = self.span(first_day, last_day)
        unanswered: dict[int, Record] = {}
        for number, data in self._journal.records(span.start):
            if number >= span.stop:
                break
            record, counted = parse_record(data), None
            if first_day <= record.business_day <= last_day:
                if record.kind == RecordKind.INTENT:
                    unanswered[number] = record
                elif record.kind == RecordKind.OUTCOME:
                    unanswered.pop(record.refers, None)
                    counted = self.counted(record)
            yield counted
        for intent in unanswered.values():
            known = self._journal.known(key_of(intent.terminal, intent.merchant, intent.batch, intent.stan))
            if known is not None and known.outcome:
                yield self._counted(self._journal.record(known.outcome), known)

    def batch(self, terminal: str, merchant: str, number: int) -> Batch | None:
        """A batch by the journal's current view; None when the terminal never had it.

        Raises UntrustedBytesError, DayAbsent and its kind Forgotten.
        """
        key = batch_key(terminal, merchant, number)
        state, told = self._journal.settlement(key)
        lines, in_flight, seen = [], False, number == self._journal.batch(terminal)
        for known in self._journal.transactions(key):
            seen = True
            if known.intent and not known.outcome:
                in_flight = True
            elif known.intent and not known.undone_by:
                counted = self._counted(self._journal.record(known.outcome), known)
                if counted is not None and counted.side is not None:
                    lines.append(Line(counted.stan, counted.side, counted.fen))
        if not (seen or told):
            if self._journal.forgotten(key):
                raise Forgotten(key)
            return None
        asked = [self._recorder.clear(self._journal.record(intent)) for intent in told]
        return Batch(
            number,
            BatchState(state),
            in_flight,
            lines,
            _totals(asked[0]) if asked else None,
            [_bytes(values[de.DETAILS]) for values in asked[1:]],
        )

    def settled(self) -> Iterator[tuple[str, str, int]]:
        """Terminal, merchant and number of every batch whose totals have come."""
        for key in self._journal.settlements():
            yield key[:8].decode().rstrip(), key[8:23].decode().rstrip(), int.from_bytes(key[23:], "big")


def differences(batch: Batch) -> list[Mismatch]:
    """The transactions on which the details of a batch and the journal differ; empty until all details are here."""
    if batch.state is not BatchState.DIFFERS:
        return []
    return mismatches(batch.lines, (line for part in batch.details for line in unpack_details(part)))


def _totals(values: dict[int, int | str | bytes]) -> Totals:
    return Totals(*(_integer(values[key]) for key in (de.DEBITS, de.DEBITS_AMOUNT, de.CREDITS, de.CREDITS_AMOUNT)))


def _integer(value: int | str | bytes) -> int:
    assert isinstance(value, int)
    return value


def _bytes(value: int | str | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value
