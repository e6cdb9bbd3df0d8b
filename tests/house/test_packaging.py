"""What is installed is what stands in the tree: packages, types, data, compiled modules, licence, versions."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("protocol", "codecs", "hsm", "terminals", "routing", "switch", "ext")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SHIPPED = (".py", ".pyi", ".pxd", ".json", ".toml", ".sql")
COMPILED = sorted(path.stem for path in (ROOT / "codecs").glob("*.pyx"))


def folder_of(package: str) -> str:
    return package.removeprefix("fengshou.").replace(".", "/")


@pytest.fixture(scope="module")
def shipped(files, root):
    """Names of all files of the rooms that an installation needs, relative to the root."""
    inside = [path.relative_to(root) for path in files if path.relative_to(root).parts[0] in ROOMS]
    return {str(path) for path in inside if path.suffix in SHIPPED or path.name == "py.typed"}


def test_the_list_of_packages_equals_the_tree(shipped):
    declared = PROJECT["tool"]["setuptools"]["packages"]
    with_code = {"fengshou." + str(Path(name).parent).replace("/", ".") for name in shipped}
    assert sorted(declared) == sorted(with_code)
    assert len(declared) == len(set(declared))


def test_each_package_is_mapped_to_its_folder():
    declared = PROJECT["tool"]["setuptools"]["packages"]
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {name: folder_of(name) for name in declared}


def test_each_package_says_that_it_is_typed():
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        assert (ROOT / folder_of(package) / "py.typed").is_file(), package


def test_each_kind_of_data_is_declared(files, root):
    declared = {pattern.removeprefix("*") for pattern in PROJECT["tool"]["setuptools"]["package-data"]["*"]}
    suffixes = {path.suffix for path in files if path.relative_to(root).parts[0] in ROOMS}
    assert suffixes - declared <= {".py", ".pyx", ".c", ".h", ".typed"}


def test_the_licence_is_apache_2():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


# --- pins -----------------------------------------------------------------------------------------------------------

_PIN = re.compile(r'^\s*"([\w.-]+)==([^"]+)",?(\s+# \S.*)?$')


def pins() -> list[tuple[str, str, str]]:
    """Name, version and reason of each pin of pyproject.toml, as written."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    block = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    return [match.groups("") for line in block.splitlines() if (match := _PIN.match(line))]


def test_each_run_time_dependency_is_pinned_and_says_why():
    written = {name: reason for name, _, reason in pins()}
    for requirement in PROJECT["project"]["dependencies"]:
        name, exactly, _ = requirement.partition("==")
        assert exactly, f"{requirement} is not pinned"
        assert written[name], f"{name} gives no reason"
    for requirement in (*PROJECT["project"]["optional-dependencies"]["dev"], *PROJECT["build-system"]["requires"]):
        assert "==" in requirement


def test_what_the_pins_draw_in_is_pinned_too():
    lines = (ROOT / "deploy/constraints.txt").read_text("utf-8").splitlines()
    drawn_in = dict(line.split("==") for line in lines if not line.startswith("#"))
    named = {name.lower() for name, _, _ in pins()}
    assert not named & {name.lower() for name in drawn_in}, "pyproject.toml pins it already"
    for name, pinned in drawn_in.items():
        assert version(name) == pinned, f"{name} is installed in another version"


# --- compiled modules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_module_is_loaded(name):
    module = importlib.import_module(f"fengshou.codecs.{name}")
    assert module.__file__.endswith(tuple(EXTENSION_SUFFIXES))


# What Cython puts into every module besides what is written there.
CYTHONS_OWN = (
    r"fengshou\.codecs\..*\.(__pyx_capi__|__reduce_cython__|__setstate_cython__|__test__|__init__)",
    r"fengshou\.codecs\.\w+\.[A-Z_]+",  # constants that a module imports for itself
    r"fengshou\.codecs\._verify\.Table",  # a cdef class cannot be hidden
)


def test_stubs_say_what_the_compiled_modules_have(tmp_path):
    (tmp_path / "allowed").write_text("\n".join(CYTHONS_OWN) + "\n")
    modules = [f"fengshou.codecs.{name}" for name in COMPILED]
    command = [
        sys.executable,
        "-m",
        "mypy.stubtest",
        "--mypy-config-file",
        "../pyproject.toml",
        "--ignore-disjoint-bases",
    ]
    command += ["--allowlist", str(tmp_path / "allowed"), "--ignore-unused-allowlist", "--concise", *modules]
    outcome = subprocess.run(command, cwd=ROOT / "build", capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.slow
def test_a_wheel_has_everything_and_nothing_else(shipped, tmp_path, files, root):
    # A copy, because building writes beside the sources.
    copy = tmp_path / "fengshou of a user"
    for path in files:
        target = copy / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-index"]
    command += ["--no-build-isolation", "--no-deps", "-w", str(tmp_path), "."]
    build = subprocess.run(command, cwd=copy, capture_output=True, text=True, env={**os.environ, "CFLAGS": "-O0"})
    assert build.returncode == 0, build.stdout + build.stderr
    (wheel,) = tmp_path.glob("fengshou-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    suffix = EXTENSION_SUFFIXES[0]
    assert inside == {f"fengshou/{name}" for name in shipped} | {f"fengshou/codecs/{name}{suffix}" for name in COMPILED}
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    assert "License-Expression: Apache-2.0" in zipfile.ZipFile(wheel).read(metadata).decode()
