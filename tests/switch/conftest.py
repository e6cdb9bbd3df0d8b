"""One town a test process for everything that leaves it whole, and a fresh one for whoever breaks it; custody and
journal for tests that need no processes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from fengshou.hsm.software import SoftwareCustody, provision
from fengshou.switch.journal.store import Journal
from tests.switch.entries import open_journal
from tests.switch.town import Town, running_town

# Small enough that a test can reach every bound, large enough that it is reached by none that does not try.
LIMITS = {
    "handshake_s": 4,
    "sign_in_s": 4,
    "outbox_bytes": 64 * 1024,
    "stalled_s": 3,
    "handshakes": 1200,
    "in_flight": 512,
    "deadline_ms": 1500,
}


@pytest.fixture(scope="session")
def _town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with running_town(tmp_path_factory.mktemp("town") / "site", **LIMITS) as town:
        yield town


@pytest.fixture
def town(_town: Town) -> Iterator[Town]:
    """The shared town: everything runs and all links are up before and after each test, or the test is to blame."""
    _town.until_up("core-banking", "government")
    process = _town.process("switch").pid
    yield _town
    assert _town.process("switch").running, _town.log("switch")[-4000:]
    assert _town.status()["process"] == process
    _town.settle()


@pytest.fixture
def fresh_town(tmp_path: Path) -> Callable[..., AbstractContextManager[Town]]:
    """Make a town of one's own; keywords are limits."""
    return partial(running_town, tmp_path / "site")


@pytest.fixture(scope="module")
def custody(tmp_path_factory: pytest.TempPathFactory) -> SoftwareCustody:
    """With the keys of a switch."""
    return provision(tmp_path_factory.mktemp("custody") / "keys")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Open, and empty."""
    journal = open_journal(tmp_path)
    yield journal
    journal.close()
