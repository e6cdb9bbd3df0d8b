"""The PINs of cards: an offset each, and how often in a row it was entered wrong."""

import sqlite3

from fengshou.protocol.backend import Fields, PinRefused, PinVerifier
from fengshou.protocol.codes import UNSUPPORTED

# A card is locked after so many, until its holder is given another PIN.
TRIES_MAX = 3

INCORRECT, LOCKED = "55", "75"


class CardPins:
    def __init__(self, connection: sqlite3.Connection, verifier: PinVerifier | None) -> None:
        """``verifier`` None: this host has no keys, and refuses every PIN."""
        self._connection = connection
        self._verifier = verifier

    def require(self, fields: Fields) -> None:
        """The card is not locked and its PIN, if one came, is right. Raises PinRefused; a wrong one is counted."""
        card = fields.get(2)
        row = self._connection.execute("SELECT pin_offset, tries FROM pins WHERE card = ?", (card,)).fetchone()
        if row is not None and row[1] >= TRIES_MAX:
            raise PinRefused(LOCKED)
        if 52 not in fields:
            return
        if self._verifier is None:
            raise PinRefused(UNSUPPORTED)
        if row is None:
            raise PinRefused(INCORRECT)
        offset, tries = row
        try:
            self._verifier.verify(fields, offset)
        except PinRefused as refused:
            if refused.code != INCORRECT:
                raise
            self._count(card, tries + 1)
            raise PinRefused(LOCKED if tries + 1 >= TRIES_MAX else INCORRECT) from None
        if tries:
            self._count(card, 0)

    def give(self, card: str, offset: str) -> None:
        """Let the card have another PIN; it is not locked any more."""
        self._connection.execute(
            "INSERT INTO pins (card, pin_offset, tries) VALUES (?, ?, 0)"
            " ON CONFLICT DO UPDATE SET pin_offset = excluded.pin_offset, tries = 0",
            (card, offset),
        )

    def _count(self, card: str | bytes | None, tries: int) -> None:
        self._connection.execute("UPDATE pins SET tries = ? WHERE card = ?", (tries, card))
