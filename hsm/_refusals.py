"""Every operation of custody, refused: what a provider does not override, it cannot do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fengshou.codecs import PublicKey
from fengshou.hsm.custody import CipherMode, KeyInfo, KeyName, Kind, PinZone, Unsupported, WrapForm
from fengshou.protocol.iso8583_mac import Authenticator

if TYPE_CHECKING:  # who only asks a key needs no TLS library
    from OpenSSL import SSL


class Refusals:
    """The base of providers by devices. ``reason`` says what the provider is and what to use instead."""

    reason = ""

    def _refuse(self) -> Unsupported:
        return Unsupported(self.reason)

    def inventory(self) -> Sequence[KeyInfo]:
        raise self._refuse()

    def key(self, label: KeyName, epoch: int | None = None) -> KeyInfo:
        raise self._refuse()

    def refresh(self) -> bool:
        raise self._refuse()

    def create(self, label: str, kind: Kind) -> KeyInfo:
        raise self._refuse()

    def renew(self, label: str) -> KeyInfo:
        raise self._refuse()

    def derive(self, label: str, kind: Kind, parent: str, context: bytes) -> KeyInfo:
        raise self._refuse()

    def import_key(
        self, label: str, kind: Kind, wrapped: bytes, under: str, form: WrapForm = WrapForm.KEY_BLOCK
    ) -> KeyInfo:
        raise self._refuse()

    def export_key(
        self, label: KeyName, under: KeyName, form: WrapForm = WrapForm.KEY_BLOCK, *, epoch: int | None = None
    ) -> bytes:
        raise self._refuse()

    def export_envelope(self, label: KeyName, recipient: PublicKey, *, epoch: int | None = None) -> bytes:
        raise self._refuse()

    def activate(self, label: str, epoch: int) -> None:
        raise self._refuse()

    def retire(self, label: str, epoch: int) -> None:
        raise self._refuse()

    def destroy(self, label: str, epoch: int) -> None:
        raise self._refuse()

    def public_key(self, label: str, epoch: int | None = None) -> PublicKey:
        raise self._refuse()

    def sign(self, label: str, digest: bytes, epoch: int | None = None) -> bytes:
        raise self._refuse()

    def verify(self, label: str, digest: bytes, signature: bytes, epoch: int | None = None) -> None:
        raise self._refuse()

    def mac(self, label: KeyName, data: bytes, epoch: int | None = None) -> bytes:
        raise self._refuse()

    def verify_mac(self, label: KeyName, data: bytes, mac: bytes, epoch: int | None = None) -> None:
        raise self._refuse()

    def authenticator(self, label: str, epoch: int | None = None) -> Authenticator:
        raise self._refuse()

    def seal(self, label: str, data: bytes, context: bytes) -> bytes:
        raise self._refuse()

    def open(self, label: KeyName, sealed: bytes, context: bytes) -> bytes:
        raise self._refuse()

    def encrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        raise self._refuse()

    def decrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        raise self._refuse()

    def arm(self, label: str, context: "SSL.Context") -> None:
        raise self._refuse()

    def translate_pin(self, block: bytes, account: str, source: PinZone, target: PinZone) -> bytes:
        raise self._refuse()

    def pin_offset(self, block: bytes, account: str, source: PinZone, verify_with: str) -> str:
        raise self._refuse()

    def verify_pin(self, block: bytes, account: str, source: PinZone, verify_with: str, offset: str) -> None:
        raise self._refuse()
