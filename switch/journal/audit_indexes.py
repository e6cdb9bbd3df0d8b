"""The second half of an audit: every index says what the records say, and nothing else.

The first half (``audit``) proves the records. What the rules ask by is derived from them: keys, open intents, debts,
limits, batches, columns and filters. An index that forgot a row would let a repeat be done twice or a search miss what
is there, and no signature would tell. What depends on lines that are archived is left out.
"""

from collections import Counter

from fengshou.hsm.custody import CustodyError
from fengshou.protocol import codes
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import RecordKind, parse_key
from fengshou.protocol.service import TerminalFacts
from fengshou.protocol.transaction import Duty
from fengshou.switch.clock import rrn_base
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.audit import Finding
from fengshou.switch.journal.audit_columns import Hashes, Progress, verify_columns
from fengshou.switch.journal.lines import Lines
from fengshou.switch.journal.prune import forgotten_up_to
from fengshou.switch.journal.store import DayAbsent, Journal, JournalError, Known
from fengshou.switch.journal.tables import Day, spans
from fengshou.switch.recording import Recorder

_RRN_COUNT = 10**8


def _filters(lines: Lines, day: Day) -> list[tuple[bytes, bytes | None]]:
    return [(key, lines.filter(key)) for key in lines.filter_keys(day.first_record, day.last_record)]


