"""The key by which a person proves who acts: in a file under the person's passphrase, or on the person's card.

A key file is JSON: the public key, and the private scalar under SM4-GCM of a key that scrypt (RFC 7914) makes of the
passphrase, in the form in which a custodian's share is kept (``quorum.Passphrase``).
"""

from pathlib import Path
from typing import Protocol

import msgspec

from fengshou.codecs import PrivateKey, PublicKey
from fengshou.hsm._asn1 import Signer
from fengshou.hsm.custody import CustodyError, Kind
from fengshou.hsm.files import make_folder, read_secret, write_secret
from fengshou.hsm.material import from_bytes, to_bytes
from fengshou.hsm.memory import wipe
from fengshou.hsm.quorum import Passphrase

PASSPHRASE, CARD = "passphrase", "card"


class _KeyFile(msgspec.Struct):
    public: str
    kept: str


def make_key(file: Path, name: str, passphrase: str) -> Signer:
    """A new key for a person. Raises CustodyError: the file exists, the passphrase is too short."""
    key = PrivateKey.generate()
    scalar = to_bytes(key)
    try:
        kept = Passphrase(name, passphrase).keep(bytes(scalar))
    finally:
        wipe(scalar)
    make_folder(file.parent)
    write_secret(file, msgspec.json.encode(_KeyFile(key.public_key.point.hex(), kept.hex())) + b"\n")
    return key


def open_key(file: Path, name: str, passphrase: str) -> Signer:
    """The key that ``make_key`` wrote. Raises ShareRefused: not the passphrase; CustodyError: no such file."""
    try:
        read = msgspec.json.decode(read_secret(file), type=_KeyFile)
        kept = bytes.fromhex(read.kept)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError):
        raise CustodyError(f"{file} is not a person's key") from None
    key = from_bytes(Kind.SM2, bytearray(Passphrase(name, passphrase).give(kept)))
    assert isinstance(key, PrivateKey)
    return key


class SigningCard(Protocol):
    """As much of ``card.Card`` as a person needs; that module needs the extra ``card``."""

    def public_key(self) -> PublicKey: ...

    def sign(self, digest: bytes) -> bytes: ...


class CardSigner:
    """A person's card as a signer."""

    def __init__(self, card: SigningCard) -> None:
        self._card = card
        self.public_key = card.public_key()

    def sign(self, digest: bytes) -> bytes:
        return self._card.sign(digest)
