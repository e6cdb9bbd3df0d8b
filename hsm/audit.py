"""The audit log: who did what to keys, certificates and the registry. Written before the act: no record, no act.

A file of lines, only ever appended to, each durable before what it announces begins::

    digest SP record LF         digest = SM3(record), 64 hexadecimal digits; record = JSON on one line

A record names the digest of the line before it, so that none can be altered, moved or taken out unseen. On the first
act of a day, and by ``seal``, the key AUDIT_SIGN signs the newest digest; what the chain alone cannot show, that lines
are missing at the end, the signature shows for everything before it. It covers, see ``protocol.signing``::

    e = SM3( ZA || "FP1U" || digest )

The parts of a record are those of GB/T 22239-2019 8.1.4.3 b: date and time, user, kind of event, whether it succeeded,
and what else is needed to understand it. An act has two records: ``begun``, then ``done`` or ``failed``; a ``begun``
without its end means that the process died in the act. A line that a crash cut short announced nothing; the next
record, ``audit.torn``, accounts for it.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum
from io import FileIO
from pathlib import Path

import msgspec

from fengshou.codecs import sm3
from fengshou.hsm._asn1 import Signer
from fengshou.hsm.custody import CustodyError
from fengshou.protocol.signing import TAG_AUDIT

DIGEST_CHARACTERS = 64
GENESIS = "0" * DIGEST_CHARACTERS  # what the first record names as the line before it

SEALED = "audit.seal"
TORN = "audit.torn"

# Far above any record; a damaged file must not be read into memory as one line.
LINE_BYTES_MAX = 16 * 1024
_REASON_CHARACTERS_MAX = 300
# Who may read a log is the owner's group, for auditors; nobody but the owner appends.
_FILE_MODE = 0o640


class AuditError(CustodyError):
    """The log cannot be written or is not a log; nothing may be done until it can."""


class Result(Enum):
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"  # not this person, or not without a second one
    APPROVED = "approved"  # the second person's consent, to be used once
    NOTED = "noted"  # of the log itself


class Actor(msgspec.Struct, frozen=True):
    """Who acts, and from where. ``kind`` says how the name was proved: ``os-user``, ``passphrase`` or ``card``."""

    kind: str
    name: str
    session: str
    source: str


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. ``at`` is China's time to the nanosecond; ``refers`` is the ``begun`` that this record ends."""

    sequence: int
    at: str
    actor: Actor
    event: str
    object: str
    result: Result
    previous: str
    refers: int = 0
    reason: str = ""
    details: dict[str, str] = {}


def local_time(time_ns: int) -> str:
    """A moment in ISO 8601 as China's clock shows it, with nine digits of the second."""
    seconds, rest = divmod(time_ns, 10**9)
    local = datetime.fromtimestamp(seconds, UTC) + timedelta(hours=8)
    return f"{local:%Y-%m-%dT%H:%M:%S}.{rest:09d}+08:00"


def seal_digest(za: bytes, newest: str) -> bytes:
    """What AUDIT_SIGN signs for the line with digest ``newest``."""
    return sm3(za + TAG_AUDIT + bytes.fromhex(newest))


