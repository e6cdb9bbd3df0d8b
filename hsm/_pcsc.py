"""A smart card on PC/SC: commands and answers of ISO 7816-4, and what the status words mean.

Needs the extra ``card``; nothing else of the project does.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from smartcard.Exceptions import SmartcardException
from smartcard.scard import SCARD_LEAVE_CARD, SCARD_SHARE_EXCLUSIVE
from smartcard.System import readers

from fengshou.hsm.custody import CustodyError, Unavailable

_Result = TypeVar("_Result")


class CardError(CustodyError):
    """The card refused a command; ``status`` is its status word."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(f"{text} (status {status:04X})")
        self.status = status


class WrongPin(CardError):
    """The PIN is wrong; ``tries_left`` before the card blocks itself."""

    def __init__(self, status: int) -> None:
        self.tries_left = status & 0xF
        super().__init__(f"wrong PIN, {self.tries_left} tries left", status)


class CardBlocked(CardError):
    """Too many wrong PINs. The security administrator unblocks the card or makes another one."""


class CardAway(Unavailable):
    """No card in the reader, no such reader, or no PC/SC daemon."""


# ISO 7816-4 table 6, and GM/T 0017 section 8.6.
_NOT_AUTHORISED = 0x6982
_MEANINGS = {
    0x6700: "wrong length",
    _NOT_AUTHORISED: "not authorised: the PIN was not presented",
    0x6983: "the card is blocked: too many wrong PINs",
    0x6984: "referenced data cannot be used",
    0x6985: "conditions of use not satisfied",
    0x6A80: "wrong data",
    0x6A81: "function not supported",
    0x6A82: "no such file or application",
    0x6A84: "no room in the file",
    0x6A86: "wrong parameters",
    0x6A88: "no such key or data",
    0x6D00: "command not supported",
    0x6E00: "class not supported",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command APDU. ``answer_bytes`` is Le: None for no answer, 0 for as much as the card has."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    answer_bytes: int | None = None
    extended: bool = False  # lengths of three and two bytes, as GM/T 0017 section 7.3 always has them

    def encode(self) -> bytes:
        head = bytes((self.cla, self.ins, self.p1, self.p2))
        if not self.extended:
            body = bytes((len(self.data),)) + self.data if self.data else b""
            return head + body + (bytes((self.answer_bytes & 0xFF,)) if self.answer_bytes is not None else b"")
        body = b"\0" + len(self.data).to_bytes(2, "big") + self.data if self.data else b""
        if self.answer_bytes is None:
            return head + body
        return head + body + (b"" if self.data else b"\0") + self.answer_bytes.to_bytes(2, "big")


class Link:
    """One reader. Any thread may use it; whoever does has the card to itself for the whole of an operation."""

    def __init__(self, reader: str) -> None:
        """``reader`` is the reader's name as ``pcsc_scan`` shows it, or the end of it. Nothing is touched yet."""
        self.reader = reader
        self._guard = threading.RLock()
        self._connection: Any = None

    def run(self, begin: Callable[[], object], work: Callable[[], _Result]) -> _Result:
        """``work`` on a card that ``begin`` has made ready; once again when the card was away or reset meanwhile."""
        with self._guard:
            try:
                if self._connection is None:
                    self._begin(begin)
                return work()
            except CardAway:
                self.close()
            except CardError as refusal:
                if refusal.status != _NOT_AUTHORISED:
                    raise
                self.close()  # the card was reset behind our back and has forgotten the PIN
            self._begin(begin)
            return work()

    def _begin(self, begin: Callable[[], object]) -> None:
        self._connection = self._connect()
        try:
            begin()
        except CustodyError:
            self.close()
            raise

    def _connect(self) -> Any:
        try:
            there = readers()
            found = [reader for reader in there if str(reader).endswith(self.reader)]
            if not found:
                raise CardAway(f"no reader {self.reader}; there are: {', '.join(map(str, there)) or 'none'}")
            connection = found[0].createConnection()
        except SmartcardException as error:
            raise CardAway(f"{self.reader}: {_first_line(error)}") from None
        try:
            # Alone: a PIN that we presented opens the card for nobody else.
            connection.connect(mode=SCARD_SHARE_EXCLUSIVE, disposition=SCARD_LEAVE_CARD)
        except SmartcardException as error:
            _release(connection)
            raise CardAway(f"{self.reader}: {_first_line(error)}") from None
        return connection

    def send(self, command: Command) -> bytes:
        """The answer's data. Raises CardError, WrongPin, CardBlocked, CardAway. Call it inside ``run``."""
        data, status = self._transmit(command.encode())
        if status >> 8 == 0x6C:  # wrong Le, and this is the right one
            data, status = self._transmit(command.encode()[:-1] + bytes((status & 0xFF,)))
        while status >> 8 == 0x61:  # more to come
            more, status = self._transmit(bytes((0x00, 0xC0, 0, 0, status & 0xFF)))
            data += more
        if status != 0x9000:
            raise _refusal(status)
        return data

    def _transmit(self, apdu: bytes) -> tuple[bytes, int]:
        try:
            data, first, second = self._connection.transmit(list(apdu))
        except SmartcardException as error:
            raise CardAway(f"{self.reader}: {_first_line(error)}") from None
        return bytes(data), first << 8 | second

    def close(self) -> None:
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                _release(connection)


def _release(connection: Any) -> None:
    """At once, not when it is collected: the daemon may be gone by then, and pyscard complains aloud."""
    with suppress(SmartcardException):
        connection.disconnect()
    with suppress(SmartcardException):
        connection.release()


def _refusal(status: int) -> CardError:
    if status & 0xFFF0 == 0x63C0:
        return WrongPin(status)
    kind = CardBlocked if status == 0x6983 else CardError
    return kind(_MEANINGS.get(status, "the card refused"), status)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
