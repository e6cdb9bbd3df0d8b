"""Where a run was made."""

import os
import platform
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from OpenSSL import SSL

ROOT = Path(__file__).resolve().parents[1]

SHARED = "a shared library"


def describe() -> dict[str, Any]:
    """Processor, cores, kernel, Python and how it was built, both OpenSSLs, the commit and whether the tree differs
    from it."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=10", "HEAD") or "none",
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "interpreter": _interpreter(),
        "openssl": ssl.OPENSSL_VERSION,
        "openssl_of_channel": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode(),
        "uvloop": version("uvloop"),
        "trio": version("trio"),
        "lmdb": version("lmdb"),
    }


def _interpreter() -> str:
    """Whether the interpreter stands in the program itself, or in a shared library, where each call takes longer."""
    return SHARED if "libpython" in Path("/proc/self/maps").read_text() else "in the program"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    try:
        outcome = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return outcome.stdout.strip() if outcome.returncode == 0 else ""
