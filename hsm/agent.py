"""The agent holds the master key of a sealed custody, so that its switch restarts without custodians.

It is a process that custodians start by opening the custody, and that keeps the key on locked memory until it ends. It
answers on a Unix socket in custody's folder, which only the owner may enter, and only processes of the same user::

    G                             → the master key, 16 bytes
    R || old key || new key       → K when the old key was right: the master key was changed
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
from fengshou.hsm.memory import Secret, forbid_core_dumps

_SOCKET = "agent.sock"
# A peer on the same machine that takes longer is stuck, and everyone else waits behind it.
_PEER_SECONDS = 1.0


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
        self._master = master
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
        request = peer.recv(1 + 2 * sm4.KEY_BYTES, socket.MSG_WAITALL if peer.recv(1, socket.MSG_PEEK) == b"R" else 0)
        if request == b"G":
            peer.sendall(self._master.view)
        elif len(request) == 1 + 2 * sm4.KEY_BYTES:
            old, new = request[1 : 1 + sm4.KEY_BYTES], request[1 + sm4.KEY_BYTES :]
            if sm4.equal(old, bytes(self._master.view)):
                self._master = Secret(new)
                peer.sendall(b"K")

    def close(self) -> None:
        """End, from any thread; the key is wiped when the object goes."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        (self._folder / _SOCKET).unlink(missing_ok=True)


def fetch(folder: Path) -> Secret:
    """The master key of ``folder``. Raises Unavailable: no agent serves it."""
    try:
        with _connected(folder) as peer:
            peer.sendall(b"G")
            key = bytearray(sm4.KEY_BYTES)
            count = peer.recv_into(key, len(key), socket.MSG_WAITALL)
    except OSError:
        count = 0
    if count != sm4.KEY_BYTES:
        raise Unavailable(f"{folder} is sealed; its custodians open it with: fengshou keys unseal")
    secret = Secret(key)
    key[:] = bytes(len(key))
    return secret


def replace(folder: Path, old: Secret, new: Secret) -> None:
    """Give the agent a changed master key. Raises Unavailable: none serves the folder, or it holds another one."""
    try:
        with _connected(folder) as peer:
            peer.sendall(b"R" + bytes(old.view) + bytes(new.view))
            done = peer.recv(1) == b"K"
    except OSError:
        done = False
    if not done:
        raise Unavailable(f"no agent of {folder} took the new master key; start it anew with: fengshou keys unseal")


@contextmanager
def _connected(folder: Path) -> Iterator[socket.socket]:
    with _address(folder) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(_PEER_SECONDS)
        peer.connect(address)
        yield peer
