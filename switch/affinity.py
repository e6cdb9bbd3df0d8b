"""Which worker serves which terminal: always the same one, by the terminal's id.

What must be exact about a terminal (what is in flight under its keys, its session, its batch) is then in one process.
A balancer or another program can compute the same: SM3 of the id in lower case, its first eight bytes as a big-endian
number, modulo the number of workers.
"""

from dataclasses import dataclass
from functools import lru_cache

from fengshou.codecs import sm3


@lru_cache(maxsize=1 << 16)
def worker_of(terminal: str, workers: int) -> int:
    """The worker, from 0, that has the terminal of this id. Server names know no case, so ids count without it."""
    return int.from_bytes(sm3(terminal.lower().encode())[:8], "big") % workers


@dataclass(frozen=True, slots=True)
class Share:
    """What one of ``workers`` has: its terminals and all that follows from them."""

    worker: int = 0
    workers: int = 1

    def has(self, terminal: str) -> bool:
        return self.workers == 1 or worker_of(terminal, self.workers) == self.worker


WHOLE = Share()
