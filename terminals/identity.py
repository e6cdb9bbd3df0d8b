"""What a terminal says of itself when it signs in, and the two counters that it must never turn back."""

import fcntl
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Self

import msgspec

from fengshou.protocol import elements as de
from fengshou.protocol.message import Value

CHINA = timezone(timedelta(hours=8))
STAN_MAX = 999_999
BATCH_MAX = 999_999
# A sign-in with this batch asks which one is current.
BATCH_UNKNOWN = 0

# One synced write of the file allows this many STANs. A restart skips at most as many of the 999,999 of a batch.
_STANS_A_WRITE = 64

Clock = Callable[[], datetime]


def china_now() -> datetime:
    return datetime.now(UTC).astimezone(CHINA)


def local_values(now: datetime) -> dict[int, Value]:
    """DE 12 and DE 13 of a moment in UTC+8."""
    return {
        de.LOCAL_TIME: now.hour * 10_000 + now.minute * 100 + now.second,
        de.LOCAL_DATE: now.month * 100 + now.day,
    }


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The elements of the binding as the terminal states them; the registry must agree with each."""

    terminal: str
    merchant: str
    acquirer: int
    serial: str
    credit_code: str
    settlement_account: str
    app: str
    app_version: str
    app_manifest: str  # SM3 of the signed manifest, hexadecimal
    operator: str = "001"
    dictionary: int = 0  # version of the product dictionary; 0: the terminal has none

    def sign_in_values(self, now: datetime, batch: int, stan: int) -> dict[int, Value]:
        """The request of the sign-in template. ``now`` is in UTC+8."""
        values: dict[int, Value] = {
            de.STAN: stan,
            **local_values(now),
            de.ACQUIRER: self.acquirer,
            de.TERMINAL: self.terminal,
            de.MERCHANT: self.merchant,
            de.CURRENCY: de.CURRENCY_CNY,
            de.SERIAL: self.serial,
            de.CREDIT_CODE: self.credit_code,
            de.APP: self.app,
            de.APP_VERSION: self.app_version,
            de.APP_MANIFEST: bytes.fromhex(self.app_manifest),
            de.BATCH: batch,
            de.OPERATOR: self.operator,
            de.FROM_ACCOUNT: self.settlement_account,
        }
        if self.dictionary:
            values[de.DICTIONARY] = self.dictionary
        return values


class CountersError(Exception):
    """The counters cannot be used: another process has them, or their file is damaged."""


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    batch: int
    stan: int  # every STAN of the batch up to this one may have been used


class Counters:
    """Batch and STAN of one terminal, kept in a file so that a restart never uses a STAN twice.

    The file is written ahead: before the first STAN beyond what it says is given out. Give no path for counters that
    need not outlive the process. A terminal without a past does not know its batch; the switch tells it.
    """

    def __init__(self, batch: int = BATCH_UNKNOWN, stan: int = 0, path: Path | None = None, lock: int = -1) -> None:
        self.batch = batch
        self._stan = stan
        self._written = stan
        self._path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """The counters in ``path``, which is made if it is not there. Raises CountersError."""
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stored = (
                msgspec.json.decode(path.read_bytes(), type=_Stored) if path.exists() else _Stored(BATCH_UNKNOWN, 0)
            )
        except BlockingIOError:
            os.close(lock)
            raise CountersError(f"{path} is in use by another process: a terminal runs once") from None
        except msgspec.DecodeError as error:
            os.close(lock)
            raise CountersError(f"{path} is damaged: {error}") from None
        return cls(stored.batch, stored.stan, path, lock)

    def close(self) -> None:
        """Let another process have them. In good order no STAN is skipped."""
        if self._lock >= 0:
            if self._written != self._stan:
                self._write(self._stan)
            os.close(self._lock)
            self._lock = -1

    def next(self) -> tuple[int, int]:
        """The next unused (batch, STAN). When the STANs of a batch are used up, the next batch begins."""
        if self._stan >= STAN_MAX:
            self.begin(self.batch % BATCH_MAX + 1)
        self._stan += 1
        if self._stan > self._written:
            self._write(min(self._stan + _STANS_A_WRITE - 1, STAN_MAX))
        return self.batch, self._stan

    def begin(self, batch: int) -> None:
        """Go on in another batch, of which no STAN has been used."""
        self.batch = batch
        self._stan = 0
        self._write(0)

    def _write(self, stan: int) -> None:
        self._written = stan
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(_Stored(self.batch, stan)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
