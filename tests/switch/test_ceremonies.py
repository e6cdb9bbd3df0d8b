"""Custodians together: a site's keys are sealed, opened and handed over; a master key comes from components."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from fengshou.hsm import components
from fengshou.hsm.custody import SWITCH_SIGN, Kind, Unavailable
from fengshou.hsm.software import SoftwareCustody
from fengshou.switch.cli.main import main
from fengshou.switch.office import records_of
from tests.switch.town import TERMINALS, Town, trade_now

WORDS = {name: f"passphrase of {name}" for name in ("an", "bo", "chen", "deng")}


def run(folder: Path, line: str, typed: str = "") -> Result:
    return CliRunner().invoke(main, [*line.split(), "--home", str(folder)], input=typed)


def typed(*names: str, twice: bool = False) -> str:
    return "".join(f"{WORDS[name]}\n" * (2 if twice else 1) for name in names)


@pytest.fixture
def site(tmp_path: Path) -> Town:
    return Town(tmp_path / "site")


@contextmanager
def unsealed(folder: Path, *names: str) -> Iterator[None]:
    """The agent in a process of its own; its passphrases come from where a terminal would be."""
    arguments = [part for name in names for part in ("--custodian", name)]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "fengshou.switch", "keys", "unseal", *arguments, "--home", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(typed(*names))
        process.stdin.flush()
        line = process.stdout.readline()
        assert line.startswith("ready "), process.communicate()
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_sealed_site_opens_to_its_quorum_trades_and_changes_hands(site: Town) -> None:
    folder = site.folder
    before = site.custody.public_key(SWITCH_SIGN)
    done = run(
        folder, "keys seal --custodian an --custodian bo --custodian chen", typed("an", "bo", "chen", twice=True)
    )
    assert done.exit_code == 0, done.output
    assert {path.name for path in (folder / "keys").iterdir()} == {"custody.db"}
    assert not [path for path in folder.iterdir() if "plain" in path.name or "sealing" in path.name]
    assert "is sealed already" in run(folder, "keys seal --custodian an", typed("an", twice=True)).output
    with pytest.raises(Unavailable, match="fengshou keys unseal"):
        SoftwareCustody(folder / "keys")
    assert "are needed" in run(folder, "keys unseal --custodian an", typed("an")).output
    with unsealed(folder, "an", "chen"):
        custody = SoftwareCustody(folder / "keys")
        assert (custody.protection, custody.public_key(SWITCH_SIGN)) == ("sealed", before)
        with site.processes:
            site.start("core-banking", "government", "analytics", "switch")
            site.until_up("core-banking")
            _trade(site)
            over = run(
                folder, "keys quorum --old an --old bo --custodian deng --custodian bo",
                typed("an", "bo") + typed("deng", "bo", twice=True),
            )  # fmt: skip
            assert over.exit_code == 0, over.output
            _trade(site)  # the running switch goes on, and takes changes under the new master key
            rotated = run(folder, "keys rotate journal --yes")
            assert rotated.exit_code == 0, rotated.output
            _trade(site)
    assert "is no custodian" in run(folder, "keys unseal --custodian an --custodian bo", typed("an", "bo")).output
    wrong = run(folder, "keys unseal --custodian deng --custodian bo", typed("an", "bo"))
    assert "not that of deng" in wrong.output
    events = [(record.event, record.result.value) for record in records_of(folder) if record.event.startswith("keys")]
    assert events.count(("keys.unseal", "failed")) == 3
    text = (folder / "audit.log").read_text()
    assert not [word for word in WORDS.values() if word in text]


def _trade(site: Town) -> None:
    trio.run(trade_now, site, TERMINALS[0])


def test_a_running_switch_is_not_sealed_under_its_feet(town: Town) -> None:
    refused = run(town.folder, "keys seal --custodian an --custodian bo")
    assert refused.exit_code == 1
    assert "another switch runs" in refused.output
    assert not records_of(town.folder) or records_of(town.folder)[-1].event != "keys.seal"


def test_a_master_key_comes_from_components_that_each_custodian_types(site: Town, tmp_path: Path) -> None:
    parts = components.new_components(2)
    forms = [components.format_component(part) for part in parts]
    mistyped = forms[0].replace(forms[0][0], "F" if forms[0][0] != "F" else "0", 1)
    sheet = tmp_path / "sheet.txt"
    line = f"keys ceremony zone.core --custodian an --custodian bo --record {sheet}"
    done = run(site.folder, line, "\n".join([mistyped, *forms, "y"]) + "\n")
    assert done.exit_code == 0, done.output
    assert "read it again" in done.output
    custody = SoftwareCustody(site.folder / "keys")
    info = custody.key("zone.core")
    assert (info.kind, info.epoch) == (Kind.TRANSPORT, 1)
    assert info.check_value.hex().upper() in sheet.read_text()
    assert "ceremony" not in custody.labels()
    again = run(site.folder, line, "\n".join([*forms, "n"]) + "\n")
    assert "nothing was changed" in again.output
    alone = run(site.folder, "keys ceremony zone.core --custodian an", forms[0])
    assert "takes two" in alone.output
    everything = sheet.read_text() + (site.folder / "audit.log").read_text() + done.stdout
    for part in parts:
        assert part.hex() not in everything.lower().replace(" ", "")
