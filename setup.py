"""Builds the compiled twins. Everything else about the package stands in pyproject.toml.

The top-level folders are the packages of the import root ``fengshou``. Cython resolves ``cimport fengshou.codecs.x`` by
walking folders, so it is shown a tree that looks like the import root: links in ``build/namespace``.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)
NAMESPACE = Path("build/namespace")
FOLDERS = ("protocol", "codecs", "hsm", "terminals", "routing", "switch", "ext")

(NAMESPACE / "fengshou").mkdir(parents=True, exist_ok=True)
for folder in FOLDERS:
    link = NAMESPACE / "fengshou" / folder
    if not link.is_symlink():
        link.symlink_to(Path("../../..") / folder)

# A compiled module: its Cython source, its plain C sources and the libraries it links.
MODULES: tuple[tuple[str, list[str], list[str]], ...] = (
    ("_sm2", [], ["crypto"]),
    ("_sm2_transport", [], ["crypto"]),
    ("_sm3", ["codecs/sm3_lanes.c"], ["crypto"]),
    ("_verify", sorted(map(str, Path("codecs").glob("sm2_*.c"))), []),
    ("_merkle", ["codecs/sm3_lanes.c"], ["crypto"]),
    ("_bloom", [], []),
    ("_sm4", [], ["crypto"]),
    ("_message", [], []),
    ("_delta", [], []),
    ("_records", [], []),
    ("_iso8583", [], ["crypto"]),
    ("_channel", [], []),
)

extensions = [
    Extension(
        f"fengshou.codecs.{name}",
        [f"codecs/{name}.pyx", *c_sources],
        libraries=libraries,
        include_dirs=["codecs"],
        depends=sorted(map(str, Path("codecs").glob("*.h"))) if c_sources else [],
        extra_compile_args=["-O3", "-fvisibility=hidden", "-Wno-unused-function"],
    )
    for name, c_sources, libraries in MODULES
    if Path(f"codecs/{name}.pyx").exists()
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=[str(NAMESPACE)],
        build_dir="build/cython",
        compiler_directives={"language_level": "3", "embedsignature": True, "warn.unused": True},
        quiet=True,
    ),
)
