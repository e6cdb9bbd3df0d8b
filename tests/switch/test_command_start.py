"""What a command reads before it begins: help no command at all, and what is asked often
nothing of channels, servers and audits."""

import json
import subprocess
import sys

import click
import pytest

from fengshou.switch.cli.journal import journal
from fengshou.switch.cli.lazy import LazyGroup
from fengshou.switch.cli.main import main

GROUPS = {"fengshou": main, "fengshou journal": journal}


@pytest.mark.parametrize("name", GROUPS)
def test_each_command_is_where_its_group_says(name: str) -> None:
    group = GROUPS[name]
    assert isinstance(group, LazyGroup)
    context = click.Context(group)
    for command, at in group.elsewhere.items():
        found = group.get_command(context, command)
        assert found is not None
        assert found.name == command
        assert found.hidden is (not at.line), command
        assert len(at.line) <= 80
    assert group.get_command(context, "no-such-command") is None


_TELL = """
import json, sys
from fengshou.switch.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(list(sys.modules)), file=sys.stderr)
"""


def _modules(*arguments: str) -> set[str]:
    """What a process has read when the command is done."""
    done = subprocess.run([sys.executable, "-c", _TELL, *arguments], check=True, capture_output=True, text=True)
    return set(json.loads(done.stderr))


def test_help_reads_no_command() -> None:
    ours = {module for module in _modules("--help") if module.startswith("fengshou.")}
    assert ours == {"fengshou.switch", *(f"fengshou.switch.cli{part}" for part in ("", ".main", ".lazy"))}


_CHANNEL = {"OpenSSL", "cryptography.x509", "asn1crypto", "trio", "fengshou.hsm.sdf", "fengshou.hsm.x509"}


@pytest.mark.parametrize(
    ("command", "reads", "spared"),
    [
        ("journal find", "journal.find", {"rich", "fengshou.switch.journal.audit", "fengshou.switch.journal.repair"}),
        ("status", "status", {"rich", "lmdb", "fengshou.switch.server"}),
    ],
)
def test_what_is_asked_often_reads_only_what_it_uses(command: str, reads: str, spared: set[str]) -> None:
    modules = _modules(*command.split(), "--help")
    assert f"fengshou.switch.{reads}" in modules
    assert not modules & (_CHANNEL | spared)
