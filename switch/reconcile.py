"""The journal against a host's books: every approval that stands must be there, to the fen, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.record import RecordKind, parse_record
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal import Journal, key_of
from fengshou.switch.recording import Recorder


@dataclass(slots=True)
class Reconciliation:
    """``differences`` are sentences; an empty list is the only good one."""

    transactions: int = 0
    fen: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not self.differences


def standing_approvals(journal: Journal, catalogue: Catalogue, recorder: Recorder) -> dict[int, int]:
    """RRN and fen of every approved transaction that moved money at a host and was not undone."""
    journal.refresh()
    standing: dict[int, int] = {}
    for _, data in journal.records():
        record = parse_record(data)
        if record.kind != RecordKind.OUTCOME or record.code != codes.APPROVED:
            continue
        service = catalogue.service(record.template)
        known = journal.known(key_of(record.terminal, record.merchant, record.batch, record.stan))
        if service is None or not service.moves_money or known is None or known.undone_by:
            continue
        intent = recorder.clear(journal.record(record.refers))
        if de.ORIGINAL_STAN in intent:  # a reversal moves nothing of its own; it undoes
            continue
        amount = intent.get(de.AMOUNT, 0)
        assert isinstance(amount, int)
        standing[record.rrn] = amount
    return standing


def reconcile(standing: Mapping[int, int], books: Mapping[str, Mapping[str, Any]]) -> Reconciliation:
    """Compare with the ``transactions`` of a host's report, see ``ext.hosts.core_banking.ledger_report``.

    Enquiries move nothing and count on neither side.
    """
    result = Reconciliation(len(standing), sum(standing.values()))
    posted = {
        int(rrn): int(row["fen"]) for rrn, row in books.items() if row["state"] == "posted" and row["kind"][:1] != "3"
    }
    for rrn, fen in sorted(standing.items()):
        if rrn not in posted:
            result.differences.append(f"{rrn:012d}: approved for {fen} fen in the journal, not posted in the books")
        elif posted[rrn] != fen:
            result.differences.append(f"{rrn:012d}: {fen} fen in the journal, {posted[rrn]} in the books")
    for rrn in sorted(posted.keys() - standing.keys()):
        result.differences.append(f"{rrn:012d}: posted for {posted[rrn]} fen in the books, not approved in the journal")
    return result
