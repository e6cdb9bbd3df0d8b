"""Ceremonies: a custody is sealed for custodians, and a master key comes into being from components.

Nobody at the table sees a key: a share says nothing below the quorum, a component nothing without the others.
"""

import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fengshou.codecs import sm2_encrypt
from fengshou.hsm import components, quorum, sealed, sm4
from fengshou.hsm.custody import Custody, CustodyError, KeyInfo, Kind
from fengshou.hsm.database import KeyDatabase
from fengshou.hsm.development import FileVault
from fengshou.hsm.memory import Secret
from fengshou.hsm.quorum import Holder

# Of the envelope key that a ceremony makes for its own duration.
_CEREMONY = "ceremony"


def seal_custody(folder: Path, needed: int, holders: Sequence[Holder]) -> Secret:
    """Put a development custody under a master key of these custodians; its plain files are wiped. Returns the key.

    Raises CustodyError: it is sealed already, or a share was not taken; then nothing was changed. No switch may run.
    """
    if sealed.is_sealed(folder):
        raise CustodyError(f"{folder} is sealed already; other custodians take over by: fengshou keys quorum")
    keys = FileVault(folder).load()
    new, old = folder.with_name(f".{folder.name}.sealing"), folder.with_name(f".{folder.name}.plain")
    shutil.rmtree(new, ignore_errors=True)
    master = quorum.found(new, needed, holders)
    database = KeyDatabase(new / sealed.DATABASE)
    vault = sealed.SealedVault(database, master)
    for held in keys:
        vault.add(held)
    database.close()
    os.rename(folder, old)
    os.rename(new, folder)
    _wipe(old)
    return master


def _wipe(folder: Path) -> None:
    # What the disk's own remapping kept is beyond a file system's reach: keys that matter are rotated after sealing.
    for file in folder.iterdir():
        with file.open("r+b") as data:
            data.write(bytes(file.stat().st_size))
            data.flush()
            os.fsync(data.fileno())
    shutil.rmtree(folder)


def import_components(custody: Custody, label: str, kind: Kind, parts: Sequence[bytes]) -> KeyInfo:
    """A key from its components: the first epoch of ``label``, or a further one that waits as next. CustodyError."""
    key = components.combine(parts)
    info = custody.create(_CEREMONY, Kind.ENVELOPE)
    try:
        # By an envelope, so that it gets into every provider by the same door and never lies in clear at rest.
        wrapped = sm2_encrypt(custody.public_key(_CEREMONY), key.view)
        return custody.import_key(label, kind, wrapped, _CEREMONY)
    finally:
        custody.retire(_CEREMONY, info.epoch)
        custody.destroy(_CEREMONY, info.epoch)


def check_value_of(parts: Sequence[bytes]) -> str:
    """Of the key that components give, for everybody at the table to compare before it is put to use."""
    return sm4.check_value(components.combine(parts).view).hex().upper()


def record_of(label: str, parts: Sequence[tuple[str, bytes]], info: KeyInfo, now: datetime) -> str:
    """The sheet that is printed and signed: check values and names, nothing of the key."""
    lines = [
        f"Key ceremony {now:%Y-%m-%d %H:%M} UTC",
        "",
        f"  key           {label}, epoch {info.epoch}, kind {info.kind.name}, state {info.state.value}",
        f"  check value   {info.check_value.hex().upper()}",
        "",
        *(
            f"  component {number}   check value {sm4.check_value(part).hex().upper()}   {name}"
            for number, (name, part) in enumerate(parts, start=1)
        ),
        "",
        *(f"  {name:<20} signature ______________________" for name, _ in parts),
        f"  {'auditor':<20} signature ______________________",
    ]
    return "\n".join(lines) + "\n"
