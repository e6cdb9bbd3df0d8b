"""The journal against a host's books: every approval that stands must be there, to the fen, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fengshou.protocol.day_file import DayRow
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Journal
from fengshou.switch.recording import Recorder
from fengshou.switch.settlement.totals import LAST_DAY, Settlements


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One transaction on which the two do not agree; None: that side does not have it."""

    rrn: int
    journal_fen: int | None
    books_fen: int | None

    @property
    def what(self) -> str:
        if self.books_fen is None:
            return "missing in the books"
        return "missing in the journal" if self.journal_fen is None else "amount differs"

    def __str__(self) -> str:
        if self.books_fen is None:
            return f"{self.rrn:012d}: approved for {self.journal_fen} fen in the journal, not posted in the books"
        if self.journal_fen is None:
            return f"{self.rrn:012d}: posted for {self.books_fen} fen in the books, not approved in the journal"
        return f"{self.rrn:012d}: {self.journal_fen} fen in the journal, {self.books_fen} in the books"


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """No discrepancy is the only good result. ``transactions`` and ``fen`` are the journal's."""

    transactions: int
    fen: int
    discrepancies: tuple[Discrepancy, ...] = ()

    @property
    def equal(self) -> bool:
        return not self.discrepancies

    @property
    def differences(self) -> list[str]:
        """The discrepancies as sentences."""
        return [str(one) for one in self.discrepancies]


def standing_approvals(journal: Journal, catalogue: Catalogue, recorder: Recorder) -> dict[int, int]:
    """RRN and fen of every approved transaction that moved money at a host and was not undone."""
    journal.refresh()
    counted = Settlements(journal, catalogue, recorder).days(0, LAST_DAY)
    return {one.rrn: one.fen for one in counted if one is not None and one.side is not None}


def reconcile(standing: Mapping[int, int], books: Mapping[str, Mapping[str, Any]]) -> Reconciliation:
    """Compare with the ``transactions`` of a host's report, see ``ext.hosts.core_banking.ledger_report``.

    Enquiries move nothing and count on neither side.
    """
    rows = (DayRow(int(rrn), "", str(row["kind"]), int(row["fen"]), str(row["state"])) for rrn, row in books.items())
    return compare(standing, {row.rrn: row.fen for row in rows if row.moved_money})


def compare(standing: Mapping[int, int], posted: Mapping[int, int]) -> Reconciliation:
    """The journal's fen by RRN against the books', in both directions."""
    discrepancies = [
        Discrepancy(rrn, standing.get(rrn), posted.get(rrn))
        for rrn in sorted(standing.keys() | posted.keys())
        if standing.get(rrn) != posted.get(rrn)
    ]
    return Reconciliation(len(standing), sum(standing.values()), tuple(discrepancies))
