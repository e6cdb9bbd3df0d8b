"""What the books say, for whoever compares them with the switch's journal. Reads the file; the host may be running."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from fengshou.ext.hosts.core_banking.ledger import trial_balance
from fengshou.protocol.day_file import DayRow


def ledger_report(database: Path) -> Mapping[str, Any]:
    """Totals of the books at ``database``, all amounts in fen. Raises sqlite3.Error when it cannot be read.

    ``balanced``            the trial balance holds: legs sum to zero, each posting too, and balances are sums of legs
    ``sum_fen``             of all legs, 0 in good books
    ``by_processing_code``  ``{"00": {"count": …, "fen": …}}`` of what is posted and not reversed
    ``transactions``        ``{RRN: {"kind": processing code, "fen": …, "state": posted | declined | reversed}}``
    """
    connection = _read_only(database)
    try:
        connection.execute("BEGIN")  # one snapshot for all that follows
        balance = trial_balance(connection)
        totals = connection.execute(
            "SELECT processing_code, count(*), sum(amount_fen) FROM transactions WHERE state = 'posted'"
            " GROUP BY processing_code ORDER BY processing_code"
        )
        by_processing_code = {kind: {"count": count, "fen": fen} for kind, count, fen in totals}
        rows = connection.execute(
            "SELECT rrn, processing_code, amount_fen, state FROM transactions WHERE class = '2' ORDER BY id"
        )
        transactions = {rrn: {"kind": kind, "fen": fen, "state": state} for rrn, kind, fen, state in rows}
    finally:
        connection.close()
    return {
        "balanced": balance.balanced,
        "sum_fen": balance.sum_fen,
        "unbalanced_postings": balance.unbalanced_postings,
        "misstated_accounts": balance.misstated_accounts,
        "by_processing_code": by_processing_code,
        "transactions": transactions,
    }


def day_rows(database: Path, business_day: int) -> Iterator[DayRow]:
    """Every financial request that counts to a business day (DE 15), in the order in which it was decided.

    The year stands in the RRN (YDDD…). Raises sqlite3.Error when the books cannot be read.
    """
    with closing(_read_only(database)) as connection:
        rows = connection.execute(
            "SELECT rrn, terminal, processing_code, amount_fen, state FROM transactions"
            " WHERE class = '2' AND settlement_date = ? AND substr(rrn, 1, 1) = ? ORDER BY id",
            (f"{business_day % 10_000:04d}", str(business_day // 10_000 % 10)),
        )
        for rrn, terminal, kind, fen, state in rows:
            yield DayRow(int(rrn), terminal, kind, fen, state)


def _read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
