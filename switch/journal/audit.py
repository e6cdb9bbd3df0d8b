"""The auditor's view: proves a journal with its bytes and the switch's public key.

Only items of offline uploads need more: their leaves hold C2 values, which the journal's data key opens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fengshou.codecs import BadSignature, PublicKey, merkle_root, merkle_root_from_path, sm3, verify_batch
from fengshou.hsm.custody import CustodyError
from fengshou.protocol import elements as de
from fengshou.protocol import offline
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.limits import DIGEST_BYTES, SIGNATURE_BYTES
from fengshou.protocol.record import GENESIS, Commit, Record, RecordKind, parse_commit, parse_record
from fengshou.switch.journal.lines import Lines, Segment
from fengshou.switch.journal.signature import commit_digest
from fengshou.switch.journal.store import DayAbsent, Journal, JournalError
from fengshou.switch.journal.tables import Day, spans
from fengshou.switch.recording import Recorder

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
    unchecked: int = 0  # signatures of terminals whose sign-in lies on a day that is not here
    unopened: int = 0  # requests whose keyed hashes were asked for, and whose key is gone
    absent: list[int] = field(default_factory=list)  # business days whose files are not here; the chain spans them
    problems: list[str] = field(default_factory=list)
    # Which epoch of the signing key vouches for which commits: check value of the key, commits in ascending order.
    signed_by: dict[str, list[int]] = field(default_factory=dict)

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
            ("signatures under a sign-in that is archived", self.unchecked),
            ("requests whose hashes cannot be made again", self.unopened),
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "verified": self.good,
            "commits": self.commits,
            "signed_commits": self.signed_commits,
            "unsigned_tail": self.unsigned_tail,
            "records": self.records,
            "terminal_signatures": self.terminal_signatures,
            "unchecked_signatures": self.unchecked,
            "unopened_requests": self.unopened,
            "absent_days": self.absent,
            "signed_by": {
                key: {"first": commits[0], "last": commits[-1], "commits": len(commits)}
                for key, commits in self.signed_by.items()
            },
            "problems": self.problems,
        }


class _Signatures:
    """Checks terminals' signatures in batches, each under the key that its session's sign-in recorded."""

    def __init__(self, finding: Finding, recorder: Recorder, earlier: Callable[[int], bytes | None]) -> None:
        """``earlier`` gives a record that stands before what is audited."""
        self._finding = finding
        self._recorder = recorder
        self._earlier = earlier
        self._begin = 1
        self._keys: dict[int, PublicKey] = {}
        self._pending: list[tuple[int, PublicKey, bytes, bytes]] = []

    def begin(self, record: int) -> None:
        """What is audited begins here; the sign-ins before are taken as they stand."""
        if not self._keys:
            self._begin = record

    def sign_in(self, record: int, key: PublicKey, evidence: bytes) -> None:
        self._keys[record] = key
        self._add(record, key, evidence)

    def request(self, record: int, session: int, evidence: bytes, leaf: Callable[[], bytes]) -> None:
        """``leaf`` is called for an item of an offline upload, whose evidence leads from it to what was signed."""
        try:
            key = self._keys.get(session) or self._signed_in_earlier(session)
        except DayAbsent:
            self._finding.unchecked += 1
            return
        if key is None:
            self._finding.wrong(f"record {record}: no sign-in at record {session}")
        elif len(evidence) == DIGEST_BYTES + SIGNATURE_BYTES:
            self._add(record, key, evidence)
        else:
            signature, index, count, path = offline.parse_evidence(evidence)
            root = merkle_root_from_path(leaf(), index, count, path)
            self._add(record, key, sm3(key.za + offline.signed_part(root, count)) + signature)

    def _signed_in_earlier(self, session: int) -> PublicKey | None:
        """Raises DayAbsent."""
        data = self._earlier(session) if 0 < session < self._begin else None
        if data is None:
            return None
        key = PublicKey(_signer(self._recorder, parse_record(data)))
        self._keys[session] = key
        return key

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


@dataclass(slots=True)
class _Link:
    """Where the chain stands: the next commit and record, and what the next header must have as ``previous``."""

    commit: int
    record: int
    previous: bytes | None  # None: not known, only the headers' own chain counts


def verify_journal(
    journal: Journal,
    recorder: Recorder,
    switch: Sequence[PublicKey],
    progress: Callable[[int], object] = lambda records: None,
    day: int = 0,
) -> Finding:
    """Go through the journal once, or through one business day. ``progress`` is told the records of each commit.

    Raises JournalError when the journal has no such day.
    """
    auditor = _Auditor(recorder, switch, progress, lambda record: _sign_in(journal, record))
    link = _Link(1, 1, GENESIS)
    days = journal.days()
    if day and day not in [row.day for row in days]:
        raise JournalError(f"the journal has no day {day}")
    for row, last in spans(days):
        try:
            if not day or row.day == day:
                link = auditor.lines(journal.lines_of(row), link, last)
                auditor.sealed(row, link)
                continue
        except DayAbsent:
            auditor.finding.absent.append(row.day)
        except JournalError as error:
            auditor.finding.wrong(str(error))
        if row.sealed:
            link = _Link(row.last_commit + 1, row.last_record + 1, row.last_hash)
        elif last and (header := next(journal.commits(last), None)):
            link = _Link(parse_commit(header).number + 1, last + 1, sm3(header))
    if not day:
        auditor.beyond(link.record, journal)
    return auditor.end()


def _sign_in(journal: Journal, record: int) -> bytes | None:
    """An earlier sign-in, or a later day's copy of it. Raises DayAbsent."""
    try:
        return journal.record_bytes(record)
    except DayAbsent:
        for day in journal.days():
            if day.sealed and journal.segments.path(day.day).exists():
                copy = journal.segments.of(day).sign_in(record)
                if copy is not None:
                    return copy
        raise


