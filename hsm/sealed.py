"""The sealed vault: every key under SM4-GCM of a master key, which is nowhere but in memory once custodians opened it.

``custody.db`` in custody's folder holds the keys, each sealed together with all that may be known of it, so that no row
can pass for another one, nor a retired key for a current one. Who holds the master key is ``quorum``'s business; a
process that needs it asks the ``agent`` of the folder.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import InvalidTag

from fengshou.hsm import agent, sm4
from fengshou.hsm.custody import CustodyError, KeyInfo, SealBroken
from fengshou.hsm.database import KeyDatabase
from fengshou.hsm.keytable import Held
from fengshou.hsm.material import Material, from_bytes, to_bytes
from fengshou.hsm.memory import Secret, wipe
from fengshou.protocol.epoch import EpochState

DATABASE = "custody.db"
VERIFIER = "verifier"


def is_sealed(folder: Path) -> bool:
    """Whether custodians founded a sealed custody in ``folder``."""
    return os.path.lexists(folder / DATABASE)


def open_vault(folder: Path) -> "SealedVault":
    """With the master key of the folder's agent. Raises Unavailable: nobody unsealed it yet."""
    database = KeyDatabase(folder / DATABASE)
    return SealedVault(database, _fitting(database))


def _fitting(database: KeyDatabase) -> Secret:
    """Which of the agent's master keys it is. Raises Unavailable; SealBroken: none of them."""
    facts = database.facts()
    for master in agent.fetch(database.path.parent):
        if fits(master, facts):
            return master
    raise SealBroken(f"{database.path} is sealed under another master key; start the agent anew: fengshou keys unseal")


def verifier(master: Secret) -> bytes:
    """What tells the master key from any other, and nothing else."""
    return _seal(master, b"", VERIFIER.encode())


def fits(master: Secret, facts: dict[str, bytes]) -> bool:
    try:
        _open(master, facts.get(VERIFIER, b""), VERIFIER.encode())
    except InvalidTag:
        return False
    return True


class SealedVault:
    """A ``keytable.Vault``."""

    def __init__(self, database: KeyDatabase, master: Secret) -> None:
        self._database = database
        self._master = master

    @property
    def place(self) -> str:
        return str(self._database.path)

    def changed(self) -> bool:
        return self._database.changed()

    def load(self) -> list[Held[Material]]:
        if not fits(self._master, self._database.facts()):
            self._master = _fitting(self._database)  # it was changed while we ran
        return [Held(info, self._unseal(info, body)) for info, body in self._database.rows()]

    def add(self, held: Held[Material]) -> None:
        self._database.add(held.info, _seal_key(self._master, held.info, held.material))

    def move(self, changes: Sequence[tuple[Held[Material], EpochState]]) -> None:
        self._database.move(
            [
                (held.info, state, _seal_key(self._master, replace(held.info, state=state), held.material))
                for held, state in changes
            ]
        )

    def remove(self, held: Held[Material]) -> None:
        self._database.remove(held.info)

    def reseal(self, master: Secret, facts: dict[str, bytes]) -> None:
        """Seal everything under another master key and replace the facts, all at once or not at all."""
        with self._database.changing():
            rows = self._database.rows()
            bodies = [(info, _seal_key(master, info, self._unseal(info, body))) for info, body in rows]
            self._database.rewrite(bodies)
            self._database.set_facts(facts)
        self._master = master

    def _unseal(self, info: KeyInfo, body: bytes) -> Material:
        try:
            return from_bytes(info.kind, _open(self._master, body, _context(info)))
        except InvalidTag:
            raise SealBroken(f"{self.place}: epoch {info.epoch} of {info.label} was altered") from None
        except CustodyError as error:
            raise SealBroken(f"{self.place}: epoch {info.epoch} of {info.label}: {error}") from None


def _seal_key(master: Secret, info: KeyInfo, material: Material) -> bytes:
    clear = to_bytes(material)
    try:
        return _seal(master, clear, _context(info))
    finally:
        wipe(clear)


def _context(info: KeyInfo) -> bytes:
    parts = (info.label, str(info.epoch), info.kind.value, info.state.value, info.created.isoformat())
    return "\n".join((*parts, info.check_value.hex())).encode()


def _seal(master: Secret, data: sm4.Key, context: bytes) -> bytes:
    # Random: no two processes share a counter, and keys are sealed by the thousand, not by the 2**32.
    nonce = os.urandom(sm4.NONCE_BYTES)
    return nonce + sm4.gcm_seal(master.view, nonce, data, context)


def _open(master: Secret, body: bytes, context: bytes) -> bytearray:
    return sm4.gcm_open(master.view, body[: sm4.NONCE_BYTES], body[sm4.NONCE_BYTES :], context)
