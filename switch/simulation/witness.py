"""What must hold at every step: seen by a witness of each durable commit, each request at the host, each answer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import trio

from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import MTI, OriginalData
from fengshou.protocol.message import Value
from fengshou.protocol.money import amount_of
from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Entry, batch_key
from fengshou.switch.recording import Recorder
from fengshou.switch.simulation.agenda import Diary
from fengshou.switch.simulation.terminal import Terminal
from fengshou.switch.stand_in import Caps
from fengshou.terminals.answers import Request, Response

# China UnionPay: what a completion may come to, of what was held.
_COMPLETION_PERCENT_MAX = 115
# A message that was on its way when a terminal was barred may have been taken just before.
_BARRED_AFTER_S = 0.001


class Witness:
    """Called from inside the switch, where an exception might be swallowed: it ends the run by ``fail``."""

    def __init__(
        self, diary: Diary, fail: Callable[[str], None], catalogue: Catalogue, recorder: Recorder,
        caps: Mapping[str, Caps],
    ) -> None:  # fmt: skip
        """``caps``: of standing in, by service."""
        self._diary = diary
        self._fail = fail
        self._catalogue = catalogue
        self._recorder = recorder
        self._caps = caps
        self.steps: Counter[str] = Counter()  # of transactions, by name
        self.intents: set[int] = set()  # RRNs
        self.events: list[bytes] = []  # for analytics, in the order of their commits
        self._outcomes: dict[int, str] = {}  # code by RRN
        self._bodies: dict[tuple[str, int, int], bytes] = {}  # first answer by terminal, batch and STAN
        self._closed: set[bytes] = set()  # batches that are settled
        self._stood_in: Counter[tuple[str, str]] = Counter()  # fen by business day and service, or terminal
        self._asked: dict[tuple[str, str, str], Fields] = {}  # requests at the host by terminal, STAN and time
        self._refunds: dict[tuple[str, str, str], dict[int, int]] = {}  # by what they give back: fen by RRN
        self._barred: dict[str, float] = {}  # terminals that may not trade, and since when

    # -- the journal ---------------------------------------------------------------------------------------------------

    def durable(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            record = entry.record
            self.steps[_step_of(entry)] += 1
            if entry.event:
                self.events.append(entry.event)
            self._diary.note("journal", f"{RecordKind(record.kind).name.lower()} {record.rrn} {record.code}")
            if record.kind == RecordKind.INTENT:
                self._begun(record)
            elif record.kind == RecordKind.OUTCOME:
                self._ended(entry)

    def _begun(self, record: Record) -> None:
        if record.rrn in self.intents:
            self._fail(f"RRN {record.rrn} was given twice")
        self.intents.add(record.rrn)
        service = self._catalogue.service(record.template)
        moves_money = service is not None and service.moves_money
        if moves_money and batch_key(record.terminal, record.merchant, record.batch) in self._closed:
            self._fail(f"RRN {record.rrn} began in batch {record.batch} of {record.terminal}, which is settled")
        since = self._barred.get(record.terminal)
        if since is not None and trio.current_time() > since + _BARRED_AFTER_S:
            self._fail(f"RRN {record.rrn} began at {record.terminal}, which is barred since {since:.3f} s")

    def _ended(self, entry: Entry) -> None:
        record = entry.record
        if record.rrn in self._outcomes:
            self._fail(f"RRN {record.rrn} has two outcomes: {self._outcomes[record.rrn]} and {record.code}")
        self._outcomes[record.rrn] = record.code
        if entry.settles is not None:
            self._closed.add(entry.settles[0])
        if record.code == codes.APPROVED and entry.intent is not None:
            asked = self._recorder.clear(entry.intent.record)
            if de.WEIGHT in asked and amount_of(
                _integer(asked[de.WEIGHT]), _integer(asked[de.UNIT_PRICE])
            ) != asked.get(de.AMOUNT):
                self._fail(f"RRN {record.rrn} was approved, and its weight × price is not its amount")
        if entry.advice and entry.intent is not None:
            self._advised(entry.intent.record)

    def _advised(self, intent: Record) -> None:
        """The switch approved by itself: by the service's own rules, else within the bank's caps."""
        service = self._catalogue.service(intent.template)
        assert service is not None
        if service.accepts:
            return
        caps = self._caps.get(service.name)
        fen = _integer(self._recorder.clear(intent)[de.AMOUNT])
        if caps is None or fen > caps.transaction_fen:
            self._fail(f"RRN {intent.rrn} was stood in for over {fen} fen, and the bank does not want that")
            return
        self.steps["stood in"] += 1
        for subject, cap in ((service.name, caps.service_fen), (intent.terminal, caps.terminal_fen)):
            self._stood_in[f"{intent.business_day}", subject] += fen
            if self._stood_in[f"{intent.business_day}", subject] > cap:
                self._fail(f"RRN {intent.rrn}: more was stood in for {subject} in a day than {cap} fen")

    # -- the host ------------------------------------------------------------------------------------------------------

    def at_host(self, fields: Fields) -> None:
        """Journalled before sent: the intent is durable when the host hears of it. It is asked for lawful things."""
        rrn = int(str(fields[37]))
        self.steps[f"host hears {fields[MTI]!s}"] += 1
        self._diary.note("host", f"hears {fields[MTI]!s} {rrn}")
        if rrn not in self.intents:
            self._fail(f"the host hears of RRN {rrn}, which is not in the journal")
        kind = str(fields[MTI])[1:3]
        if kind in ("10", "20", "22"):
            self._asked.setdefault((str(fields[41]), str(fields[11]), str(fields[7])), fields)
            if 90 in fields:
                self._follows(kind, fields)

    def _follows(self, kind: str, fields: Fields) -> None:
        """All refunds of a purchase are at most what it was; a pre-authorisation is completed by 115 % at most."""
        named = OriginalData.parse(str(fields[90]))
        key = (str(fields[41]), named.stan, named.transmission_time)
        original = self._asked.get(key)
        if original is None:
            return
        back, asked_fen, fen = str(fields[3])[:2] == "20", int(str(original[4])), int(str(fields[4]))
        if kind == "20" and not back and fen * 100 > asked_fen * _COMPLETION_PERCENT_MAX:
            self._fail(f"the host is asked to complete a hold of {asked_fen} fen with {fen}")
        if kind == "22":
            refunds = self._refunds.setdefault(key, {})
            refunds[int(str(fields[37]))] = fen
            given = sum(
                fen for rrn, fen in refunds.items() if self._outcomes.get(rrn, codes.APPROVED) == codes.APPROVED
            )
            if given > asked_fen:
                self._fail(f"the host is asked to give back {given} fen of a purchase of {asked_fen}")

    # -- the terminals -------------------------------------------------------------------------------------------------

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

    def barred(self, terminal: str) -> None:
        """An operator has barred it."""
        self._barred[terminal] = trio.current_time()

    def admitted(self, terminal: str) -> None:
        """It may trade again."""
        del self._barred[terminal]


def _step_of(entry: Entry) -> str:
    """What a durable record means for its transaction."""
    match entry.record.kind:
        case RecordKind.OUTCOME if entry.tombstone:
            return "tombstone"
        case RecordKind.OUTCOME if entry.undoes:
            return "approved, and its original reversed"
        case RecordKind.OUTCOME if entry.advice:
            return "approved, and an advice due"
        case RecordKind.OUTCOME if entry.settles:
            return "batch settled"
        case RecordKind.OUTCOME if entry.record.code == codes.UNKNOWN_OUTCOME:
            return "unknown, reversal due" if entry.owes else "unknown, nothing moved"
        case RecordKind.OUTCOME:
            return "approved" if entry.record.code == codes.APPROVED else "declined"
        case RecordKind.INTENT:
            return "journalled"
        case RecordKind.REVERSAL:
            return "reversal answered"
        case RecordKind.ADVICE:
            return "advice answered"
        case RecordKind.LATE:
            return "late answer"
        case RecordKind.REFUSAL:
            return "refused"
    return "session"


def _integer(value: Value) -> int:
    assert isinstance(value, int)
    return value
