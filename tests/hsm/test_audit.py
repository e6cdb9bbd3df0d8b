"""The audit log: records before acts, a chain that nothing leaves or enters unseen, signatures, and people's duties."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fengshou.codecs import PrivateKey
from fengshou.hsm import duties
from fengshou.hsm.audit import Actor, AuditError, AuditLog, Result, format_line, local_time, parse_line
from fengshou.hsm.audit_proof import records, verify
from fengshou.hsm.duties import DUTIES, DutyRefused, Role
from fengshou.hsm.personal import make_key, open_key
from fengshou.hsm.quorum import ShareRefused
from tests.full_disk import full_disk

ACTOR = Actor("os-user", "li", "5e55104e5e55104e", "10.1.2.3")
DAY_NS = 86_400 * 10**9
START_NS = 1_774_000_000_123_456_789


class Now:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        self.ns += 1
        return self.ns


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def log(tmp_path: Path, now: Now) -> AuditLog:
    return AuditLog(tmp_path / "audit.log", ACTOR, now)


@pytest.fixture
def signer() -> PrivateKey:
    return PrivateKey.generate()


def fill(log: AuditLog, acts: int) -> None:
    for number in range(acts):
        with log.act("keys.rotate", f"key.{number}") as act:
            act.note(epoch=number)


def test_an_act_stands_between_two_records(log: AuditLog) -> None:
    with log.act("keys.rotate", "switch.sign", why="yearly") as act:
        assert [record.result for record in records(log.file)] == [Result.BEGUN]
        act.note(epoch=2)
    begun, done = records(log.file)
    assert (begun.sequence, begun.details, done.refers, done.details) == (1, {"why": "yearly"}, 1, {"epoch": "2"})
    assert done.at > begun.at == local_time(START_NS + 1) == "2026-03-20T17:46:40.123456790+08:00"
    assert begun.actor == ACTOR
    assert verify(log.file, []).good


def test_a_failed_act_says_so_and_keeps_strangers_texts_out(log: AuditLog) -> None:
    with pytest.raises(AuditError), log.act("keys.rotate", "a"):
        raise AuditError("the key is gone")
    with pytest.raises(ValueError, match="6217"), log.act("keys.rotate", "a"):
        raise ValueError("6217000011112222")
    assert [record.reason for record in records(log.file) if record.refers] == [
        "AuditError: the key is gone", "ValueError",
    ]  # fmt: skip


def test_no_record_no_act(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "nowhere" / "audit.log"):
        with pytest.raises(AuditError, match="without a record"), AuditLog(file, ACTOR).act("keys.rotate", "a"):
            pytest.fail("it was done all the same")


def test_a_full_disk_is_no_record(log: AuditLog) -> None:
    fill(log, 1)
    with (
        full_disk(log.file.stat().st_size + 100),
        pytest.raises(AuditError, match="without a record"),
        log.act("keys.rotate", "a"),
    ):
        pytest.fail("it was done all the same")
    fill(log, 1)  # half a line was written; the log goes on
    assert (verify(log.file, []).problems, verify(log.file, []).torn_lines) == ([], 1)


def _alter(lines: list[bytes]) -> list[bytes]:
    lines[4] = lines[4].replace(b"key.2", b"key.9")
    return lines


def _alter_and_hash_again(lines: list[bytes]) -> list[bytes]:
    _, record = parse_line(lines[4][:-1])
    lines[4] = format_line(type(record)(**{**_fields(record), "object": "key.9"}))
    return lines


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}  # type: ignore[attr-defined]


#   what was done to the file                             line  what is said of it
DAMAGES: list[tuple[str, Callable[[list[bytes]], list[bytes]], int, str]] = [
    ("altered",           _alter,                                  5, "was altered"),
    ("altered, rehashed", _alter_and_hash_again,                   6, "does not follow the line before"),
    ("taken out",         lambda lines: lines[:4] + lines[5:],     5, "does not follow the line before"),
    ("put in twice",      lambda lines: lines[:5] + lines[4:],     6, "does not follow the line before"),
    ("exchanged",         lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], 4, "does not follow"),
    ("first taken out",   lambda lines: lines[1:],                 1, "does not follow the line before"),
    ("cut short",         lambda lines: [*lines[:-1], lines[-1][:-9]], 8, "was cut short"),
    ("garbage",           lambda lines: [*lines[:2], b"\x00" * 40 + b"\n", *lines[2:]], 3, "is no record"),
    ("no end of line",    lambda lines: [b"x" * 100_000],          1, "was cut short"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "line", "what"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_whatever_is_not_as_it_was_is_named_with_its_line(
    log: AuditLog, damage: Callable[[list[bytes]], list[bytes]], line: int, what: str
) -> None:
    fill(log, 4)
    log.file.write_bytes(b"".join(damage(log.file.read_bytes().splitlines(keepends=True))))
    finding = verify(log.file, [])
    assert finding.problems[0].startswith(f"line {line}: {what}"), finding.problems


def test_every_bit_counts(log: AuditLog, signer: PrivateKey) -> None:
    fill(log, 1)
    log.seal(signer, 1)
    data = log.file.read_bytes()
    for at in range(0, len(data) * 8, 37):
        log.file.write_bytes(data[: at // 8] + bytes((data[at // 8] ^ 1 << at % 8,)) + data[at // 8 + 1 :])
        assert not verify(log.file, [signer.public_key]).good, at


def test_a_torn_line_is_accounted_for_by_the_next_record(log: AuditLog) -> None:
    fill(log, 2)
    with log.file.open("ab") as file:
        file.write(b"0" * 64 + b' {"sequ')
    assert verify(log.file, []).problems == ["line 5: was cut short"]
    fill(log, 1)
    finding = verify(log.file, [])
    assert (finding.problems, finding.torn_lines, finding.records) == ([], 1, 7)
    # A line that was torn by hand has nobody to account for it.
    lines = log.file.read_bytes().splitlines(keepends=True)
    log.file.write_bytes(b"".join([*lines[:2], lines[2][:50] + b"\n", *lines[3:]]))
    assert verify(log.file, []).problems[0].startswith("line 3: ")


def test_a_log_whose_end_is_damaged_takes_no_more_records(log: AuditLog) -> None:
    fill(log, 1)
    log.file.write_bytes(log.file.read_bytes().replace(b'"done"', b'"gone"'))
    with pytest.raises(AuditError, match="audit verify"):
        fill(log, 1)


def test_it_is_signed_once_a_day_by_a_known_key(log: AuditLog, signer: PrivateKey, now: Now) -> None:
    assert not log.due()
    assert log.seal(signer, 1) is None
    fill(log, 2)
    assert not log.due()
    now.ns += DAY_NS
    assert log.due()
    assert log.seal(signer, 1) == 5
    assert not log.due()
    assert log.seal(signer, 1) is None
    fill(log, 1)
    finding = verify(log.file, [PrivateKey.generate().public_key, signer.public_key])
    assert (finding.good, finding.seals, finding.unsigned_tail) == (True, 1, 2)
    assert verify(log.file, []).problems == ["line 5: is signed by a key that is none of the switch's"]


def test_a_seal_of_another_place_does_not_verify(log: AuditLog, signer: PrivateKey) -> None:
    fill(log, 1)
    log.seal(signer, 1)
    *lines, last = log.file.read_bytes().splitlines(keepends=True)
    _, record = parse_line(last[:-1])
    signature = signer.sign(b"\x01" * 32).hex()
    forged = type(record)(**{**_fields(record), "details": {**record.details, "signature": signature}})
    log.file.write_bytes(b"".join(lines) + format_line(forged))
    assert verify(log.file, [signer.public_key]).problems == ["line 3: its signature does not verify"]


WRITERS = """
import sys
from pathlib import Path
from fengshou.hsm.audit import Actor, AuditLog
log = AuditLog(Path(sys.argv[1]), Actor("os-user", sys.argv[2], "0" * 16, "local"))
while True:
    with log.act("registry.add", "x" * 200):
        print(flush=True)
