"""What opens cards and devices for a process that nobody sits at: files of mode 0600."""

from pathlib import Path

from fengshou.hsm.custody import CustodyError
from fengshou.hsm.files import read_secret, replace_secret


class PinFile:
    """A card's PIN in a file, one line, and whether the card refused it.

    A card blocks itself after a few wrong PINs, and whoever starts a failing switch again and again would present the
    same one each time. So a refusal is written down beside the file, and the PIN is not given again before the file is
    changed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def _mark(self) -> Path:
        return self.file.with_name(f"{self.file.name}.refused")

    def read(self) -> bytes:
        """Raises CustodyError: no such file, open to others, or the card refused this PIN before."""
        pin = read_secret(self.file).rstrip(b"\r\n")
        if self._mark.exists():
            stamp, _, refusal = read_secret(self._mark).decode().partition(" ")
            if stamp == self._stamp():
                raise CustodyError(f"the PIN in {self.file} is not presented again, {refusal}; correct the file")
            self._mark.unlink()
        return pin

    def refused(self, refusal: CustodyError) -> None:
        """The card does not take what was read."""
        replace_secret(self._mark, f"{self._stamp()} {refusal}".encode())

    def _stamp(self) -> str:
        status = self.file.stat()
        return f"{status.st_mtime_ns}-{status.st_ino}"


def read_passwords(file: Path) -> dict[int, bytes]:
    """A device's passwords by the index of the key pair: a line each, index, space, password. Raises CustodyError."""
    passwords = {}
    for number, line in enumerate(read_secret(file).splitlines(), start=1):
        index, _, password = line.partition(b" ")
        if line.strip():
            if not index.isdigit() or not password:
                raise CustodyError(f"{file} line {number}: not an index and a password")
            passwords[int(index)] = password
    return passwords
