"""Copies what is provably good of a torn journal into a new one, and reports the rest.

Sealed days are copied whole when they prove themselves. The store is read page by page (``pages``), and each
commit whose records give its Merkle root is written again by the very code that wrote it first: up to the first damage
that gives the same headers to the byte, so their signatures hold on. What is good behind the damage cannot keep its
place in the chain; it is journalled again under new numbers, because an outcome that was told must not be forgotten. A
key whose record is lost stays barred: a repeat is refused (94) rather than done twice. The keys of the newest records
stand in no table yet: the columns have their terminals and STANs, and only in a terminal's current batch can they come
again, so there they are barred.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fengshou.codecs import merkle_root
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import Commit, Record, RecordKind, parse_commit, parse_record
from fengshou.switch.journal.audit import Finding
from fengshou.switch.journal.audit_pages import verify_pages
from fengshou.switch.journal.columns import RRN, STAN, TERMINAL, Row
from fengshou.switch.journal.days import prove
from fengshou.switch.journal.pages import PageDamaged, Pages
from fengshou.switch.journal.store import Entry, Journal, JournalError
from fengshou.switch.journal.tables import GONE_EVENT, KEYED, PAIR, U64, Day, key_of, parse_day

_AS_THEY_ARE = ("batches", "held", "forgotten", "rrns", "counters", "events")


@dataclass(slots=True)
class Lost:
    """A commit that cannot be proven. ``records``: what its header, or its place between others, says it held."""

    commit: int
    first_record: int
    records: int
    why: str


@dataclass(slots=True)
class Repair:
    """What was done. ``moved``: records that have a new number, old to new."""

    days: list[int] = field(default_factory=list)
    bad_days: list[str] = field(default_factory=list)
    absent_days: list[int] = field(default_factory=list)
    commits_in_place: int = 0
    commits_moved: int = 0
    records: int = 0
    moved: dict[int, int] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    barred_keys: int = 0
    damaged_pages: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Nothing is missing: the journal was whole, or only its indexes were damaged."""
        return not (self.lost or self.bad_days)

    def as_dict(self) -> dict[str, Any]:
        return {"complete": self.complete, **asdict(self), "moved": {str(old): new for old, new in self.moved.items()}}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"sealed days copied and proven: {', '.join(map(str, self.days)) or 'none'}"
        yield f"commits copied in their place, byte for byte: {self.commits_in_place}"
        yield f"commits behind the damage, journalled again under new record numbers: {self.commits_moved}"
        yield f"records copied: {self.records}"
        yield from (f"day {day} is archived and was left out" for day in self.absent_days)
        yield from (f"BAD DAY: {bad}" for bad in self.bad_days)
        for lost in self.lost:
            yield f"LOST: commit {lost.commit}, {lost.records} records from {lost.first_record}: {lost.why}"
        if self.barred_keys:
            yield f"keys of lost transactions, barred: {self.barred_keys}; settle them with the hosts' books"
        yield from (f"damaged: {page}" for page in self.damaged_pages)


def repair(folder: Path, out: Path) -> Repair:
    """Read the journal in ``folder``, which is not changed, and make one in ``out``, which must not be there.

    Raises OSError, JournalError: also when not even the list of the store's tables can be read; then nothing is made.
    """
    if out.exists():
        raise JournalError(f"{out} is there already")
    report = Repair()
    store = folder / "data.mdb"
    try:
        with Pages(store, whole=False) as pages:
            days = [parse_day(key, value) for key, value in _readable(report, pages, "days")]
            out.mkdir(parents=True, mode=0o700)
            for day in days:
                if day.sealed:
                    _copy_day(report, folder, out, day)
            journal = Journal(out)
            try:
                _Restoration(report, pages, journal, [day for day in days if day.sealed]).run()
            finally:
                journal.close()
    except PageDamaged as error:
        raise JournalError(
            f"nothing of {store} can be read: {error}. Go on from a backup of it and compare with the hosts' books; "
            "sealed days are files beside it, and `fengshou journal verify --file` proves each of them"
        ) from error
    return report


def _readable(report: Repair, pages: Pages, table: str) -> Iterator[tuple[bytes, bytes]]:
    damaged: list[PageDamaged] = []
    yield from pages.walk(table, damaged)
    report.damaged_pages += [f"{table}: {error}" for error in damaged]


