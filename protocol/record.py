"""Journal records and commits: the bytes that are hashed, chained, signed and handed out as receipts.

A record is one line of the journal. Records that became durable together form a commit; its header carries the Merkle
root of the records (RFC 6962 section 2.1 with SM3) and the SM3 of the header before it. The switch signs headers. So a
record, its audit path and the headers up to a signed one prove that the record stood in the journal, and no record can
be altered or dropped unseen.

All integers are big-endian. The construct definitions are the authority; ``struct`` does the same on the hot path.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import construct as c
import msgspec

from fengshou.protocol.errors import UntrustedBytesError, WireError

RECORD_VERSION = 1


class RecordKind(IntEnum):
    SESSION = 1  # a sign-in or sign-off that was accepted
    INTENT = 2  # a verified request, before anything was done for it
    OUTCOME = 3  # how an intent ended; ``refers`` is the intent
    REVERSAL = 4  # an unknown intent was reversed at the back end; ``refers`` is the intent
    REFUSAL = 5  # refused before it became an intent
    LATE = 6  # a back end answered after the outcome was already unknown; ``refers`` is the intent
    ADVICE = 7  # a back end answered what the switch had approved without it; ``refers`` is the intent


RECORD = c.Struct(
    "version" / c.Const(RECORD_VERSION, c.Int8ub),
    "kind" / c.Int8ub,
    "number" / c.Int64ub,
    "time_us" / c.Int64ub,
    "business_day" / c.Int32ub,
    "rrn" / c.Int64ub,
    "template" / c.Int8ub,
    "terminal" / c.Bytes(8),
    "merchant" / c.Bytes(15),
    "batch" / c.Int32ub,
    "stan" / c.Int32ub,
    "refers" / c.Int64ub,
    "code" / c.Bytes(2),
    "content" / c.Bytes(32),
    "evidence" / c.Prefixed(c.Int8ub, c.GreedyBytes),
    "clear" / c.Prefixed(c.Int16ub, c.GreedyBytes),
    "sealed" / c.Prefixed(c.Int16ub, c.GreedyBytes),
)

_HEAD = struct.Struct(">BBQQIQB8s15sIIQ2s32s")
_HEAD_AND_EVIDENCE = struct.Struct(">BBQQIQB23sIIQ2s32sB")
_LENGTH = struct.Struct(">H")

COMMIT = c.Struct(
    "number" / c.Int64ub,
    "first_record" / c.Int64ub,
    "records" / c.Int32ub,
    "time_us" / c.Int64ub,
    "root" / c.Bytes(32),
    "previous" / c.Bytes(32),
)

_COMMIT = struct.Struct(">QQIQ32s32s")
COMMIT_BYTES = _COMMIT.size
GENESIS = bytes(32)  # "previous" of the first commit


class Record(msgspec.Struct):
    """One line of the journal.

    ``refers``: for an intent the record of the sign-in whose session carried it, else see RecordKind; 0 is none.
    ``code``: DE 39, two spaces where there is none yet.
    ``content``: SM3 of the template id (1 byte) and the request's body as it was on the wire: an intent and its outcome
    carry the same. For a refusal SM3 of the frame.
    ``evidence``: an intent or a session has e || r || s (96 bytes), the digest that the terminal signed and its
    signature; an intent of an offline upload has what ``offline`` says; an outcome has SM3 of the response body.
    ``clear`` are packed C1 values, ``sealed`` packed C2 values under the journal's data key; C3 values are never kept.
    """

    kind: int
    number: int
    time_us: int
    business_day: int
    rrn: int
    template: int
    terminal: str
    merchant: str
    batch: int
    stan: int
    refers: int = 0
    code: str = "  "
    content: bytes = bytes(32)
    evidence: bytes = b""
    clear: bytes = b""
    sealed: bytes = b""

    def to_bytes(self) -> bytes:
        return b"".join(
            (
                _HEAD_AND_EVIDENCE.pack(
                    RECORD_VERSION,
                    self.kind,
                    self.number,
                    self.time_us,
                    self.business_day,
                    self.rrn,
                    self.template,
                    who(self.terminal, self.merchant),
                    self.batch,
                    self.stan,
                    self.refers,
                    self.code.encode("ascii"),
                    self.content,
                    len(self.evidence),
                ),
                self.evidence,
                _LENGTH.pack(len(self.clear)),
                self.clear,
                _LENGTH.pack(len(self.sealed)),
                self.sealed,
            )
        )


@lru_cache(maxsize=4096)
def who(terminal: str, merchant: str) -> bytes:
    """Both in columns of 8 and 15 bytes, side by side; a terminal's are the same in each of its records and keys."""
    return terminal.encode("ascii").ljust(8) + merchant.encode("ascii").ljust(15)


