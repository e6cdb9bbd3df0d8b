"""Who opens a sealed custody: any ``needed`` of its custodians together, none of them alone.

The master key is made at random and split (``shamir``). Each custodian keeps a share: under a passphrase, which seals
it in the database through scrypt (RFC 7914), or on a smart card behind the card's PIN.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fengshou.codecs import sm3
from fengshou.hsm import agent, sealed, shamir, sm4
from fengshou.hsm.custody import CustodyError, SealBroken, Unavailable
from fengshou.hsm.database import KeyDatabase
from fengshou.hsm.files import make_folder
from fengshou.hsm.memory import Secret, wipe

PASSPHRASE_CHARACTERS_MIN = 12

# RFC 7914 section 2: 32 MiB and about 0.1 s a guess. A custodian waits once at a start; a thief waits for each word.
_SCRYPT_COST, _SCRYPT_BLOCK, _SCRYPT_PARALLEL = 2**15, 8, 1
_SALT_BYTES = 16


class ShareRefused(CustodyError):
    """A custodian's passphrase, card or share is not the one that the custody knows."""


class Holder(Protocol):
    """A custodian who is present, with what the share is kept by."""

    @property
    def name(self) -> str: ...

    @property
    def form(self) -> str:
        """How the share is kept, for the record: ``passphrase``, ``card``."""
        ...

    def keep(self, share: bytes, standing: Sequence[bytes] = ()) -> bytes:
        """Take a share; returns what the database keeps of it. Raises CustodyError.

        ``standing`` is what was kept of the shares that open the custody until the new ones do: they stay good.
        """
        ...

    def give(self, kept: bytes) -> bytes:
        """The share again. Raises ShareRefused, or another CustodyError: the card is blocked or away."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Passphrase:
    """A ``Holder`` who remembers."""

    name: str
    passphrase: str

    @property
    def form(self) -> str:
        return "passphrase"

    def keep(self, share: bytes, standing: Sequence[bytes] = ()) -> bytes:
        if len(self.passphrase) < PASSPHRASE_CHARACTERS_MIN:
            raise CustodyError(f"{self.name}: a passphrase has at least {PASSPHRASE_CHARACTERS_MIN} characters")
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(sm4.NONCE_BYTES)
        return salt + nonce + sm4.gcm_seal(self._key(salt).view, nonce, share, self.name.encode())

    def give(self, kept: bytes) -> bytes:
        salt, nonce, hidden = kept[:_SALT_BYTES], kept[_SALT_BYTES:][: sm4.NONCE_BYTES], kept[_SALT_BYTES:][12:]
        try:
            return bytes(sm4.gcm_open(self._key(salt).view, nonce, hidden, self.name.encode()))
        except InvalidTag:
            raise ShareRefused(f"the passphrase is not that of {self.name}") from None

    def _key(self, salt: bytes) -> Secret:
        scrypt = Scrypt(salt=salt, length=sm4.KEY_BYTES, n=_SCRYPT_COST, r=_SCRYPT_BLOCK, p=_SCRYPT_PARALLEL)
        return Secret(scrypt.derive(self.passphrase.encode()))


@dataclass(frozen=True, slots=True)
class Custodian:
    """Who holds a share, as the custody remembers it."""

    name: str
    form: str
    number: int  # x of the share


@dataclass(frozen=True, slots=True)
class Quorum:
    needed: int
    custodians: tuple[Custodian, ...]
    check_value: bytes  # of the master key, 4 bytes; to be printed and compared


def found(folder: Path, needed: int, holders: Sequence[Holder]) -> Secret:
    """Make a sealed custody without keys; returns its new master key.

    Every holder is present and takes a share. Raises CustodyError: a custody is there already, a share was not taken.
    """
    make_folder(folder)
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise CustodyError(f"{folder} is not empty: a sealed custody starts in a folder of its own")
    master = Secret.random(sm4.KEY_BYTES)
    facts = _share_out(master, needed, holders)
    # Shares first: a custody whose shares are not all kept never comes to be.
    database = KeyDatabase.create(folder / sealed.DATABASE)
    with database.changing():
        database.set_facts(facts)
    database.close()
    return master


def describe(folder: Path) -> Quorum:
    """Who can open the custody. Raises CustodyError: there is none."""
    facts = _facts(folder)
    custodians = []
    for name, value in facts.items():
        kind, _, number = name.partition(".")
        if kind == "share":
            record = json.loads(value)
            custodians.append(Custodian(record["custodian"], record["form"], int(number)))
    custodians.sort(key=lambda custodian: custodian.number)
    return Quorum(facts["needed"][0], tuple(custodians), facts["check value"])


def unseal(folder: Path, holders: Sequence[Holder]) -> Secret:
    """The master key, from enough custodians.

    Raises ShareRefused: one is not who is needed; Unavailable: too few are here; SealBroken: it is not the master key.
    """
    facts = _facts(folder)
    quorum = describe(folder)
    numbers = {custodian.name: custodian.number for custodian in quorum.custodians}
    present = {holder.name: holder for holder in holders}
    for name in present:
        if name not in numbers:
            raise ShareRefused(f"{name} is no custodian of {folder}")
    if len(present) < quorum.needed:
        raise Unavailable(f"{quorum.needed} of {len(numbers)} custodians are needed, {len(present)} are here")
    shares = {numbers[name]: _share_of(holder, facts[f"share.{numbers[name]}"]) for name, holder in present.items()}
    master = _to_secret(shamir.combine(shares))
    if not sealed.fits(master, facts):
        raise SealBroken(f"the shares do not give the master key of {folder}")
    return master


def change_master(folder: Path, old: Secret, needed: int, holders: Sequence[Holder]) -> Secret:
    """A new master key for new custodians; every key is sealed anew. The agent, where one serves, is told.

    Shares of the old quorum open nothing afterwards. Cut short at any instant, custody and agent are as they were or as
    they shall be: old shares stay good until the one transaction that replaces all of it, and the agent has both keys
    meanwhile. Raises CustodyError, and then nothing was changed.
    """
    vault = sealed.SealedVault(KeyDatabase(folder / sealed.DATABASE), old)
    facts = _facts(folder)
    if not sealed.fits(old, facts):
        raise SealBroken(f"this is not the master key of {folder}")
    new = Secret.random(sm4.KEY_BYTES)
    standing = [bytes.fromhex(json.loads(fact)["kept"]) for name, fact in facts.items() if name.startswith("share.")]
    shared = _share_out(new, needed, holders, standing)
    served = _is_served(folder)
    if served:
        agent.replace(folder, old, new)
    vault.reseal(new, shared)
    if served:
        agent.settle(folder, new)
    return new


def _is_served(folder: Path) -> bool:
    try:
        agent.fetch(folder)
    except Unavailable:
        return False
    return True


def _share_out(
    master: Secret, needed: int, holders: Sequence[Holder], standing: Sequence[bytes] = ()
) -> dict[str, bytes]:
    if len({holder.name for holder in holders}) != len(holders):
        raise CustodyError("a custodian holds one share only")
    try:
        shares = shamir.split(master.view, needed, len(holders))
    except ValueError as error:
        raise CustodyError(str(error)) from None
    facts = {
        "needed": bytes((needed,)),
        "check value": sm4.check_value(master.view),
        sealed.VERIFIER: sealed.verifier(master),
    }
    for holder, (number, share) in zip(holders, shares.items(), strict=True):
        record = {
            "custodian": holder.name,
            "form": holder.form,
            "kept": holder.keep(share, standing).hex(),
            # Tells a damaged share by name. It says nothing of the share, which is 16 random bytes.
            "digest": sm3(share)[:8].hex(),
        }
        facts[f"share.{number}"] = json.dumps(record).encode()
    return facts


def _share_of(holder: Holder, record: bytes) -> bytes:
    fields: Mapping[str, str] = json.loads(record)
    if fields["form"] != holder.form:
        raise ShareRefused(f"{holder.name} holds a share by {fields['form']}, not by {holder.form}")
    share = holder.give(bytes.fromhex(fields["kept"]))
    if sm3(share)[:8].hex() != fields["digest"]:
        raise ShareRefused(f"the share of {holder.name} is of another custody, or damaged")
    return share


def _facts(folder: Path) -> dict[str, bytes]:
    if not sealed.is_sealed(folder):
        raise CustodyError(f"{folder} is no sealed custody")
    database = KeyDatabase(folder / sealed.DATABASE)
    try:
        return database.facts()
    finally:
        database.close()


def _to_secret(key: bytearray) -> Secret:
    secret = Secret(key)
    wipe(key)
    return secret