def _copy_day(report: Repair, folder: Path, out: Path, day: Day) -> None:
    source = folder / f"{day.day:08d}.mdb"
    if not source.exists():
        report.absent_days.append(day.day)
        return
    copy = Path(shutil.copyfile(source, out / source.name))
    pages = Finding()
    verify_pages(copy, pages)
    try:
        if not pages.good:
            raise JournalError(pages.problems[0])
        if prove(copy) != day:
            raise JournalError(f"{source} is not the day that was sealed here")
    except (JournalError, UntrustedBytesError) as error:
        report.bad_days.append(f"{day.day}: {error}; the file is copied as it is")
    else:
        report.days.append(day.day)


class _Restoration:
    """Writes the new store."""

    def __init__(self, report: Repair, pages: Pages, journal: Journal, sealed: list[Day]) -> None:
        self._report = report
        self._pages = pages
        self._journal = journal
        self._sealed = sealed
        self._begin = sealed[-1].last_record + 1 if sealed else 1
        self._numbers: dict[int, int] = {}  # of the store's records: old to new
        self._merchants: dict[str, str] = {}  # by terminal

    def run(self) -> None:
        sealed, begin = self._sealed, self._begin
        old_keys = [row for row in _readable(self._report, self._pages, "keys") if PAIR.unpack(row[1])[0] < begin]
        tables = {name: list(_readable(self._report, self._pages, name)) for name in _AS_THEY_ARE}
        gone_event = self._gone_event(tables["events"])
        self._journal.restore(
            lambda group: group.restore("days", [(U64.pack(d.first_record), d.to_bytes()) for d in sealed])
        )
        self._journal.restore(lambda group: group.restore("keys", old_keys))
        for name, rows in tables.items():
            self._journal.restore(lambda group, name=name, rows=rows: group.restore(name, rows))  # type: ignore[misc]
        if gone_event:
            self._journal.restore(lambda group: group.restore("meta", [(GONE_EVENT, U64.pack(gone_event))]))
        of_days = [row for row in _readable(self._report, self._pages, "filters") if U64.unpack(row[0][:8])[0] < begin]
        self._journal.restore(lambda group: group.restore("filters", of_days))
        for header, leaves in self._good_commits():
            self._write_again(header, [parse_record(leaf) for leaf in leaves])
        self._journal.restore(self._refer)
        self._bar()

    def _gone_event(self, rows: Sequence[tuple[bytes, bytes]]) -> int:
        """The last event that is gone. Where it is not readable, or with it the last ones of the table, whose ``rows``
        are what is: no number that was given before it stands for another event."""
        try:
            noted = int.from_bytes(self._pages.get("meta", GONE_EVENT) or b"", "big")
        except PageDamaged:
            noted = 0
        count = self._pages.entries("events")
        if len(rows) == count:
            return noted
        first = U64.unpack(rows[0][0])[0] if rows else noted + 1
        return max(noted, first + count - 1)

    # -- lines ---------------------------------------------------------------------------------------------------

    def _good_commits(self) -> Iterator[tuple[Commit, list[bytes]]]:
        """In order, each with its records; what is between them is noted as lost."""
        commit = self._sealed[-1].last_commit + 1 if self._sealed else 1
        record = self._begin
        for _, value in _readable(self._report, self._pages, "commits"):
            try:
                header = parse_commit(value)
            except UntrustedBytesError:
                continue
            if header.first_record < record:
                continue  # of a day that is sealed
            if header.number != commit:
                missing = header.first_record - record
                self._report.lost.append(Lost(commit, record, missing, "its header is missing or damaged"))
            leaves, why = self._leaves(header)
            if why:
                self._report.lost.append(Lost(header.number, header.first_record, header.records, why))
            else:
                yield header, leaves
            commit, record = header.number + 1, header.first_record + header.records
        numbers = [U64.unpack(key)[0] for key, _ in _readable(self._report, self._pages, "records")]
        if numbers and numbers[-1] >= record:
            self._report.lost.append(Lost(commit, record, numbers[-1] - record + 1, "records without a header"))

    def _leaves(self, header: Commit) -> tuple[list[bytes], str]:
        leaves = []
        for number in range(header.first_record, header.first_record + header.records):
            try:
                leaf = self._pages.get("records", U64.pack(number))
            except PageDamaged as error:
                return [], f"record {number}: {error}"
            if leaf is None:
                return [], f"record {number} is missing"
            leaves.append(leaf)
        if merkle_root(leaves) != header.root:
            return [], "its records are not those that it was sealed with"
        return leaves, ""

    def _write_again(self, header: Commit, records: list[Record]) -> None:
        entries: list[Entry] = []
        tags = self._tags(header)
        for old, record in enumerate(records, header.first_record):
            self._merchants[record.terminal] = record.merchant
            if record.refers >= self._begin:
                record.refers = self._numbers.get(record.refers, 0)
            undoes = b""
            if record.kind == RecordKind.REVERSAL:
                undoes = key_of(record.terminal, record.merchant, record.batch, record.stan)
            entries.append(Entry(record, undoes=undoes, tags=tuple(tags.get(old, ()))))
            self._numbers[old] = self._journal.next_record + len(entries) - 1
        self._journal.refresh()
        written = self._journal.commit(entries)
        self._report.records += len(records)
        if written == header:
            self._report.commits_in_place += 1
            try:
                signature = self._pages.get("signatures", U64.pack(header.number))
            except PageDamaged:
                signature = None
            if signature:
                self._journal.commit((), [(header.number, signature)])
        else:
            self._report.commits_moved += 1
            olds = range(header.first_record, header.first_record + header.records)
            self._report.moved |= {old: self._numbers[old] for old in olds}

    def _tags(self, header: Commit) -> dict[int, list[bytes]]:
        """The keyed hashes of the records of a commit, where its row of columns can still be read."""
        found: dict[int, list[bytes]] = {}
        try:
            data = self._pages.get("columns", U64.pack(header.first_record))
            for index, tag in Row(data or b"").tags():
                found.setdefault(header.first_record + index, []).append(tag)
        except (PageDamaged, ValueError) as error:
            self._report.damaged_pages.append(f"columns: {error}")
        return found

    # -- what refers to them -----------------------------------------------------------------------------------------

    def _refer(self, group: Any) -> None:
        """Debts, charges, settlements and what undid what, under the numbers that their records have now."""
        report, pages = self._report, self._pages
        for table in ("due", "charges"):
            rows = [(self._now(U64.unpack(key)[0]), value) for key, value in _readable(report, pages, table)]
            group.restore(table, [(U64.pack(number), value) for number, value in rows if number])
        undone = [(key, self._now(U64.unpack(value)[0])) for key, value in _readable(report, pages, "undone")]
        group.restore("undone", [(key, U64.pack(number or self._journal.next_record - 1)) for key, number in undone])
        settled = []
        for key, value in _readable(report, pages, "settlements"):
            intents = [self._now(U64.unpack_from(value, at)[0]) for at in range(1, len(value), 8)]
            settled.append((key, value[:1] + b"".join(U64.pack(number) for number in intents if number)))
        group.restore("settlements", settled)

    def _now(self, number: int) -> int:
        """The number that a record has now; 0 when it is lost."""
        return number if number < self._begin else self._numbers.get(number, 0)

    def _bar(self) -> None:
        """Keys of lost transactions are refused from now on."""
        lost = {
            key
            for key, value in _readable(self._report, self._pages, "keys")
            if not self._now(PAIR.unpack(value)[0]) and self._journal.known(key) is None
        }
        lost |= {key for key in self._newest_lost() if self._journal.known(key) is None}
        self._report.barred_keys = len(lost)
        number = U64.pack(max(1, self._journal.next_record - 1))
        self._journal.restore(lambda group: group.restore("undone", [(key, number) for key in sorted(lost)]))

    def _newest_lost(self) -> Iterator[bytes]:
        """The keys under which lost transactions can come again whose keys are in no table yet."""
        keyed = [value for key, value in _readable(self._report, self._pages, "meta") if key.startswith(KEYED)]
        newest = min(map(int.from_bytes, keyed), default=1)
        lost = [range(max(newest, it.first_record), it.first_record + it.records) for it in self._report.lost]
        for first, data in _readable(self._report, self._pages, "columns"):
            if not any(U64.unpack(first)[0] in records for records in lost):
                continue
            try:
                row = Row(data)
            except ValueError:
                continue
            for index in range(row.count):
                terminal = row.at(TERMINAL, index).decode().rstrip()
                if any(row.at(RRN, index)) and terminal in self._merchants:
                    stan = int.from_bytes(row.at(STAN, index), "big")
                    yield key_of(terminal, self._merchants[terminal], self._journal.batch(terminal), stan)
