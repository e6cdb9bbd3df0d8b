"""The agent holds the master key of a sealed custody, so that its switch restarts without custodians.

It is a process that custodians start by opening the custody, and that keeps the key on locked memory until it ends. It
answers on a Unix socket in custody's folder, which only the owner may enter, and only processes of the same user::

    G                             → the master keys, 16 bytes each, the newest first
    R || old key || new key       → K when the agent has the old key: the master key is about to be changed
    S || key                      → K when the agent has the key: it was changed, and the others are forgotten

While the master key is changed the agent has both, and whoever asks sees by the custody which one fits; so whenever the
change is cut short, before or after it was durable, everything opens as before.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fengshou.hsm import sm4
from fengshou.hsm.custody import Unavailable
from fengshou.hsm.files import check_folder
from fengshou.hsm.memory import Secret, forbid_core_dumps, wipe

_SOCKET = "agent.sock"
# A peer on the same machine that takes longer is stuck, and everyone else waits behind it.
_PEER_SECONDS = 1.0
_KEYS_TOLD = {b"R": 2, b"S": 1}


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """The socket's name by a descriptor of its folder: such a name has at most 107 bytes, a folder's may have more."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


class Agent:
    """Listens from the moment it is made. Raises CustodyError: the folder is open to others."""

    def __init__(self, folder: Path, master: Secret) -> None:
        check_folder(folder)
        forbid_core_dumps()
        self._folder = folder
        self._masters = [master]
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # An agent that was killed left its socket; one that lives answers, and is asked to end first.
        with suppress(Unavailable):
            fetch(folder)
            self._listener.close()
            raise FileExistsError(f"an agent serves {folder} already")
        (folder / _SOCKET).unlink(missing_ok=True)
        with _address(folder) as address:
            self._listener.bind(address)
            os.chmod(address, 0o600)
        self._listener.listen(64)

    def serve(self) -> None:
        """Answer until ``close``."""
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, suppress(OSError):
                peer.settimeout(_PEER_SECONDS)
                _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if user in (os.geteuid(), 0):
                    self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        what = bytes(_received(peer, 1))
        if what == b"G":
            for master in self._masters:
                peer.sendall(master.view)
            return
        keys = _received(peer, sm4.KEY_BYTES * _KEYS_TOLD.get(what, 0))
        held = self._held(keys[: sm4.KEY_BYTES]) if keys else None
        if held is not None:
            self._masters = [Secret(keys[sm4.KEY_BYTES :]), held] if what == b"R" else [held]
            peer.sendall(b"K")
        wipe(keys)

    def _held(self, key: bytearray) -> Secret | None:
        return next((master for master in self._masters if sm4.equal(bytes(key), bytes(master.view))), None)

    def close(self) -> None:
        """End, from any thread; the key is wiped when the object goes."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        (self._folder / _SOCKET).unlink(missing_ok=True)


def fetch(folder: Path) -> list[Secret]:
    """The master key of ``folder``; while it is changed the new one, then the old one. Unavailable: no agent serves."""
    keys = bytearray()
    try:
        with _connected(folder) as peer:
            peer.sendall(b"G")
            keys = _received(peer, 2 * sm4.KEY_BYTES)
    except OSError:
        pass
    if not keys or len(keys) % sm4.KEY_BYTES:
        raise Unavailable(f"{folder} is sealed; its custodians open it with: fengshou keys unseal")
    secrets = [Secret(keys[at : at + sm4.KEY_BYTES]) for at in range(0, len(keys), sm4.KEY_BYTES)]
    wipe(keys)
    return secrets


def replace(folder: Path, old: Secret, new: Secret) -> None:
    """Tell the agent that ``new`` may soon be the master key. Raises Unavailable: it has another one, or is none."""
    _tell(folder, b"R", old, new)


def settle(folder: Path, master: Secret) -> None:
    """Tell the agent that ``master`` is the master key, and no other one any more. Raises Unavailable."""
    _tell(folder, b"S", master)


def _tell(folder: Path, what: bytes, *keys: Secret) -> None:
    try:
        with _connected(folder) as peer:
            peer.sendall(what + b"".join(bytes(key.view) for key in keys))
            done = peer.recv(1) == b"K"
    except OSError:
        done = False
    if not done:
        raise Unavailable(f"the agent of {folder} has another master key; start it anew with: fengshou keys unseal")


def _received(peer: socket.socket, count: int) -> bytearray:
    """So many bytes, or as many as come before the peer ends."""
    data = bytearray(count)
    at = 0
    while at < count and (got := peer.recv_into(memoryview(data)[at:])):
        at += got
    return data[:at]


@contextmanager
def _connected(folder: Path) -> Iterator[socket.socket]:
    with _address(folder) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_PEER_SECONDS)
        peer.connect(address)
        yield peer
