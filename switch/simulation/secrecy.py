"""No clear key and no personal number in anything that a run leaves behind, searched byte by byte.

What is searched: the journal's pages, the trace, the lines that the switch has logged, what analytics was told. What is
searched for: every key of the switch, of its offices and of the terminals, in bytes and as hexadecimal digits, and the
account and card numbers as text and as packed digits. The books of the host hold account numbers; they are its own.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fengshou.hsm.software import load_private_key

# A run that logs more has another problem.
_LINES_MAX = 20_000


class LogBook(logging.Handler):
    """Everything that is logged, as it would be printed."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < _LINES_MAX:
            self.lines.append(self.format(record))


@contextmanager
def logged() -> Iterator[LogBook]:
    """Take everything that is logged, instead of whoever takes it elsewhere."""
    root, book = logging.getLogger(), LogBook()
    handlers, level = root.handlers, root.level
    root.handlers = [book]
    root.setLevel(logging.INFO)
    try:
        yield book
    finally:
        root.handlers = handlers
        root.setLevel(level)


class Secrets:
    """What must not be found, by a name that may be told."""

    def __init__(self, key_folders: Iterable[Path], keys: Mapping[str, bytes], numbers: Mapping[str, str]) -> None:
        """``key_folders`` are those of custodies in development; ``keys`` and ``numbers`` are further ones."""
        self._needles: list[tuple[str, bytes]] = []
        for folder in key_folders:
            for file in sorted(folder.iterdir()):
                if file.suffix != ".json":
                    self._add_key(file.name, _key_in(file))
        for name, key in keys.items():
            self._add_key(name, key)
        for name, number in numbers.items():
            self._needles += [(name, number.encode()), (name, bytes.fromhex(number + "f" * (len(number) % 2)))]

    def _add_key(self, name: str, key: bytes) -> None:
        self._needles += [(name, key), (name, key.hex().encode()), (name, key.hex().upper().encode())]

    def found_in(self, haystacks: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        """One sentence for each secret in each place."""
        for place, content in haystacks:
            for name, needle in self._needles:
                if needle in content:
                    yield f"{name} stands in clear in {place}"


def _key_in(file: Path) -> bytes:
    """The bytes that nobody may see: the scalar of an SM2 key, all of another."""
    if file.suffix != ".pem":
        return bytes.fromhex(file.read_text("ascii"))
    return load_private_key(file).to_scalar()
