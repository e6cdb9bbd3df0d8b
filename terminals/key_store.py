"""The keys of one terminal: what its secure medium keeps, and what it makes with them.

::

    master key            opened from an SM2 envelope by the terminal's private key; brings the working keys
    PIN key               PIN blocks
    authentication key    proves to the switch that the keys arrived
    data key              seals what identifies a person

The switch sends newer ones when the terminal says which epochs it holds. What does not fit its check values is not
taken; the terminal then says that it holds none, and is sent everything again.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from fengshou.codecs import BadCiphertext, PrivateKey, sm2_decrypt
from fengshou.hsm import pin, sm4
from fengshou.hsm.custody import CustodyError, PinFormat
from fengshou.hsm.files import read_secret, replace_secret
from fengshou.hsm.memory import Secret, wipe
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.signing import key_proof_message

_WRAPPED_BYTES = sm4.KEY_BYTES + sm4.CHECK_VALUE_BYTES
_PIN_FORMATS = {PinFormat.ISO_4: 0, PinFormat.UNIONPAY: 1}  # DE 53.2

OpenEnvelope = Callable[[bytes], bytearray]


class KeysUnfit(Exception):
    """What came as keys is none: damaged, for another terminal, or under a master key that is not here."""


class NoKeys(Exception):
    """The terminal has no working keys yet: sign in."""


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    """The file: epochs, and keys in hexadecimal."""

    master_epoch: int = 0
    master: str = ""
    epoch: int = 0
    pin: str = ""
    authentication: str = ""
    data: str = ""


class KeyStore:
    """Master and working keys. ``path`` is where they are kept, mode 0600; without one they end with the process."""

    def __init__(self, open_envelope: OpenEnvelope, path: Path | None = None) -> None:
        """``open_envelope`` is the secure medium's: SM2 ciphertext (DER, GM/T 0009) to data, or KeysUnfit.

        Raises CustodyError: the file is damaged or open to others.
        """
        self._open_envelope = open_envelope
        self._path = path
        stored = _Stored()
        if path is not None and path.exists():
            try:
                stored = msgspec.json.decode(read_secret(path), type=_Stored)
            except msgspec.DecodeError as error:
                raise CustodyError(f"{path} is damaged: {error}; remove it, and the terminal asks for keys") from None
        self.master_epoch = stored.master_epoch
        self.epoch = stored.epoch
        self._master = Secret(bytes.fromhex(stored.master))
        self._pin, self._authentication, self._data = (
            Secret(bytes.fromhex(key)) for key in (stored.pin, stored.authentication, stored.data)
        )

    @classmethod
    def of_key(cls, key: PrivateKey, path: Path | None = None) -> "KeyStore":
        """For a terminal whose private key is a file, as in development."""

        def open_envelope(envelope: bytes) -> bytearray:
            try:
                return sm2_decrypt(key, envelope)
            except BadCiphertext:
                raise KeysUnfit("the envelope is not for this terminal") from None

        return cls(open_envelope, path)

    @property
    def held(self) -> dict[int, Value]:
        """What the terminal says of its keys when it signs in."""
        return {de.KEY_EPOCH: self.epoch, de.MASTER_EPOCH: self.master_epoch}

    def take(self, told: Mapping[int, Value]) -> bool:
        """Keep the keys that an answer brings, if it does; they are durable when it returns. Raises KeysUnfit."""
        wrapped, epoch, master_epoch = (told.get(key) for key in (de.WORKING_KEYS, de.KEY_EPOCH, de.MASTER_EPOCH))
        if not (isinstance(wrapped, bytes) and isinstance(epoch, int) and isinstance(master_epoch, int)):
            return False
        master, envelope = self._master, told.get(de.MASTER_KEY)
        if isinstance(envelope, bytes):
            master = self._opened(envelope)
        elif master_epoch != self.master_epoch:
            raise KeysUnfit(f"wrapped under epoch {master_epoch} of the master key, which is not here")
        keys = [_unwrapped(master, wrapped[at : at + _WRAPPED_BYTES]) for at in range(0, len(wrapped), _WRAPPED_BYTES)]
        self._master, self.master_epoch, self.epoch = master, master_epoch, epoch
        self._pin, self._authentication, self._data = keys
        self._write()
        return True

    def forget(self) -> None:
        """Hold none, so that all are sent again."""
        self.epoch = self.master_epoch = 0
        self._write()

    def proof(self, binding: bytes) -> dict[int, Value]:
        """What the terminal holds, proved on the connection with this binding. Raises NoKeys."""
        self._require_keys()
        message = key_proof_message(binding, self.master_epoch, self.epoch)
        return {**self.held, de.MAC: sm4.cmac(self._authentication.view, message)}

    def pin_block(self, digits: bytearray, pan: str, form: PinFormat = PinFormat.ISO_4) -> dict[int, Value]:
        """The elements by which a request carries a PIN; wipes ``digits``, which are ASCII.

        Raises NoKeys, and PinBlockError when PIN or PAN is none.
        """
        try:
            self._require_keys()
            block = pin.encipher(self._pin.view, form, digits, pan)
        finally:
            wipe(digits)
        values: dict[int, Value] = {de.PIN_BLOCK: block, de.KEY_EPOCH: self.epoch}
        if _PIN_FORMATS[form]:
            values[de.PIN_FORMAT] = _PIN_FORMATS[form]
        return values

    def sealed(self, values: Mapping[int, Value]) -> dict[int, Value]:
        """The values with what the switch can take sealed under the data key in its sealed form. Raises NoKeys."""
        self._require_keys()
        hidden = dict(values)
        for sealed, key in de.SEALED.items():
            if isinstance(value := hidden.pop(key, None), str):
                # Random: a terminal seals some thousands under a key, not the 2**32 after which that is unwise.
                nonce = os.urandom(sm4.NONCE_BYTES)
                data = self._data.gcm.seal(nonce, value.encode("utf-8"), de.sealed_context(sealed))
                hidden[sealed] = bytes((self.epoch,)) + nonce + data
        return hidden

    def _require_keys(self) -> None:
        if not self.epoch:
            raise NoKeys("the terminal has no working keys")

    def _opened(self, told: bytes) -> Secret:
        check_value, envelope = told[: sm4.CHECK_VALUE_BYTES], told[sm4.CHECK_VALUE_BYTES :]
        key = self._open_envelope(envelope)
        try:
            if len(key) != sm4.KEY_BYTES or not sm4.equal(sm4.check_value(key), check_value):
                raise KeysUnfit("the master key does not fit its check value")
            return Secret(key)
        finally:
            wipe(key)

    def _write(self) -> None:
        if self._path is not None:
            stored = _Stored(
                self.master_epoch, self._master.view.hex(), self.epoch,
                self._pin.view.hex(), self._authentication.view.hex(), self._data.view.hex(),
            )  # fmt: skip
            replace_secret(self._path, msgspec.json.encode(stored))


def _unwrapped(master: Secret, wrapped: bytes) -> Secret:
    """A key in UnionPay's form, SM4-ECB under the master key and its check value. Raises KeysUnfit."""
    key = sm4.ecb_decrypt(master.view, wrapped[: sm4.KEY_BYTES])
    try:
        if not sm4.equal(sm4.check_value(key), wrapped[sm4.KEY_BYTES :]):
            raise KeysUnfit("a working key does not fit its check value")
        return Secret(key)
    finally:
        wipe(key)
