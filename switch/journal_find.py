"""Finding transactions in the journal, and telling the whole story of one.

A story is everything that has one RRN, in the order in which it happened: the intent, its outcome, a late answer, a
reversal; before it the sign-in that carried it, after it the transaction that undid it. What has no RRN, a refusal or a
sign-in, stands for itself.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.switch.clock import rrn_base
from fengshou.switch.journal_columns import RRN, Row, Wanted
from fengshou.switch.journal_lines import Lines, Segment
from fengshou.switch.journal_tables import Day, DayAbsent, key_of, spans
from fengshou.switch.journal_view import JournalView

_RRN_COUNT = 10**8


@dataclass(slots=True)
class Found:
    """``stories``: newest last. ``absent``: business days in question whose files are not here."""

    stories: list[list[Record]] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)
    more: bool = False  # older ones were left out


class Place:
    """Where to look: a journal, or the file of one day."""

    def __init__(self, source: JournalView | Segment) -> None:
        self._source = source

    def days(self) -> list[tuple[Day, int]]:
        """Oldest first, each with its last record, 0 where it has no end yet."""
        return spans([self._source.day] if isinstance(self._source, Segment) else self._source.days())

    def lines(self, day: Day) -> Lines:
        """Raises DayAbsent."""
        if isinstance(self._source, Segment):
            return self._source
        return self._source.lines_of(day)

    def record(self, number: int) -> Record | None:
        """None where it is not here."""
        try:
            data = self._source.record_bytes(number)
        except DayAbsent:
            return None
        return parse_record(data) if data else None

    def undone_by(self, intent: Record) -> int:
        """The record that undid a transaction; 0 for none, or where only the journal itself could tell."""
        if isinstance(self._source, Segment):
            return 0
        known = self._source.known(key_of(intent.terminal, intent.merchant, intent.batch, intent.stan))
        return known.undone_by if known and known.intent == intent.number else 0


def find(place: Place, wanted: Wanted, *, since_us: int = 0, until_us: int = 1 << 62, limit: int = 20) -> Found:
    """The newest ``limit`` stories in which a record has all that is wanted, written in the time given."""
    found = Found()
    matched: dict[int, list[int]] = {}  # RRN → records; those without one under minus their own number
    begin = 0
    for day, last in reversed(_days(place, wanted)):
        try:
            lines = place.lines(day)
        except DayAbsent:
            found.absent.append(day.day)
            continue
        for record in reversed(list(_matches(lines, day, last, wanted, since_us, until_us))):
            story = record.rrn or -record.number
            if story not in matched and len(matched) >= limit:
                found.more = True
                break
            matched.setdefault(story, []).append(record.number)
            begin = day.first_record
        if found.more:
            break
    numbers = _with_rrns(place, {story for story in matched if story > 0}, begin)
    for story in matched:
        chosen = numbers[story] if story > 0 else [-story]
        found.stories.append(_whole(place, [part for number in chosen if (part := place.record(number))]))
    found.stories.sort(key=lambda story: story[-1].number)
    found.absent.sort()
    return found


def _days(place: Place, wanted: Wanted) -> list[tuple[Day, int]]:
    """The days on which it may be: an RRN is not older than the day in it."""
    days = place.days()
    if wanted.rrn:
        of = [at for at, (day, _) in enumerate(days) if rrn_base(day.day) // _RRN_COUNT == wanted.rrn // _RRN_COUNT]
        return days[of[-1] :] if of else []
    return days


def _matches(lines: Lines, day: Day, last: int, wanted: Wanted, since_us: int, until_us: int) -> Iterator[Record]:
    for number in _scan(lines, day, last, lambda row: row.matches(wanted)):
        data = lines.record(number)
        if data is not None:
            record = parse_record(data)
            if since_us <= record.time_us < until_us:
                yield record


def _scan(lines: Lines, day: Day, last: int, matches: Callable[[Row], Iterable[int]]) -> Iterator[int]:
    for first, data in lines.columns(day.first_record):
        if last and first > last:
            return
        for index in matches(Row(data)):
            yield first + index


def _with_rrns(place: Place, rrns: set[int], begin: int) -> dict[int, list[int]]:
    """All records that have one of these RRNs."""
    found: dict[int, list[int]] = {rrn: [] for rrn in rrns}
    if not rrns:
        return found
    one = Wanted(rrn=next(iter(rrns))) if len(rrns) == 1 else None

    def matches(row: Row) -> list[int]:
        if one is not None:
            return row.matches(one)
        return [index for index, rrn in enumerate(_rrns(row)) if rrn in rrns]

    for day, last in place.days():
        if day.first_record < begin:
            continue
        try:
            lines = place.lines(day)
        except DayAbsent:
            continue
        for number in _scan(lines, day, last, matches):
            written = place.record(number)
            assert written is not None
            found[written.rrn].append(number)
    return found


def _rrns(row: Row) -> tuple[int, ...]:
    return struct.unpack(f">{row.count}Q", row.column(RRN))


def _whole(place: Place, records: list[Record]) -> list[Record]:
    """The records of a story with what came before and after."""
    intents = [record for record in records if record.kind == RecordKind.INTENT]
    before = [place.record(intent.refers) for intent in intents if intent.refers]
    after: list[Record | None] = []
    for undoing in map(place.undone_by, intents):
        outcome = place.record(undoing) if undoing else None
        if outcome is not None and outcome.kind == RecordKind.OUTCOME:
            after += [place.record(outcome.refers), outcome]
    return [record for record in (*before, *records, *after) if record is not None]
