"""Hands out receipts: at once for what is signed, as soon as its commit is signed for what is new."""

from collections.abc import Iterable

from fengshou.hsm.custody import Custody
from fengshou.protocol import elements as de
from fengshou.protocol.message import Flag, Message, Value
from fengshou.protocol.templates import RECEIPT
from fengshou.switch.exchange import Exchange
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import DayAbsent, Journal, key_of
from fengshou.switch.receipts import receipt
from fengshou.terminals.pump import Peer

NOT_FOUND = "25"
# Receipts that may wait for a signature; it comes within 50 ms, so this bounds only what a flood can hold.
WAITING_MAX = 10_000


class ReceiptDesk:
    """Answers receipt requests, and sends the receipts that were asked for with a transaction."""

    def __init__(self, catalogue: Catalogue, journal: Journal, custody: Custody) -> None:
        self._codec = catalogue.codec
        self._journal = journal
        self._custody = custody
        self._waiting: list[tuple[Peer, int, int]] = []  # peer, sequence, record

    def ask(self, exchange: Exchange) -> None:
        """A terminal asks for the receipt of an earlier transaction of its own, by batch and STAN."""
        row, values = exchange.peer.row, exchange.asked.values
        assert row is not None
        key = key_of(
            row.facts.terminal,
            row.facts.merchant,
            _integer(values[de.ORIGINAL_BATCH]),
            _integer(values[de.ORIGINAL_STAN]),
        )
        known = self._journal.known(key)
        if known is None or not known.outcome:
            exchange.answer_now({de.RESPONSE_CODE: NOT_FOUND})
            return
        try:
            proof = receipt(self._journal, known.outcome, self._custody)
        except DayAbsent:  # `fengshou journal receipt` makes it when the day is brought back
            exchange.answer_now({de.RESPONSE_CODE: NOT_FOUND})
            return
        if proof is None:  # signed within a moment: the terminal asks again
            exchange.shed("09")
            return
        exchange.answer_now({de.RESPONSE_CODE: "00", **proof})

    def later(self, answered: Iterable[tuple[Exchange, int]]) -> None:
        """Send the receipt of each record when its commit is signed; exchanges have their answers already."""
        for exchange, record in answered:
            if len(self._waiting) < WAITING_MAX:
                self._waiting.append((exchange.peer, exchange.sequence, record))
        self._send()

    def signed(self, commit: int) -> None:
        """The header of ``commit`` has its signature."""
        if self._waiting:
            self._send()

    def _send(self) -> None:
        self._journal.refresh()
        waiting, self._waiting = self._waiting, []
        for peer, sequence, record in waiting:
            if peer.closed:
                continue
            proof = receipt(self._journal, record, self._custody)
            if proof is None:
                self._waiting.append((peer, sequence, record))
                continue
            values: dict[int, Value] = {de.RESPONSE_CODE: "00", **proof}
            peer.send(self._codec.encode(Message(RECEIPT.id, Flag.RESPONSE, sequence, values)))


def _integer(value: Value) -> int:
    assert isinstance(value, int)
    return value