def parse_record(untrusted: bytes) -> Record:
    """The record in these bytes. Raises UntrustedBytesError: too short, of another version, trailing bytes."""
    if len(untrusted) < _HEAD.size:
        raise UntrustedBytesError(WireError.TRUNCATED, "record")
    version, *head = _HEAD.unpack_from(untrusted)
    if version != RECORD_VERSION:
        raise UntrustedBytesError(WireError.UNKNOWN_VERSION, "record")
    at = _HEAD.size
    tails = []
    for width in (1, 2, 2):
        size = int.from_bytes(untrusted[at : at + width], "big")
        at += width
        tails.append(untrusted[at : at + size])
        at += size
        if at > len(untrusted):
            raise UntrustedBytesError(WireError.TRUNCATED, "record")
    if at != len(untrusted):
        raise UntrustedBytesError(WireError.TRAILING_BYTES, "record")
    kind, number, time_us, day, rrn, template, terminal, merchant, batch, stan, refers, code, content = head
    try:
        texts = [text.decode("ascii") for text in (terminal, merchant, code)]
    except UnicodeDecodeError:
        raise UntrustedBytesError(WireError.TEXT_MALFORMED, "record") from None
    return Record(
        kind, number, time_us, day, rrn, template, texts[0].rstrip(" "), texts[1].rstrip(" "), batch, stan, refers,
        texts[2], content, *tails,
    )  # fmt: skip


# Where terminal, merchant, batch and STAN stand in a record, side by side: the key by which repeats are known.
KEY = slice(31, 62)
_KIND, _REFERS = 1, slice(62, 70)


def parse_key(untrusted: bytes) -> tuple[int, bytes, int]:
    """Kind, key and ``refers`` of a record and nothing else, at a fraction of the cost of ``parse_record``.

    The key is terminal (8) merchant (15) batch (4) STAN (4). Raises UntrustedBytesError: too short, of another version.
    """
    if len(untrusted) < _HEAD.size:
        raise UntrustedBytesError(WireError.TRUNCATED, "record")
    if untrusted[0] != RECORD_VERSION:
        raise UntrustedBytesError(WireError.UNKNOWN_VERSION, "record")
    return untrusted[_KIND], untrusted[KEY], int.from_bytes(untrusted[_REFERS], "big")


@dataclass(frozen=True, slots=True)
class Commit:
    """The header of a commit. ``previous`` is SM3 of the header before it, 32 zero bytes for the first."""

    number: int
    first_record: int
    records: int
    time_us: int
    root: bytes
    previous: bytes

    def to_bytes(self) -> bytes:
        return _COMMIT.pack(self.number, self.first_record, self.records, self.time_us, self.root, self.previous)


def parse_commit(untrusted: bytes) -> Commit:
    """The header in exactly 92 bytes. Raises UntrustedBytesError."""
    if len(untrusted) != COMMIT_BYTES:
        raise UntrustedBytesError(WireError.TRUNCATED, "commit")
    return Commit(*_COMMIT.unpack(untrusted))