def verify_day(segment: Segment, recorder: Recorder, switch: Sequence[PublicKey]) -> Finding:
    """The file of a sealed day alone, with nothing of the journal beside it."""
    auditor = _Auditor(recorder, switch, lambda records: None, segment.sign_in)
    day = segment.day
    link = auditor.lines(segment, _Link(day.first_commit, day.first_record, None), day.last_record)
    auditor.sealed(day, link)
    return auditor.end()


class _Auditor:
    """Proves lines, one file after the other."""

    def __init__(
        self,
        recorder: Recorder,
        switch: Sequence[PublicKey],
        progress: Callable[[int], object],
        earlier: Callable[[int], bytes | None],
    ) -> None:
        self.finding = Finding()
        self._signatures = _Signatures(self.finding, recorder, earlier)
        self._recorder = recorder
        self._switch = switch
        self._progress = progress

    def lines(self, lines: Lines, link: _Link, last_record: int) -> _Link:
        """The commits of a file from where the chain stands. Returns where it stands then."""
        self._signatures.begin(link.record)
        for first, data in lines.commits(link.record):
            if last_record and first > last_record:
                break
            try:
                header = parse_commit(data)
            except UntrustedBytesError as error:
                self.finding.wrong(f"the commit after {link.commit - 1}: {error}")
                break
            self._chain(link, header)
            self._records(lines, header)
            _check_signature(self.finding, self._switch, header, lines.signature(header.number))
            self.finding.commits += 1
            link = _Link(header.number + 1, header.first_record + header.records, sm3(data))
        return link

    def sealed(self, day: Day, link: _Link) -> None:
        """A sealed day ends where it was sealed, and its last commit is signed."""
        if not day.sealed:
            return
        if link.record != day.last_record + 1 or link.previous != day.last_hash:
            self.finding.wrong(f"day {day.day} does not end with commit {day.last_commit}, record {day.last_record}")
        elif self.finding.unsigned_tail:
            self.finding.wrong(f"day {day.day}: its last commit {day.last_commit} is not signed")

    def beyond(self, after: int, journal: Journal) -> None:
        """Nothing stands behind the last commit."""
        extra = next(journal.live_records(after), None)
        if extra is not None:
            self.finding.wrong(f"record {extra[0]} belongs to no commit")

    def end(self) -> Finding:
        self._signatures.flush()
        return self.finding

    def _chain(self, link: _Link, header: Commit) -> None:
        if link.commit == 1 and (header.number != 1 or header.first_record != 1 or header.previous != GENESIS):
            self.finding.wrong(f"the journal begins with commit {header.number}, record {header.first_record}")
        elif header.number != link.commit or header.first_record != link.record:
            self.finding.wrong(f"commit {header.number} does not follow commit {link.commit - 1}")
        elif link.previous is not None and header.previous != link.previous:
            self.finding.wrong(f"commit {header.number} does not chain to commit {link.commit - 1}")

    def _records(self, lines: Lines, header: Commit) -> None:
        leaves: list[bytes] = []
        for number in range(header.first_record, header.first_record + header.records):
            leaf = lines.record(number)
            if leaf is None:
                self.finding.wrong(f"record {number} of commit {header.number} is missing")
                break
            leaves.append(leaf)
            _check_record(self.finding, self._signatures, self._recorder, number, leaf)
        if len(leaves) == header.records and merkle_root(leaves) != header.root:
            self.finding.wrong(f"commit {header.number}: its records do not give its Merkle root")
        self.finding.records += len(leaves)
        self._progress(len(leaves))


def _check_signature(finding: Finding, switch: Sequence[PublicKey], header: Commit, signature: bytes | None) -> None:
    finding.unsigned_tail += 1
    if signature is None:
        return
    for key in switch:
        try:
            key.verify(commit_digest(key.za, header), signature)
        except BadSignature:
            continue
        finding.signed_by.setdefault(sm3(key.point)[:4].hex(), []).append(header.number)
        finding.signed_commits += 1
        finding.unsigned_tail = 0
        return
    finding.wrong(f"commit {header.number}: the switch's signature does not verify")


def _check_record(finding: Finding, signatures: _Signatures, recorder: Recorder, number: int, leaf: bytes) -> None:
    try:
        record = parse_record(leaf)
        if record.number != number:
            finding.wrong(f"record {number} says that it is {record.number}")
        if record.kind == RecordKind.SESSION:
            signatures.sign_in(number, PublicKey(_signer(recorder, record)), record.evidence)
        elif record.kind == RecordKind.INTENT:
            signatures.request(number, record.refers, record.evidence, partial(recorder.leaf, record))
    except (UntrustedBytesError, CustodyError, ValueError, KeyError) as error:
        finding.wrong(f"record {number}: {error}")


def _signer(recorder: Recorder, record: Record) -> bytes:
    """The public key with which a session was signed in."""
    signer = recorder.clear(record)[de.SIGNER]
    assert isinstance(signer, bytes)
    return signer
