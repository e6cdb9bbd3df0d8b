"""The auditor's view of an audit log: proves it from its bytes and the public keys that signed it, names what is wrong.

Nothing is needed but the file: ``cut -c66- line | openssl dgst -sm3`` gives a line's digest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm.audit import GENESIS, LINE_BYTES_MAX, SEALED, TORN, AuditError, Record, Result, parse_line, seal_digest

_PROBLEMS_MAX = 20


@dataclass(slots=True)
class AuditFinding:
    """What was proved, and what could not be. Positions are line numbers from 1."""

    records: int = 0
    seals: int = 0
    unsigned_tail: int = 0  # records after the last signature: chained, but nobody has vouched for their end
    torn_lines: int = 0  # cut short by a crash and accounted for by the next record
    open_acts: list[int] = field(default_factory=list)  # sequences of acts whose end is not on record
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems

    def wrong(self, line: int, what: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(f"line {line}: {what}")

    def as_dict(self) -> dict[str, Any]:
        return {
            "verified": self.good,
            "records": self.records,
            "seals": self.seals,
            "unsigned_tail": self.unsigned_tail,
            "torn_lines": self.torn_lines,
            "open_acts": self.open_acts,
            "problems": self.problems,
        }


def read_lines(file: Path) -> Iterator[bytes]:
    """Every line without its end; the last one may have been cut short. Raises AuditError."""
    try:
        with file.open("rb") as lines:
            while line := lines.readline(LINE_BYTES_MAX):
                yield line
    except OSError as error:
        raise AuditError(f"{file}: {error.strerror}") from None


def records(file: Path) -> list[Record]:
    """What the log says, leaving out what is no record. Whether it is true, ``verify`` says. Raises AuditError."""
    found = []
    for line in read_lines(file):
        try:
            found.append(parse_line(line.removesuffix(b"\n"))[1])
        except ValueError:
            continue
    return found


def verify(file: Path, signers: Sequence[PublicKey]) -> AuditFinding:
    """Go through the log once. ``signers`` are all keys that AUDIT_SIGN ever had. Raises AuditError: it is not there."""
    finding = AuditFinding()
    digest, sequence = GENESIS, 0
    begun: dict[int, str] = {}
    unread: tuple[int, str, bytes] | None = None  # a line that is no record, until the next one accounts for it
    for number, line in enumerate(read_lines(file), start=1):
        if not line.endswith(b"\n"):
            finding.wrong(number, "was cut short")
            break
        try:
            own, record = parse_line(line[:-1])
        except ValueError as error:
            if unread is not None:
                finding.wrong(unread[0], unread[1])
            unread = (number, str(error), line[:-1])
            continue
        if unread is not None:
            if record.event == TORN and record.object == sm3(unread[2]).hex():
                finding.torn_lines += 1
            else:
                finding.wrong(unread[0], unread[1])
                # Its digest is what the record after it names: from here on the chain is judged again.
                digest, sequence = record.previous, record.sequence - 1
            unread = None
        if record.previous != digest:
            finding.wrong(number, f"does not follow the line before it: something between was taken out or put in")
        elif record.sequence != sequence + 1:
            finding.wrong(number, f"is record {record.sequence} after record {sequence}")
        digest, sequence = own, record.sequence
        finding.records += 1
        finding.unsigned_tail += 1
        if record.event == SEALED:
            _check_seal(finding, number, record, signers)
        elif record.result is Result.BEGUN:
            begun[record.sequence] = record.event
        elif record.refers and begun.pop(record.refers, None) != record.event:
            finding.wrong(number, f"ends record {record.refers}, which began nothing of the kind")
    if unread is not None:
        finding.wrong(unread[0], unread[1])
    finding.open_acts = sorted(begun)
    return finding


def _check_seal(finding: AuditFinding, number: int, record: Record, signers: Sequence[PublicKey]) -> None:
    try:
        signature = bytes.fromhex(record.details["signature"])
        signer = next(key for key in signers if key.point.hex() == record.details.get("key"))
        signer.verify(seal_digest(signer.za, record.previous), signature)
    except StopIteration:
        finding.wrong(number, "is signed by a key that is none of the switch's")
    except (KeyError, ValueError, BadSignature):
        finding.wrong(number, "its signature does not verify")
    else:
        finding.seals += 1
        finding.unsigned_tail = 0
