"""A site has one switch: a second one would write to the same journal."""

from pathlib import Path

import pytest

from fengshou.switch.processes import Process, ProcessFailed
from tests.switch.town import Town


def test_a_second_switch_is_refused_and_the_first_goes_on(town: Town, tmp_path: Path) -> None:
    before = town.status()["process"]
    second = Process("second", ["switch", "--home", str(town.folder)], tmp_path / "second.log")
    with pytest.raises(ProcessFailed, match="another switch runs on this site"):
        second.wait_ready()
    assert second.stop() == 1
    assert town.status()["process"] == before
