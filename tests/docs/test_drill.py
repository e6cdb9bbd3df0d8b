"""The drill can be followed as it stands: every command of the page, in its order, with passphrases typed."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fengshou.hsm import components
from fengshou.switch.cli.main import main
from fengshou.switch.processes import SiteProcesses
from fengshou.switch.site import Ports, free_ports
from tests.devices import CARD_PIN, Slot

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/DRILL.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines() if line.startswith("fengshou ")
]  # fmt: skip


def words(name: str) -> str:
    return f"passphrase of {name}"


def by_card(line: str, slots: list[Slot]) -> str:
    """`an` and `bo` have their shares on cards: the reader stands with the name."""
    if not re.search(r" keys (seal|unseal|quorum) ", line):
        return line
    for name, slot in zip(("an", "bo"), slots, strict=True):
        line = re.sub(rf"(--custodian|--old) {name}\b", rf"\1 '{name}={slot.reader}'", line)
    return line


def typed(line: str, forms: list[str]) -> str:
    """What people type at the prompts of a command, in the order of the prompts."""
    parts = shlex.split(line)
    speaker = [words(parts[parts.index("--as") + 1])] if "--as" in parts else []
    old = [parts[at + 1] for at, part in enumerate(parts) if part == "--old"]
    new = [parts[at + 1] for at, part in enumerate(parts) if part == "--custodian"]
    if " people join " in line:
        new = [parts[3]]
    if " keys ceremony " in line:
        return "\n".join([*speaker, *forms, "y"]) + "\n"
    # New passphrases are typed twice, PINs once a card; where there is a question it comes first.
    said, asked = [], set[str]()
    for name, times in [(name, 1) for name in old] + [(name, 1 if "unseal" in line else 2) for name in new]:
        if "=" not in name:
            said += [words(name)] * times
        elif name not in asked:
            asked.add(name)
            said.append(CARD_PIN.decode())
    question = ["y"] if re.search(r" keys (rotate|rollback|retire) ", line) and "--dry-run" not in line else []
    return "\n".join([*question, *speaker, *said]) + "\n"


@pytest.mark.slow
def test_every_command_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: list[Slot]) -> None:
    for slot in slots:
        slot.insert()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("FENGSHOU_HOME", "drill")
    monkeypatch.delenv("FENGSHOU_AS", raising=False)
    forms = [components.format_component(part) for part in components.new_components(2)]
    said: dict[str, Any] = {}
    site = SiteProcesses(tmp_path / "drill")
    agent: subprocess.Popen[str] | None = None
    sessions = iter(f"{number:016x}" for number in range(1, 100))
    try:
        for command in COMMANDS:
            line = by_card(command, slots)
            monkeypatch.setattr("fengshou.switch.office._SESSION", next(sessions))
            if " keys unseal " in line:
                agent = _unseal(line, typed(line, forms))
                for name in (*SiteProcesses.HOSTS, "switch"):
                    site.start(name)
                for process in site.running.values():
                    process.wait_ready()
                continue
            if line == "fengshou keys components":
                continue  # shows to one person at a time, on a screen that is wiped
            if " pos " in line:
                time.sleep(1.2)  # people are slower than the second in which a running switch takes note
            arguments = shlex.split(line)[1:]
            result = CliRunner().invoke(main, arguments, input=typed(line, forms))
            if " init " in line:
                _move(tmp_path / "drill", free_ports())
            said[command] = result
            assert result.exit_code == 0, (line, result.output)
    finally:
        site.__exit__()
        if agent is not None:
            agent.terminate()
            agent.communicate(timeout=20)
    assert "from now on" in said["fengshou people join er   --role auditor"].output
    assert "audit log verified" in said[COMMANDS[-1]].output
    proved = json.loads(CliRunner().invoke(main, ["audit", "verify", "--json"]).stdout)
    assert proved["proofs"] > 15
    assert proved["open_acts"] == []


def _move(drill: Path, ports: Ports) -> None:
    """Away from the usual ports, which something else on this machine may have."""
    usual = Ports()
    for file in (drill / "switch.toml", *drill.glob("hosts/*/host.toml")):
        text = file.read_text("utf-8")
        for name in ("terminals", "core_banking", "government", "analytics"):
            text = re.sub(rf"\b{getattr(usual, name)}\b", str(getattr(ports, name)), text)
        file.write_text(text, "utf-8")


def _unseal(line: str, passphrases: str) -> "subprocess.Popen[str]":
    agent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "fengshou.switch", *shlex.split(line)[1:]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert agent.stdin is not None
    assert agent.stdout is not None
    agent.stdin.write(passphrases)
    agent.stdin.flush()
    assert agent.stdout.readline().startswith("ready ")
    return agent
