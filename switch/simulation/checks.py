"""What must always hold, checked at every step that can be seen and once more when everything has come to rest."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fengshou.codecs import sm3
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.backend import Fields
from fengshou.protocol.message import Value
from fengshou.protocol.record import Record, RecordKind, parse_record
from fengshou.switch.audit import verify_journal
from fengshou.switch.journal import Entry, Journal, key_of
from fengshou.switch.reconcile import reconcile, standing_approvals
from fengshou.switch.recording import Recorder
from fengshou.switch.simulation.agenda import Diary
from fengshou.switch.simulation.terminal import Broken, Terminal, Told
from fengshou.terminals.answers import Request, Response

if TYPE_CHECKING:
    from fengshou.switch.simulation.town import Town


class Witness:
    """Sees every durable commit, every request that gets to the host and every answer that gets to a terminal."""

    def __init__(self, diary: Diary, fail: Callable[[str], None]) -> None:
        """``fail`` ends the run; a witness is called from inside the switch, where an exception might be swallowed."""
        self._diary = diary
        self._fail = fail
        self._intents: set[int] = set()  # RRNs
        self._outcomes: dict[int, str] = {}  # code by RRN
        self.steps: Counter[str] = Counter()  # of transactions, by name
        self._bodies: dict[tuple[str, int, int], bytes] = {}  # first answer by terminal, batch and STAN

    # -- at every step -------------------------------------------------------------------------------------------------

    def durable(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            record = entry.record
            self.steps[_step_of(entry)] += 1
            self._diary.note("journal", f"{RecordKind(record.kind).name.lower()} {record.rrn} {record.code}")
            if record.kind == RecordKind.INTENT:
                if record.rrn in self._intents:
                    self._fail(f"RRN {record.rrn} was given twice")
                self._intents.add(record.rrn)
            elif record.kind == RecordKind.OUTCOME:
                if record.rrn in self._outcomes:
                    self._fail(f"RRN {record.rrn} has two outcomes: {self._outcomes[record.rrn]} and {record.code}")
                self._outcomes[record.rrn] = record.code

    def at_host(self, fields: Fields) -> None:
        """Journalled before sent: the intent is durable when the host hears of it."""
        rrn = int(str(fields[37]))
        self.steps[f"host hears {fields[0]!s}"] += 1
        self._diary.note("host", f"hears {fields[0]!s} {rrn}")
        if rrn not in self._intents:
            self._fail(f"the host hears of RRN {rrn}, which is not in the journal")

    def at_terminal(self, terminal: Terminal, request: Request, response: Response) -> None:
        """The outcome is durable when the terminal hears of it, and it hears the same thing every time."""
        if response.rrn is None:
            return
        if self._outcomes.get(response.rrn) != response.code:
            self._fail(
                f"{terminal.name} is told {response.code} for RRN {response.rrn}; the journal says "
                f"{self._outcomes.get(response.rrn)}"
            )
        key = (terminal.name, request.batch, request.stan)
        if self._bodies.setdefault(key, response.body) != response.body:
            self._fail(f"{terminal.name} is told two things for batch {request.batch} STAN {request.stan}")

    # -- at rest -------------------------------------------------------------------------------------------------------

    def judge(self, town: "Town") -> None:
        """Journal, books and terminals against each other. Raises Broken."""
        journal = Journal(town.folder / "journal", read_only=True)
        try:
            recorder = Recorder(town.catalogue, town.custody, town.clock)
            finding = verify_journal(journal, recorder, [town.custody.public_key(SWITCH_SIGN)])
            _require(finding.good, f"the journal cannot be proved: {'; '.join(finding.problems)}")
            _require(not journal.open_intents(), f"intents without an outcome: {journal.open_intents()}")
            _require(not journal.due(), f"still owed: {journal.due()}")
            records = [parse_record(data) for _, data in journal.records()]
            self._one_life_each(records)
            standing = standing_approvals(journal, town.catalogue, recorder)
            books = town.host.report()
            _require(bool(books["balanced"]), "the host's books do not balance")
            result = reconcile(standing, books["transactions"])
            _require(result.equal, "; ".join(result.differences))
            self._told_the_truth(town, journal, books["transactions"])
        finally:
            journal.close()

    def _one_life_each(self, records: Sequence[Record]) -> None:
        keys = Counter(
            key_of(record.terminal, record.merchant, record.batch, record.stan)
            for record in records
            if record.kind == RecordKind.INTENT
        )
        twice = [key for key, count in keys.items() if count > 1]
        _require(not twice, f"two intents under one key: {twice}")
        outcomes = Counter(record.refers for record in records if record.kind == RecordKind.OUTCOME)
        intents = {record.number for record in records if record.kind == RecordKind.INTENT}
        _require(set(outcomes) == intents and set(outcomes.values()) <= {1}, "intents and outcomes do not pair")
        seen = {record.rrn for record in records if record.kind == RecordKind.INTENT}
        _require(self._intents == seen, f"durable intents are gone or came from nowhere: {self._intents ^ seen}")

    def _told_the_truth(self, town: "Town", journal: Journal, books: dict[str, dict[str, object]]) -> None:
        for terminal in town.terminals:
            taken_back: dict[tuple[Value, Value], bool] = {}  # by original: whether the reversal was approved
            for told in terminal.told:
                if told.request.template.name == "reversal":
                    original = (told.request.values[de.ORIGINAL_BATCH], told.request.values[de.ORIGINAL_STAN])
                    approved = told.outcome is not None and told.outcome.approved
                    taken_back[original] = taken_back.get(original, False) or approved
            for told in terminal.told:
                if told.request.stan:
                    self._true(town, journal, books, terminal, told, taken_back)

    def _true(
        self,
        town: "Town",
        journal: Journal,
        books: dict[str, dict[str, object]],
        terminal: Terminal,
        told: Told,
        taken_back: dict[tuple[Value, Value], bool],
    ) -> None:
        request, outcome = told.request, told.outcome
        name = f"{terminal.name} {request.template.name} batch {request.batch} STAN {request.stan}"
        known = journal.known(key_of(terminal.name, terminal.identity.merchant, request.batch, request.stan))
        if told.forged:
            _require(known is None or not known.intent, f"{name} was signed by somebody else and journalled")
            return
        if known is None or not known.intent:
            _require(outcome is None, f"{name} was answered {outcome and outcome.code} and is not in the journal")
            return
        intent = journal.record(known.intent)
        record = journal.record(known.outcome)
        if outcome is not None:
            _require(record.code == outcome.code, f"{name}: told {outcome.code}, journal {record.code}")
            _require(record.evidence == sm3(outcome.body), f"{name}: the answer is not the one that was journalled")
        service = town.catalogue.service(intent.template)
        if service is None or not service.moves_money or service.name == "reversal":
            return
        row = books.get(f"{intent.rrn:012d}")
        state = row["state"] if row else "never heard of"
        undone = taken_back.get((request.batch, request.stan))
        _require(not undone or state != "posted", f"{name}: its reversal was approved, and it stands in the books")
        if record.code == codes.APPROVED:
            _require(
                state == "posted" or (undone is not None and state == "reversed"),
                f"{name}: approved, but the host's books say {state}",
            )
            _require(
                row is not None and row["fen"] == request.values[de.AMOUNT], f"{name}: another amount in the books"
            )
        else:
            _require(state != "posted", f"{name}: told {record.code}, but the host's books say {state}")


def _step_of(entry: Entry) -> str:
    """What a durable record means for its transaction."""
    match entry.record.kind:
        case RecordKind.OUTCOME if entry.tombstone:
            return "tombstone"
        case RecordKind.OUTCOME if entry.undoes:
            return "approved, and its original reversed"
        case RecordKind.OUTCOME if entry.record.code == codes.UNKNOWN_OUTCOME:
            return "unknown, reversal due" if entry.owes else "unknown, nothing moved"
        case RecordKind.OUTCOME:
            return "approved" if entry.record.code == codes.APPROVED else "declined"
        case RecordKind.INTENT:
            return "journalled"
        case RecordKind.REVERSAL:
            return "reversal answered"
        case RecordKind.LATE:
            return "late answer"
        case RecordKind.REFUSAL:
            return "refused"
    return "session"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
