"""Custody in software: keys are files of one folder, each readable by its owner only.

A file is named ``<label>.<epoch>.<kind>``, for example ``switch.sign.1.pem`` or ``journal.data.1.sm4``. The highest
epoch of a label signs, seals and authenticates; lower ones only open what they sealed. All keys are read when custody
starts, so a key that lacks its protection stops the start, not a transaction.

For development and small sites: the keys are in this process's memory, from which a card or a GM/T 0018 device keeps
them.
"""

import itertools
import os
import re
import struct
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from OpenSSL import SSL

from fengshou.codecs import PrivateKey, PublicKey, hmac_sm3
from fengshou.hsm.custody import JOURNAL_DATA, PSEUDONYM, SWITCH_SIGN, SWITCH_TLS, CustodyError, SealBroken
from fengshou.hsm.files import check_folder, make_folder, read_secret, write_secret
from fengshou.hsm.pem import PRIVATE_KEY, from_pem, to_pem

_NONCE_BYTES = 12  # RFC 5116 section 5.1, as AEAD_SM4_GCM of RFC 8998 section 3.1
_TAG_BYTES = 16
_SEALED_BYTES_MIN = 1 + _NONCE_BYTES + _TAG_BYTES
_EPOCH_MAX = 255  # the epoch is one byte of a sealed value


class Kind(Enum):
    """What a key is; the value is the suffix of its file."""

    SM2 = "pem"  # PKCS#8, unencrypted
    SM4 = "sm4"  # 32 hexadecimal digits
    HMAC = "hmac"  # 64 hexadecimal digits


_KEY_BYTES = {Kind.SM4: 16, Kind.HMAC: 32}
_Key = TypeVar("_Key")
_LABEL = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_FILE = re.compile(rf"(?P<label>{_LABEL.pattern})\.(?P<epoch>[1-9][0-9]{{0,2}})\.(?P<kind>pem|sm4|hmac)")


def load_private_key(path: Path) -> PrivateKey:
    """The SM2 key of a PKCS#8 PEM file. Raises CustodyError: missing, open to others, or not such a key."""
    return _parse_private_key(path, read_secret(path))


def save_private_key(path: Path, key: PrivateKey) -> None:
    """Write an SM2 key as PKCS#8 PEM, mode 0600. Raises CustodyError when the file exists."""
    write_secret(path, to_pem(PRIVATE_KEY, key.to_pkcs8()))


def _parse_private_key(path: Path, data: bytes) -> PrivateKey:
    try:
        (der,) = from_pem(PRIVATE_KEY, data)
        return PrivateKey.from_pkcs8(der)
    except ValueError:
        raise CustodyError(f"{path} is not an unencrypted SM2 private key: one PKCS#8 block in PEM") from None


def _parse_symmetric(path: Path, kind: Kind, data: bytes) -> bytes:
    try:
        key = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES[kind]:
        raise CustodyError(f"{path} does not hold {2 * _KEY_BYTES[kind]} hexadecimal digits")
    return key


# What `provision` makes.
SWITCH_KEYS: Mapping[str, Kind] = {
    SWITCH_SIGN: Kind.SM2,
    SWITCH_TLS: Kind.SM2,
    JOURNAL_DATA: Kind.SM4,
    PSEUDONYM: Kind.HMAC,
}


def provision(folder: Path | str) -> "SoftwareCustody":
    """Custody with every key that a switch needs; keys that are there already stay as they are."""
    custody = SoftwareCustody.initialise(folder)
    for label, kind in SWITCH_KEYS.items():
        if label not in custody.labels():
            custody.create(label, kind)
    return custody


