"""A switch takes the descriptors that its configuration needs, or says that it may not have them."""

import subprocess
import sys

import pytest

# In a process of its own: a hard limit that was lowered never comes back.
_PROGRAM = """
import logging, resource, sys
from fengshou.switch.descriptors import allow_descriptors
logging.basicConfig(format="%(message)s")
soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
allow_descriptors(connections)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "allowed", "warned"),
    [
        (256,  1024, 100,  612,  False),  # raised to what is needed
        (1024, 1024, 100,  1024, False),  # never lowered
        (256,  1024, 512,  1024, False),
        (256,  1024, 2000, 1024, True),   # the machine does not allow it
    ],
)  # fmt: skip
def test_the_limit_is_what_the_connections_need(
    soft: int, hard: int, connections: int, allowed: int, warned: bool
) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(soft), str(hard), str(connections)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(outcome.stdout) == allowed
    assert ("2000 connections need 2512 descriptors and 1024 are allowed" in outcome.stderr) == warned
