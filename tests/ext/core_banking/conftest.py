"""The embedded core-banking host over the books of a small bank."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fengshou.ext.hosts.core_banking import Application
from tests.ext.core_banking.bank import ACCOUNTS, NOW_US


@pytest.fixture
def options(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "accounts.csv").write_text(ACCOUNTS, "utf-8")
    return {"database": str(tmp_path / "ledger.db"), "accounts": str(tmp_path / "accounts.csv")}


@pytest.fixture
def open_host(options: dict[str, str]) -> Iterator[Callable[[], Application]]:
    opened: list[Application] = []

    def open_host() -> Application:
        opened.append(Application(options, now_us=lambda: NOW_US))
        return opened[-1]

    yield open_host
    for host in opened:
        host.close()


@pytest.fixture
def host(open_host: Callable[[], Application]) -> Application:
    return open_host()
