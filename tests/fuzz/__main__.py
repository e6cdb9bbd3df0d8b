"""``python -m tests.fuzz [--seconds N] [TARGET…]``: long runs, coverage-guided where atheris is installed.

A run of each target in a process of its own; what it finds is written to ``tests/fuzz/found`` and the exit status is 1.
``--sanitize`` builds the compiled modules with AddressSanitizer in a copy of the tree and feeds them mutated seeds.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from random import Random

from tests.fuzz.mutation import CORPUS, mutations, seeds
from tests.fuzz.sanitizer import run_sanitized

FOUND = Path(__file__).parent / "found"
_MAX_BYTES = 4096


def mutate(name: str, seconds: float) -> int:
    """Feed mutated seeds until the time is over; returns how many."""
    from tests.fuzz.targets import TARGETS

    ends = time.monotonic() + seconds
    for count, data in enumerate(mutations(seeds(name), Random(f"{name} {time.time_ns()}")), 1):
        try:
            TARGETS[name](data)
        except BaseException:
            FOUND.mkdir(exist_ok=True)
            (FOUND / f"{name}-{count}").write_bytes(data)
            raise
        if count % 64 == 0 and time.monotonic() > ends:
            return count
    raise AssertionError("mutations have no end")


def guided(name: str, seconds: float) -> None:
    """Coverage-guided, in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["fengshou"]):
        from tests.fuzz.targets import TARGETS

    grown = FOUND.parent / "grown" / name
    for folder in (FOUND, grown):
        folder.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds:.0f}", f"-max_len={_MAX_BYTES}", f"-artifact_prefix={FOUND}/{name}-"]
    atheris.Setup([sys.argv[0], *options, str(grown), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    names = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target")
    parser.add_argument("--sanitize", action="store_true", help="compiled modules under AddressSanitizer")
    parser.add_argument("--inside", choices=("guided", "mutate"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    targets = chosen.targets or names
    if chosen.inside == "guided":
        guided(targets[0], chosen.seconds)
    elif chosen.inside == "mutate":
        for name in targets:
            print(f"{name}: {mutate(name, chosen.seconds)} inputs")
    elif chosen.sanitize:
        return run_sanitized(targets, chosen.seconds)
    else:
        way = "guided" if find_spec("atheris") else "mutate"
        failed = [name for name in targets if _alone(way, name, chosen.seconds)]
        print(f"failed: {', '.join(failed) or 'none'}")
        return 1 if failed else 0
    return 0


def _alone(way: str, name: str, seconds: float) -> int:
    command = [sys.executable, "-m", "tests.fuzz", "--inside", way, "--seconds", str(seconds), name]
    print(f"{name}: {way} for {seconds:.0f} s", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    print("\n".join(done.stderr.splitlines()[-12:] if done.returncode else done.stderr.splitlines()[-1:]), flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
