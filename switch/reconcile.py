"""The journal against a host's books: every approval that stands must be there, to the fen, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal import Journal
from fengshou.switch.recording import Recorder
from fengshou.switch.settlement import LAST_DAY, Settlements


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
    counted = Settlements(journal, catalogue, recorder).days(0, LAST_DAY)
    return {one.rrn: one.fen for one in counted if one is not None and one.side is not None}


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
