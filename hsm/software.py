"""Custody in software: keys are used in this process's memory and kept by a vault.

The vault of production is sealed (``sealed``): custodians open its master key. The vault of development
(``development``) is a folder of plain files; ``protection`` says which one a custody has. From who reads this process's
memory only a card or a GM/T 0018 device keeps keys.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fengshou.codecs import BadCiphertext, BadTag, PrivateKey, PublicKey, hmac_sm3, sm2_decrypt, sm2_encrypt
from fengshou.hsm import keyblock, material, pin, sealed, sm4
from fengshou.hsm.custody import (
    AUDIT_SIGN,
    JOURNAL_DATA,
    PSEUDONYM,
    SWITCH_SIGN,
    SWITCH_TLS,
    TERMINAL_MASTER,
    TERMINAL_WORKING,
    CipherMode,
    Custody,
    CustodyError,
    Derived,
    KeyInfo,
    KeyName,
    Kind,
    MacMismatch,
    PinZone,
    SealBroken,
    WrapForm,
    WrappedKeyError,
)
from fengshou.hsm.development import FileVault, load_private_key, save_private_key
from fengshou.hsm.files import make_folder
from fengshou.hsm.keytable import Held, KeyTable, Vault
from fengshou.hsm.material import SM2_KINDS, SYMMETRIC_KINDS, Material
from fengshou.hsm.memory import Secret, wipe
from fengshou.protocol.iso8583_mac import Authenticator

if TYPE_CHECKING:  # who only asks a key needs no TLS library
    from OpenSSL import SSL

__all__ = ["SWITCH_KEYS", "Kind", "SoftwareCustody", "load_private_key", "make_keys", "provision", "save_private_key"]

_SEALED_BYTES_MIN = 1 + sm4.NONCE_BYTES + sm4.TAG_BYTES
_SM4 = Kind.SM4  # asked for each seal, see ``protocol.session``
_MAC_BYTES_MIN = 8  # GB/T 15852.1 annex: shorter ones can be guessed on line

# What protects the keys at rest when nothing does.
DEVELOPMENT = "development"

# What `provision` makes.
SWITCH_KEYS: Mapping[str, Kind] = {
    SWITCH_SIGN: Kind.SM2,
    SWITCH_TLS: Kind.SM2,
    JOURNAL_DATA: Kind.SM4,
    PSEUDONYM: Kind.HMAC,
    AUDIT_SIGN: Kind.SM2,
    TERMINAL_MASTER: Kind.DERIVE,
    TERMINAL_WORKING: Kind.DERIVE,
}


def provision(folder: Path | str) -> "SoftwareCustody":
    """Custody in software with every key that a switch needs; keys that are there already stay as they are."""
    custody = SoftwareCustody.initialise(folder)
    make_keys(custody)
    return custody


def make_keys(custody: Custody) -> None:
    """Every key that a switch needs and does not have yet."""
    there = {info.label for info in custody.inventory()}
    for label, kind in SWITCH_KEYS.items():
        if label not in there:
            custody.create(label, kind)


_Key = TypeVar("_Key", PrivateKey, Secret)


class SoftwareCustody:
    """A ``Custody`` over a folder: sealed when custodians founded one there, else of plain files."""

    def __init__(self, folder: Path | str, vault: Vault[Material] | None = None) -> None:
        """Read every key. Raises CustodyError: something is open to others or malformed; Unavailable: still sealed."""
        folder = Path(folder)
        is_sealed = sealed.is_sealed(folder)
        self._table = KeyTable(vault or (sealed.open_vault(folder) if is_sealed else FileVault(folder)))
        self._nonces = sm4.Nonces()
        # "sealed" or "development": what protects the keys at rest.
        self.protection = "sealed" if is_sealed else DEVELOPMENT

    @classmethod
    def initialise(cls, folder: Path | str) -> "SoftwareCustody":
        """Custody of a folder that is made if it is not there."""
        make_folder(Path(folder))
        return cls(folder)

    def labels(self) -> dict[str, Kind]:
        """Every label that has a key, and what kind it is."""
        return self._table.kinds()

    def inventory(self) -> list[KeyInfo]:
        return self._table.keys()

    def key(self, label: KeyName, epoch: int | None = None) -> KeyInfo:
        return self._derived(label).info if isinstance(label, Derived) else self._table.info(label, epoch)

    def refresh(self) -> bool:
        return self._table.refresh()

    # --- the life of a key

    def create(self, label: str, kind: Kind) -> KeyInfo:
        self._table.check_new(label)
        return self._add(label, kind, material.generate(kind))

    def renew(self, label: str) -> KeyInfo:
        kind = self.labels().get(label)
        if kind is None:
            raise CustodyError(f"{label} has no key that could be renewed")
        return self._add(label, kind, material.generate(kind))

    def derive(self, label: str, kind: Kind, parent: str, context: bytes) -> KeyInfo:
        if kind not in SYMMETRIC_KINDS:
            raise CustodyError(f"{label}: a key of kind {kind.name} cannot be derived")
        return self._add(label, kind, self._derived(Derived(kind, parent, context)).material)

    def import_key(
        self, label: str, kind: Kind, wrapped: bytes, under: str, form: WrapForm = WrapForm.KEY_BLOCK
    ) -> KeyInfo:
        held = self._table.find(under, None, Kind.TRANSPORT, Kind.ENVELOPE)
        return self._add(label, kind, _unwrap(held, kind, wrapped, form))

    def export_key(
        self, label: KeyName, under: KeyName, form: WrapForm = WrapForm.KEY_BLOCK, *, epoch: int | None = None
    ) -> bytes:
        held = self._find(label, epoch, *SYMMETRIC_KINDS)
        key = _as(Secret, held)
        wrapping = self._secret(under, None, Kind.TRANSPORT)
        if form is WrapForm.KEY_BLOCK:
            return keyblock.wrap(wrapping.view, held.info.kind, key.view)
        if len(key) != sm4.KEY_BYTES:
            raise CustodyError(f"{label}: only keys of {sm4.KEY_BYTES} bytes travel in UnionPay's form")
        return bytes(sm4.ecb_encrypt(wrapping.view, key.view)) + held.info.check_value

    def export_envelope(self, label: KeyName, recipient: PublicKey, *, epoch: int | None = None) -> bytes:
        return sm2_encrypt(recipient, self._secret(label, epoch, *SYMMETRIC_KINDS).view)

    def activate(self, label: str, epoch: int) -> None:
        self._table.activate(label, epoch)

    def retire(self, label: str, epoch: int) -> None:
        self._table.retire(label, epoch)

    def destroy(self, label: str, epoch: int) -> None:
        self._table.destroy(label, epoch)

    def _add(self, label: str, kind: Kind, key: Material) -> KeyInfo:
        return self._table.add(label, kind, material.check_value(kind, key), key)

    # --- use

    def public_key(self, label: str, epoch: int | None = None) -> PublicKey:
        return _as(PrivateKey, self._table.find(label, epoch, *SM2_KINDS)).public_key

    def sign(self, label: str, digest: bytes, epoch: int | None = None) -> bytes:
        return _as(PrivateKey, self._table.find(label, epoch, Kind.SM2)).sign(digest)

    def verify(self, label: str, digest: bytes, signature: bytes, epoch: int | None = None) -> None:
        _as(PrivateKey, self._table.find(label, epoch, Kind.SM2)).public_key.verify(digest, signature)

    def mac(self, label: KeyName, data: bytes, epoch: int | None = None) -> bytes:
        held = self._find(label, epoch, Kind.HMAC, Kind.MAC)
        key = _as(Secret, held)
        return hmac_sm3(bytes(key.view), data) if held.info.kind is Kind.HMAC else key.cmac.mac(data)

    def verify_mac(self, label: KeyName, data: bytes, mac: bytes, epoch: int | None = None) -> None:
        if len(mac) < _MAC_BYTES_MIN or not sm4.equal(self.mac(label, data, epoch)[: len(mac)], mac):
            raise MacMismatch(f"{label}: the authentication code does not fit")

    def authenticator(self, label: str, epoch: int | None = None) -> Authenticator:
        return self._secret(label, epoch, Kind.MAC).cmac

    def seal(self, label: str, data: bytes, context: bytes) -> bytes:
        held = self._table.find(label, None, _SM4)
        nonce = self._nonces.next()
        hidden = _as(Secret, held).gcm.seal(nonce, data, context)
        return bytes((held.info.epoch,)) + nonce + hidden

    def open(self, label: KeyName, sealed: bytes, context: bytes) -> bytes:
        if len(sealed) < _SEALED_BYTES_MIN:
            self._find(label, None, Kind.SM4)
            raise SealBroken(f"{label}: the sealed value is cut short")
        key = self._opening(label, sealed[0])
        try:
            nonce, hidden = sealed[1 : 1 + sm4.NONCE_BYTES], sealed[1 + sm4.NONCE_BYTES :]
            return bytes(key.gcm.open(nonce, hidden, context))
        except BadTag:
            raise SealBroken(f"{label}: the sealed value was altered or belongs to another context") from None

    def _opening(self, label: KeyName, epoch: int) -> Secret:
        if isinstance(label, Derived):
            return self._secret(replace(label, epoch=epoch), None, Kind.SM4)
        kind = self.labels().get(label)
        try:
            return self._secret(label, epoch, Kind.SM4)
        except CustodyError as error:
            if kind is not Kind.SM4:
                raise
            raise SealBroken(f"{label}: sealed under epoch {epoch}: {error}") from None

    def encrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        key = self._secret(label, epoch, Kind.SM4).view
        return bytes(sm4.ctr(key, iv, data) if mode is CipherMode.CTR else sm4.cbc_encrypt(key, iv, data))

    def decrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        key = self._secret(label, epoch, Kind.SM4).view
        return bytes(sm4.ctr(key, iv, data) if mode is CipherMode.CTR else sm4.cbc_decrypt(key, iv, data))

    def arm(self, label: str, context: "SSL.Context") -> None:
        from fengshou.hsm._openssl import use_private_key

        key = _as(PrivateKey, self._table.find(label, None, Kind.SM2))
        try:
            use_private_key(context, key.to_pkcs8())
        except ValueError:
            raise CustodyError(f"{label}: the key does not belong to the certificate of this channel") from None

    # --- PINs

    def translate_pin(self, block: bytes, account: str, source: PinZone, target: PinZone) -> bytes:
        to = self._secret(target.label, target.epoch, Kind.PIN)
        digits = self._pin(block, account, source)
        try:
            return pin.encipher(to.view, target.format, digits, account)
        finally:
            wipe(digits)

    def pin_offset(self, block: bytes, account: str, source: PinZone, verify_with: str) -> str:
        key = self._secret(verify_with, None, Kind.PIN_VERIFY)
        digits = self._pin(block, account, source)
        try:
            return pin.offset_of(key.view, digits, account)
        finally:
            wipe(digits)

    def verify_pin(self, block: bytes, account: str, source: PinZone, verify_with: str, offset: str) -> None:
        key = self._secret(verify_with, None, Kind.PIN_VERIFY)
        digits = self._pin(block, account, source)
        try:
            pin.check(key.view, digits, account, offset)
        finally:
            wipe(digits)

    def _pin(self, block: bytes, account: str, source: PinZone) -> bytearray:
        return pin.decipher(self._secret(source.label, source.epoch, Kind.PIN).view, source.format, block, account)

    def _secret(self, label: KeyName, epoch: int | None, *kinds: Kind) -> Secret:
        return _as(Secret, self._find(label, epoch, *kinds))

    def _find(self, name: KeyName, epoch: int | None, *kinds: Kind) -> Held[Material]:
        if not isinstance(name, Derived):
            return self._table.find(name, epoch, *kinds)
        if name.kind not in kinds:
            raise CustodyError(f"a key of kind {name.kind.name} is not {' or '.join(kind.name for kind in kinds)}")
        return self._derived(name)

    def _derived(self, name: Derived) -> Held[Material]:
        parent = self._table.find(name.parent, name.epoch, Kind.DERIVE)
        key = sm4.derive(
            _as(Secret, parent).cmac.mac, name.kind.value.encode(), name.context, material.key_bytes(name.kind)
        )
        made = material.from_bytes(name.kind, key)
        check_value = material.check_value(name.kind, made)
        return Held(replace(parent.info, kind=name.kind, check_value=check_value), made)


def _as(form: type[_Key], held: Held[Material]) -> _Key:
    key = held.material
    assert isinstance(key, form)  # by its kind
    return key


def _unwrap(under: Held[Material], kind: Kind, wrapped: bytes, form: WrapForm) -> Material:
    """A key that came under another. Raises WrappedKeyError."""
    if kind not in SYMMETRIC_KINDS:
        raise WrappedKeyError(f"a key of kind {kind.name} does not travel wrapped")
    if isinstance(under.material, PrivateKey):
        try:
            return _whole(kind, sm2_decrypt(under.material, wrapped))
        except BadCiphertext:
            raise WrappedKeyError(f"not an SM2 envelope for {under.info.label}") from None
    wrapping = under.material.view
    if form is WrapForm.KEY_BLOCK:
        bound, key = keyblock.unwrap(wrapping, wrapped)
        if bound is not kind:
            raise WrappedKeyError(f"the key block holds a key of kind {bound.name}, not {kind.name}")
        return _whole(kind, bytearray(key.view))
    if len(wrapped) != sm4.KEY_BYTES + sm4.CHECK_VALUE_BYTES or kind is Kind.HMAC:
        raise WrappedKeyError("UnionPay's form is a key of 16 bytes and its check value of 4")
    clear = sm4.ecb_decrypt(wrapping, wrapped[: sm4.KEY_BYTES])
    if not sm4.equal(sm4.check_value(clear), wrapped[sm4.KEY_BYTES :]):
        wipe(clear)
        raise WrappedKeyError("the key does not fit its check value, or was wrapped under another key")
    return _whole(kind, clear)


def _whole(kind: Kind, clear: bytearray) -> Material:
    try:
        return material.from_bytes(kind, clear)
    except CustodyError as error:
        raise WrappedKeyError(str(error)) from None
