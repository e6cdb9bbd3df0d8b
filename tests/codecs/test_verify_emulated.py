"""The AVX-512 IFMA path of the verification kernel, executed where no such processor is at hand: by an emulator of one.

Debian's packages ``bochs``, ``bochs-term`` and ``bochsbios``; without them the test is skipped. The kernel is built for
a bare machine (``emulated/``) and judges cases of the differential test on an emulated Ice Lake.
"""

import os
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

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "emulated"
HOW_MANY = int(os.environ.get("FENGSHOU_EMULATED", "200"))
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


def build(folder: Path) -> None:
    """``boot.img``, a floppy of one boot sector, and ``program.bin``, which it calls."""
    compiler = os.environ.get("CC", "gcc")
    subprocess.run(
        [
            compiler, "-O3", "-ffreestanding", "-fno-pic", "-no-pie", "-mno-red-zone", "-fno-stack-protector",
            "-static", "-nostdlib", "-Wl,--section-start=.boot=0x7c00,-Ttext=0x100000,-N,-e0,--build-id=none",
            "-Wl,-z,noexecstack,--no-warn-rwx-segments", f"-I{ROOT / 'codecs'}", HERE / "boot.S", HERE / "program.c",
            *sorted((ROOT / "codecs").glob("sm2_*.c")), "-lgcc", "-o", folder / "program.elf",
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


@pytest.mark.skipif(not shutil.which("bochs"), reason="needs the emulator bochs")
def test_every_path_agrees_with_libcrypto_on_an_emulated_processor(tmp_path: Path) -> None:
    cases = list(islice(mixture(Random(12)), HOW_MANY))
    verdicts = [libcrypto(case) for case in cases]
    assert 0 < sum(verdicts) < len(verdicts)
    with (tmp_path / "cases.bin").open("wb") as file:
        file.write(struct.pack("<Q", len(cases)))
        for (key, digest, signature), verdict in zip(cases, verdicts, strict=True):
            file.write(key.point[1:] + digest + signature + bytes([verdict]))
    build(tmp_path)
    said = run(tmp_path)
    assert "lanes accepted" in said
    agreed = dict(re.findall(r"([a-z-]+) agrees on (\d+) of", said))
    agreed.pop("mulx", None)  # bochs 2.7 carries wrongly in ADOX, so the kernel refuses that path there
    assert agreed == dict.fromkeys(("portable", "lanes-in-c", "lanes"), str(HOW_MANY))
