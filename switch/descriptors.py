"""File descriptors: every connection takes one, and the limit that a process is given at first is often 1,024."""

import logging
import resource

logger = logging.getLogger(__name__)

# Beside connections: links, files of past days, sockets of those who ask for the status.
_SPARE = 512


def allow_descriptors(connections: int) -> None:
    """Raise this process's own limit to what so many connections need, as far as it may; say so when that is less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("%d connections need %d descriptors and %d are allowed: raise LimitNOFILE or `ulimit -Hn`",
                       connections, wanted, allowed)  # fmt: skip
