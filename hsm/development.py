"""A vault of plain files, for development and tests: whoever reads the folder has the keys.

A file is named ``<label>.<epoch>.<kind>``, for example ``switch.sign.1.pem`` or ``journal.data.1.sm4``: PKCS#8 in PEM
for SM2 keys, hexadecimal digits for others. ``states.json`` holds the state of each epoch of a label that was ever
rotated; of other labels the highest epoch is current and those below are retiring. All files are read when custody
starts, so one that lacks its protection stops the start, not a transaction.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fengshou.codecs import PrivateKey
from fengshou.hsm.custody import EPOCH_MAX, CustodyError, KeyInfo, Kind
from fengshou.hsm.files import check_folder, read_secret, replace_secret, write_secret
from fengshou.hsm.keytable import Held
from fengshou.hsm.material import SM2_KINDS, Material, check_value, from_bytes, key_bytes
from fengshou.hsm.memory import Secret
from fengshou.hsm.pem import PRIVATE_KEY, from_pem, to_pem
from fengshou.protocol.epoch import EpochState

_STATES = "states.json"
_SUFFIXES = "|".join(kind.value for kind in Kind)
_FILE = re.compile(
    rf"(?P<label>[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*)\.(?P<epoch>[1-9][0-9]{{0,2}})\.(?P<kind>{_SUFFIXES})"
)


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


def _parse_symmetric(path: Path, kind: Kind, data: bytes) -> Material:
    try:
        key = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != key_bytes(kind):
        raise CustodyError(f"{path} does not hold {2 * key_bytes(kind)} hexadecimal digits")
    return from_bytes(kind, key)


_States = dict[str, dict[int, EpochState]]


class FileVault:
    """A ``keytable.Vault``."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        self._folder = folder
        self._seen = (-1, -1)

    @property
    def place(self) -> str:
        return f"{self._folder}; the switch's keys are made by: fengshou pki keys"

    def changed(self) -> bool:
        return self._stamp() != self._seen

    def _stamp(self) -> tuple[int, int]:
        # Files are linked, replaced and unlinked, never written in place: each change moves the folder's time, and a
        # second one in the same tick of the clock still gives the table of states another inode.
        states = self._folder / _STATES
        return self._folder.stat().st_mtime_ns, states.stat().st_ino if states.exists() else 0

    def load(self) -> list[Held[Material]]:
        with self._alone():
            self._seen = self._stamp()
            states = self._read_states()
            # ".new-…" is a key whose writing was cut short; it was never a key.
            paths = [p for p in self._folder.iterdir() if not p.name.startswith(".") and p.name != _STATES]
            found = sorted((self._parse_name(path) for path in paths), key=lambda item: (item[0], item[1]))
            highest = {label: epoch for label, epoch, _, _ in found}
            kinds: dict[str, Kind] = {}
            helds = []
            for label, epoch, kind, path in found:
                if kinds.setdefault(label, kind) is not kind:
                    raise CustodyError(f"{path}: {label} has keys of two kinds; move one away")
                default = EpochState.CURRENT if epoch == highest[label] else EpochState.RETIRING
                helds.append(self._read(path, label, epoch, kind, states.get(label, {}).get(epoch, default)))
            return helds

    def _parse_name(self, path: Path) -> tuple[str, int, Kind, Path]:
        match = _FILE.fullmatch(path.name)
        if match is None or int(match["epoch"]) > EPOCH_MAX:
            raise CustodyError(f"{path} is not a key: names are <label>.<epoch 1 to 255>.<{_SUFFIXES}>; move it away")
        return match["label"], int(match["epoch"]), Kind(match["kind"]), path

    def _read(self, path: Path, label: str, epoch: int, kind: Kind, state: EpochState) -> Held[Material]:
        data = read_secret(path)
        material = _parse_private_key(path, data) if kind in SM2_KINDS else _parse_symmetric(path, kind, data)
        created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return Held(KeyInfo(label, epoch, kind, state, created, check_value(kind, material)), material)

    def add(self, held: Held[Material]) -> None:
        with self._alone():
            states = self._read_states()
            if held.info.state is not EpochState.CURRENT:
                # Before the key, so that it is never taken for the current one.
                self._write_states(states, [(held.info, held.info.state)])
            path = self._path(held.info)
            if isinstance(held.material, Secret):
                write_secret(path, held.material.view.hex().encode() + b"\n")
            else:
                save_private_key(path, held.material)
            self._seen = self._stamp()

    def move(self, changes: Sequence[tuple[Held[Material], EpochState]]) -> None:
        with self._alone():
            states = self._read_states()
            for held, _ in changes:
                known = states.get(held.info.label, {}).get(held.info.epoch, held.info.state)
                if known is not held.info.state or not self._path(held.info).exists():
                    raise CustodyError(f"{held.info.label} was changed by another process: refresh and look again")
            self._write_states(states, [(held.info, state) for held, state in changes])
            self._seen = self._stamp()

    def remove(self, held: Held[Material]) -> None:
        with self._alone():
            path = self._path(held.info)
            try:
                # What the disk's own remapping kept is beyond a file system's reach.
                with path.open("r+b") as file:
                    file.write(bytes(path.stat().st_size))
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink()
            except OSError as error:
                raise CustodyError(f"{path}: {error.strerror}") from None
            states = self._read_states()
            states.get(held.info.label, {}).pop(held.info.epoch, None)
            self._write_states(states, [])
            self._seen = self._stamp()

    def _path(self, info: KeyInfo) -> Path:
        return self._folder / f"{info.label}.{info.epoch}.{info.kind.value}"

    def _read_states(self) -> _States:
        path = self._folder / _STATES
        if not path.exists():
            return {}
        try:
            return {
                label: {int(epoch): EpochState(state) for epoch, state in epochs.items()}
                for label, epochs in json.loads(read_secret(path)).items()
            }
        except (ValueError, AttributeError):
            raise CustodyError(f"{path} is not a table of states") from None

    def _write_states(self, states: _States, changes: Sequence[tuple[KeyInfo, EpochState]]) -> None:
        for info, state in changes:
            known = states.setdefault(info.label, {})
            if not known:
                # The label was never rotated: what its files implied so far is written down.
                epochs = sorted(int(path.name.split(".")[-2]) for path in self._files_of(info.label))
                known.update((epoch, EpochState.RETIRING) for epoch in epochs[:-1])
                known.update((epoch, EpochState.CURRENT) for epoch in epochs[-1:])
            known[info.epoch] = state
        plain = {
            label: {str(number): state.value for number, state in epochs.items()}
            for label, epochs in states.items()
            if epochs
        }
        replace_secret(self._folder / _STATES, json.dumps(plain, indent=1).encode() + b"\n")

    def _files_of(self, label: str) -> list[Path]:
        return [
            path for path in self._folder.iterdir() if (match := _FILE.fullmatch(path.name)) and match["label"] == label
        ]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time; the lock ends with the descriptor."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