class Indexes:
    """Compares the tables of a journal's store with its records, as of the journal's current view."""

    def __init__(
        self,
        journal: Journal,
        catalogue: Catalogue,
        recorder: Recorder,
        finding: Finding,
        hashes: Hashes | None = None,
    ) -> None:
        """``hashes``: see ``verify_columns``."""
        self._hashes = hashes
        self._journal = journal
        self._catalogue = catalogue
        self._recorder = recorder
        self._finding = finding
        self._open: set[int] = set()
        self._unknown: set[int] = set()  # intents
        self._late: dict[int, tuple[int, int]] = {}  # by unknown intent its late approval: record, time
        self._again: set[int] = set()  # intents that were approved late and not reversed since
        self._intents = 0
        self._rrns: dict[int, int] = {}
        self._absent = False

    def verify(self, progress: Progress = lambda records: None) -> None:
        """Raises JournalError: a file cannot be read."""
        for day, last in spans(self._journal.days()):
            end = last or self._journal.next_record - 1
            try:
                lines = self._journal.lines_of(day)
            except DayAbsent:
                self._absent = True
                continue
            except JournalError:
                continue  # named already
            verify_columns(lines, day.first_record, end, self._finding, progress, self._hashes)
            if day.sealed and _filters(self._journal.store, day) != _filters(lines, day):
                self._wrong(f"filters: those of day {day.day} in the store are not those of its file")
            for number, data in lines.records(day.first_record):
                if number > end:
                    break
                self._record(number, data)
        self._keys()
        self._still_open()
        self._due()
        self._numbers()
        self._limits()
        self._settlements()

    def _wrong(self, what: str) -> None:
        self._finding.wrong(what)

    def _record(self, number: int, data: bytes) -> None:
        """What each index must know of a record."""
        try:
            kind, key, refers = parse_key(data)
        except UntrustedBytesError:
            return  # named already
        if kind == RecordKind.INTENT:
            self._intents += 1
            self._open.add(number)
            rrn = int.from_bytes(data[22:30], "big")
            self._rrns[rrn // _RRN_COUNT] = max(rrn, self._rrns.get(rrn // _RRN_COUNT, 0))
            known = self._journal.known(key)
            if self._is_forgotten(number, key, known):
                self._intents -= 1
            elif known is None or known.intent != number:
                self._wrong(f"keys: the key of record {number} leads to {known.intent if known else 'nothing'}")
        elif kind == RecordKind.OUTCOME:
            self._open.discard(refers)
            unknown = data[70:72] == codes.UNKNOWN_OUTCOME.encode()
            if unknown:
                self._unknown.add(refers)
            known = self._journal.known(key)
            if self._is_forgotten(number, key, known):
                return
            if known is None or (known.intent, known.outcome) != (refers, number):
                self._wrong(f"keys: the key of record {number} does not know this outcome")
            elif unknown and not known.undone_by:
                self._is_owed(refers, f"record {number}, whose end is unknown")
        elif kind == RecordKind.REVERSAL:
            self._again.discard(refers)
            if not self._journal.undone_by(key):
                self._wrong(f"undone: does not know record {number}")
        elif kind == RecordKind.LATE and data[70:72] == codes.APPROVED.encode() and refers in self._unknown:
            self._again.add(refers)
            self._late[refers] = number, int.from_bytes(data[10:18], "big")

    def _is_forgotten(self, number: int, key: bytes, known: Known | None) -> bool:
        """Whether a record's key is gone rightly; that it was undone is known on."""
        gone = known is None or not known.intent
        return gone and number <= self._journal.pruned and self._journal.forgotten(key)

    def _is_owed(self, intent: int, why: str) -> None:
        """What may have moved money and is not undone must be owed; what was to undo another one owes it for that."""
        if self._journal.duty(intent) is not None:
            return
        try:
            record = self._journal.record(intent)
            who = TerminalFacts(record.terminal, record.merchant, 0, "", "", "", "", "", 0)
            service = self._catalogue.service(record.template)
            request = self._recorder.request(record, who, lambda identifier: "")
            named = service.original_key(request) if service and service.undoes else None
        except (JournalError, KeyError, UntrustedBytesError, CustodyError):
            return  # archived, or named already
        if service and service.moves_money and named is None:
            self._wrong(f"due: nothing is owed for {why}")

    def _intent(self, number: int) -> bytes | None:
        """The key of an intent; empty where its day is not here, None when the record is something else."""
        try:
            data = self._journal.record_bytes(number)
        except JournalError:
            return b""
        try:
            kind, key, _ = parse_key(data or b"")
        except UntrustedBytesError:
            return None
        return key if kind == RecordKind.INTENT else None

    def _ends(self, outcome: int, intent: int) -> bool:
        """Whether an outcome is one of this intent; true also where its day is not here."""
        try:
            kind, _, refers = parse_key(self._journal.record_bytes(outcome) or b"")
        except UntrustedBytesError:
            return False
        except JournalError:
            return True
        return kind == RecordKind.OUTCOME and refers == intent

    def _keys(self) -> None:
        rows = 0
        for key, intent, outcome in self._journal.all_keys():
            found = self._intent(intent)
            if found == key:
                rows += 1
            elif found != b"":
                self._wrong(f"keys: a row leads to record {intent}, which has not this key")
            if outcome and not self._ends(outcome, intent):
                self._wrong(f"keys: a row leads to record {outcome}, which is no outcome of record {intent}")
        if rows != self._intents:
            self._wrong(f"keys: {rows} rows for {self._intents} intents")

    def _still_open(self) -> None:
        for number in self._journal.open_intents():
            if number in self._open:
                self._open.discard(number)
                if self._journal.open_copy(number) not in (None, self._journal.record_bytes(number)):
                    self._wrong(f"open: another copy of record {number}")
            elif self._intent(number) != b"":
                self._wrong(f"open: record {number} has an outcome, or is no intent")
        for number in sorted(self._open):
            self._wrong(f"open: record {number} has no outcome and is missing")

    def _due(self) -> None:
        for number, duty in self._journal.due():
            key = self._intent(number)
            known = self._journal.known(key) if key else None
            if key is None or (known is not None and not known.outcome):
                self._wrong(f"due: {duty.name.lower()} of record {number}, which is no intent with an outcome")
            late_us = self._journal.late_us(number)
            if late_us and not self._absent and self._late.get(number, (0, 0))[1] != late_us:
                self._wrong(f"due: no late approval owes the reversal of record {number}")
        for intent in sorted(self._again):
            self._is_owed(intent, f"record {self._late[intent][0]}, an approval that came late")

    def _pruned_days(self) -> list[Day]:
        """The days of which the store has forgotten what it may."""
        return [day for day in self._journal.days() if day.sealed and day.last_record <= self._journal.pruned]

    def _numbers(self) -> None:
        over = {rrn_base(day.day) // _RRN_COUNT for day in self._pruned_days()}
        for prefix, highest in self._rrns.items():
            if prefix not in over and self._journal.last_rrn(prefix) < highest:
                self._wrong(f"rrns: {highest:012d} was given, which {prefix:04d} does not know")
        events = [number for number, _ in self._journal.events(0, 1 << 62)]
        if events and events != list(range(events[0], self._journal.last_event + 1)):
            self._wrong("events: numbers are missing")

    def _limits(self) -> None:
        """The sum of what counts of each limit: what is open, approved, or unknown and moves money, and not undone."""
        if self._absent:
            return
        expected: Counter[bytes] = Counter()
        for number, charges in self._journal.all_charges():
            key = self._intent(number)
            if key is None:
                self._wrong(f"charges: record {number} is no intent")
            elif self._counts(number, key):
                for counter, amount in charges:
                    expected[counter] += amount
        found = dict(self._journal.counters())
        over = [day.day for day in self._pruned_days()]
        for counter in set(found) | set(expected):
            day = int.from_bytes(counter[:4], "big")
            if day in over or (not day and forgotten_up_to(self._journal.days())):  # forgotten, or may be in part
                continue
            if found.get(counter, 0) != expected[counter]:
                self._wrong(f"counters: {found.get(counter, 0)} instead of {expected[counter]} on day {day}")

    def _counts(self, number: int, key: bytes) -> bool:
        known = self._journal.known(key)
        if known is None or known.undone_by:
            return False
        if not known.outcome or self._journal.duty(number) is Duty.REVERSAL:
            return True
        try:
            outcome = self._journal.record(known.outcome)
        except (KeyError, UntrustedBytesError):
            return False  # named already
        if outcome.code == codes.UNKNOWN_OUTCOME:  # a void or reversal whose original is reversed in its place
            service = self._catalogue.service(outcome.template)
            return service is not None and service.moves_money
        return outcome.code == codes.APPROVED

    def _settlements(self) -> None:
        for batch in self._journal.settlements():
            for number in self._journal.settlement(batch)[1]:
                key = self._intent(number)
                if key is None or (key and key[:23] != batch[:23]):
                    self._wrong(f"settlements: record {number} did not bring a batch of this terminal")
