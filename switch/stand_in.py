"""Stand-in: the switch approves by itself while core banking is away, within limits that the bank has signed.

Off unless the configuration names a limits file. A request may be stood in for when no link to its destination is up,
its service has limits and none is passed: a bound for one transaction, and sums per card (or account that pays), per
terminal and for the service, each per business day. The approval is journalled with its authorisation and owes the
host an advice (0220); what the host then refuses is a difference for people to settle, see ``differences``.

The file is JSON of two members, like the manifest of an application: ``body`` and ``signature``, r || s as 128
hexadecimal digits over SM3( ZA || TAG_STAND_IN || canonical body ).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm.x509 import Signer
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.record import RecordKind, parse_record
from fengshou.protocol.service import Counter, Iso8583Call, Request, Service
from fengshou.protocol.signing import TAG_STAND_IN
from fengshou.switch.journal.store import Journal
from fengshou.switch.recording import Recorder

_FILE_BYTES_MAX = 64 * 1024

Fen = Annotated[int, msgspec.Meta(ge=0)]


class StandInError(Exception):
    """A limits file is malformed, not signed by the one who may, or out of date. The text says which."""


class Caps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the bank risks on one service, in fen: one transaction, and sums per business day."""

    transaction_fen: Fen
    card_fen: Fen
    terminal_fen: Fen
    service_fen: Fen


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed body. Services by name; one that is not named is never stood in for."""

    issued_at: datetime
    valid_until: datetime
    services: dict[str, Caps]

    def __post_init__(self) -> None:
        if self.issued_at.tzinfo is None or self.valid_until.tzinfo is None:
            raise ValueError("issued_at and valid_until need their offset from UTC")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: Limits
    signature: str


def sign(limits: Limits, signer: Signer) -> bytes:
    """The file's content."""
    signature = signer.sign(_digest(limits, signer.public_key))
    return msgspec.json.format(msgspec.json.encode(_File(limits, signature.hex())), indent=2) + b"\n"


def load(path: Path, signer: PublicKey) -> Limits:
    """Read and verify. Raises StandInError."""
    try:
        with path.open("rb") as file:
            content = msgspec.json.decode(file.read(_FILE_BYTES_MAX), type=_File)
        signer.verify(_digest(content.body, signer), bytes.fromhex(content.signature))
    except OSError as error:
        raise StandInError(f"{path}: {error.strerror}") from None
    except BadSignature:
        raise StandInError(f"{path}: not signed by the one who may") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise StandInError(f"{path}: not a limits file: {error}") from None
    return content.body


def _digest(limits: Limits, signer: PublicKey) -> bytes:
    return sm3(signer.za + TAG_STAND_IN + msgspec.json.encode(limits))


class StandIn:
    """Judges requests; keeps nothing, since the sums are counters of the journal."""

    def __init__(self, limits: Limits | None, is_up: Callable[[str], bool]) -> None:
        """``is_up`` tells of a destination by name. Without limits nothing is stood in for."""
        self._limits = limits
        self._is_up = is_up

    def counters(self, service: Service, request: Request, call: Iso8583Call) -> tuple[Counter, ...] | None:
        """What standing in would use up; None when the back end is there or the bank does not want it."""
        if self._limits is None or self._is_up(service.destination):
            return None
        caps = self._limits.services.get(service.name)
        if caps is None or call.mti != 200 or service.original_key(request) is not None or not service.moves_money:
            return None
        now = datetime.fromtimestamp(request.received_us / 1e6, UTC)
        if not self._limits.issued_at <= now < self._limits.valid_until:
            return None
        amount = request.integer(de.AMOUNT)
        if amount > caps.transaction_fen:
            return None
        payer = str(call.fields.get(102) or call.fields.get(2, ""))
        return (
            Counter("stand-in card", payer, amount, caps.card_fen),
            Counter("stand-in terminal", request.terminal.terminal, amount, caps.terminal_fen),
            Counter("stand-in service", service.name, amount, caps.service_fen),
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """What the switch had approved and the back end refused with ``code``."""

    rrn: int
    terminal: str
    business_day: int
    fen: int
    code: str


def differences(journal: Journal, recorder: Recorder) -> Iterator[Difference]:
    """Every advice that was refused, oldest first. Reads the whole journal."""
    for _, data in journal.records():
        record = parse_record(data)
        if record.kind == RecordKind.ADVICE and record.code != codes.APPROVED:
            intent = journal.record(record.refers)
            values: Mapping[int, object] = recorder.clear(intent)
            fen = values.get(de.AMOUNT, 0)
            assert isinstance(fen, int)
            yield Difference(intent.rrn, intent.terminal, intent.business_day, fen, record.code)
