"""Finding transactions in the journal, and telling the whole story of one.

A story is everything that has one RRN, in the order in which it happened: the intent, its outcome, a late answer, a
reversal; before it the sign-in that carried it, after it the transaction that undid it. What has no RRN, a refusal or a
sign-in, stands for itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.switch.clock import rrn_base
from fengshou.switch.journal.columns import Row, Wanted
from fengshou.switch.journal.filters import Block, Filters
from fengshou.switch.journal.lines import Lines, Segment
from fengshou.switch.journal.tables import Day, DayAbsent, key_of, spans
from fengshou.switch.journal.view import JournalView

_RRN_COUNT = 10**8
# What begins a story; every other record of it refers to its intent.
_FIRST = (RecordKind.INTENT, RecordKind.SESSION, RecordKind.REFUSAL)


@dataclass(slots=True)
class Found:
    """``stories``: newest last. ``absent``: business days in question whose files are not here."""

    stories: list[list[Record]] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)
    more: bool = False  # older ones were left out


@dataclass(slots=True)
class _Story:
    """What is known of one: all its records are from ``first`` on and have all that ``wanted`` says."""

    first: int
    wanted: Wanted
    numbers: list[int] = field(default_factory=list)


class Place:
    """Where to look: a journal, or the file of one day."""

    def __init__(self, source: JournalView | Segment) -> None:
        self._source = source

    def days(self) -> list[tuple[Day, int]]:
        """Oldest first, each with its last record."""
        if isinstance(self._source, Segment):
            return [(self._source.day, self._source.day.last_record)]
        return [(day, last or self._source.next_record - 1) for day, last in spans(self._source.days())]

    def lines(self, day: Day) -> Lines:
        """Raises DayAbsent."""
        if isinstance(self._source, Segment):
            return self._source
        return self._source.lines_of(day)

    @property
    def filters(self) -> Filters:
        """Of all days, so that only the files are opened in which something may be."""
        return Filters(self._source if isinstance(self._source, Segment) else self._source.store)

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
        return self._source.undone_by(key_of(intent.terminal, intent.merchant, intent.batch, intent.stan))


def find(place: Place, wanted: Wanted, *, since_us: int = 0, until_us: int = 1 << 62, limit: int = 20) -> Found:
    """The newest ``limit`` stories in which a record has all that is wanted, written in the time given."""
    found = Found()
    filters = place.filters
    matched: dict[int, _Story] = {}  # by RRN, or by minus the record that has none
    days = _days(place, wanted, since_us, until_us)
    # An RRN has one story, which mostly begins on its day; of other things the newest are wanted.
    for day, last in days if wanted.rrn else reversed(days):
        blocks = [
            block
            for block in filters.blocks(day.first_record, last)
            if block.latest >= since_us and block.earliest < until_us and filters.may_have(block, wanted)
        ]
        if not blocks:
            continue
        try:
            lines = place.lines(day)
        except DayAbsent:
            found.absent.append(day.day)
            continue
        for record in _newest_first(lines, blocks, wanted, since_us, until_us):
            story = record.rrn or -record.number
            if story not in matched and len(matched) >= limit:
                found.more = True
                break
            matched[story] = _story_of(record)
        if found.more or (wanted.rrn and matched):
            break
    found.absent += _complete(place, [story for story in matched.values() if not story.numbers])
    for each in matched.values():
        found.stories.append(_whole(place, [part for number in each.numbers if (part := place.record(number))]))
    found.stories.sort(key=lambda story: story[-1].number)
    found.absent = sorted(set(found.absent))
    return found


def _story_of(record: Record) -> _Story:
    """All records of a transaction have its RRN, its terminal and its STAN."""
    if not record.rrn:
        return _Story(record.number, Wanted(), [record.number])
    first = record.number if record.kind in _FIRST or not record.refers else record.refers
    return _Story(first, Wanted(record.rrn, record.terminal, record.stan))


def _days(place: Place, wanted: Wanted, since_us: int, until_us: int) -> list[tuple[Day, int]]:
    """Days on which it may be, oldest first: an RRN is no older than the day in it; a sealed day knows its times."""
    days = place.days()
    if wanted.rrn:
        of = [at for at, (day, _) in enumerate(days) if rrn_base(day.day) // _RRN_COUNT == wanted.rrn // _RRN_COUNT]
        days = days[of[-1] :] if of else []
    return [
        (day, last)
        for day, last in days
        if not day.sealed or (day.latest_us >= since_us and day.earliest_us < until_us)
    ]


def _newest_first(
    lines: Lines, blocks: Sequence[Block], wanted: Wanted, since_us: int, until_us: int
) -> Iterator[Record]:
    for block in reversed(blocks):
        found = [
            at + index
            for at, row in _rows(lines, block)
            if row.latest >= since_us and row.earliest < until_us
            for index in row.matches(wanted)
            if block.first <= at + index <= block.last
        ]
        for number in reversed(found):
            data = lines.record(number)
            if data is not None:
                record = parse_record(data)
                if since_us <= record.time_us < until_us:
                    yield record


def _rows(lines: Lines, block: Block) -> Iterator[tuple[int, Row]]:
    """The rows that hold the block's records, which may hold others at both ends."""
    for first, data in lines.columns(block.first):
        if first > block.last:
            return
        yield first, Row(data)


def _complete(place: Place, stories: Sequence[_Story]) -> list[int]:
    """Find all records of these stories. Returns the days in question whose files are not here."""
    absent = []
    begin, filters = min((story.first for story in stories), default=0), place.filters
    for day, last in place.days():
        for block in filters.blocks(day.first_record, last) if stories and last >= begin else ():
            here = [story for story in stories if story.first <= block.last and filters.may_have(block, story.wanted)]
            try:
                rows = list(_rows(place.lines(day), block)) if here else []
            except DayAbsent:
                absent.append(day.day)
                break
            for at, row in rows:
                for story in here:
                    numbers = [at + index for index in row.matches(story.wanted)]
                    story.numbers += [number for number in numbers if block.first <= number <= block.last]
    return absent


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