"""


def test_processes_write_beside_each_other_and_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITERS, str(file), f"p{number}"], stdout=subprocess.PIPE)
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        for _ in range(10):
            writer.stdout.readline()
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    finding = verify(file, [])
    assert finding.good or finding.problems[0].endswith("was cut short")
    assert finding.records >= 55
    assert len(finding.open_acts) <= 3
    fill(AuditLog(file, ACTOR), 1)
    assert verify(file, []).good


# --- people and their duties


ROLES = {
    "an": {Role.CUSTODIAN}, "bo": {Role.CUSTODIAN}, "chen": {Role.ADMINISTRATOR}, "deng": {Role.OPERATOR},
    "er": {Role.AUDITOR},
}  # fmt: skip
SESSION = {name: f"{number:016x}" for number, name in enumerate(ROLES)}


class Staff:
    """A log in which everybody joined, and their keys."""

    def __init__(self, file: Path, names: list[str]) -> None:
        self.file = file
        self.keys = {name: PrivateKey.generate() for name in names}
        installer = AuditLog(file, ACTOR)
        for name, key in self.keys.items():
            with installer.act("people.join", name) as act:
                roles = " ".join(role.value for role in ROLES[name])
                act.note(roles=roles, form="passphrase", key=key.public_key.point.hex())

    def actor(self, name: str) -> Actor:
        return Actor("passphrase", name, SESSION[name], "local")

    def proof(self, name: str, event: str, of: str) -> dict[str, str]:
        key = self.keys[name]
        digest = duties.proof_digest(key.public_key.za, SESSION[name], event, of)
        return {"proof": key.sign(digest).hex()}

    def permit(self, name: str, event: str, of: str, later: timedelta = timedelta(0)) -> dict[str, str]:
        return duties.permit(records(self.file), self.actor(name), event, of, datetime.now(UTC) + later)

    def approve(self, name: str, event: str, of: str) -> None:
        duties.permit_approval(records(self.file), self.actor(name), event)
        log = AuditLog(self.file, self.actor(name))
        log.append(event, of, Result.APPROVED, details=self.proof(name, event, of))

    def act(self, name: str, event: str, of: str) -> None:
        permission = self.permit(name, event, of)
        with AuditLog(self.file, self.actor(name)).act(event, of, **permission, **self.proof(name, event, of)):
            pass


@pytest.fixture
def staff(tmp_path: Path) -> Staff:
    return Staff(tmp_path / "audit.log", list(ROLES))


#   act                who may, alone
ALONE = [
    ("keys.rotate",     {"chen"}),
    ("keys.ceremony",   set()),
    ("keys.quorum",     set()),
    ("keys.rotate-ca",  set()),
    ("keys.destroy",    set()),
    ("keys.retire-early", set()),
    ("pki.renew",       {"chen", "deng"}),
    ("pki.init",        set()),
    ("pki.issue",       {"chen", "deng"}),
    ("registry.add",    {"deng"}),
    ("people.join",     set()),
    ("audit.sign",      {"chen", "er"}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "who"), ALONE)
def test_who_may_do_what_alone(staff: Staff, event: str, who: set[str]) -> None:
    allowed = set()
    for name in ROLES:
        try:
            staff.permit(name, event, "it")
        except DutyRefused:
            continue
        allowed.add(name)
    assert allowed == who


def test_nobody_acts_on_keys_and_keeps_the_records() -> None:
    for event, duty in DUTIES.items():
        assert Role.AUDITOR not in duty.roles or event == "audit.sign"
    with pytest.raises(DutyRefused, match="no other role"):
        duties.check_roles(frozenset({Role.AUDITOR, Role.OPERATOR}))


def test_what_touches_a_master_key_takes_two_people_in_two_sessions_once_and_soon(staff: Staff) -> None:
    with pytest.raises(DutyRefused, match="another person, custodian, runs: fengshou people approve"):
        staff.act("an", "keys.ceremony", "zone.core")
    staff.approve("an", "keys.ceremony", "zone.core")
    with pytest.raises(DutyRefused, match="takes two"):
        staff.act("an", "keys.ceremony", "zone.core")  # one's own consent is none
    with pytest.raises(DutyRefused, match="takes two"):
        staff.act("bo", "keys.ceremony", "zone.other")  # nor is one to something else
    with pytest.raises(DutyRefused, match="takes two"):
        staff.permit("bo", "keys.ceremony", "zone.core", later=timedelta(hours=2))
    staff.act("bo", "keys.ceremony", "zone.core")
    with pytest.raises(DutyRefused, match="takes two"):
        staff.act("bo", "keys.ceremony", "zone.core")
    with pytest.raises(DutyRefused, match="duty of custodian"):
        staff.approve("deng", "keys.ceremony", "zone.core")
    finding = verify(staff.file, [])
    assert (finding.problems, finding.proofs) == ([], 2)


def test_a_name_without_its_signature_is_found(staff: Staff) -> None:
    with AuditLog(staff.file, staff.actor("deng")).act("registry.add", "T1", **staff.proof("an", "registry.add", "T1")):
        pass
    assert [problem.split(": ")[1] for problem in verify(staff.file, []).problems] == ["deng did not put a name to it"]


def test_until_every_duty_has_its_people_the_user_stands_in(tmp_path: Path) -> None:
    some = Staff(tmp_path / "audit.log", list(ROLES)[1:])  # one custodian only
    log = records(some.file)
    assert duties.permit(log, ACTOR, "keys.ceremony", "zone.core", datetime.now(UTC)) == {}
    whole = Staff(tmp_path / "other.log", list(ROLES))
    with pytest.raises(DutyRefused, match="say who you are"):
        duties.permit(records(whole.file), ACTOR, "registry.add", "T1", datetime.now(UTC))


def test_a_persons_key_opens_with_the_passphrase_only(tmp_path: Path) -> None:
    file = tmp_path / "people" / "li.key"
    key = make_key(file, "li", "correct horse battery")
    assert open_key(file, "li", "correct horse battery").public_key == key.public_key
    with pytest.raises(ShareRefused):
        open_key(file, "li", "correct horse batteri")
    assert file.stat().st_mode & 0o077 == 0
