"""A person at a POS takes back, gives back, holds and completes, each command a process of its own."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from fengshou.switch.cli.pos import pos
from tests.switch.town import FARMER, PAN, TERMINALS, Town


class Till:
    """The commands of one terminal; 0 approved, 1 not."""

    def __init__(self, town: Town) -> None:
        self._folder = str(town.home(TERMINALS[9]).folder)

    def __call__(self, *arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(pos, [*arguments, "--home", self._folder, "--json"])
        told: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == (told["code"] != "00"), done.output
        return told

    def about(self, command: str, trade: dict[str, Any], amount: str) -> str:
        code: str = self(command, "--batch", str(trade["batch"]), "--stan", str(trade["stan"]), "--amount", amount)[
            "code"
        ]
        return code


@pytest.fixture
def till(town: Town) -> Till:
    return Till(town)


def purchase(till: Till) -> dict[str, Any]:
    goods = ("--product", "1", "--variety", "3", "--grade", "2", "--price", "96.50", "--farmer", FARMER)
    bought = till("purchase", *goods, "--weight", "10")
    assert bought["code"] == "00", bought
    return bought


def test_a_hold_is_completed_once_or_released(till: Till) -> None:
    held, other = till("hold", "--card", PAN, "--amount", "100"), till("hold", "--card", PAN, "--amount", "50")
    assert (held["code"], other["code"]) == ("00", "00")
    assert till.about("complete", held, "116") == "64", "15 % more than was held is the most"
    assert till.about("complete", held, "115") == "00"
    assert till.about("complete", held, "10") == "25"
    assert till.about("release", other, "50") == "00"
    assert till.about("complete", other, "50") != "00"


def test_a_purchase_is_voided_whole_or_refunded_in_parts(till: Till, town: Town) -> None:
    first, second = purchase(till), purchase(till)
    assert till.about("void", first, "964") == "64"
    assert till.about("void", first, "965") == "00"
    assert till.about("refund", first, "1") == "25"
    assert [till.about("refund", second, part) for part in ("500", "465", "0.01")] == ["00", "00", "64"]
    assert till.about("void", second, "965") == "64"
    town.settle()


def test_a_reversal_is_named_like_the_rest(till: Till) -> None:
    assert till.about("reverse", purchase(till), "965") == "00"
