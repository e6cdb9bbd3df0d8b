"""A vault of rows that say nothing without a device: envelopes, indexes, which card it is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from fengshou.hsm.custody import CustodyError
from fengshou.hsm.database import KeyDatabase
from fengshou.hsm.files import make_folder
from fengshou.hsm.keytable import Held
from fengshou.protocol.epoch import EpochState

Body = TypeVar("Body", bound=msgspec.Struct)


class RowVault(Generic[Body]):
    """A ``keytable.Vault`` in a file, which is made when it is not there."""

    def __init__(self, file: Path, body: type[Body]) -> None:
        """Raises CustodyError: the file or its folder is open to others, or it holds no keys."""
        make_folder(file.parent)
        self._database = KeyDatabase(file) if file.exists() else KeyDatabase.create(file)
        self._decode: Callable[[bytes], Body] = msgspec.msgpack.Decoder(body).decode
        self.place = str(file)

    def changed(self) -> bool:
        return self._database.changed()

    def load(self) -> list[Held[Body]]:
        try:
            return [Held(info, self._decode(body)) for info, body in self._database.rows()]
        except msgspec.MsgspecError as error:
            raise CustodyError(f"{self.place} is damaged: {error}") from None

    def add(self, held: Held[Body]) -> None:
        self._database.add(held.info, msgspec.msgpack.encode(held.material))

    def move(self, changes: Sequence[tuple[Held[Body], EpochState]]) -> None:
        self._database.move([(held.info, state, msgspec.msgpack.encode(held.material)) for held, state in changes])

    def remove(self, held: Held[Body]) -> None:
        self._database.remove(held.info)
