"""Whole sites whose keys are in a GM/T 0018 device or on a card: they trade, prove it, and say what is wrong."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from fengshou.hsm.custody import AUDIT_SIGN, JOURNAL_DATA, PSEUDONYM, SWITCH_SIGN, Unavailable
from fengshou.switch.cli.main import main
from fengshou.switch.processes import ProcessFailed
from fengshou.terminals.receipt import verify_receipt
from tests.devices import CARD_PIN, SDF_PASSWORDS, SDF_STORAGE, Slot
from tests.switch.town import FARMER, PAN, TERMINALS, Town, purchase, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]


def secret(file: Path, text: bytes) -> Path:
    file.write_bytes(text + b"\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def device(sdf_library: Callable[[int, int], Path], sdf_device: Path, tmp_path: Path) -> str:
    """A device that keeps all that a device can keep."""
    lines = b"\n".join(b"%d %s" % item for item in SDF_PASSWORDS.items())
    return f"""
[custody.hsm]
kind = "sdf"
library = "{sdf_library(512, 2023)}"
storage-index = {SDF_STORAGE}
passwords = "{secret(tmp_path / "passwords", lines)}"
pairs = {{ "{SWITCH_SIGN}" = [1, 4], "{AUDIT_SIGN}" = [2] }}
symmetric = ["{JOURNAL_DATA}", "{PSEUDONYM}"]
"""


@pytest.fixture
def cards(slots: list[Slot], tmp_path: Path) -> str:
    """Two cards for the switch's signatures, one after the other."""
    for slot in slots:
        slot.insert()
    pin = secret(tmp_path / "pin", CARD_PIN)
    rows = ", ".join(f'{{ reader = "{slot.reader}", pin = "{pin}" }}' for slot in slots)
    return f"""
[custody.signing]
kind = "card"
cards = {{ "{SWITCH_SIGN}" = [{rows}] }}
"""


def command(town: Town, line: str) -> dict[str, object]:
    """In a process of its own, as beside a running switch."""
    done = subprocess.run(
        [sys.executable, "-m", "fengshou.switch", *line.split(), "--home", str(town.folder), "--json"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stderr)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


async def trade(town: Town) -> None:
    """Trade, and believe the receipts as a terminal does."""
    with closing(town.home(TERMINALS[0]).counters()) as counters:
        async with town.client(TERMINALS[0], counters) as client:
            for template, values in (("farm-purchase", purchase()), ("withdrawal", withdrawal())):
                response = await client.trade(template, values, receipt=True)
                assert response.code == "00", response.text()
                assert response.receipt is not None
                verify_receipt(response.receipt, town.home(TERMINALS[0]).switch_keys(), client.exchange_of(response))


@pytest.mark.parametrize("provider", ["device", "cards"])
def test_a_site_trades_and_rotates_with_its_keys_elsewhere(
    fresh_town: FreshTown, provider: str, request: pytest.FixtureRequest
) -> None:
    with fresh_town(providers=request.getfixturevalue(provider)) as town:
        assert town.status()["custody"] == f"development, {'device' if provider == 'device' else 'card'}"
        trio.run(trade, town)
        rotated = command(town, "keys rotate switch-sign --yes")
        assert "epoch 2 is in use" in rotated["steps"]
        trio.run(trade, town)
        town.settle()
        town.require_truth()
        assert len(town.verify().signed_by) == 2
        assert command(town, "audit verify")["verified"]
        require_nowhere(town)


def require_nowhere(town: Town) -> None:
    """What opens cards and devices, and whom it is about, is in nothing that the run leaves behind."""
    secrets = [CARD_PIN, *SDF_PASSWORDS.values(), PAN.encode(), FARMER.encode()]
    pattern = re.compile(rb"(?<![0-9A-Za-z])(" + b"|".join(secrets) + rb")(?![0-9A-Za-z])")
    left = ("switch.log", "audit.log", "registry.db*", "journal/*", "custody/*/*", "keys/*", "core*", "certificates/*")
    files = [file for glob in left for file in town.folder.glob(glob) if file.is_file()]
    assert len(files) > 8
    for file in files:
        assert not pattern.search(file.read_bytes()), file
    limits = Path(f"/proc/{town.process('switch').pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


def check(town: Town) -> str:
    """What `fengshou check` says of a site with which no switch would start."""
    result = CliRunner().invoke(main, ["check", str(town.folder / "switch.toml")])
    assert result.exit_code == 1, result.output
    return result.output


def test_a_card_that_cannot_be_used_is_named_and_not_blocked(tmp_path: Path, cards: str, slots: list[Slot]) -> None:
    town = Town(tmp_path / "site", providers=cards)
    pin = secret(tmp_path / "pin", b"000000")
    assert "wrong PIN, 2 tries left" in check(town)
    for _ in range(3):  # whatever starts a switch again and again
        assert "not presented again" in check(town)
    assert (slots[0].state / "tries").read_text() == "2"
    secret(pin, CARD_PIN)
    slots[0].draw()
    with pytest.raises(ProcessFailed, match="No smart card") as failure:
        town.start("switch")
    town.process("switch").stop()
    assert slots[0].reader in str(failure.value)
    file = town.folder / "switch.toml"
    text = file.read_text()
    file.write_text(text.replace("workers = 1", "workers = 2"))
    assert "a card serves one process" in check(town)
    file.write_text(text)
    assert "Traceback" not in str(failure.value)
    slots[0].insert()
    (slots[0].state / "tries").write_text("0")
    assert "blocked" in check(town)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("soft_sdf", "nowhere", "no GM/T 0018 library"),
        ("max-bits = 512", "max-bits = 256", "try the other"),
        ("/passwords", "/elsewhere", "No such file"),
        ('"pseudonym"]', '"pseudonym", "switch.tls"]', "switch.tls stays in software"),
        ('"pseudonym"]', '"pseudonym", "switch.sign"]', "switch.sign has two keepers"),
    ],
)
def test_a_device_that_is_described_wrongly_is_named_at_the_check(
    tmp_path: Path, device: str, before: str, after: str, said: str
) -> None:
    town = Town(tmp_path / "site", providers=device.replace("passwords =", "max-bits = 512\npasswords ="))
    file = town.folder / "switch.toml"
    file.write_text(file.read_text().replace(before, after, 1))
    assert said in check(town)


def test_a_device_that_goes_away_takes_nothing_with_it(fresh_town: FreshTown, device: str, sdf_device: Path) -> None:
    with fresh_town(providers=device) as town:
        trio.run(trade, town)
        (sdf_device / "unplugged").touch()
        with pytest.raises(Unavailable):
            town.custody.sign(SWITCH_SIGN, bytes(32))
        (sdf_device / "unplugged").unlink()
        trio.run(trade, town)
        town.settle()
        town.require_truth()
