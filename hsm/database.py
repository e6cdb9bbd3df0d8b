"""Keys as rows of one SQLite file: many of them, changed whole or not at all, by several processes.

What a row holds of a key is opaque here: sealed under a master key (``sealed``) or wrapped by a device (``sdf``).
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fengshou.hsm.custody import CustodyError, KeyInfo, Kind
from fengshou.hsm.files import check_folder, check_secret, write_secret
from fengshou.protocol.epoch import EpochState

_SCHEMA = """
CREATE TABLE keys (
    label TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    check_value BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (label, epoch)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_current ON keys (label) WHERE state = 'current';
CREATE UNIQUE INDEX one_next ON keys (label) WHERE state = 'next';
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
_APPLICATION_ID = 0x46534B59  # "FSKY": a file of another kind is refused
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KeyDatabase:
    """Rows of keys, and named facts beside them. Raises CustodyError wherever SQLite refuses."""

    def __init__(self, path: Path) -> None:
        check_folder(path.parent)
        check_secret(path)
        self.path = path
        with self._explained():
            # One connection, used under the table's lock by whichever thread makes a change.
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            if self._connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
                raise CustodyError(f"{path} holds no keys")
            self._connection.execute("PRAGMA secure_delete = ON")  # destroyed keys are overwritten, not just forgotten
            self._connection.execute("PRAGMA synchronous = FULL")
        self._seen = -1

    @classmethod
    def create(cls, path: Path) -> "KeyDatabase":
        """A new file, empty of keys. Raises CustodyError when it exists."""
        write_secret(path, b"")  # SQLite gives its journal the mode of the file
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; COMMIT;")
        finally:
            connection.close()
        return cls(path)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise CustodyError(f"{self.path} was changed by another process: refresh and look again") from None
        except sqlite3.Error as error:
            raise CustodyError(f"{self.path}: {error}") from None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """All changes inside are made durable together, or none."""
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def changed(self) -> bool:
        """Whether another connection changed anything since ``rows``."""
        with self._explained():
            return self._version() != self._seen

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def rows(self) -> list[tuple[KeyInfo, bytes]]:
        with self._explained():
            self._seen = self._version()
            found = self._connection.execute(
                "SELECT label, epoch, kind, state, created_us, check_value, body FROM keys"
            ).fetchall()
        return [
            (
                KeyInfo(label, epoch, Kind(kind), EpochState(state), _EPOCH + timedelta(microseconds=created), check),
                body,
            )
            for label, epoch, kind, state, created, check, body in found
        ]

    def add(self, info: KeyInfo, body: bytes) -> None:
        with self.changing():
            self._connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    info.label,
                    info.epoch,
                    info.kind.value,
                    info.state.value,
                    (info.created - _EPOCH) // timedelta(microseconds=1),
                    info.check_value,
                    body,
                ),
            )

    def move(self, changes: Sequence[tuple[KeyInfo, EpochState, bytes]]) -> None:
        """New states and bodies. The order counts: no label may have two current epochs even in between."""
        with self.changing():
            for info, state, body in changes:
                moved = self._connection.execute(
                    "UPDATE keys SET state = ?, body = ? WHERE label = ? AND epoch = ? AND state = ?",
                    (state.value, body, info.label, info.epoch, info.state.value),
                ).rowcount
                if moved != 1:
                    raise CustodyError(f"{info.label} was changed by another process: refresh and look again")

    def rewrite(self, bodies: Sequence[tuple[KeyInfo, bytes]]) -> None:
        """New bodies of keys, inside ``changing``."""
        self._connection.executemany(
            "UPDATE keys SET body = ? WHERE label = ? AND epoch = ?",
            [(body, info.label, info.epoch) for info, body in bodies],
        )

    def remove(self, info: KeyInfo) -> None:
        with self.changing():
            self._connection.execute("DELETE FROM keys WHERE label = ? AND epoch = ?", (info.label, info.epoch))

    def facts(self) -> dict[str, bytes]:
        with self._explained():
            return dict(self._connection.execute("SELECT name, value FROM facts").fetchall())

    def set_facts(self, facts: Mapping[str, bytes]) -> None:
        """Replace all facts, inside ``changing``."""
        self._connection.execute("DELETE FROM facts")
        self._connection.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
