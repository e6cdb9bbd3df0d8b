"""Files that hold secrets: only their owner may read them, and they are there whole or not at all."""

import os
import stat
import tempfile
from pathlib import Path

from fengshou.hsm.custody import CustodyError

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
# Far above any key file or table of states; a wrong path (a log, a device) must not be read into memory.
_SECRET_BYTES_MAX = 1024 * 1024


def _refuse_shared(path: Path, status: os.stat_result, mode: int) -> None:
    # root owns files that a package or a mounted secret brought; anyone else could replace them under us.
    if status.st_uid not in (os.geteuid(), 0):
        raise CustodyError(f"{path} belongs to another user; run: chown {os.geteuid()} {path}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise CustodyError(f"{path} is open to other users; run: chmod {mode:o} {path}")


def check_folder(folder: Path) -> None:
    """Raises CustodyError unless ``folder`` is there and closed to group and world."""
    try:
        status = folder.stat()
    except OSError as error:
        raise CustodyError(f"{folder}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise CustodyError(f"{folder} is not a folder")
    _refuse_shared(folder, status, _FOLDER_MODE)


def make_folder(folder: Path) -> None:
    """Create a folder that only its owner may enter; an existing one is checked and stays as it is."""
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    check_folder(folder)


def read_secret(path: Path) -> bytes:
    """The content of a file that only its owner may read. Raises CustodyError, with the command that closes it."""
    with os.fdopen(_open_secret(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        data = file.read(_SECRET_BYTES_MAX + 1)
    if len(data) > _SECRET_BYTES_MAX:
        raise CustodyError(f"{path} is too long to be a key")
    return data


def _open_secret(path: Path, flags: int) -> int:
    try:
        # The open file is examined, not its name: nobody can change what the name means in between.
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise CustodyError(f"{path}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CustodyError(f"{path} is not a plain file")
        _refuse_shared(path, status, _FILE_MODE)
    except CustodyError:
        os.close(descriptor)
        raise
    return descriptor


def check_secret(path: Path) -> None:
    """Raises CustodyError unless ``path`` is a plain file that only its owner may read."""
    # O_PATH: closing a descriptor that could read would drop the locks that SQLite may hold on the file.
    os.close(_open_secret(path, os.O_PATH))


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600, durably. Raises CustodyError when ``path`` exists: keys are never overwritten."""
    _write_new(path, data, _FILE_MODE, replace=False)


def replace_secret(path: Path, data: bytes) -> None:
    """Write or replace a file of mode 0600, durably and at once."""
    _write_new(path, data, _FILE_MODE, replace=True)


def write_public(path: Path, data: bytes) -> None:
    """Write or replace a file that anyone may read, durably and at once."""
    _write_new(path, data, 0o644, replace=True)


def _write_new(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mkstemp makes it 0600
    except OSError as error:
        raise CustodyError(f"{path.parent}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise CustodyError(f"{path} exists already and is never overwritten") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
