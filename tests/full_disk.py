"""A disk that is full: a real limit on the length of the files of a process."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(bytes_max: int, process: int = 0) -> Iterator[None]:
    """No file of the process, by default of this one, grows beyond. Python ignores the signal that comes with it."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (bytes_max, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)
