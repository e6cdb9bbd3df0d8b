"""Cards that are drawn, reset, blocked, faulty or another's, and custodians' shares on two of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fengshou.codecs import PrivateKey, sm3
from fengshou.hsm import quorum
from fengshou.hsm.card import (
    Card,
    CardAway,
    CardBlocked,
    CardError,
    CardHolder,
    Gmt0017,
    Iso7816,
    WrongPin,
)
from fengshou.hsm.card_custody import CardCustody
from fengshou.hsm.custody import CustodyError, Kind, Unsupported
from fengshou.protocol.epoch import EpochState

PIN = b"246813"
DIGEST = sm3(b"message")


@pytest.fixture(params=[Gmt0017(), Iso7816()], ids=["gmt", "iso"])
def profile(request):
    return request.param


@pytest.fixture
def new_card(slots, profile, request) -> Callable[..., Card]:
    """A card of the profile for a slot, given back at the end."""

    def make(slot: int = 0, pin: bytes = PIN) -> Card:
        card = Card(slots[slot].reader, profile, pin)
        request.addfinalizer(card.close)
        return card

    return make


def test_a_wrong_pin_is_presented_once_and_tries_are_told(slots, new_card):
    slots[0].insert()
    wrong = new_card(pin=b"000000")
    for _ in range(3):
        with pytest.raises(WrongPin) as refusal:
            wrong.sign(DIGEST)
        assert refusal.value.tries_left == 2, "a refused PIN is not presented again"
    wrong.close()

    right = new_card()
    right.public_key().verify(DIGEST, right.sign(DIGEST))
    right.close()
    assert (slots[0].state / "tries").read_text() == "3", "the right PIN gives the tries back"


def test_a_card_blocks_itself_and_stays_blocked(slots, new_card):
    slots[0].insert()
    for left in (2, 1, 0):
        card = new_card(pin=b"000000")
        with pytest.raises(WrongPin) as refusal:
            card.public_key()
        assert refusal.value.tries_left == left
        card.close()
    for pin in (b"000000", PIN):
        card = new_card(pin=pin)
        with pytest.raises(CardBlocked, match="blocked"):
            card.sign(DIGEST)
        card.close()
    assert slots[0].signatures == 0


def test_an_empty_or_unknown_reader_and_a_card_that_comes_back(slots, new_card, profile):
    with pytest.raises(CardAway, match="No smart card"):
        new_card().sign(DIGEST)
    with pytest.raises(CardAway, match="no reader Nowhere"):
        Card("Nowhere 00 00", profile, PIN).sign(DIGEST)

    card = new_card()
    slots[0].insert()
    card.public_key().verify(DIGEST, card.sign(DIGEST))
    slots[0].draw()
    with pytest.raises(CardAway):
        card.sign(DIGEST)
    slots[0].insert()
    card.public_key().verify(DIGEST, card.sign(DIGEST))


def test_another_card_in_the_reader_is_noticed(slots, new_card):
    slots[0].insert()
    card = new_card()
    card.sign(DIGEST)
    slots[0].draw()
    (slots[0].state / "scalar").write_bytes(PrivateKey.generate().to_scalar())
    slots[0].insert()
    with pytest.raises(CardError, match="another card"):
        card.sign(DIGEST)


def test_a_card_that_was_reset_is_opened_again(slots, new_card):
    from smartcard.scard import SCARD_RESET_CARD

    slots[0].insert()
    card = new_card()
    card.sign(DIGEST)
    # The card forgets the PIN and nobody tells us: the same connection, after a reset.
    card._link._connection.reconnect(disposition=SCARD_RESET_CARD)
    card.public_key().verify(DIGEST, card.sign(DIGEST))


def test_a_faulty_signature_is_not_given_on(slots, new_card):
    slots[0].insert()
    card = new_card()
    (slots[0].state / "faulty").touch()
    with pytest.raises(CardError, match="does not verify"):
        card.sign(DIGEST)


def test_random_numbers_come_from_the_card(slots, new_card):
    slots[0].insert()
    card = new_card()
    assert len({card.random(16) for _ in range(8)}) == 8
    assert len(card.random(255)) == 255


def test_the_next_card_is_the_next_epoch(slots, new_card, tmp_path: Path):
    for slot in slots:
        slot.insert()
    old, new = new_card(0), new_card(1)
    custody = CardCustody(tmp_path / "cards", {"switch.sign": [old, new]})
    custody.create("switch.sign", Kind.SM2)
    made = custody.renew("switch.sign")
    assert (made.epoch, made.state) == (2, EpochState.NEXT)
    custody.activate("switch.sign", 2)
    signature = custody.sign("switch.sign", DIGEST)
    assert custody.public_key("switch.sign") == new.public_key()
    custody.verify("switch.sign", DIGEST, signature, 2)
    custody.verify("switch.sign", DIGEST, custody.sign("switch.sign", DIGEST, 1), 1)
    with pytest.raises(Unsupported, match="no card is left"):
        custody.renew("switch.sign")
    custody.retire("switch.sign", 1)
    with pytest.raises(CustodyError, match="retired"):
        custody.sign("switch.sign", DIGEST, 1)
    custody.destroy("switch.sign", 1)
    with pytest.raises(Unsupported, match="no card is left"):  # none comes back
        custody.renew("switch.sign")


def test_what_is_known_of_a_card_is_known_without_it_and_it_is_found_in_another_reader(slots, new_card, tmp_path: Path):
    slots[0].insert()
    cards = new_card(0), new_card(1)
    custody = CardCustody(tmp_path / "cards", {"switch.sign": cards})
    custody.create("switch.sign", Kind.SM2)
    key = custody.public_key("switch.sign")
    custody.close()
    slots[0].draw()
    slots[0].state, slots[1].state = slots[1].state, slots[0].state  # the card moves to the reader beside
    again = CardCustody(tmp_path / "cards", {"switch.sign": [new_card(0), new_card(1)]})
    assert again.public_key("switch.sign") == key
    with pytest.raises(CardAway, match="No smart card"):
        again.sign("switch.sign", DIGEST)
    slots[1].insert()
    again.verify("switch.sign", DIGEST, again.sign("switch.sign", DIGEST))


@pytest.mark.parametrize("pin", [b"", bytes(17)])
def test_a_pin_has_a_length_that_cards_know(pin):
    with pytest.raises(CustodyError, match="PIN"):
        Card("anywhere", Iso7816(), pin)


# --- custodians


def test_two_custodians_open_a_custody_with_their_cards(slots, new_card, tmp_path: Path):
    for slot in slots:
        slot.insert()
    li_card = new_card(1)
    wang, li = CardHolder("wang", new_card(0)), CardHolder("li", li_card)
    zhao = quorum.Passphrase("zhao", "zhao remembers this")
    folder = tmp_path / "keys"
    master = quorum.found(folder, 2, [wang, li, zhao])
    assert [(who.name, who.form) for who in quorum.describe(folder).custodians] == [
        ("wang", "card"), ("li", "card"), ("zhao", "passphrase"),
    ]  # fmt: skip
    for present in ([wang, li], [li, zhao], [zhao, wang], [wang, li, zhao]):
        assert quorum.unseal(folder, present).view == master.view

    with pytest.raises(quorum.ShareRefused, match="not the card of wang"):
        quorum.unseal(folder, [CardHolder("wang", li_card), zhao])
    # A change of the master key that ends half-way, after wang's card has its new share, leaves the old ones good.
    with pytest.raises(CustodyError, match="at least 12"):
        quorum.change_master(folder, master, 2, [wang, li, quorum.Passphrase("zhao", "short")])
    assert quorum.unseal(folder, [wang, li]).view == master.view
    for _ in range(3):
        before, master = master, quorum.change_master(folder, master, 2, [wang, li])
        assert quorum.unseal(folder, [wang, li]).view == master.view != before.view

    (slots[0].state / "share").write_bytes(bytes(64))
    with pytest.raises(quorum.ShareRefused, match="wang"):
        quorum.unseal(folder, [wang, li])
    slots[1].draw()
    with pytest.raises(CardAway):
        quorum.unseal(folder, [li, wang])


def test_a_custody_whose_shares_were_not_all_kept_never_comes_to_be(slots, new_card, tmp_path: Path):
    slots[0].insert()
    wang, li = CardHolder("wang", new_card(0)), CardHolder("li", new_card(1))
    with pytest.raises(CardAway):
        quorum.found(tmp_path / "keys", 2, [wang, li])
    assert list((tmp_path / "keys").iterdir()) == []
