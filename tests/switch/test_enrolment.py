"""A stranger registers the example terminals: what the installer of one is given, and who may not be enrolled."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fengshou.hsm.pem import CERTIFICATE, from_pem
from fengshou.hsm.x509 import parse_certificate
from fengshou.switch.cli.main import main
from fengshou.terminals.home import Home

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enrolment") / "site"
    for line in (
        f"init {folder} --accounts {EXAMPLES / 'accounts.csv'}",
        f"app publish shop.pos 1.0 --home {folder}",
        f"terminal import {EXAMPLES / 'terminals.csv'} --sites {EXAMPLES / 'sites.csv'} --app shop.pos --home {folder}",
    ):
        result = CliRunner().invoke(main, line.split())
        assert result.exit_code == 0, result.output
    return folder


def enrol(site: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["terminal", "enrol", *words, "--home", str(site)])


def test_the_installer_is_told_which_device_and_how_its_papers_are_told(site: Path) -> None:
    result = enrol(site, "FS000001", "FS000013", "--app", "shop.pos", "--app-version", "1.0", "--json")
    slips = json.loads(result.stdout)
    assert [(slip["terminal"], slip["device"]) for slip in slips] == [
        ("FS000001", "FSPOS00000001"), ("FS000013", "FSDUAL0000013"),
    ]  # fmt: skip
    for slip in slips:
        home = Home(Path(slip["folder"]))
        certificate = parse_certificate(from_pem(CERTIFICATE, (home.folder / "terminal.crt").read_bytes())[0])
        assert certificate.subject.common_name == home.identity.terminal == slip["terminal"]
        assert certificate.public_key == home.signer().public_key
        assert (f"{certificate.serial:x}", certificate.fingerprint.hex()) == (slip["certificate"], slip["fingerprint"])


def test_people_read_it_as_a_slip(site: Path) -> None:
    result = enrol(site, "FS000002", "--app", "shop.pos", "--app-version", "1.0")
    assert result.exit_code == 0
    assert all(word in result.output for word in ("FSPOS00000002", "ZH23", "fingerprint", "leave no copy"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("FS999999", "--app", "shop.pos", "--app-version", "1.0"), "FS999999"),
        (("FS000003", "--app", "shop.pos", "--app-version", "9.9"), "shop.pos 9.9 is unknown"),
        (("FS000003", "--app", "other", "--app-version", "1.0"), "other 1.0 is unknown"),
    ],
)
def test_who_may_not_be_enrolled_is_named(site: Path, words: tuple[str, ...], reason: str) -> None:
    result = enrol(site, *words)
    assert result.exit_code == 1
    assert reason in result.output
    assert not (site / "terminals" / "FS000003").exists()
