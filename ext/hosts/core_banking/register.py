"""The register of what was asked and decided: what makes a repeat harmless and a reversal find its original."""

import hashlib
import sqlite3
from dataclasses import dataclass

from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import MTI, OriginalData


@dataclass(frozen=True, slots=True)
class Identity:
    """The key of a request. ``kind`` is the second digit of the MTI, so that 0200 and its repeat 0201 have one key."""

    acquirer: int
    terminal: str
    rrn: str
    stan: str
    kind: str
    transmission_time: str


def identity_of(fields: Fields) -> Identity | None:
    """None when a field that identifies a request is missing."""
    found = [fields.get(number) for number in (MTI, 7, 11, 32, 37, 41)]
    if not all(found):
        return None
    mti, transmission_time, stan, acquirer, rrn, terminal = map(str, found)
    return Identity(int(acquirer), terminal, rrn, stan, mti[1], transmission_time)


# What a repeat must have in common with the first: who pays whom how much, or which original is undone.
_CONTENT = (2, 3, 4, 49, 90, 102, 103)


def fingerprint_of(fields: Fields) -> bytes:
    """Equal for equal content. Field values hold no control characters, so the separator is safe."""
    return hashlib.sha256("\n".join(str(fields.get(number, "")) for number in _CONTENT).encode()).digest()


@dataclass(frozen=True, slots=True)
class Decided:
    """A request of the past. ``kind``: as in Identity; ``original``: number of the request that it is about."""

    id: int
    fingerprint: bytes
    amount_fen: int
    code: str
    settlement_date: str
    state: str
    kind: str
    processing_code: str
    original: int | None = None


_DECIDED = (
    "SELECT id, fingerprint, amount_fen, code, settlement_date, state, class, processing_code, original"
    " FROM transactions"
)


class Register:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, identity: Identity) -> Decided | None:
        row = self._connection.execute(
            f"{_DECIDED} WHERE acquirer = ? AND terminal = ? AND rrn = ? AND class = ? AND stan = ?",
            (identity.acquirer, identity.terminal, identity.rrn, identity.kind, identity.stan),
        ).fetchone()
        return Decided(*row) if row else None

    def find_original(self, terminal: str, original: OriginalData) -> Decided | None:
        row = self._connection.execute(
            f"{_DECIDED} WHERE terminal = ? AND stan = ? AND transmission_time = ? AND acquirer = ? AND class = ?",
            (terminal, original.stan, original.transmission_time, original.acquirer, original.mti[1]),
        ).fetchone()
        return Decided(*row) if row else None

    def add(
        self,
        identity: Identity,
        fingerprint: bytes,
        processing_code: str,
        amount_fen: int,
        code: str,
        settlement_date: str,
        state: str,
        original: int | None = None,
    ) -> int:
        """Remember a decision; returns its number, which is also that of its posting."""
        inserted = self._connection.execute(
            "INSERT INTO transactions (acquirer, terminal, rrn, stan, class, transmission_time, fingerprint,"
            " processing_code, amount_fen, code, settlement_date, state, original)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                identity.acquirer, identity.terminal, identity.rrn, identity.stan, identity.kind,
                identity.transmission_time, fingerprint, processing_code, amount_fen, code, settlement_date, state,
                original,
            ),
        )  # fmt: skip
        assert inserted.lastrowid is not None
        return inserted.lastrowid

    def get(self, number: int) -> Decided:
        return Decided(*self._connection.execute(f"{_DECIDED} WHERE id = ?", (number,)).fetchone())

    def mark(self, number: int, state: str) -> None:
        self._connection.execute("UPDATE transactions SET state = ? WHERE id = ?", (state, number))

    def refunded_fen(self, number: int) -> int:
        """What was given back of a transaction by refunds."""
        query = (
            "SELECT coalesce(sum(amount_fen), 0) FROM transactions"
            " WHERE original = ? AND state = 'posted' AND processing_code = '20'"
        )
        return int(self._connection.execute(query, (number,)).fetchone()[0])

    def remember_hold(self, number: int, account: str) -> None:
        self._connection.execute("INSERT INTO holds (id, account) VALUES (?, ?)", (number, account))

    def held_account(self, number: int) -> str:
        """Whose money a pre-authorisation holds or held."""
        return str(self._connection.execute("SELECT account FROM holds WHERE id = ?", (number,)).fetchone()[0])

    def bury(self, terminal: str, original: OriginalData) -> None:
        """Leave a tombstone for an original that has not come."""
        self._connection.execute(
            "INSERT OR IGNORE INTO tombstones (acquirer, terminal, stan, transmission_time) VALUES (?, ?, ?, ?)",
            (original.acquirer, terminal, original.stan, original.transmission_time),
        )

    def is_buried(self, identity: Identity) -> bool:
        row = self._connection.execute(
            "SELECT 1 FROM tombstones WHERE acquirer = ? AND terminal = ? AND stan = ? AND transmission_time = ?",
            (identity.acquirer, identity.terminal, identity.stan, identity.transmission_time),
        ).fetchone()
        return row is not None
