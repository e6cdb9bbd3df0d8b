"""The auditor's view of an audit log: proves it from its bytes and the public keys that signed it, names what is wrong.

Nothing is needed but the file: ``cut -c66- line | openssl dgst -sm3`` gives a line's digest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm import duties
from fengshou.hsm.audit import (
    GENESIS,
    LINE_BYTES_MAX,
    SEALED,
    TORN,
    AuditError,
    Record,
    Result,
    parse_line,
    seal_digest,
)

_PROBLEMS_MAX = 20


@dataclass(slots=True)
class AuditFinding:
    """What was proved, and what could not be. Positions are line numbers from 1."""

    records: int = 0
    seals: int = 0
    unsigned_tail: int = 0  # records after the last signature: chained, but nobody has vouched for their end
    torn_lines: int = 0  # cut short by a crash and accounted for by the next record
    proofs: int = 0  # acts that a person signed
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
            "proofs": self.proofs,
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
    """Go through the log once. ``signers`` are all keys that AUDIT_SIGN ever had. Raises AuditError: no such file."""
    proof = _Proof(signers)
    for number, line in enumerate(read_lines(file), start=1):
        proof.take(number, line)
    return proof.end()


class _Proof:
    """The state of the chain between two lines."""

    def __init__(self, signers: Sequence[PublicKey]) -> None:
        self.finding = AuditFinding()
        self._signers = signers
        self._digest, self._sequence = GENESIS, 0
        self._begun: dict[int, str] = {}
        self._people: dict[str, duties.Person] = {}
        self._unread: tuple[int, str, bytes] | None = None  # no record, until the next line accounts for it

    def take(self, number: int, line: bytes) -> None:
        try:
            if not line.endswith(b"\n"):
                raise ValueError("was cut short")
            own, record = parse_line(line[:-1])
        except ValueError as error:
            self._give_up_unread()
            self._unread = (number, str(error), line.removesuffix(b"\n"))
            return
        self._account_for_unread(record)
        if record.previous != self._digest:
            self.finding.wrong(number, "does not follow the line before it: something was taken out or put in between")
        elif record.sequence != self._sequence + 1:
            self.finding.wrong(number, f"is record {record.sequence} after record {self._sequence}")
        self._digest, self._sequence = own, record.sequence
        self.finding.records += 1
        self.finding.unsigned_tail += 1
        if record.event == SEALED:
            self._check_seal(number, record)
        else:
            self._check_act(number, record)

    def end(self) -> AuditFinding:
        self._give_up_unread()
        self.finding.open_acts = sorted(self._begun)
        return self.finding

    def _give_up_unread(self) -> None:
        if self._unread is not None:
            self.finding.wrong(self._unread[0], self._unread[1])
            self._unread = None

    def _account_for_unread(self, record: Record) -> None:
        if self._unread is None:
            return
        if record.event == TORN and record.object == sm3(self._unread[2]).hex():
            self.finding.torn_lines += 1
            self._unread = None
            return
        self._give_up_unread()
        # What the lost line said of itself stands in the record after it: from here on the chain is judged again.
        self._digest, self._sequence = record.previous, record.sequence - 1

    def _check_act(self, number: int, record: Record) -> None:
        if record.result is Result.BEGUN:
            self._begun[record.sequence] = record.event
        elif record.refers and self._begun.pop(record.refers, None) != record.event:
            self.finding.wrong(number, f"ends record {record.refers}, which began nothing of the kind")
        if record.result in (Result.BEGUN, Result.APPROVED) and record.actor.kind != duties.OS_USER:
            self._check_word(number, record)
        duties.admit(self._people, record)

    def _check_word(self, number: int, record: Record) -> None:
        person = self._people.get(record.actor.name)
        try:
            proof = bytes.fromhex(record.details.get("proof", ""))
            if person is None:
                raise duties.DutyRefused("nobody of this name is on record")
            duties.check_proof(person, record.actor.session, record.event, record.object, proof)
        except (duties.DutyRefused, ValueError):
            self.finding.wrong(number, f"{record.actor.name} did not put a name to it")
        else:
            self.finding.proofs += 1

    def _check_seal(self, number: int, record: Record) -> None:
        try:
            signature = bytes.fromhex(record.details["signature"])
            signer = next(key for key in self._signers if key.point.hex() == record.details.get("key"))
            signer.verify(seal_digest(signer.za, record.previous), signature)
        except StopIteration:
            self.finding.wrong(number, "is signed by a key that is none of the switch's")
        except (KeyError, ValueError, BadSignature):
            self.finding.wrong(number, "its signature does not verify")
        else:
            self.finding.seals += 1
            self.finding.unsigned_tail = 0
