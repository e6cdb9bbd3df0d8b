"""deploy/setup.sh on machines that lack something, played by commands that stand in for the system's."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What every Debian has.
ESSENTIAL = (
    "sh", "basename", "cat", "cut", "date", "dirname", "env", "flock", "ls", "mkdir", "mktemp", "readlink", "rm",
    "sha256sum", "tail", "tr",
)  # fmt: skip


class Machine:
    """A folder of commands as the only PATH, and a copy of the script in a folder with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.tree = folder / "a tree"
        self.calls = folder / "calls"
        self.bin.mkdir()
        (self.tree / "deploy").mkdir(parents=True)
        shutil.copy(ROOT / "deploy/setup.sh", self.tree / "deploy")
        for name in ESSENTIAL:
            (self.bin / name).symlink_to(shutil.which(name))
        self.command("apt-get", f'echo "apt-get $*" >> "{self.calls}"')
        self.command("id", "echo 0")

    def command(self, name: str, text: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def python(self, *missing: str, shared: bool = False, folder: Path | None = None) -> Path:
        """An interpreter that says what the script asks of it: its path, whether it is in a ``shared`` library, and
        whether modules and headers are there."""
        interpreter = (folder or self.bin) / "python3"
        include = self.tree if "Python.h" in missing else self.bin
        (self.bin / "Python.h").touch()
        return self.command(
            "python3",
            f"""case "$2" in
                *libpython*) exit {int(shared)} ;;
                *"import venv"*) exit {int("venv" in missing)} ;;
                *realpath*) echo "{interpreter}" ;;
                *include*) echo "{include}" ;;
            esac""",
            folder,
        )

    def compiler(self, *missing: str) -> None:
        """A compiler with the libraries that pyscard and we need, and what else pyscard is built by."""
        self.command(
            "cc",
            f"""case "$*" in
                *-lcrypto*) exit {int("libcrypto" in missing)} ;;
                *-lpcsclite*) exit {int("pcsclite" in missing)} ;;
            esac""",
        )
        self.command("swig", "")

    def run(self, *extras: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "sh"), str(self.tree / "deploy/setup.sh"), *extras],
            env={"PATH": str(self.bin), "HOME": str(self.tree), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
        )

    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def missing_by_the_refusal(machine, *extras, **environment):
    outcome = machine.run(*extras, **environment)
    assert outcome.returncode != 0
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    return line


def test_a_bare_machine_without_the_right_to_install_gets_one_line(machine):
    machine.command("id", "echo 1000")
    line = missing_by_the_refusal(machine)
    assert line == (
        "setup: run this first: sudo apt-get install python3 python3-dev python3-venv gcc libc6-dev libssl-dev openssl"
        " swig libpcsclite-dev"
    )
    assert machine.asked() == []


#   what is there                                             what must be installed
CASES = [
    (lambda m: (m.python(), m.compiler("libcrypto")),         "libssl-dev openssl"),
    (lambda m: (m.python(), m.compiler("libcrypto"), m.command("openssl", "")), "libssl-dev"),
    (lambda m: (m.python(),),                                 "gcc libc6-dev libssl-dev openssl swig libpcsclite-dev"),
    (lambda m: (m.python(), m.compiler("pcsclite"), m.command("openssl", "")), "swig libpcsclite-dev"),
]  # fmt: skip


@pytest.mark.parametrize(("prepare", "packages"), CASES)
def test_only_what_is_missing_is_named(machine, prepare, packages):
    prepare(machine)
    machine.command("id", "echo 1000")
    assert missing_by_the_refusal(machine) == f"setup: run this first: sudo apt-get install {packages}"


