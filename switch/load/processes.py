"""What the kernel says of processes (proc(5)): CPU and memory, of one and of all that it started."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all that descend from it: a supervisor and its workers. Raises FileNotFoundError."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of CPU that they have used together, user and system, all threads. Raises FileNotFoundError."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def machine_cpu_s() -> float:
    """What the whole machine has used: all of /proc/stat but idle, waiting for the disk, and guests."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory of their own: without the pages of mapped files, such as the journal's."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
    return total
