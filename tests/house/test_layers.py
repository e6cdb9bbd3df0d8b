"""Who may import whom: protocol < codecs < hsm < {terminals, routing} < switch; ext imports protocol only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

#   room         what it may import
MAY = {
    "protocol":  {"protocol"},
    "codecs":    {"protocol", "codecs"},
    "hsm":       {"protocol", "codecs", "hsm"},
    "terminals": {"protocol", "codecs", "hsm", "terminals"},
    "routing":   {"protocol", "codecs", "hsm", "routing"},
    "switch":    {"protocol", "codecs", "hsm", "terminals", "routing", "switch"},
    "ext":       {"protocol", "ext"},
}  # fmt: skip

# `cimport` and `from … cimport …`, in a .pyx or .pxd; plain imports of Cython look the same.
_CYTHON = re.compile(r"^\s*(?:from\s+(fengshou[\w.]*|\.[\w.]*)\s+c?import\s+(.+)|c?import\s+(.+))$", re.MULTILINE)


def imported(path: Path) -> Iterator[str]:
    """Dotted names under ``fengshou`` that a file imports; a relative import counts as its own spelling."""
    text = path.read_text("utf-8")
    if path.suffix in (".pyx", ".pxd"):
        for module, names, modules in _CYTHON.findall(text):
            if module == "fengshou":
                yield from (f"fengshou.{name.split()[0]}" for name in names.split(","))
            elif module:
                yield module
            else:
                yield from (name.split()[0] for name in modules.split(",") if name.strip().startswith("fengshou"))
        return
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "fengshou")
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "fengshou":
                yield from (f"fengshou.{alias.name}" for alias in node.names)
            elif node.level or module.split(".")[0] == "fengshou":
                yield module


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_what_stands_below_it(room, files, root):
    sources = [
        path
        for path in files
        if path.relative_to(root).parts[0] == room and path.suffix in (".py", ".pyi", ".pyx", ".pxd")
    ]
    assert sources
    wrong = []
    for path in sources:
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "fengshou" or len(parts) < 2 or parts[1] not in MAY[room]:
                wrong.append(f"{path.relative_to(root)} imports {name}")
    assert not wrong


def test_the_finder_sees_every_form_of_import(tmp_path):
    python, cython = tmp_path / "a.py", tmp_path / "a.pyx"
    python.write_text(
        "import os, fengshou.switch.cli.main\nfrom fengshou import ext\nfrom . import b\n"
        "def f():\n    from fengshou.hsm import pki\n"
    )
    cython.write_text(
        "from fengshou.codecs._wire cimport Reader, Writer\ncimport fengshou.hsm.x as x\nfrom fengshou import ext\n"
        "from libc.stdint cimport uint8_t\nimport os\n"
    )
    assert sorted(imported(python)) == [".", "fengshou.ext", "fengshou.hsm", "fengshou.switch.cli.main"]
    assert sorted(imported(cython)) == ["fengshou.codecs._wire", "fengshou.ext", "fengshou.hsm.x"]


def test_every_room_is_judged(files, root):
    with_code = {path.relative_to(root).parts[0] for path in files if path.name == "py.typed"}
    assert with_code == set(MAY)