#   processor, what is there                  what must be installed for the tests on other processors
EMULATORS = [
    ("x86_64",  (),                           {"bochs", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"}),
    ("x86_64",  ("bochs", "qemu-aarch64"),    {"gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"}),
    ("x86_64",  ("aarch64-linux-gnu-gcc",),   {"bochs", "qemu-user"}),
    ("aarch64", (),                           set()),
]  # fmt: skip


@pytest.mark.parametrize(("processor", "there", "packages"), EMULATORS)
def test_emulators_are_installed_for_whoever_asks_for_them(machine, processor, there, packages):
    machine.python()
    machine.compiler("libcrypto")
    machine.command("id", "echo 1000")
    machine.command("uname", f"echo {processor}")
    for name in there:
        machine.command(name, "")
    without = set(missing_by_the_refusal(machine).split())
    # A part of Bochs has no command by which it could be missed here.
    assert set(missing_by_the_refusal(machine, "emulators").split()) - without - {"bochs-term", "bochsbios"} == packages


def test_an_extra_that_does_not_exist_is_refused_before_anything_is_done(machine):
    assert missing_by_the_refusal(machine, "emulator") == "setup: what is 'emulator'? It could be: emulators"
    assert machine.asked() == []
    assert not (machine.tree / "build").exists()


def test_an_interpreter_that_is_not_debians_is_not_mended_by_debian(machine):
    machine.python("Python.h")
    machine.compiler()
    assert "has no header Python.h; set PYTHON" in missing_by_the_refusal(machine)


#   first in the path is in a shared library, PYTHON names it     which is taken
CHOICES = [
    (True,                                    False,              "second"),
    (False,                                   False,              "first"),
    (True,                                    True,               "first"),
]  # fmt: skip


@pytest.mark.parametrize(("shared", "named", "taken"), CHOICES)
def test_an_interpreter_in_its_program_goes_before_one_in_a_shared_library(machine, tmp_path, shared, named, taken):
    machine.compiler()
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first = machine.python("Python.h", shared=shared, folder=folders[0])
    machine.python("Python.h", folder=folders[1])
    environment = {"PATH": f"{folders[0]}:{folders[1]}:{machine.bin}"} | ({"PYTHON": str(first)} if named else {})
    assert f"{tmp_path / taken / 'python3'} has no header" in missing_by_the_refusal(machine, **environment)


def test_a_system_without_apt_gets_the_same_line(machine):
    (machine.bin / "apt-get").unlink()
    assert "install these Debian packages" in missing_by_the_refusal(machine)


def test_lists_are_fetched_only_when_an_installation_needs_them(machine):
    machine.python()
    machine.compiler("libcrypto")
    machine.command("openssl", "")
    # The first try fails, as on a machine without lists; the environment cannot be made by a stand-in and ends the run.
    machine.command(
        "apt-get",
        f'echo "$DEBIAN_FRONTEND $*" >> "{machine.calls}"\n'
        f'case "$*" in *update*) : > "{machine.calls}.fetched" ;; *) test -f "{machine.calls}.fetched" ;; esac',
    )
    outcome = machine.run()
    install = "-q -y --no-install-recommends install libssl-dev"
    assert machine.asked() == [f"noninteractive {install}", " -q update", f"noninteractive {install}"]
    assert "[1/4] system packages: libssl-dev ... done in" in outcome.stderr


def test_a_failing_step_shows_the_end_of_its_log_and_stops(machine):
    machine.python()
    machine.compiler("libcrypto")
    machine.command("apt-get", "echo 'E: no space left'; exit 100")
    outcome = machine.run()
    assert outcome.returncode == 1
    assert outcome.stdout == ""  # it belongs to the command that make runs afterwards
    assert "[1/4]" in outcome.stderr
    assert "[2/4]" not in outcome.stderr
    assert "E: no space left" in outcome.stderr


def test_make_lists_its_targets():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    listing = subprocess.run(["make", "-C", ROOT], check=True, capture_output=True, text=True, env=environment).stdout
    for target in ("setup", "demo", "test", "chaos", "lint", "types", "build", "bench", "clean"):
        assert f"make {target} " in listing
