"""What must hold when everything has come to rest: journal, books, analytics and terminals against each other."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from fengshou.codecs import sm3
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.elements import BASE_ELEMENTS, Privacy
from fengshou.protocol.message import Value
from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.switch import stand_in
from fengshou.switch.journal.audit import verify_journal
from fengshou.switch.journal.store import Journal, key_of
from fengshou.switch.recording import Recorder
from fengshou.switch.settlement.reconcile import compare, reconcile, standing_approvals
from fengshou.switch.settlement.totals import Settlements
from fengshou.switch.simulation.deeds import Told
from fengshou.switch.simulation.offices import signers
from fengshou.switch.simulation.terminal import Broken, Terminal

if TYPE_CHECKING:
    from fengshou.switch.simulation.town import Town

Books = Mapping[str, Mapping[str, object]]

_NEVER_IN_CLEAR = {element.key for element in BASE_ELEMENTS if element.privacy is not Privacy.C1}


def judge(town: "Town") -> None:
    """Raises Broken."""
    journal = Journal(town.folder / "journal", read_only=True)
    try:
        Judgement(town, journal).all()
    finally:
        journal.close()


class Judgement:
    """One run's, over its journal."""

    def __init__(self, town: "Town", journal: Journal) -> None:
        self._town = town
        self._journal = journal
        self._recorder = Recorder(town.catalogue, town.custody, town.clock)
        self._records = [parse_record(data) for _, data in journal.records()]
        told_late = {record.rrn for record in self._records if record.kind == RecordKind.LATE}
        # What the host did after it had reversed it, and told nobody: no switch can know that.
        self._unknowable = town.host.done_behind - told_late
        books = town.host.report()["transactions"]
        self._books: Books = {rrn: row for rrn, row in books.items() if int(rrn) not in self._unknowable}

    def all(self) -> None:
        self._journal_proves_itself()
        self._one_life_each()
        self._to_the_fen()
        self._held_money()
        for terminal in self._town.terminals:
            self._told_the_truth(terminal)
            self._stored_once(terminal)
        self._analytics()
        self._secrets()

    # -- the journal by itself -----------------------------------------------------------------------------------------

    def _journal_proves_itself(self) -> None:
        finding = verify_journal(self._journal, self._recorder, signers(self._town.custody))
        _require(finding.good, f"the journal cannot be proved: {'; '.join(finding.problems)}")
        _require(not self._journal.open_intents(), f"intents without an outcome: {self._journal.open_intents()}")
        _require(not self._journal.due(), f"still owed: {self._journal.due()}")

    def _one_life_each(self) -> None:
        intents = {record.number: record for record in self._records if record.kind == RecordKind.INTENT}
        keys = Counter(_key(record) for record in intents.values())
        twice = [key for key, count in keys.items() if count > 1]
        _require(not twice, f"two intents under one key: {twice}")
        outcomes = Counter(record.refers for record in self._records if record.kind == RecordKind.OUTCOME)
        _require(set(outcomes) == set(intents) and set(outcomes.values()) <= {1}, "intents and outcomes do not pair")
        rrns = {record.rrn for record in intents.values()}
        durable = self._town.witness.intents
        _require(durable == rrns, f"durable intents are gone or came from nowhere: {durable ^ rrns}")

    # -- the journal and the host's books ------------------------------------------------------------------------------

    def _to_the_fen(self) -> None:
        """All together and day by day; what the host would not have, and was told of, is listed as such."""
        town, disputed = self._town, {one.rrn for one in stand_in.differences(self._journal, self._recorder)}
        left_out = disputed | self._unknowable
        _require(bool(town.host.report()["balanced"]), "the host's books do not balance")
        standing = _without(standing_approvals(self._journal, town.catalogue, self._recorder), left_out)
        result = reconcile(standing, self._books)
        _require(result.equal, "; ".join(result.differences))
        settlements = Settlements(self._journal, town.catalogue, self._recorder)
        for day in sorted({record.business_day for record in self._records if record.kind == RecordKind.INTENT}):
            counted = {one.rrn: one.fen for one in settlements.days(day, day) if one is not None and one.side}
            posted = {row.rrn: row.fen for row in town.host.day_rows(day) if row.moved_money}
            result = compare(_without(counted, left_out), _without(posted, left_out))
            _require(result.equal, f"business day {day}: {'; '.join(result.differences)}")

    def _held_money(self) -> None:
        """Pre-authorisations that stand and are not completed hold money, and nothing else does."""
        completed = {
            _key_named(record, self._recorder.clear(self._journal.record(record.refers)))
            for record in self._approved("completion")
        }
        standing = {record.rrn for record in self._approved("preauthorisation") if _key(record) not in completed}
        holding = standing - self._unknowable
        with closing(sqlite3.connect(self._town.host.database)) as books:
            rows = books.execute("SELECT rrn FROM transactions WHERE state = 'held'")
            held = {int(rrn) for (rrn,) in rows} - self._unknowable
        _require(holding == held, f"the host holds money for other pre-authorisations than stand: {holding ^ held}")

    def _approved(self, service: str) -> Iterator[Record]:
        """Outcomes of a service that were approved and not taken back."""
        for record in self._records:
            if record.kind == RecordKind.OUTCOME and record.code == codes.APPROVED:
                found = self._town.catalogue.service(record.template)
                known = self._journal.known(_key(record))
                if found is not None and found.name == service and known is not None and not known.undone_by:
                    yield record

    # -- what terminals were told --------------------------------------------------------------------------------------

    def _told_the_truth(self, terminal: Terminal) -> None:
        taken_back: dict[tuple[Value, Value], bool] = {}  # by original: whether it was approved that it be undone
        for told in terminal.told:
            if told.request.template.name in ("reversal", "void", "preauthorisation-void"):
                original = (told.request.values[de.ORIGINAL_BATCH], told.request.values[de.ORIGINAL_STAN])
                taken_back[original] = taken_back.get(original, False) or told.approved
        for told in terminal.told:
            if told.request.stan:
                self._true(terminal, told, taken_back.get((told.request.batch, told.request.stan)))

    def _true(self, terminal: Terminal, told: Told, undone: bool | None) -> None:
        """``undone``: whether its undoing was approved; None: nobody asked for it."""
        request, outcome = told.request, told.outcome
        name = f"{terminal.name} {request.template.name} batch {request.batch} STAN {request.stan}"
        known = self._journal.known(key_of(terminal.name, terminal.identity.merchant, request.batch, request.stan))
        if told.forged:
            _require(known is None or not known.intent, f"{name} was signed by somebody else and journalled")
            return
        if known is None or not known.intent:
            _require(outcome is None, f"{name} was answered {outcome and outcome.code} and is not in the journal")
            return
        intent, record = self._journal.record(known.intent), self._journal.record(known.outcome)
        if outcome is not None:
            _require(record.code == outcome.code, f"{name}: told {outcome.code}, journal {record.code}")
            _require(record.evidence == sm3(outcome.body), f"{name}: the answer is not the one that was journalled")
        if self._town.catalogue.template(intent.template).side is None or intent.rrn in self._unknowable:
            return
        row = self._books.get(f"{intent.rrn:012d}")
        state = row["state"] if row else "never heard of"
        _require(not undone or state != "posted", f"{name}: its undoing was approved, and it stands in the books")
        if record.code == codes.APPROVED:
            disputed = state == "declined" and self._is_disputed(intent)
            _require(
                state == "posted" or undone or (undone is not None and state == "reversed") or disputed,
                f"{name}: approved, but the host's books say {state}",
            )
            _require(
                row is None or disputed or row["fen"] == request.values[de.AMOUNT],
                f"{name}: another amount in the books",
            )
        else:
            _require(state != "posted", f"{name}: told {record.code}, but the host's books say {state}")

    def _is_disputed(self, intent: Record) -> bool:
        return any(record.kind == RecordKind.ADVICE and record.refers == intent.number for record in self._records)

    def _stored_once(self, terminal: Terminal) -> None:
        """A purchase without coverage becomes one transaction at most, and it ends as the terminal was told."""
        for one in terminal.uploaded:
            known = self._journal.known(key_of(terminal.name, terminal.identity.merchant, one.batch, one.stan))
            if one.rrn is not None:
                code = self._journal.record(known.outcome).code if known and known.outcome else None
                _require(code == one.code, f"{terminal.name}: stored purchase told {one.code}, journal {code}")
        asked = {(told.request.batch, told.request.stan) for told in terminal.told}
        uploaded = [
            record
            for record in self._records
            if record.kind == RecordKind.INTENT
            and record.terminal == terminal.name
            and (record.batch, record.stan) not in asked
        ]
        _require(
            len(uploaded) <= terminal.stored,
            f"{terminal.name} stored {terminal.stored} purchases and {len(uploaded)} were done",
        )

    # -- analytics, and what may not be seen ---------------------------------------------------------------------------

    def _analytics(self) -> None:
        """The store has each event once, in the order of the journal's commits."""
        told = [event for _, event in sorted(self._town.analytics_told.items())]
        events = [msgspec.json.decode(event) for event in self._town.witness.events]
        both = [[event["rrn"] for event in some] for some in (told, events)]
        _require(told == events, f"analytics was told of {both[0]}, the journal of {both[1]}")

    def _secrets(self) -> None:
        town = self._town
        for record in self._records:
            personal = _NEVER_IN_CLEAR & self._recorder.clear(record).keys()
            _require(not personal, f"record {record.number} keeps {sorted(personal)} in clear")
        haystacks = [(f"the journal's {file.name}", file.read_bytes()) for file in (town.folder / "journal").iterdir()]
        haystacks.append(("the trace", "\n".join(town.diary.lines).encode()))
        haystacks.append(("the log", "\n".join(town.log.lines).encode()))
        haystacks.append(("what analytics was told", msgspec.json.encode(list(town.analytics_told.values()))))
        found = list(town.secrets.found_in(haystacks))
        _require(not found, "; ".join(found))


def _key(record: Record) -> bytes:
    return key_of(record.terminal, record.merchant, record.batch, record.stan)


def _key_named(record: Record, asked: Mapping[int, Value]) -> bytes:
    """Of the transaction that a request refers to."""
    batch, stan = asked[de.ORIGINAL_BATCH], asked[de.ORIGINAL_STAN]
    assert isinstance(batch, int)
    assert isinstance(stan, int)
    return key_of(record.terminal, record.merchant, batch, stan)


def _without(fen_by_rrn: Mapping[int, int], left_out: set[int]) -> dict[int, int]:
    return {rrn: fen for rrn, fen in fen_by_rrn.items() if rrn not in left_out}


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
