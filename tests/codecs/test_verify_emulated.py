"""The verification kernel on processors that are not at hand, by emulators of them.

On Bochs, as an Ice Lake with AVX-512 IFMA, the kernel runs on the bare machine; for ARM64 it is a program under QEMU.
Without an emulator its tests are skipped: a user needs none, ``.ci/run`` installs them.
"""

import os
import platform
import pty
import re
import shutil
import struct
import subprocess
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from tests.codecs.test_verify import libcrypto, mixture

CODECS = Path(__file__).parents[2] / "codecs"
HERE = Path(__file__).parent / "emulated"
HOW_MANY = int(os.environ.get("FENGSHOU_EMULATED", "120"))
SECONDS_MAX = 60 + HOW_MANY // 10

MACHINE = """\
cpu: model=corei7_icelake_u, ips=100000000, reset_on_triple_fault=0
memory: guest=256, host=256
romimage: file=/usr/share/bochs/BIOS-bochs-legacy
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
floppya: 1_44=boot.img, status=inserted
boot: floppy
optramimage1: file=program.bin, address=0x100000
optramimage2: file=cases.bin, address=0x4000000
port_e9_hack: enabled=1
display_library: term
sound: waveoutdrv=dummy
speaker: enabled=0
log: bochs.log
"""


def build(folder: Path, codecs: Path = CODECS) -> None:
    """``boot.img``, a floppy of one boot sector, and ``program.bin``, which it calls; of the kernel in ``codecs``."""
    compiler = os.environ.get("CC", "gcc")
    subprocess.run(
        [
            compiler, "-O3", "-ffreestanding", "-fno-pic", "-no-pie", "-mno-red-zone", "-fno-stack-protector",
            "-static", "-nostdlib", "-Wl,--section-start=.boot=0x7c00,-Ttext=0x100000,-N,-e0,--build-id=none",
            "-Wl,-z,noexecstack,--no-warn-rwx-segments", f"-I{codecs}", HERE / "boot.S", HERE / "bare.c",
            HERE / "judge.c", *sorted(codecs.glob("sm2_*.c")), "-lgcc", "-o", folder / "program.elf",
        ],
        check=True,
    )  # fmt: skip
    for chosen, made in (("-j", "boot.img"), ("-R", "program.bin")):
        subprocess.run(["objcopy", "-O", "binary", chosen, ".boot", folder / "program.elf", folder / made], check=True)
    with (folder / "boot.img").open("r+b") as floppy:
        floppy.truncate(1440 * 1024)


def run(folder: Path) -> str:
    """What the program says. The emulator wants a terminal to draw on and, as Debian builds it, the word to go."""
    (folder / "machine").write_text(MACHINE)
    (folder / "go").write_text("continue\n")
    ours, its = pty.openpty()
    try:
        finished = subprocess.run(
            ["bochs", "-q", "-f", "machine", "-rc", "go"],
            cwd=folder, stdin=its, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS_MAX, check=False,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(its)
    return finished.stdout.decode("latin-1")


@pytest.fixture
def cases(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file of them, with libcrypto's verdicts."""
    chosen = list(islice(mixture(Random(12)), getattr(request, "param", HOW_MANY)))
    verdicts = [libcrypto(case) for case in chosen]
    assert 0 < sum(verdicts) < len(verdicts)
    path = tmp_path / "cases.bin"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(chosen)))
        for (key, digest, signature), verdict in zip(chosen, verdicts, strict=True):
            file.write(key.point[1:] + digest + signature + bytes([verdict]))
    return path


def agreed(said: str) -> dict[str, int]:
    """Of each path, how many verdicts were as expected."""
    return {path: int(cases) for path, cases in re.findall(r"([a-z-]+) agrees on (\d+) of", said)}


def emulated_by(*programs: str) -> pytest.MarkDecorator:
    there = platform.machine() == "x86_64" and all(map(shutil.which, programs))
    reason = f"needs an x86-64 machine with {' and '.join(programs)}: make setup EXTRAS=emulators"
    return pytest.mark.skipif(not there, reason=reason)


@emulated_by("bochs")
def test_the_instructions_of_avx_512_ifma_agree_with_libcrypto(cases: Path) -> None:
    build(cases.parent)
    said = run(cases.parent)
    assert "lanes not refused" in said
    found = agreed(said)
    found.pop("mulx", None)  # bochs 2.7 carries wrongly in ADOX, so the kernel refuses that path there
    assert found == dict.fromkeys(("portable", "lanes-in-c", "lanes"), HOW_MANY)


@emulated_by("bochs")
@pytest.mark.parametrize("cases", [8], indirect=True)
def test_a_processor_that_multiplies_lanes_wrongly_is_found_out_at_load(cases: Path) -> None:
    faulty = cases.parent / "codecs"
    faulty.mkdir()
    for source in CODECS.glob("sm2_*.[ch]"):
        (faulty / source.name).write_text(source.read_text().replace("madd52hi", "madd52lo"))
    build(cases.parent, faulty)
    said = run(cases.parent)
    assert "lanes refused" in said
    found = agreed(said)
    found.pop("mulx", None)
    assert found == dict.fromkeys(("portable", "lanes-in-c"), 8)


@emulated_by("aarch64-linux-gnu-gcc", "qemu-aarch64")
def test_built_for_arm64_it_agrees_with_libcrypto(cases: Path) -> None:
    program = cases.parent / "hosted"
    subprocess.run(
        [
            "aarch64-linux-gnu-gcc", "-O3", "-static", f"-I{CODECS}", HERE / "hosted.c", HERE / "judge.c",
            *sorted(CODECS.glob("sm2_*.c")), "-o", program,
        ],
        check=True,
    )  # fmt: skip
    with cases.open("rb") as file:
        finished = subprocess.run(
            ["qemu-aarch64", program], stdin=file, capture_output=True, text=True, timeout=SECONDS_MAX, check=True
        )
    assert agreed(finished.stdout) == dict.fromkeys(("portable", "lanes-in-c"), HOW_MANY)
