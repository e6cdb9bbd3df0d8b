"""``fengshou pos`` as a person uses it, against the stand-in."""

import json

import click
import pytest
from click.testing import CliRunner

from fengshou.switch.cli.pos import pos
from fengshou.switch.cli.trade import HUNDREDTHS

#    typed         is
NUMBERS = [
    ("12.50",      1_250),
    ("12.5",       1_250),
    ("12",         1_200),
    ("0.07",       7),
    ("0.1",        10),
    ("1.005",      None),
    ("-1",         None),
    ("1e3",        None),
    (".5",         None),
    ("1,000",      None),
    ("１２",        None),
    ("",           None),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "is_"), NUMBERS)
def test_money_is_read_without_floats(typed, is_):
    if is_ is None:
        with pytest.raises(click.BadParameter):
            HUNDREDTHS.convert(typed, None, None)
    else:
        assert HUNDREDTHS.convert(typed, None, None) == is_


@pytest.fixture
def typed(network, serving, tmp_path):
    """Types commands one after the other at one terminal; gives their exit status and JSON, else their words."""

    def go(*commands, prepare=lambda stand_in: None):
        stand_in = network.stand_in()
        prepare(stand_in)
        results = []
        with serving(stand_in):
            home = network.home(tmp_path, "FS000001", stand_in.port).folder
            for command in commands:
                result = CliRunner().invoke(pos, [*command.split(), "--home", str(home), "--json"])
                results.append(
                    (result.exit_code, json.loads(result.stdout) if result.stdout.startswith("{") else result.stderr)
                )
        return stand_in, results

    return go


CASH = "withdraw --card 9156004000001267043 --amount 310.00"


def test_a_withdrawal_with_its_receipt_and_the_receipt_later(typed):
    _, results = typed(f"{CASH} --receipt", "receipt --batch 8 --stan 2", "receipt --batch 8 --stan 77")
    (status, first), (_, later), (missing, words) = results
    assert (status, first["code"], first["text"]) == (0, "00", "交易成功")
    assert first["receipt"] == "verified, record 12"
    assert (later["stan"], later["verified"]) == (first["stan"], True)
    assert missing == 1
    assert "25" in words


def test_restarts_never_use_a_stan_twice(typed):
    stand_in, results = typed(CASH, CASH, CASH)
    assert [status for status, _ in results] == [0, 0, 0]
    assert len(set(stand_in.effects)) == 3


def test_a_decline_is_shown_and_fails(typed):
    _, [(status, facts)] = typed(CASH, prepare=lambda stand_in: stand_in.codes.append("51"))
    assert (status, facts["code"], facts["action"], facts["text"]) == (1, "51", "C", "余额不足")


@pytest.mark.parametrize(("slow_s", "is_told"), [(0.0, True), (60.0, False)])
def test_who_waits_long_is_told_for_what(network, serving, tmp_path, monkeypatch, slow_s, is_told):
    monkeypatch.setattr("fengshou.switch.cli.trade._SLOW_S", slow_s)
    stand_in = network.stand_in()
    stand_in.codes.append("09")  # so that the terminal asks again
    with serving(stand_in):
        home = network.home(tmp_path, "FS000001", stand_in.port).folder
        result = CliRunner().invoke(pos, [*CASH.split(), "--home", str(home), "--json"])
    assert json.loads(result.stdout)["code"] == "00"
    assert result.stderr == (f"waiting for the switch at 127.0.0.1:{stand_in.port}\n" if is_told else "")


#   a command                                                     what is said
MISTAKES = [
    ("withdraw --card 9156004000001267043 --amount 3x",           "3x"),
    ("withdraw --card 91560040000012670431234 --amount 300",      "DE 2"),
    ("send no-such-thing",                                        "no template"),
    ("send withdrawal colour=red",                                "colour"),
    ("send withdrawal amount=red",                                "amount"),
    ("transfer --card 9156004000001267043 --to 9 --amount 1",     "no service transfer"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "said"), MISTAKES, ids=[case[1] for case in MISTAKES])
def test_a_mistake_is_explained_and_nothing_is_done(typed, command, said):
    stand_in, [(status, words)] = typed(command)
    assert status != 0
    assert said in words
    assert stand_in.effects == []
