"""The custody that a configuration names: software, and beside it the cards and devices of ``[custody.NAME]``."""

from collections.abc import Mapping
from pathlib import Path

from fengshou.codecs import BadSignature, sm3
from fengshou.hsm.composite import Composite
from fengshou.hsm.custody import AUDIT_SIGN, JOURNAL_DATA, PSEUDONYM, SWITCH_SIGN, Custody, CustodyError
from fengshou.hsm.software import SoftwareCustody
from fengshou.switch.config import CardProvider, Loaded, Provider, SdfProvider

# What cards and devices remember of their keys, a folder each.
FOLDER = "custody"


def custody_of(loaded: Loaded) -> Custody:
    """The custody of a site. Raises CustodyError."""
    return open_custody(loaded.folder, loaded.config.files.keys, loaded.config.custody)


def open_custody(folder: Path, keys: str, providers: Mapping[str, Provider]) -> Custody:
    """Software in ``keys`` of a folder, and what the providers have. No card or device is touched before its use.

    Raises CustodyError: a file is missing or open to others, no such library, custody is still sealed.
    """
    software = SoftwareCustody(folder / keys)
    others: dict[str, Custody] = {}
    for name, row in providers.items():
        try:
            provider = _card(folder, name, row) if isinstance(row, CardProvider) else _device(folder, name, row)
        except CustodyError as error:
            raise type(error)(f"custody.{name}: {error}") from None
        others.update(dict.fromkeys(row.labels(), provider))
    return Composite(others, software) if others else software


def _device(folder: Path, name: str, row: SdfProvider) -> Custody:
    # Not at the top: few sites have a device, and every command opens a custody.
    from fengshou.hsm.device_secrets import read_passwords
    from fengshou.hsm.sdf import SdfCustody

    return SdfCustody(
        folder / FOLDER / name,
        folder / row.library if "/" in row.library else row.library,  # else where the loader looks
        storage_index=row.storage_index,
        max_bits=row.max_bits,
        sessions=row.sessions,
        passwords=read_passwords(folder / row.passwords) if row.passwords else {},
        pairs=row.pairs,
    )


def _card(folder: Path, name: str, row: CardProvider) -> Custody:
    # Not at the top: they need the extra `card`.
    from fengshou.hsm.card import Card, Gmt0017, Iso7816
    from fengshou.hsm.card_custody import CardCustody
    from fengshou.hsm.device_secrets import PinFile

    profile = Gmt0017() if row.profile == "gmt-0017" else Iso7816()

    def card(reader: str, pin: str) -> Card:
        file = PinFile(folder / pin)
        return Card(reader, profile, file.read(), file.refused)

    cards = {label: [card(one.reader, one.pin) for one in prepared] for label, prepared in row.cards.items()}
    return CardCustody(folder / FOLDER / name, cards)


def prove(custody: Custody) -> None:
    """Use each key of a switch once, so that what is wrong is said at its start and not in trade.

    Raises CustodyError, Unavailable: a card or device is away, blocked, of another make, or not opened.
    """
    for label in (SWITCH_SIGN, AUDIT_SIGN):
        digest = sm3(label.encode())
        try:
            custody.verify(label, digest, custody.sign(label, digest))
        except BadSignature:
            raise CustodyError(f"{label}: the signature does not verify") from None
    custody.open(JOURNAL_DATA, custody.seal(JOURNAL_DATA, b"", b"proof"), b"proof")
    custody.mac(PSEUDONYM, b"")
