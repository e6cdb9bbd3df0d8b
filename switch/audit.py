"""The auditor's view: proves a journal with nothing but its bytes and the switch's public key."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fengshou.codecs import BadSignature, PublicKey, merkle_root, sm3, verify_batch
from fengshou.protocol import elements as de
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.record import GENESIS, Commit, RecordKind, parse_commit, parse_record
from fengshou.switch.journal import Journal
from fengshou.switch.recording import Recorder
from fengshou.switch.writer import commit_digest

_PROBLEMS_MAX = 20
_SIGNATURES_A_BATCH = 512


@dataclass(slots=True)
class Finding:
    """What was proved, and what could not be."""

    commits: int = 0
    signed_commits: int = 0
    records: int = 0
    terminal_signatures: int = 0
    unsigned_tail: int = 0  # commits after the last signature; their chain holds, nobody has vouched for it yet
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems

    def wrong(self, what: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(what)

    def rows(self) -> list[tuple[str, int]]:
        return [
            ("commits: Merkle root and chain", self.commits),
            ("commits signed by the switch", self.signed_commits),
            ("commits after the last signature", self.unsigned_tail),
            ("records", self.records),
            ("signatures of terminals", self.terminal_signatures),
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "verified": self.good,
            "commits": self.commits,
            "signed_commits": self.signed_commits,
            "unsigned_tail": self.unsigned_tail,
            "records": self.records,
            "terminal_signatures": self.terminal_signatures,
            "problems": self.problems,
        }


class _Signatures:
    """Checks terminals' signatures in batches, each under the key that its session's sign-in recorded."""

    def __init__(self, finding: Finding) -> None:
        self._finding = finding
        self._keys: dict[int, PublicKey] = {}
        self._pending: list[tuple[int, PublicKey, bytes, bytes]] = []

    def sign_in(self, record: int, key: PublicKey, evidence: bytes) -> None:
        self._keys[record] = key
        self._add(record, key, evidence)

    def request(self, record: int, session: int, evidence: bytes) -> None:
        key = self._keys.get(session)
        if key is None:
            self._finding.wrong(f"record {record}: no sign-in at record {session}")
        else:
            self._add(record, key, evidence)

    def _add(self, record: int, key: PublicKey, evidence: bytes) -> None:
        self._pending.append((record, key, evidence[:32], evidence[32:]))
        if len(self._pending) >= _SIGNATURES_A_BATCH:
            self.flush()

    def flush(self) -> None:
        verdicts = verify_batch([(key, digest, signature) for _, key, digest, signature in self._pending])
        for (record, *_), genuine in zip(self._pending, verdicts, strict=True):
            if genuine:
                self._finding.terminal_signatures += 1
            else:
                self._finding.wrong(f"record {record}: the terminal's signature does not verify")
        self._pending.clear()


def verify_journal(
    journal: Journal, recorder: Recorder, switch: PublicKey, progress: Callable[[int], object] = lambda records: None
) -> Finding:
    """Go through the whole journal once. ``progress`` is told how many records each commit held."""
    finding = Finding()
    signatures = _Signatures(finding)
    previous: Commit | None = None
    for data in journal.commits():
        try:
            header = parse_commit(data)
        except UntrustedBytesError as error:
            finding.wrong(f"the commit after {previous.number if previous else 0}: {error}")
            break
        _check_chain(finding, previous, header)
        leaves: list[bytes] = []
        for number in range(header.first_record, header.first_record + header.records):
            leaf = journal.record_bytes(number)
            if leaf is None:
                finding.wrong(f"record {number} of commit {header.number} is missing")
                break
            leaves.append(leaf)
            _check_record(finding, signatures, recorder, number, leaf)
        if len(leaves) == header.records and merkle_root(leaves) != header.root:
            finding.wrong(f"commit {header.number}: its records do not give its Merkle root")
        finding.records += len(leaves)
        _check_signature(finding, switch, header, journal.signature(header.number))
        finding.commits += 1
        previous = header
        progress(len(leaves))
    after = previous.first_record + previous.records if previous else 1
    extra = next(journal.records(after), None)
    if extra is not None:
        finding.wrong(f"record {extra[0]} belongs to no commit")
    signatures.flush()
    return finding


def _check_chain(finding: Finding, previous: Commit | None, header: Commit) -> None:
    if previous is None:
        if header.number != 1 or header.first_record != 1 or header.previous != GENESIS:
            finding.wrong(f"the journal begins with commit {header.number}, record {header.first_record}")
        return
    if header.number != previous.number + 1 or header.first_record != previous.first_record + previous.records:
        finding.wrong(f"commit {header.number} does not follow commit {previous.number}")
    elif header.previous != sm3(previous.to_bytes()):
        finding.wrong(f"commit {header.number} does not chain to commit {previous.number}")


def _check_signature(finding: Finding, switch: PublicKey, header: Commit, signature: bytes | None) -> None:
    finding.unsigned_tail += 1
    if signature is None:
        return
    try:
        switch.verify(commit_digest(switch.za, header), signature)
    except BadSignature:
        finding.wrong(f"commit {header.number}: the switch's signature does not verify")
    else:
        finding.signed_commits += 1
        finding.unsigned_tail = 0


def _check_record(finding: Finding, signatures: _Signatures, recorder: Recorder, number: int, leaf: bytes) -> None:
    try:
        record = parse_record(leaf)
        if record.number != number:
            finding.wrong(f"record {number} says that it is {record.number}")
        if record.kind == RecordKind.SESSION:
            signer = recorder.clear(record)[de.SIGNER]
            assert isinstance(signer, bytes)
            signatures.sign_in(number, PublicKey(signer), record.evidence)
        elif record.kind == RecordKind.INTENT:
            signatures.request(number, record.refers, record.evidence)
    except (UntrustedBytesError, ValueError, KeyError) as error:
        finding.wrong(f"record {number}: {error}")
