"""Purchases that wait for coverage, in a file that a power cut may end at any byte.

Each entry is chained to the one before: size (2 bytes), kind (1), content, SM3( previous hash || kind || content ).
What a cut leaves of the last entry is dropped at the next start; anything else that does not chain is damage.

====  =============================================================================================
kind  content
====  =============================================================================================
S     stored: template (1), values as the journal packs them; items count from 1 in their order
U     sealed: batch (4), signature (64), the items' numbers (count, then 4 each), what is uploaded
A     answered: number (4), response code (2)
R     returned: number (4); its upload never arrived and its batch is closed, so it gets another key
====  =============================================================================================
"""

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fengshou.codecs import MessageCodec, sm3
from fengshou.protocol.limits import DIGEST_BYTES, SIGNATURE_BYTES
from fengshou.protocol.message import Value

_STORED, _SEALED, _ANSWERED, _RETURNED = b"SUAR"
_GENESIS = bytes(DIGEST_BYTES)
_NOBODY = 0


class OfflineError(Exception):
    """The file of stored purchases cannot be used: another process has it, or it is damaged."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One purchase that waits. ``number`` names it in this file."""

    number: int
    template: int
    values: Mapping[int, Value]


@dataclass(frozen=True, slots=True)
class Sealed:
    """Purchases that have their keys and are signed together; ``numbers`` are those of the items, in their order.

    0 stands for an item that was returned and has another key now.
    """

    batch: int
    numbers: tuple[int, ...]
    packed: bytes
    signature: bytes


class OfflineStore:
    """What was bought without coverage and has no final answer yet."""

    def __init__(self, path: Path, codec: MessageCodec) -> None:
        """Raises OfflineError."""
        self._codec = codec
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise OfflineError(f"{path} is in use by another process: a terminal runs once") from None
        self._path = path
        self._forget()
        try:
            self._read()
        except OfflineError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        """How many purchases have no final answer."""
        return len(self._open)

    def store(self, template: int, values: Mapping[int, Value]) -> int:
        """Keep a purchase; durable when this returns its number. Raises UntrustedBytesError."""
        self._write(_STORED, bytes((template,)) + self._codec.pack(values))
        return self._last

    def seal(self, batch: int, numbers: Sequence[int], packed: bytes, signature: bytes) -> Sealed:
        """Keep what is about to be sent; until it is answered nothing else is sent for these items."""
        named = bytes((len(numbers),)) + b"".join(number.to_bytes(4, "big") for number in numbers)
        self._write(_SEALED, batch.to_bytes(4, "big") + signature + named + packed)
        return self.sealed()[-1]

    def answered(self, number: int, code: str) -> None:
        """This is the final answer to an item. When no item is left the file begins anew."""
        self._write(_ANSWERED, number.to_bytes(4, "big") + code.encode())
        if not self._open:
            self._file.truncate(0)
            self._sync()
            self._forget()

    def returned(self, number: int) -> None:
        """The switch never had it: it waits again."""
        self._write(_RETURNED, number.to_bytes(4, "big"))

    def waiting(self) -> list[Stored]:
        """What is not sealed, the oldest first."""
        sealed = {number for upload in self._sealed for number in upload.numbers}
        return [item for number, item in self._open.items() if number not in sealed]

    def sealed(self) -> list[Sealed]:
        """Uploads of which an item is not answered, the oldest first."""
        return list(self._sealed)

    def is_open(self, number: int) -> bool:
        """Whether an item has no final answer."""
        return number in self._open

    # Inside

    def _forget(self) -> None:
        self._hash, self._last = _GENESIS, 0
        self._open: dict[int, Stored] = {}
        self._sealed: list[Sealed] = []

    def _write(self, kind: int, content: bytes) -> None:
        entry = bytes((kind,)) + content
        chained = sm3(self._hash + entry)
        self._file.write(len(entry).to_bytes(2, "big") + entry + chained)
        self._sync()
        self._hash = chained
        self._apply(kind, content)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> None:
        self._file.seek(0)
        data, at = self._file.read(), 0
        while at + 2 <= len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            if end + DIGEST_BYTES > len(data):
                break  # cut off while it was written; whoever wrote it was never told that it is kept
            entry, chained = data[at + 2 : end], data[end : end + DIGEST_BYTES]
            if not entry or sm3(self._hash + entry) != chained:
                raise OfflineError(f"{self._path} is damaged at byte {at}")
            self._hash = chained
            self._apply(entry[0], entry[1:])
            at = end + DIGEST_BYTES
        if at < len(data):
            self._path.with_suffix(".torn").write_bytes(data[at:])  # for whoever doubts that it was a cut
            self._file.truncate(at)
            self._sync()

    def _apply(self, kind: int, content: bytes) -> None:
        if kind == _STORED:
            self._last += 1
            self._open[self._last] = Stored(self._last, content[0], self._codec.unpack(content[1:]))
            return
        if kind == _SEALED:
            batch, signature, rest = content[:4], content[4 : 4 + SIGNATURE_BYTES], content[4 + SIGNATURE_BYTES :]
            end = 1 + 4 * rest[0]
            numbers = tuple(int.from_bytes(rest[at : at + 4], "big") for at in range(1, end, 4))
            self._sealed.append(Sealed(int.from_bytes(batch, "big"), numbers, rest[end:], signature))
            return
        number = int.from_bytes(content[:4], "big")
        if kind == _ANSWERED:
            self._open.pop(number, None)
        elif kind == _RETURNED:
            self._sealed = [_without(upload, number) for upload in self._sealed]
        if kind in (_ANSWERED, _RETURNED):
            self._sealed = [upload for upload in self._sealed if any(each in self._open for each in upload.numbers)]


def _without(upload: Sealed, number: int) -> Sealed:
    """The upload with nobody in the place of an item that is not its own any more."""
    numbers = tuple(_NOBODY if each == number else each for each in upload.numbers)
    return Sealed(upload.batch, numbers, upload.packed, upload.signature)
