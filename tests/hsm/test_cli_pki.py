"""``fengshou pki`` as an operator or a program uses it."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from click.testing import CliRunner, Result

from fengshou.hsm.channel import Identity, TlsStream, Trust, client_context, terminal_server_context
from fengshou.hsm.software import SoftwareCustody
from fengshou.switch.cli.pki import pki


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command line in an empty folder; with ``ok`` it must succeed and gives its JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FENGSHOU_PKI", raising=False)

    def invoke(line: str) -> Result:
        return CliRunner().invoke(pki, line.split(), catch_exceptions=False)

    def ok(line: str) -> Any:
        result = invoke(f"{line} --json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    invoke.ok = ok  # type: ignore[attr-defined]
    return invoke


def test_a_whole_network_from_the_command_line(run: Any) -> None:
    run.ok("init pki --organisation Bank")
    assert run.ok("keys custody") == {
        "audit.sign": "SM2", "journal.data": "SM4", "pseudonym": "HMAC", "switch.sign": "SM2", "switch.tls": "SM2",
        "terminal.master": "DERIVE", "terminal.working": "DERIVE",
    }  # fmt: skip
    run.ok("issue switch switch-1 --name switch.bank.example --custody custody --out tls")
    run.ok("csr terminal P0000001 --serial SN1 --key P0000001.key --out P0000001.csr")
    assert run.ok("show P0000001.csr")[0]["request_of"] == "P0000001"
    run.ok("sign-csr terminal P0000001.csr --out P0000001.crt")
    assert [(row["profile"], row["name"], row["state"]) for row in run.ok("list")] == [
        ("switch", "switch-1", "valid"),
        ("terminal", "P0000001", "valid"),
    ]

    trust = Trust(Path("pki/authorities.crt"), Path("pki/crl.pem"))
    switch = Identity.of_custody(Path("tls/switch-1.crt"), SoftwareCustody("custody"))
    terminal = Identity.of_key_file(Path("P0000001.crt"), Path("P0000001.key"))

    async def meet() -> None:
        left, right = trio.testing.memory_stream_pair()
        ends = (
            TlsStream.server(left, terminal_server_context(switch, trust)),
            TlsStream.client(right, client_context(terminal, trust), "switch.bank.example"),
        )
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.do_handshake)
        assert ends[0].peer.subject.common_name == "P0000001"

    trio.run(meet)


def test_initialising_again_is_harmless_and_never_overwrites(run: Any) -> None:
    first = run.ok("init pki --organisation Bank")
    before = Path("pki/issuing.crt").read_bytes()
    again = run.ok("init pki --organisation Bank")
    assert (first.pop("made"), again.pop("made")) == (True, False)
    assert first == again
    other = run("init pki --organisation Others")
    assert other.exit_code == 1
    assert "nothing was changed" in other.output
    assert Path("pki/issuing.crt").read_bytes() == before


def test_issued_files(run: Any) -> None:
    run.ok("init pki --organisation Bank")
    facts = run.ok("issue host core-1 --name core.bank.example --name 10.0.0.7 --out tls")
    assert (facts["certificate"], facts["key"]) == ("tls/core-1.crt", "tls/core-1.key")
    assert facts["names"] == ["core.bank.example", "10.0.0.7"]
    assert stat.S_IMODE(Path("tls/core-1.key").stat().st_mode) == 0o600
    shown = run.ok("show tls/core-1.crt")
    assert [each["subject"] for each in shown] == ["core-1", "Bank Issuing CA"]
    assert shown[0].items() <= facts.items()


def test_revoking_by_file_or_serial_and_listing(run: Any) -> None:
    run.ok("init pki --organisation Bank")
    serials = [run.ok(f"issue terminal P000000{n} --serial SN{n} --out t")["serial"] for n in (1, 2, 3)]
    run.ok("revoke t/P0000001.crt --reason key_compromise")
    colons = ":".join(serials[1][at : at + 2] for at in range(0, 32, 2))
    run.ok(f"revoke {colons}")
    assert [row["state"] for row in run.ok("list --profile terminal")] == [
        "revoked: key_compromise", "revoked: unspecified", "valid",
    ]  # fmt: skip
    assert run.ok("list --profile host") == []
    assert run.ok("crl --days 7") == {"list": "pki/crl.pem", "revoked": 2, "days": 7}


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("issue terminal P1 --serial SN1",                          1, "8 letters or digits"),
        ("issue terminal P0000001",                                 1, "serial number of the device"),
        ("issue switch switch-1",                                   1, "at least one DNS name"),
        ("issue host core-1 --name core.bank --custody custody",    2, "profile switch only"),
        ("issue root Mine",                                         2, "is not one of"),
        ("issue terminal P0000001 --serial SN1 --pki nowhere",      1, "fengshou pki init nowhere"),
        ("issue terminal P0000001 --serial SN1 --out used",         1, "never overwritten"),
        ("csr terminal P1 --serial SN1 --key a.key --out a.csr",    1, "8 letters or digits"),
        ("csr terminal P0000001 --serial S --key no/k --out a.csr", 1, "No such file or directory"),
        ("sign-csr terminal nothing.csr --out a.crt",               1, "nothing.csr: No such file or directory"),
        ("sign-csr terminal pki/issuing.crt --out a.crt",           1, "no certificate request in PEM"),
        ("revoke nobody",                                           1, "neither a file nor a serial number"),
        ("revoke 00",                                               1, "no certificate with serial"),
        ("revoke 00 --reason boredom",                              2, "is not one of"),
        ("show pki/crl.pem",                                        1, "no certificate in PEM"),
        ("crl --days 0",                                            2, "range"),
    ],
)  # fmt: skip
def test_what_the_operator_can_mend_is_one_line(run: Any, line: str, status: int, reason: str) -> None:
    run.ok("init pki --organisation Bank")
    run.ok("issue terminal P0000001 --serial SN1 --out used")
    issued = len(run.ok("list"))
    result = run(line)
    assert result.exit_code == status
    assert reason in result.stderr
    assert "Traceback" not in result.output
    assert len(run.ok("list")) == issued


@pytest.mark.parametrize(
    "line",
    [
        "init pki2 --organisation B",
        "keys c",
        "issue terminal P0000001 --serial [red]1 --out t",
        "list",
        "crl",
        "show pki/issuing.crt",
    ],
)
def test_tables_for_people_show_what_is_there(run: Any, line: str) -> None:
    run.ok("init pki --organisation Bank")
    result = run(line)
    assert result.exit_code == 0
    assert result.stdout.strip()
    if "[red]" in line:
        assert "[red]1" in result.stdout, "what a certificate says is not markup"


@pytest.mark.parametrize("command", sorted(pki.commands))
def test_every_command_explains_itself_by_example(command: str) -> None:
    result = CliRunner().invoke(pki, [command, "--help"])
    assert result.exit_code == 0
    assert f"fengshou pki {command}" in result.output
