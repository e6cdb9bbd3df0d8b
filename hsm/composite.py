"""One custody of several: a card or a device signs, software does what they cannot."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fengshou.codecs import PublicKey
from fengshou.hsm.custody import CipherMode, Custody, CustodyError, Derived, KeyInfo, KeyName, Kind, PinZone, WrapForm
from fengshou.protocol.iso8583_mac import Authenticator

if TYPE_CHECKING:  # who only asks a key needs no TLS library
    from OpenSSL import SSL


class Composite:
    """A ``Custody`` that gives each label to one provider. Keys that work together must be in the same one."""

    def __init__(self, others: Mapping[str, Custody], default: Custody) -> None:
        """``others`` by label; every label that is not named there belongs to ``default``."""
        self._others = dict(others)
        self._default = default

    @property
    def protection(self) -> str:
        return ", ".join(dict.fromkeys(custody.protection for custody in (self._default, *self._others.values())))

    def keeper(self, label: str) -> Custody:
        """The provider of a label."""
        return self._others.get(label, self._default)

    def _of(self, name: KeyName, *partners: KeyName) -> Custody:
        label = _label_of(name)
        custody = self.keeper(label)
        for partner in map(_label_of, partners):
            if self.keeper(partner) is not custody:
                raise CustodyError(f"{label} and {partner} are kept by different providers and cannot work together")
        return custody

    def inventory(self) -> Sequence[KeyInfo]:
        """What can be used: keys that a provider has of another's label are not shown."""
        infos = [info for info in self._default.inventory() if info.label not in self._others]
        for custody in {id(custody): custody for custody in self._others.values()}.values():
            infos += [info for info in custody.inventory() if self._others.get(info.label) is custody]
        return sorted(infos, key=lambda info: (info.label, info.epoch))

    def key(self, label: KeyName, epoch: int | None = None) -> KeyInfo:
        return self._of(label).key(label, epoch)

    def refresh(self) -> bool:
        changed = [
            custody.refresh() for custody in (self._default, *self._others.values())
        ]  # each one, not up to the first
        return any(changed)

    def create(self, label: str, kind: Kind) -> KeyInfo:
        return self._of(label).create(label, kind)

    def renew(self, label: str) -> KeyInfo:
        return self._of(label).renew(label)

    def derive(self, label: str, kind: Kind, parent: str, context: bytes) -> KeyInfo:
        return self._of(label, parent).derive(label, kind, parent, context)

    def import_key(
        self, label: str, kind: Kind, wrapped: bytes, under: str, form: WrapForm = WrapForm.KEY_BLOCK
    ) -> KeyInfo:
        return self._of(label, under).import_key(label, kind, wrapped, under, form)

    def export_key(
        self, label: KeyName, under: KeyName, form: WrapForm = WrapForm.KEY_BLOCK, *, epoch: int | None = None
    ) -> bytes:
        return self._of(label, under).export_key(label, under, form, epoch=epoch)

    def export_envelope(self, label: KeyName, recipient: PublicKey, *, epoch: int | None = None) -> bytes:
        return self._of(label).export_envelope(label, recipient, epoch=epoch)

    def activate(self, label: str, epoch: int) -> None:
        self._of(label).activate(label, epoch)

    def retire(self, label: str, epoch: int) -> None:
        self._of(label).retire(label, epoch)

    def destroy(self, label: str, epoch: int) -> None:
        self._of(label).destroy(label, epoch)

    def public_key(self, label: str, epoch: int | None = None) -> PublicKey:
        return self._of(label).public_key(label, epoch)

    def sign(self, label: str, digest: bytes, epoch: int | None = None) -> bytes:
        return self._of(label).sign(label, digest, epoch)

    def verify(self, label: str, digest: bytes, signature: bytes, epoch: int | None = None) -> None:
        self._of(label).verify(label, digest, signature, epoch)

    def mac(self, label: KeyName, data: bytes, epoch: int | None = None) -> bytes:
        return self._of(label).mac(label, data, epoch)

    def verify_mac(self, label: KeyName, data: bytes, mac: bytes, epoch: int | None = None) -> None:
        self._of(label).verify_mac(label, data, mac, epoch)

    def authenticator(self, label: str, epoch: int | None = None) -> Authenticator:
        return self._of(label).authenticator(label, epoch)

    def seal(self, label: str, data: bytes, context: bytes) -> bytes:
        return self._of(label).seal(label, data, context)

    def open(self, label: KeyName, sealed: bytes, context: bytes) -> bytes:
        return self._of(label).open(label, sealed, context)

    def encrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        return self._of(label).encrypt(label, mode, iv, data, epoch)

    def decrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        return self._of(label).decrypt(label, mode, iv, data, epoch)

    def arm(self, label: str, context: "SSL.Context") -> None:
        self._of(label).arm(label, context)

    def translate_pin(self, block: bytes, account: str, source: PinZone, target: PinZone) -> bytes:
        return self._of(source.label, target.label).translate_pin(block, account, source, target)

    def pin_offset(self, block: bytes, account: str, source: PinZone, verify_with: str) -> str:
        return self._of(source.label, verify_with).pin_offset(block, account, source, verify_with)

    def verify_pin(self, block: bytes, account: str, source: PinZone, verify_with: str, offset: str) -> None:
        self._of(source.label, verify_with).verify_pin(block, account, source, verify_with, offset)


def _label_of(name: KeyName) -> str:
    """Who keeps a derived key is who keeps its parent."""
    return name.parent if isinstance(name, Derived) else name