class Act:
    """An act that has begun. What is noted stands in the record of its end."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.details: dict[str, str] = {}

    def note(self, **details: object) -> None:
        """Check values, epochs, serial numbers; never a secret."""
        self.details.update((name, str(value)) for name, value in details.items())


class AuditLog:
    """The log in ``file``, which is made when it is not there, in the name of one actor."""

    def __init__(self, file: Path, actor: Actor, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.file = file
        self.actor = actor
        self._now_ns = now_ns

    @contextmanager
    def act(self, event: str, of: str, **details: object) -> Iterator[Act]:
        """Record that something begins, let it happen, record how it ended. Raises AuditError, then nothing happens."""
        act = Act(self.append(event, of, Result.BEGUN, details=details))
        try:
            yield act
        except BaseException as error:
            # The text of our own errors names labels and files; that of others may hold anything.
            reason = f"{type(error).__name__}: {error}" if isinstance(error, CustodyError) else type(error).__name__
            self.append(event, of, Result.FAILED, refers=act.sequence, reason=reason, details=act.details)
            raise
        self.append(event, of, Result.DONE, refers=act.sequence, details=act.details)

    def append(
        self, event: str, of: str, result: Result, *, refers: int = 0, reason: str = "",
        details: Mapping[str, object] | None = None,
    ) -> int:  # fmt: skip
        """One durable record; returns its sequence. Raises AuditError."""
        texts = {name: str(value) for name, value in (details or {}).items()}
        with self._alone() as file:
            previous = self._newest(file)
            return self._write(file, previous, event, of, result, refers, reason[:_REASON_CHARACTERS_MAX], texts)

    def seal(self, signer: Signer, epoch: int) -> int | None:
        """Sign everything so far; the sequence of the record that holds the signature, None: all is signed already."""
        with self._alone() as file:
            previous = self._newest(file)
            if previous is None or previous[1].event == SEALED:
                return None
            key = signer.public_key
            signature = signer.sign(seal_digest(key.za, previous[0]))
            details = {"epoch": str(epoch), "key": key.point.hex(), "signature": signature.hex()}
            return self._write(file, previous, SEALED, previous[0], Result.NOTED, 0, "", details)

    def due(self) -> bool:
        """Whether a day has ended since the newest record, and nobody has signed it yet."""
        if not self.file.exists():
            return False
        with self._alone() as file:
            newest = self._newest(file)
        return newest is not None and newest[1].event != SEALED and newest[1].at[:10] != local_time(self._now_ns())[:10]

    def _write(
        self, file: FileIO, previous: tuple[str, Record] | None, event: str, of: str, result: Result, refers: int,
        reason: str, details: dict[str, str], before: bytes = b"",
    ) -> int:  # fmt: skip
        digest, sequence = (previous[0], previous[1].sequence + 1) if previous else (GENESIS, 1)
        record = Record(
            sequence, local_time(self._now_ns()), self.actor, event, of, result, digest, refers, reason, details
        )
        line = format_line(record)
        if len(line) > LINE_BYTES_MAX:
            raise AuditError(f"a record of {event} would have {len(line)} bytes")
        try:
            if file.write(before + line) != len(before + line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            raise AuditError(f"{self.file}: {error.strerror}; nothing is done without a record") from None
        return sequence

    def _newest(self, file: FileIO) -> tuple[str, Record] | None:
        """Digest and record of the last line, None in a new file. What a crash cut short is accounted for first."""
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 2 * LINE_BYTES_MAX))
        whole, newline, rest = file.read().rpartition(b"\n")
        newest = self._parse_last(whole.rpartition(b"\n")[2]) if newline else None
        if not rest:
            return newest
        self._write(
            file, newest, TORN, sm3(rest).hex(), Result.NOTED, 0, f"{len(rest)} bytes were cut short", {}, before=b"\n"
        )
        return self._newest(file)

    def _parse_last(self, line: bytes) -> tuple[str, Record]:
        try:
            return parse_line(line)
        except ValueError as error:
            raise AuditError(f"the last line of {self.file} {error}; see: fengshou audit verify") from None

    @contextmanager
    def _alone(self) -> Iterator[FileIO]:
        """The file opened to append, one process at a time."""
        try:
            descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            raise AuditError(f"{self.file}: {error.strerror}; nothing is done without a record") from None
        # No buffer: what could not be written must not be tried again when the file is closed.
        with os.fdopen(descriptor, "a+b", buffering=0) as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield file


def format_line(record: Record) -> bytes:
    body = msgspec.json.encode(record)
    return sm3(body).hex().encode() + b" " + body + b"\n"


def parse_line(line: bytes) -> tuple[str, Record]:
    """Digest and record of a line without its end. Raises ValueError whose text says what the line is."""
    digest, body = line[:DIGEST_CHARACTERS], line[DIGEST_CHARACTERS + 1 :]
    if line[DIGEST_CHARACTERS : DIGEST_CHARACTERS + 1] != b" " or len(line) > LINE_BYTES_MAX:
        raise ValueError("is no record")
    if sm3(body).hex().encode() != digest:
        raise ValueError("was altered")
    try:
        return digest.decode(), _DECODER.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise ValueError("is no record") from None


_DECODER = msgspec.json.Decoder(Record)
