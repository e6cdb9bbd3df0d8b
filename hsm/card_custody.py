"""Custody on smart cards: each epoch of a label is a card, which signs.

Cards get their keys at personalisation, so ``create`` and ``renew`` take the next card that was prepared for a label,
and ``destroy`` forgets it. Which card is which epoch stands in ``cards.db`` of custody's folder, so that everything but
a signature goes without the card: a switch has its card to itself while commands look.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fengshou.codecs import PublicKey, sm3
from fengshou.hsm._refusals import Refusals
from fengshou.hsm.card import Card, CardAway
from fengshou.hsm.custody import CustodyError, Derived, KeyInfo, KeyName, Kind, Unsupported
from fengshou.hsm.keytable import Held, KeyTable
from fengshou.hsm.prepared import following
from fengshou.hsm.rowvault import RowVault
from fengshou.hsm.sm4 import CHECK_VALUE_BYTES

DATABASE = "cards.db"


class _Body(msgspec.Struct, frozen=True):
    """Which card it is."""

    reader: str  # in which it was when it was put to use
    point: bytes  # of its public key, 04 || x || y


class CardCustody(Refusals):
    """A ``Custody`` of signing keys on cards."""

    reason = "a smart card signs and does nothing else; keep other keys in software or in a device"
    protection = "card"

    def __init__(self, folder: Path | str, cards: Mapping[str, Sequence[Card]]) -> None:
        """``cards`` are those prepared for a label, in the order in which they become its epochs. CustodyError."""
        self._table = KeyTable(RowVault(Path(folder) / DATABASE, _Body))
        self._cards = cards
        self._met: dict[bytes, Card] = {}  # by the point

    def close(self) -> None:
        for cards in self._cards.values():
            for card in cards:
                card.close()

    def inventory(self) -> Sequence[KeyInfo]:
        return self._table.keys()

    def key(self, label: KeyName, epoch: int | None = None) -> KeyInfo:
        if isinstance(label, Derived):
            raise self._refuse()
        return self._table.info(label, epoch)

    def refresh(self) -> bool:
        return self._table.refresh()

    # --- the life of a key

    def create(self, label: str, kind: Kind) -> KeyInfo:
        self._table.check_new(label)
        return self._take(label, kind)

    def renew(self, label: str) -> KeyInfo:
        if self._table.newest(label) is None:
            raise CustodyError(f"{label} has no key that could be renewed")
        return self._take(label, Kind.SM2)

    def _take(self, label: str, kind: Kind) -> KeyInfo:
        if kind is not Kind.SM2:
            raise self._refuse()
        cards = {card.reader: card for card in self._cards.get(label, ())}
        newest = self._table.newest(label)
        reader = following(list(cards), newest.material.reader if newest else None)
        if reader is None:
            raise Unsupported(f"no card is left for {label}: put another one into a reader and name it for the label")
        point = cards[reader].public_key().point
        return self._table.add(label, kind, sm3(point)[:CHECK_VALUE_BYTES], _Body(reader, point))

    def activate(self, label: str, epoch: int) -> None:
        self._table.activate(label, epoch)

    def retire(self, label: str, epoch: int) -> None:
        self._table.retire(label, epoch)

    def destroy(self, label: str, epoch: int) -> None:
        """Forget the card. Its key ends with the card, which custodians destroy."""
        self._table.destroy(label, epoch)

    # --- use

    def public_key(self, label: str, epoch: int | None = None) -> PublicKey:
        return PublicKey(self._table.find(label, epoch, Kind.SM2).material.point)

    def sign(self, label: str, digest: bytes, epoch: int | None = None) -> bytes:
        return self._card(self._table.find(label, epoch, Kind.SM2)).sign(digest)

    def verify(self, label: str, digest: bytes, signature: bytes, epoch: int | None = None) -> None:
        self.public_key(label, epoch).verify(digest, signature)

    def _card(self, held: Held[_Body]) -> Card:
        """The card of an epoch, in whichever of its label's readers it is. Raises CardAway, CardError."""
        body = held.material
        if body.point not in self._met:
            # Its own reader first, so that no other card is asked for a PIN without need.
            cards = sorted(self._cards.get(held.info.label, ()), key=lambda card: card.reader != body.reader)
            away = None
            for card in cards:
                try:
                    if card.public_key().point == body.point:
                        self._met[body.point] = card
                        return card
                except CardAway as error:
                    away = away or error
            raise away or CardAway(f"the card of {held.info.label} epoch {held.info.epoch} is in none of its readers")
        return self._met[body.point]
