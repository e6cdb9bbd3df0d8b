"""Commands that act leave records, know who acts, and refuse who may not."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fengshou.hsm.audit_proof import records
from fengshou.hsm.custody import AUDIT_SIGN
from fengshou.hsm.files import write_public
from fengshou.hsm.pem import CERTIFICATE, to_pem
from fengshou.hsm.pki import Authority
from fengshou.hsm.software import SoftwareCustody
from fengshou.hsm.x509 import PUBLISHER, Subject
from fengshou.switch.cli.main import main

WORDS = {name: f"passphrase of {name}" for name in ("an", "bo", "chen", "deng", "er")}
STAFF = [("an", "custodian"), ("bo", "custodian"), ("chen", "administrator"), ("deng", "operator"), ("er", "auditor")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command line in a folder that has a custody; each is a session of its own, as another process would be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FENGSHOU_AS", raising=False)
    sessions = iter(f"{number:016x}" for number in range(1, 1000))

    def invoke(line: str, typed: str = "") -> Result:
        monkeypatch.setattr("fengshou.switch.office._SESSION", next(sessions))
        return CliRunner().invoke(main, line.split(), input=typed)

    assert invoke("pki keys keys").exit_code == 0
    return invoke


def shown(run: Any) -> list[tuple[str, str, str, str]]:
    rows = json.loads(run("audit show --json --last 100").stdout)
    return [(row["actor"]["name"], row["event"], row["object"], row["result"]) for row in rows]


def hire(run: Any) -> None:
    for name, role in STAFF:
        result = run(f"people join {name} --role {role}", f"{WORDS[name]}\n{WORDS[name]}\n")
        assert result.exit_code == 0, result.output
    assert "from now on" in result.output


def test_the_user_of_the_machine_acts_until_there_are_people(run: Any) -> None:
    assert run("pki init pki --organisation Bank").exit_code == 0
    assert run("pki issue terminal P0000001 --serial SN1").exit_code == 0
    assert run("pki revoke P0000001.crt").exit_code == 0
    assert run("pki revoke P0000001.crt").exit_code == 1
    assert [row[1:] for row in shown(run) if not row[1].startswith("keys")][::2] == [
        ("pki.init", "pki", "begun"), ("pki.issue", "P0000001", "begun"),
        *[("pki.revoke", shown(run)[-1][2], "begun")] * 2,
    ]  # fmt: skip
    assert shown(run)[-1][3] == "failed"


def test_people_prove_themselves_and_two_of_them_make_an_authority(run: Any) -> None:
    hire(run)
    refused = run("pki init pki --organisation Bank")
    assert refused.exit_code == 1
    assert "say who you are" in refused.output
    wrong = run("--as chen pki init pki --organisation Bank", "passphrase of an\n")
    assert "the passphrase is not that of chen" in wrong.output
    alone = run("--as chen pki init pki --organisation Bank", f"{WORDS['chen']}\n")
    assert "fengshou people approve pki.init pki" in alone.output
    assert not Path("pki").exists()
    agreed = run("--as an people approve pki.init pki", f"{WORDS['an']}\n")
    assert agreed.exit_code == 0, agreed.output
    done = run("--as chen pki init pki --organisation Bank", f"{WORDS['chen']}\n")
    assert done.exit_code == 0, done.output
    assert "duty of" in run("--as deng people join fu --role custodian", f"{WORDS['deng']}\n").output
    assert "no duties here" in run("--as gu pki crl").output
    assert ("er", "audit.sign", "audit.log", "done") not in shown(run)
    signed = run("--as er audit sign", f"{WORDS['er']}\n")
    assert signed.exit_code == 0, signed.output
    assert ("er", "audit.sign", "audit.log", "done") in shown(run)
    assert [row[3] for row in shown(run) if row[1] == "pki.init"] == ["refused", "refused", "approved", "begun", "done"]


def test_the_log_proves_itself_and_says_where_it_does_not(run: Any, tmp_path: Path) -> None:
    hire(run)
    (tmp_path / "certificates").mkdir()
    run("--as an people approve pki.init pki", f"{WORDS['an']}\n")
    run("--as chen pki init pki --organisation Bank", f"{WORDS['chen']}\n")
    key = SoftwareCustody("keys").public_key(AUDIT_SIGN)
    authority = Authority("pki")
    certificate = authority.issue(PUBLISHER, Subject("audit-sign"), key, authority.certificate.not_before)
    write_public(Path("certificates/audit-sign.crt"), to_pem(CERTIFICATE, certificate.der))
    proved = json.loads(run("audit verify --json").stdout)
    assert (proved["verified"], proved["seals"], proved["proofs"]) == (True, 5, 2)
    data = Path("audit.log").read_bytes()
    Path("audit.log").write_bytes(data.replace(b'"chen"', b'"deng"', 1))
    damaged = run("audit verify")
    assert damaged.exit_code == 1
    assert "line " in damaged.output
    assert "audit log NOT verified" in damaged.output


def test_no_passphrase_gets_into_the_log(run: Any) -> None:
    hire(run)
    text = Path("audit.log").read_text()
    assert not [word for word in WORDS.values() if word in text]
    assert len(records(Path("audit.log"))) == 2 + 3 * len(STAFF)