class _Nonces:
    """GCM nonces that never repeat under one key: 8 random bytes a process and a 4-byte count.

    The deterministic construction of NIST SP 800-38D section 8.2.1 with a random fixed field: at 10,000 seals a second,
    purely random nonces would pass that document's bound of 2**32 seals a key in five days. A forked child draws its
    own.
    """

    def __init__(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._state = (os.getpid(), os.urandom(8), itertools.count())

    def next(self) -> bytes:
        process, prefix, counter = self._state
        number = next(counter)  # one step of the interpreter: threads never get the same number
        if process != os.getpid() or number > 0xFFFFFFFF:
            self._draw()
            return self.next()
        return prefix + struct.pack(">I", number)


class SoftwareCustody:
    """A ``Custody`` over a folder of key files."""

    def __init__(self, folder: Path | str) -> None:
        """Read every key. Raises CustodyError: a file or the folder is open to others, is malformed, or is no key."""
        self._folder = Path(folder)
        self._private: dict[str, PrivateKey] = {}
        self._mac: dict[str, bytes] = {}
        self._sm4: dict[str, dict[int, algorithms.SM4]] = {}
        self._kinds: dict[str, Kind] = {}
        self._epochs: dict[str, int] = {}
        self._nonces = _Nonces()
        check_folder(self._folder)
        # ".new-…" is a key whose writing was cut short; it was never a key.
        found = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        for path in sorted(found, key=_by_epoch):
            self._load(path)

    @classmethod
    def initialise(cls, folder: Path | str) -> "SoftwareCustody":
        """Custody of a folder that is made if it is not there."""
        make_folder(Path(folder))
        return cls(folder)

    def create(self, label: str, kind: Kind) -> None:
        """Make the first key of a label and store it durably. Raises CustodyError when the label has a key."""
        if not _LABEL.fullmatch(label):
            raise CustodyError(f"{label!r} is not a label: small letters and digits, parted by . or -")
        if label in self._kinds:
            raise CustodyError(f"{label} has a key already")
        path = self._path(label, 1, kind)
        if kind is Kind.SM2:
            save_private_key(path, PrivateKey.generate())
        else:
            write_secret(path, os.urandom(_KEY_BYTES[kind]).hex().encode() + b"\n")
        self._load(path)

    def labels(self) -> dict[str, Kind]:
        """Every label that has a key, and what kind it is."""
        return dict(self._kinds)

    def public_key(self, label: str) -> PublicKey:
        return self._find(self._private, label, Kind.SM2).public_key

    def sign(self, label: str, digest: bytes) -> bytes:
        return self._find(self._private, label, Kind.SM2).sign(digest)

    def mac(self, label: str, data: bytes) -> bytes:
        return hmac_sm3(self._find(self._mac, label, Kind.HMAC), data)

    def seal(self, label: str, data: bytes, context: bytes) -> bytes:
        keys = self._find(self._sm4, label, Kind.SM4)
        epoch = self._epochs[label]
        nonce = self._nonces.next()
        encryptor = Cipher(keys[epoch], modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(context)
        hidden = encryptor.update(data)
        encryptor.finalize()
        return bytes((epoch,)) + nonce + hidden + encryptor.tag

    def open(self, label: str, sealed: bytes, context: bytes) -> bytes:
        keys = self._find(self._sm4, label, Kind.SM4)
        if len(sealed) < _SEALED_BYTES_MIN:
            raise SealBroken(f"{label}: the sealed value is cut short")
        key = keys.get(sealed[0])
        if key is None:
            raise SealBroken(f"{label}: sealed under epoch {sealed[0]}, whose key is not here")
        nonce, hidden, tag = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES : -_TAG_BYTES], sealed[-_TAG_BYTES:]
        decryptor = Cipher(key, modes.GCM(nonce, tag)).decryptor()
        decryptor.authenticate_additional_data(context)
        data = decryptor.update(hidden)
        try:
            decryptor.finalize()
        except InvalidTag:
            raise SealBroken(f"{label}: the sealed value was altered or belongs to another context") from None
        return data

    def arm(self, label: str, context: SSL.Context) -> None:
        self._find(self._private, label, Kind.SM2)
        try:
            context.use_privatekey_file(self._path(label, self._epochs[label], Kind.SM2))
        except SSL.Error:
            raise CustodyError(f"{label}: the key does not belong to the certificate of this channel") from None

    def _path(self, label: str, epoch: int, kind: Kind) -> Path:
        return self._folder / f"{label}.{epoch}.{kind.value}"

    def _load(self, path: Path) -> None:
        match = _FILE.fullmatch(path.name)
        if match is None or int(match["epoch"]) > _EPOCH_MAX:
            raise CustodyError(f"{path} is not a key: names are <label>.<epoch 1 to 255>.<pem|sm4|hmac>; move it away")
        label, epoch, kind = match["label"], int(match["epoch"]), Kind(match["kind"])
        if self._kinds.setdefault(label, kind) is not kind:
            raise CustodyError(f"{path}: {label} has keys of two kinds; move one away")
        data = read_secret(path)
        if kind is Kind.SM2:
            self._private[label] = _parse_private_key(path, data)
        elif kind is Kind.HMAC:
            self._mac[label] = _parse_symmetric(path, kind, data)
        else:
            self._sm4.setdefault(label, {})[epoch] = algorithms.SM4(_parse_symmetric(path, kind, data))
        self._epochs[label] = epoch

    def _find(self, keys: dict[str, _Key], label: str, kind: Kind) -> _Key:
        key = keys.get(label)
        if key is None:
            if label in self._kinds:
                raise CustodyError(f"{label} is a key of kind {self._kinds[label].name}, not {kind.name}")
            raise CustodyError(
                f"no key for {label} in {self._folder}; the switch's keys are made by: fengshou pki keys"
            )
        return key


def _by_epoch(path: Path) -> tuple[int, str]:
    """Ascending epochs, so that the last one loaded is the current one."""
    parts = path.name.split(".")
    return (int(parts[-2]) if len(parts) > 2 and parts[-2].isdecimal() else 0, path.name)
