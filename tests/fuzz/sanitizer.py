"""Builds the compiled modules with AddressSanitizer in a copy of the tree, and runs the targets over them."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ROOMS = ("protocol", "codecs", "hsm", "terminals", "routing", "switch", "ext", "tests")
# The targets whose bytes get into compiled code of ours.
NATIVE = ("channel", "frames", "messages", "values", "items", "iso8583", "sign_in", "signatures", "keys")


def run_sanitized(targets: Sequence[str], seconds: float) -> int:
    """Exit status of the run: 0 when AddressSanitizer and the targets had nothing to say."""
    with tempfile.TemporaryDirectory(prefix="fengshou-asan-") as folder:
        tree = Path(folder)
        for room in _ROOMS:
            shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tree / name)
        flags = "-fsanitize=address -fno-omit-frame-pointer -g"
        subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tree, env={**os.environ, "CFLAGS": flags, "LDFLAGS": "-fsanitize=address"}, check=True,
        )  # fmt: skip
        chosen = [name for name in targets if name in NATIVE]
        command = [
            sys.executable, "-m", "tests.fuzz", "--inside", "mutate", "--seconds", str(seconds), *chosen,
        ]  # fmt: skip
        return subprocess.run(command, cwd=tree, env=_environment(tree), check=False).returncode


def _environment(tree: Path) -> dict[str, str]:
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        **os.environ,
        "LD_PRELOAD": library,
        "PYTHONPATH": f"{tree / 'build/namespace'}:{tree}",
        "PYTHONMALLOC": "malloc",  # the interpreter's own arenas would hide what runs over
        # The interpreter and libcrypto keep memory until the end on purpose; only accesses are judged.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    }
