"""The books: accounts and double-entry postings in SQLite.

One connection writes. What a batch decides becomes durable in one transaction (WAL, synchronous FULL: the log is on
disk when the commit returns). A posting is legs on accounts that sum to zero; anything else is refused as our fault.
"""

import csv
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

OPENING_POSTING = 0

# Opening balances are owed by this account, so that the books balance from the first day.
OPENING_ACCOUNT = "OPENING"

Leg = tuple[str, int]  # account, fen; positive is credit


class LedgerError(Exception):
    """The books were about to stop balancing. Nothing of the batch is kept."""


@dataclass(frozen=True, slots=True)
class Account:
    number: str
    status: str
    balance_fen: int
    held_fen: int

    @property
    def available_fen(self) -> int:
        """What may be spent: the balance without what pre-authorisations hold."""
        return self.balance_fen - self.held_fen


@dataclass(frozen=True, slots=True)
class OpeningAccount:
    """A row of the accounts file."""

    number: str
    name: str
    kind: str
    opening_fen: int
    status: str = "open"


class Ledger:
    def __init__(self, database: Path) -> None:
        """Opens or creates the books. Raises sqlite3.Error when the file cannot be used."""
        # The server calls from its worker thread only, one batch after the other.
        self.connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self.connection.execute(f"PRAGMA {pragma}")
        schema = files("fengshou.ext.hosts.core_banking").joinpath("schema.sql").read_text("utf-8")
        self.connection.executescript(schema)

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """All that is written inside becomes durable together at the end, or not at all."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def account(self, number: str) -> Account | None:
        row = self.connection.execute(
            "SELECT number, status, balance_fen, held_fen FROM accounts WHERE number = ?", (number,)
        ).fetchone()
        return Account(*row) if row else None

    def post(self, posting: int, legs: Sequence[Leg]) -> None:
        """Raises LedgerError when the legs do not sum to zero or an account is missing. Checks no balance."""
        if sum(fen for _, fen in legs):
            raise LedgerError(f"the legs of posting {posting} do not sum to zero")
        for account, fen in legs:
            changed = self.connection.execute(
                "UPDATE accounts SET balance_fen = balance_fen + ? WHERE number = ?", (fen, account)
            ).rowcount
            if changed != 1:
                raise LedgerError(f"posting {posting} has a leg on an account that does not exist")
        self.connection.executemany(
            "INSERT INTO legs (posting, account, fen) VALUES (?, ?, ?)", [(posting, *leg) for leg in legs]
        )

    def hold(self, account: str, fen: int) -> None:
        """Hold an amount back, or let go of it when it is negative."""
        self.connection.execute("UPDATE accounts SET held_fen = held_fen + ? WHERE number = ?", (fen, account))

    def reverse(self, original: int, posting: int) -> None:
        """Post the opposite of ``original``. Balances may go below zero: what was paid out by mistake is owed back."""
        legs = self.connection.execute("SELECT account, -fen FROM legs WHERE posting = ?", (original,)).fetchall()
        if not legs:
            raise LedgerError(f"posting {original} has no legs to reverse")
        self.post(posting, legs)

    def open_accounts(self, rows: Iterable[OpeningAccount]) -> None:
        """Accounts that are not there yet, with their opening balances. Those that exist stay as they are."""
        with self.batch():
            self._insert_account(OpeningAccount(OPENING_ACCOUNT, "opening balances", "internal", 0))
            for row in rows:
                if self._insert_account(row) and row.opening_fen:
                    legs = [(row.number, row.opening_fen), (OPENING_ACCOUNT, -row.opening_fen)]
                    self.post(OPENING_POSTING, legs)

    def _insert_account(self, row: OpeningAccount) -> bool:
        inserted = self.connection.execute(
            "INSERT OR IGNORE INTO accounts (number, name, kind, status, balance_fen) VALUES (?, ?, ?, ?, 0)",
            (row.number, row.name, row.kind, row.status),
        )
        return inserted.rowcount == 1


def read_accounts(path: Path) -> list[OpeningAccount]:
    """The accounts file: CSV with the columns number, name, kind, opening_fen and, if wanted, status.

    Lines that begin with # are comments. Raises ValueError naming the line, OSError when it cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = [(number, line) for number, line in enumerate(file, 1) if line.strip() and not line.startswith("#")]
    accounts = []
    rows = csv.DictReader(line for _, line in lines)
    for (number, _), row in zip(lines[1:], rows, strict=True):
        try:
            status = row.get("status") or "open"
            accounts.append(OpeningAccount(row["number"], row["name"], row["kind"], int(row["opening_fen"]), status))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {type(error).__name__}: {error}") from None
    return accounts


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """Three ways in which books can be wrong; all are zero in good ones."""

    sum_fen: int  # of all legs
    unbalanced_postings: int  # whose legs do not sum to zero
    misstated_accounts: int  # whose balance is not the sum of their legs

    @property
    def balanced(self) -> bool:
        return not (self.sum_fen or self.unbalanced_postings or self.misstated_accounts)


def trial_balance(connection: sqlite3.Connection) -> TrialBalance:
    """Adds up the whole ledger."""

    def number(query: str) -> int:
        return int(connection.execute(query).fetchone()[0])

    return TrialBalance(
        number("SELECT coalesce(sum(fen), 0) FROM legs"),
        number("SELECT count(*) FROM (SELECT 1 FROM legs GROUP BY posting HAVING sum(fen) <> 0)"),
        number(
            "SELECT count(*) FROM accounts LEFT JOIN (SELECT account, sum(fen) AS fen FROM legs GROUP BY account)"
            " ON account = number WHERE balance_fen <> coalesce(fen, 0)"
        ),
    )
