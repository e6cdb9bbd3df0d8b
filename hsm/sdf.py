"""Custody in a GM/T 0018 device (SDF), behind any vendor's library.

Key pairs live in the device under an index, made by the vendor's own administration; ``adopt`` gives one a label.
Symmetric keys are made by the device and leave it only in SM2 envelopes under its key pair ``storage_index``; the
envelopes lie in ``sdf.db`` of custody's folder and are worth nothing without the device. No key ever comes here.

What the standard has no call for would need a clear key or PIN here, and is Unsupported: PINs, derivation, key blocks.
Keep those keys in software and join the two (``composite``), or use a device with payment commands.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import byref, c_uint, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fengshou.codecs import PublicKey, sm3
from fengshou.hsm import _sdf_abi as abi
from fengshou.hsm import ccm, sm4
from fengshou.hsm._refusals import Refusals
from fengshou.hsm._sdf_device import Device, Session
from fengshou.hsm.custody import (
    CipherMode,
    CustodyError,
    Derived,
    KeyInfo,
    KeyName,
    Kind,
    MacMismatch,
    SealBroken,
    Unsupported,
    WrapForm,
    WrappedKeyError,
)
from fengshou.hsm.envelope import Envelope, dump_envelope, parse_envelope
from fengshou.hsm.keytable import KeyTable
from fengshou.hsm.material import SM2_KINDS, SYMMETRIC_KINDS, key_bytes
from fengshou.hsm.prepared import following
from fengshou.hsm.rowvault import RowVault
from fengshou.protocol.iso8583_mac import Authenticator

if TYPE_CHECKING:  # who only asks a key needs no TLS library
    from OpenSSL import SSL

DATABASE = "sdf.db"
_MAC_BYTES_MIN = 8
_MODES = {CipherMode.CBC: abi.SGD_SM4_CBC, CipherMode.CTR: abi.SGD_SM4_CTR}


class _Body(msgspec.Struct, frozen=True):
    """What is kept of a key: the index of its pair, and for a symmetric key its envelope."""

    index: int
    envelope: Envelope | None = None


class _KeyOnDevice(msgspec.Struct, frozen=True):
    """A MAC key that stays where it is."""

    mac: Callable[[bytes], bytes]


class SdfCustody(Refusals):
    """A ``Custody`` over one device."""

    reason = "a GM/T 0018 device has no call for that; keep such keys in software"
    protection = "device"

    def __init__(
        self,
        folder: Path | str,
        library: Path | str,
        *,
        storage_index: int,
        max_bits: int = 512,
        sessions: int = 8,
        passwords: Mapping[int, bytes] = {},  # only read
        pairs: Mapping[str, Sequence[int]] = {},  # only read
    ) -> None:
        """``passwords`` open the private keys of the device by index. Raises CustodyError.

        ``pairs`` are the key pairs that the device's administration made for a label, in the order in which they become
        its epochs. ``max_bits`` is the ECCref_MAX_BITS of the vendor's header, 256 or 512. Nothing is opened before the
        first use.
        """
        self._table = KeyTable(RowVault(Path(folder) / DATABASE, _Body))
        self._pairs = pairs
        self._layout = abi.Layout(max_bits)
        self._library = abi.Library(str(library), self._layout)
        self._device = Device(self._library, self._layout, sessions, passwords)
        self._storage_index = storage_index
        self._nonces = sm4.Nonces()
        self._public_keys: dict[tuple[int, Kind], PublicKey] = {}

    @property
    def edition(self) -> int:
        """2012, or 2023 when the device has GCM and HMAC."""
        return self._library.edition

    def close(self) -> None:
        self._device.close()

    def inventory(self) -> list[KeyInfo]:
        return self._table.keys()

    def key(self, label: KeyName, epoch: int | None = None) -> KeyInfo:
        return self._table.info(_kept(label), epoch)

    def refresh(self) -> bool:
        return self._table.refresh()

    # --- the life of a key

    def adopt(self, label: str, kind: Kind, index: int) -> KeyInfo:
        """Make the device's key pair ``index`` an epoch of ``label``, of kind SM2 or ENVELOPE."""
        if kind not in SM2_KINDS:
            raise CustodyError(f"{label}: only key pairs have an index in the device")
        point = self._export(index, kind).point
        return self._table.add(label, kind, sm3(point)[: sm4.CHECK_VALUE_BYTES], _Body(index))

    def create(self, label: str, kind: Kind) -> KeyInfo:
        self._table.check_new(label)
        return self._generate(label, kind)

    def renew(self, label: str) -> KeyInfo:
        kind = self._table.kinds().get(label)
        if kind is None:
            raise CustodyError(f"{label} has no key that could be renewed")
        return self._generate(label, kind)

    def _generate(self, label: str, kind: Kind) -> KeyInfo:
        if kind in SM2_KINDS:
            newest = self._table.newest(label)
            index = following(self._pairs.get(label, ()), newest.material.index if newest else None)
            if index is None:
                raise Unsupported(
                    f"no key pair of the device is left for {label}: its administration makes one, then add the index "
                    "to those of the label"
                )
            return self.adopt(label, kind, index)

        def work(session: Session) -> tuple[_Body, bytes]:
            cipher, key = self._layout.Cipher(), c_void_p()
            arguments = (session.handle, self._storage_index, 8 * key_bytes(kind), byref(cipher), byref(key))
            session.call("SDF_GenerateKeyWithIPK_ECC", *arguments)
            body = _Body(self._storage_index, self._layout.from_cipher(cipher))
            assert body.envelope is not None
            session.remember(body.index, body.envelope, key)
            return body, self._check_value(session, kind, body)

        body, check_value = self._device.run(work)
        return self._table.add(label, kind, check_value, body)

    def import_key(
        self, label: str, kind: Kind, wrapped: bytes, under: str, form: WrapForm = WrapForm.KEY_BLOCK
    ) -> KeyInfo:
        held = self._table.find(under, None, Kind.TRANSPORT, Kind.ENVELOPE)
        if held.info.kind is Kind.TRANSPORT or kind not in SYMMETRIC_KINDS:
            raise Unsupported("a GM/T 0018 device unwraps symmetric keys from SM2 envelopes only")
        envelope = parse_envelope(wrapped)
        if len(envelope.data) != key_bytes(kind):
            raise WrappedKeyError(f"the envelope does not hold a key of {key_bytes(kind)} bytes")
        body = _Body(held.material.index, envelope)
        try:
            check_value = self._device.run(lambda session: self._check_value(session, kind, body))
        except abi.SdfError as error:
            if isinstance(error, abi.DeviceLost):
                raise
            raise WrappedKeyError(f"not an SM2 envelope for {under}: {error}") from None
        return self._table.add(label, kind, check_value, body)

    def export_envelope(self, label: KeyName, recipient: PublicKey, *, epoch: int | None = None) -> bytes:
        body = self._table.find(_kept(label), epoch, *SYMMETRIC_KINDS).material
        assert body.envelope is not None

        def work(session: Session) -> Envelope:
            public = self._layout.PublicKey(256)
            public.x[:] = self._layout.padded(recipient.point[1:33])
            public.y[:] = self._layout.padded(recipient.point[33:])
            assert body.envelope is not None
            inside, outside = self._layout.to_cipher(body.envelope), self._layout.Cipher()
            session.call(
                "SDF_ExchangeDigitEnvelopeBaseOnECC",
                session.handle, body.index, abi.SGD_SM2_ENCRYPT, byref(public), byref(inside), byref(outside),
            )  # fmt: skip
            return self._layout.from_cipher(outside)

        return dump_envelope(self._device.run(work))

    def activate(self, label: str, epoch: int) -> None:
        self._table.activate(label, epoch)

    def retire(self, label: str, epoch: int) -> None:
        self._table.retire(label, epoch)

    def destroy(self, label: str, epoch: int) -> None:
        """Of a key pair only the label goes; the pair stays in the device until its administration removes it."""
        self._table.destroy(label, epoch)

    # --- use

    def public_key(self, label: str, epoch: int | None = None) -> PublicKey:
        held = self._table.find(label, epoch, *SM2_KINDS)
        return self._export(held.material.index, held.info.kind)

    def _export(self, index: int, kind: Kind) -> PublicKey:
        key = self._public_keys.get((index, kind))
        if key is None:
            what = "Sign" if kind is Kind.SM2 else "Enc"

            def work(session: Session) -> PublicKey:
                public = self._layout.PublicKey()
                session.call(f"SDF_Export{what}PublicKey_ECC", session.handle, index, byref(public))
                point = b"\x04" + self._layout.number(public.x) + self._layout.number(public.y)
                try:
                    return PublicKey(point)
                except ValueError:
                    raise CustodyError("the device gave no point of the curve: try the other max_bits") from None

            key = self._public_keys[(index, kind)] = self._device.run(work)
        return key

    def sign(self, label: str, digest: bytes, epoch: int | None = None) -> bytes:
        index = self._table.find(label, epoch, Kind.SM2).material.index
        if len(digest) != 32:
            raise ValueError("what SM2 signs is a digest of 32 bytes")

        def work(session: Session) -> bytes:
            signature = self._layout.Signature()
            session.call("SDF_InternalSign_ECC", session.handle, index, digest, len(digest), byref(signature))
            return self._layout.number(signature.r) + self._layout.number(signature.s)

        return self._device.run(work)

    def verify(self, label: str, digest: bytes, signature: bytes, epoch: int | None = None) -> None:
        self._table.find(label, epoch, Kind.SM2)
        self.public_key(label, epoch).verify(digest, signature)

    def mac(self, label: KeyName, data: bytes, epoch: int | None = None) -> bytes:
        held = self._table.find(_kept(label), epoch, Kind.HMAC, Kind.MAC)
        compute = self._hmac if held.info.kind is Kind.HMAC else self._cmac
        return self._device.run(lambda session: compute(session, held.material, data))

    def verify_mac(self, label: KeyName, data: bytes, mac: bytes, epoch: int | None = None) -> None:
        if len(mac) < _MAC_BYTES_MIN or not sm4.equal(self.mac(label, data, epoch)[: len(mac)], mac):
            raise MacMismatch(f"{label}: the authentication code does not fit")

    def authenticator(self, label: str, epoch: int | None = None) -> Authenticator:
        body = self._table.find(label, epoch, Kind.MAC).material
        return _KeyOnDevice(lambda data: self._device.run(lambda session: self._cmac(session, body, data)))

    def _hmac(self, session: Session, body: _Body, data: bytes) -> bytes:
        if self.edition < 2023:
            raise Unsupported("HMAC is for devices by GM/T 0018-2023, and this one is by the edition of 2012")
        out, size = ctypes.create_string_buffer(32), c_uint(32)
        session.call("SDF_HMACInit", session.handle, _key(session, body), abi.SGD_SM3)
        session.call("SDF_HMACUpdate", session.handle, data, len(data))
        session.call("SDF_HMACFinal", session.handle, out, byref(size))
        return out.raw[: size.value]

    def _cmac(self, session: Session, body: _Body, data: bytes) -> bytes:
        """CMAC from the device's CBC-MAC: the last block is masked before it goes in (NIST SP 800-38B section 6.2)."""
        key = _key(session, body)
        mask = _double(session.transform("SDF_Encrypt", key, abi.SGD_SM4_ECB, None, bytes(16)))
        if not data or len(data) % 16:
            mask = _double(mask)
            data = (data + b"\x80").ljust(-(-(len(data) + 1) // 16) * 16, b"\0")
        last = bytes(a ^ b for a, b in zip(data[-16:], mask, strict=True))
        return session.transform("SDF_CalculateMAC", key, abi.SGD_SM4_MAC, bytes(16), data[:-16] + last)

    def _check_value(self, session: Session, kind: Kind, body: _Body) -> bytes:
        if kind is Kind.HMAC:
            return self._hmac(session, body, bytes(16))[: sm4.CHECK_VALUE_BYTES]
        zeros = session.transform("SDF_Encrypt", _key(session, body), abi.SGD_SM4_ECB, None, bytes(16))
        return zeros[: sm4.CHECK_VALUE_BYTES]

    def seal(self, label: str, data: bytes, context: bytes) -> bytes:
        held = self._table.find(label, None, Kind.SM4)
        nonce = self._nonces.next()
        form = self._seal_gcm if self.edition >= 2023 else self._seal_ccm
        sealed = self._device.run(lambda session: form(session, held.material, nonce, data, context))
        return bytes((held.info.epoch,)) + nonce + sealed

    def open(self, label: KeyName, sealed: bytes, context: bytes) -> bytes:
        self._table.find(_kept(label), None, Kind.SM4)
        if len(sealed) < 1 + sm4.NONCE_BYTES + sm4.TAG_BYTES:
            raise SealBroken(f"{label}: the sealed value is cut short")
        try:
            body = self._table.find(_kept(label), sealed[0], Kind.SM4).material
        except CustodyError as error:
            raise SealBroken(f"{label}: sealed under epoch {sealed[0]}: {error}") from None
        nonce, hidden = sealed[1 : 1 + sm4.NONCE_BYTES], sealed[1 + sm4.NONCE_BYTES :]
        form = self._open_gcm if self.edition >= 2023 else self._open_ccm
        try:
            return self._device.run(lambda session: form(session, body, nonce, hidden, context))
        except ccm.NotAuthentic:
            raise SealBroken(f"{label}: the sealed value was altered or belongs to another context") from None

    def _seal_gcm(self, session: Session, body: _Body, nonce: bytes, data: bytes, context: bytes) -> bytes:
        out, tag = ctypes.create_string_buffer(len(data) + 16), ctypes.create_string_buffer(sm4.TAG_BYTES)
        size, tag_size = c_uint(len(out)), c_uint(len(tag))
        session.call(
            "SDF_AuthEnc", session.handle, _key(session, body), abi.SGD_SM4_GCM, nonce, len(nonce),
            context, len(context), data, len(data), out, byref(size), tag, byref(tag_size),
        )  # fmt: skip
        return out.raw[: size.value] + tag.raw[: tag_size.value]

    def _open_gcm(self, session: Session, body: _Body, nonce: bytes, sealed: bytes, context: bytes) -> bytes:
        hidden, tag = sealed[: -sm4.TAG_BYTES], sealed[-sm4.TAG_BYTES :]
        out = ctypes.create_string_buffer(len(hidden) + 16)
        size, tag_size = c_uint(len(out)), c_uint(len(tag))
        try:
            session.call(
                "SDF_AuthDec", session.handle, _key(session, body), abi.SGD_SM4_GCM, nonce, len(nonce),
                context, len(context), tag, byref(tag_size), hidden, len(hidden), out, byref(size),
            )  # fmt: skip
        except abi.SdfError as error:
            if error.code in abi.NOT_AUTHENTIC:
                raise ccm.NotAuthentic from None
            raise
        return out.raw[: size.value]

    def _seal_ccm(self, session: Session, body: _Body, nonce: bytes, data: bytes, context: bytes) -> bytes:
        return ccm.seal(*_ccm_modes(session, body), nonce, data, context)

    def _open_ccm(self, session: Session, body: _Body, nonce: bytes, sealed: bytes, context: bytes) -> bytes:
        return ccm.unseal(*_ccm_modes(session, body), nonce, sealed, context)

    def encrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        return self._cipher("SDF_Encrypt", label, mode, iv, data, epoch)

    def decrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        return self._cipher("SDF_Decrypt", label, mode, iv, data, epoch)

    def _cipher(self, name: str, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None) -> bytes:
        body = self._table.find(label, epoch, Kind.SM4).material
        if len(iv) != sm4.BLOCK_BYTES or (mode is CipherMode.CBC and len(data) % sm4.BLOCK_BYTES):
            raise ValueError("an IV is one block, and CBC takes whole blocks")
        return self._device.run(lambda s: s.transform(name, _key(s, body), _MODES[mode], iv, data))

    # --- what would need the key or the PIN in this process

    def arm(self, label: str, context: "SSL.Context") -> None:
        self._table.find(label, None, Kind.SM2)
        raise Unsupported(f"{label}: the TLS library needs the key itself; keep {label} in software")


def _kept(name: KeyName) -> str:
    if isinstance(name, Derived):
        raise Unsupported("a GM/T 0018 device derives no keys; keep their parent in software")
    return name


def _key(session: Session, body: _Body) -> c_void_p:
    assert body.envelope is not None  # by its kind
    return session.key(body.index, body.envelope)


def _ccm_modes(session: Session, body: _Body) -> tuple[ccm.Mode, ccm.Mode]:
    key = _key(session, body)
    return (
        lambda iv, data: session.transform("SDF_CalculateMAC", key, abi.SGD_SM4_MAC, iv, data),
        lambda iv, data: session.transform("SDF_Encrypt", key, abi.SGD_SM4_CTR, iv, data),
    )


def _double(block: bytes) -> bytes:
    """Times x in GF(2^128), SP 800-38B section 6.1."""
    number = int.from_bytes(block, "big") << 1
    return ((number & (1 << 128) - 1) ^ (0x87 if number >> 128 else 0)).to_bytes(16, "big")
