"""Custody on smart cards: a card signs and keeps a custodian's share. Its private key never leaves it.

A label's epochs are cards, in the order in which they were put to use; the last one is current. Cards get their keys at
personalisation, so this provider makes, imports and destroys none.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm._card_profiles import Gmt0017, Iso7816, Profile
from fengshou.hsm._pcsc import CardAway, CardBlocked, CardError, Link, WrongPin
from fengshou.hsm._refusals import Refusals
from fengshou.hsm.custody import CustodyError, KeyInfo, Kind
from fengshou.hsm.memory import Secret
from fengshou.hsm.quorum import ShareRefused
from fengshou.hsm.sm4 import CHECK_VALUE_BYTES
from fengshou.protocol.epoch import EpochState

__all__ = [
    "Card",
    "CardAway",
    "CardBlocked",
    "CardCustody",
    "CardError",
    "CardHolder",
    "Gmt0017",
    "Iso7816",
    "WrongPin",
]

PIN_BYTES_MAX = 16


class Card:
    """A card in a reader, opened by its PIN. Any thread may use it.

    It comes back by itself after it was drawn and put in again. A PIN that the card refused once is not presented
    again: a switch that tries in a loop must not block its own card.
    """

    def __init__(self, reader: str, profile: Profile, pin: bytes) -> None:
        """Nothing is touched before the first use."""
        if not 0 < len(pin) <= PIN_BYTES_MAX:
            raise CustodyError(f"a card's PIN has 1 to {PIN_BYTES_MAX} bytes")
        self._link = Link(reader)
        self._profile = profile
        self._pin = Secret(pin)
        self._refused: CardError | None = None
        self._public_key: PublicKey | None = None

    @property
    def reader(self) -> str:
        return self._link.reader

    def _open(self) -> None:
        if self._refused is not None:
            raise self._refused
        self._profile.select(self._link)
        try:
            self._profile.present(self._link, bytes(self._pin.view))
        except (WrongPin, CardBlocked) as refusal:
            self._refused = refusal
            raise
        key = self._profile.public_key(self._link)
        if self._public_key is not None and key != self._public_key:
            raise CardError(f"{self.reader}: this is another card than before", 0x9000)
        self._public_key = key

    def public_key(self) -> PublicKey:
        if self._public_key is None:
            self._link.run(self._open, lambda: None)
        assert self._public_key is not None
        return self._public_key

    def sign(self, digest: bytes) -> bytes:
        """r || s over a 32-byte digest, verified before it is given on: a faulty signature can betray the key."""
        if len(digest) != 32:
            raise ValueError("what SM2 signs is a digest of 32 bytes")
        signature = self._link.run(self._open, lambda: self._profile.sign(self._link, digest))
        try:
            self.public_key().verify(digest, signature)
        except BadSignature:
            raise CardError(f"{self.reader}: the card's signature does not verify", 0x9000) from None
        return signature

    def random(self, count: int) -> bytes:
        """From the card's own generator, at most 255 bytes."""
        return self._link.run(self._open, lambda: self._profile.random(self._link, count))

    def read_share(self, count: int) -> bytes:
        return self._link.run(self._open, lambda: self._profile.read(self._link, count))

    def write_share(self, data: bytes) -> None:
        self._link.run(self._open, lambda: self._profile.write(self._link, data))

    def close(self) -> None:
        """Give the card back; the PIN has to be presented again afterwards."""
        self._link.close()


class CardCustody(Refusals):
    """A ``Custody`` of signing keys on cards."""

    reason = "a smart card signs and does nothing else; keep other keys in software or in a device"

    def __init__(self, cards: Mapping[str, Sequence[Card]]) -> None:
        """The cards of each label, by epoch from 1. Raises CardError, CardAway, WrongPin: one cannot be used now."""
        self._cards = {label: tuple(epochs) for label, epochs in cards.items()}
        met = datetime.now(UTC)  # a card does not say when its key was made
        self._infos = [
            KeyInfo(
                label,
                epoch,
                Kind.SM2,
                EpochState.CURRENT if epoch == len(epochs) else EpochState.RETIRING,
                met,
                sm3(card.public_key().point)[:CHECK_VALUE_BYTES],
            )
            for label, epochs in sorted(self._cards.items())
            for epoch, card in enumerate(epochs, start=1)
        ]

    def close(self) -> None:
        for cards in self._cards.values():
            for card in cards:
                card.close()

    def _find(self, label: str, epoch: int | None) -> Card:
        cards = self._cards.get(label, ())
        if not cards:
            raise CustodyError(f"no card holds a key for {label}")
        if epoch is None:
            return cards[-1]
        if not 0 < epoch <= len(cards):
            raise CustodyError(f"{label} has no epoch {epoch}")
        return cards[epoch - 1]

    def inventory(self) -> Sequence[KeyInfo]:
        return list(self._infos)

    def key(self, label: str, epoch: int | None = None) -> KeyInfo:
        self._find(label, epoch)
        wanted = epoch or len(self._cards[label])
        return next(info for info in self._infos if (info.label, info.epoch) == (label, wanted))

    def refresh(self) -> bool:
        return False

    def public_key(self, label: str, epoch: int | None = None) -> PublicKey:
        return self._find(label, epoch).public_key()

    def sign(self, label: str, digest: bytes, epoch: int | None = None) -> bytes:
        return self._find(label, epoch).sign(digest)

    def verify(self, label: str, digest: bytes, signature: bytes, epoch: int | None = None) -> None:
        self._find(label, epoch).public_key().verify(digest, signature)


class CardHolder:
    """A custodian (``quorum.Holder``) whose share is on a card, behind its PIN."""

    form = "card"

    def __init__(self, name: str, card: Card) -> None:
        self.name = name
        self._card = card

    def keep(self, share: bytes) -> bytes:
        """Write the share and read it back. What the database keeps is the card's public key: which card it is."""
        self._card.write_share(share)
        if self._card.read_share(len(share)) != share:
            raise ShareRefused(f"the card of {self.name} did not keep the share")
        return self._card.public_key().point + bytes((len(share),))

    def give(self, kept: bytes) -> bytes:
        point, count = kept[:-1], kept[-1]
        if self._card.public_key().point != point:
            raise ShareRefused(f"this is not the card of {self.name}")
        return self._card.read_share(count)
