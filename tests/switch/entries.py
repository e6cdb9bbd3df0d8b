"""Journal entries made by hand, signed as a terminal would, for tests that need no processes."""

from pathlib import Path

from fengshou.codecs import MessageCodec, PrivateKey, sm3
from fengshou.protocol import elements as de
from fengshou.protocol.record import Record, RecordKind
from fengshou.protocol.templates import Grammar
from fengshou.switch.journal.store import Charges, Entry, Journal, key_of

TERMINAL, MERCHANT, DAY = "TT000001", "999452007600001", 20_261_124
KEY = PrivateKey.generate()
CODEC = MessageCodec(Grammar())


def key(stan: int, batch: int = 1) -> bytes:
    return key_of(TERMINAL, MERCHANT, batch, stan)


def signed(what: str) -> bytes:
    """Evidence of a record: a digest and the terminal's signature over it."""
    digest = sm3(what.encode())
    return digest + KEY.sign(digest)


def session(batch: int = 1, day: int = DAY) -> Entry:
    values = {de.SIGNER: KEY.public_key.point, de.SESSION_BINDING: bytes(32)}
    return Entry(
        Record(
            RecordKind.SESSION, 0, 1, day, 0, 15, TERMINAL, MERCHANT, batch, 1, code="00",
            evidence=signed("sign-in"), clear=CODEC.pack(values),
        )
    )  # fmt: skip


def intent(
    stan: int, *, signed_in_at: int = 1, charges: Charges = (), batch: int = 1, rrn: int = 0, day: int = DAY,
    tags: tuple[bytes, ...] = (),
) -> Entry:  # fmt: skip
    return Entry(
        Record(
            RecordKind.INTENT, 0, stan, day, rrn or 632_800_000_000 + stan, 1, TERMINAL, MERCHANT, batch, stan,
            refers=signed_in_at, content=sm3(b"%d" % stan), evidence=signed(f"request {stan}"),
        ),
        charges=charges, tags=tags,
    )  # fmt: skip


def outcome(
    of: Entry, code: str = "00", *, owes: int = 0, charges: Charges = (), event: bytes = b"", tombstone: bytes = b"",
    undoes: bytes = b"", advice: bool = False,
) -> Entry:  # fmt: skip
    was = of.record
    return Entry(
        Record(
            RecordKind.OUTCOME, 0, was.time_us, was.business_day, was.rrn, 1, was.terminal, was.merchant, was.batch,
            was.stan, code=code, content=was.content, evidence=bytes(32),
        ),
        intent=of, owes=owes, advice=advice, charges=charges, event=event, tombstone=tombstone, undoes=undoes,
    )  # fmt: skip


def _follow_up(kind: RecordKind, of: Entry) -> Record:
    was = of.record
    return Record(
        kind, 0, was.time_us, DAY, was.rrn, 1, TERMINAL, MERCHANT, was.batch, was.stan,
        refers=was.number, code="00", content=was.content,
    )  # fmt: skip


def reversed_by_switch(of: Entry, charges: Charges = (), late_us: int = 0) -> Entry:
    return Entry(
        _follow_up(RecordKind.REVERSAL, of),
        undoes=key(of.record.stan, of.record.batch), charges=charges, late_us=late_us,
    )  # fmt: skip


def advised(of: Entry) -> Entry:
    return Entry(_follow_up(RecordKind.ADVICE, of))


def late(of: Entry, owes: int = 0) -> Entry:
    return Entry(_follow_up(RecordKind.LATE, of), owes=owes)


def open_journal(folder: Path, **options: int) -> Journal:
    return Journal(folder / "journal", **options)
