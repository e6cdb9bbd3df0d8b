"""A smart card: it signs and keeps a custodian's share. Its private key never leaves it."""

from collections.abc import Callable, Sequence

from fengshou.codecs import BadSignature, PublicKey
from fengshou.hsm._card_profiles import Gmt0017, Iso7816, Profile
from fengshou.hsm._pcsc import CardAway, CardBlocked, CardError, Link, WrongPin
from fengshou.hsm.custody import CustodyError
from fengshou.hsm.memory import Secret
from fengshou.hsm.quorum import ShareRefused

__all__ = [
    "Card",
    "CardAway",
    "CardBlocked",
    "CardError",
    "CardHolder",
    "Gmt0017",
    "Iso7816",
    "WrongPin",
]

PIN_BYTES_MAX = 16
_SLOT_BYTES = 32  # a share of a master key has 16


class Card:
    """A card in a reader, opened by its PIN. Any thread may use it.

    It comes back by itself after it was drawn and put in again. A PIN that the card refused once is not presented
    again: a switch that tries in a loop must not block its own card.
    """

    def __init__(
        self, reader: str, profile: Profile, pin: bytes, on_refusal: Callable[[CardError], None] = lambda refusal: None
    ) -> None:
        """Nothing is touched before the first use. ``on_refusal`` hears it when the card refuses the PIN."""
        if not 0 < len(pin) <= PIN_BYTES_MAX:
            raise CustodyError(f"a card's PIN has 1 to {PIN_BYTES_MAX} bytes")
        self._link = Link(reader)
        self._profile = profile
        self._pin = Secret(pin)
        self._on_refusal = on_refusal
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
            self._on_refusal(refusal)
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

    def read_share(self, slot: int, count: int) -> bytes:
        return self._link.run(self._open, lambda: self._profile.read(self._link, slot * _SLOT_BYTES, count))

    def write_share(self, slot: int, data: bytes) -> None:
        """The card's file has room for two shares: the one that counts, and the one that is about to."""
        self._link.run(self._open, lambda: self._profile.write(self._link, slot * _SLOT_BYTES, data))

    def close(self) -> None:
        """Give the card back; the PIN has to be presented again afterwards."""
        self._link.close()


class CardHolder:
    """A custodian (``quorum.Holder``) whose share is on a card, behind its PIN."""

    form = "card"

    def __init__(self, name: str, card: Card) -> None:
        self.name = name
        self._card = card

    def keep(self, share: bytes, standing: Sequence[bytes] = ()) -> bytes:
        """Write the share beside the one that counts until now, and read it back.

        What the database keeps is which card it is, by its public key, the share's length and its slot.
        """
        point = self._card.public_key().point
        used = [kept[-1] for kept in standing if kept[:-2] == point]
        slot = 1 - used[0] if used else 0
        self._card.write_share(slot, share)
        if self._card.read_share(slot, len(share)) != share:
            raise ShareRefused(f"the card of {self.name} did not keep the share")
        return point + bytes((len(share), slot))

    def give(self, kept: bytes) -> bytes:
        point, count, slot = kept[:-2], kept[-2], kept[-1]
        if self._card.public_key().point != point:
            raise ShareRefused(f"this is not the card of {self.name}")
        return self._card.read_share(slot, count)
