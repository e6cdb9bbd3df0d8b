"""Voids, refunds, offline sales and pre-authorisations through a whole site: hosts that are away, late or silent."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from fengshou.protocol import elements as de
from fengshou.protocol.record import RecordKind
from tests.switch.line import Line, code_of
from tests.switch.town import FARMER, PAN, TERMINALS, Town, purchase, reversal, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]

AMOUNT = int(purchase()[de.AMOUNT])


def say(line: Line, template: str, stan: int, fen: int, about: int = 0) -> str:
    """The code of a request with this STAN; ``about`` is the STAN of the original that it follows."""
    if about:
        return code_of(line.ask(template, {**reversal(line.batch, about, fen), de.STAN: stan}))
    values = {**withdrawal(fen), de.STAN: stan}
    if template == "farm-purchase":
        values = {**purchase(), de.STAN: stan}
    elif template == "offline-sale":
        values = {**values, de.TO_ACCOUNT: FARMER}
    return code_of(line.ask(template, values))


# fmt: off
STEPS = (
    # template                 STAN  fen         about  code
    ("farm-purchase",          1,    AMOUNT,     0,     "00"),
    ("void",                   2,    AMOUNT - 1, 1,     "64"),
    ("void",                   3,    AMOUNT,     1,     "00"),
    ("void",                   4,    AMOUNT,     1,     "25"),
    ("refund",                 5,    1,          1,     "25"),
    ("reversal",               6,    AMOUNT,     1,     "25"),
    ("void",                   7,    AMOUNT,     3,     "12"),  # of a void
    ("farm-purchase",          8,    AMOUNT,     0,     "00"),
    ("refund",                 9,    100,        8,     "00"),
    ("refund",                 10,   AMOUNT,     8,     "64"),
    ("refund",                 11,   AMOUNT-100, 8,     "00"),
    ("refund",                 12,   1,          8,     "64"),
    ("void",                   13,   AMOUNT,     8,     "64"),
    ("reversal",               14,   AMOUNT,     8,     "64"),
    ("void",                   15,   100,        9,     "12"),  # of a refund
    ("preauthorisation",       20,   10_000,     0,     "00"),
    ("completion",             21,   11_501,     20,    "64"),
    ("completion",             22,   11_500,     20,    "00"),
    ("completion",             23,   1,          20,    "25"),
    ("preauthorisation-void",  24,   10_000,     20,    "25"),
    ("void",                   25,   11_500,     22,    "00"),  # the amount is held again
    ("completion",             26,   9_000,      20,    "00"),
    ("refund",                 27,   9_000,      26,    "00"),
    ("preauthorisation",       30,   10_000,     0,     "00"),
    ("preauthorisation-void",  31,   10_000,     30,    "00"),
    ("completion",             32,   10_000,     30,    "25"),
    ("preauthorisation",       40,   10_000,     0,     "00"),
    ("reversal",               41,   10_000,     40,    "00"),
    ("completion",             42,   10_000,     40,    "25"),
    ("offline-sale",           50,   20_000,     0,     "00"),
    ("offline-sale",           51,   100_100,    0,     "61"),
    ("void",                   60,   1,          99,    "25"),
)
# fmt: on


def test_each_step_of_a_day(fresh_town: FreshTown) -> None:
    with fresh_town() as town:
        with Line(town, TERMINALS[0]).sign_in() as line:
            told = []
            for template, stan, fen, about, _ in STEPS:
                told.append((template, stan, fen, about, say(line, template, stan, fen, about)))
                town.until(lambda status: not status["reversals"]["owed"])
        assert told == list(STEPS)
        town.settle()
        town.require_truth()


def test_a_refund_without_an_answer_is_sent_again_until_the_terminal_can_hear_it(fresh_town: FreshTown) -> None:
    with fresh_town(deadline_ms=1000) as town, Line(town, TERMINALS[0]).sign_in() as line:
        assert say(line, "farm-purchase", 1, AMOUNT) == "00"
        with town.frozen("core-banking"):
            assert say(line, "refund", 2, 100, 1) == "09"
            assert say(line, "refund", 2, 100, 1) == "09"
            assert say(line, "void", 3, AMOUNT, 1) == "64", "what is on its way back counts"
            town.kill("switch")
            town.restart("switch")
        town.settle()
        with Line(town, TERMINALS[0]).sign_in_to(line.batch) as again:
            assert say(again, "refund", 2, 100, 1) == "00"
            assert say(again, "refund", 4, AMOUNT - 99, 1) == "64"
        outcomes = [record for record in town.records(kind=RecordKind.OUTCOME) if record.stan == 2]
        assert [record.code for record in outcomes] == ["00"]
        town.require_truth()


def test_offline_sales_reach_a_host_that_was_away_and_one_that_was_taken_back_never_does(fresh_town: FreshTown) -> None:
    with fresh_town() as town, Line(town, TERMINALS[0]).sign_in() as line:
        town.kill("core-banking")
        town.until(lambda status: not status["destinations"]["core-banking"]["up"])
        for stan in range(1, 6):
            assert say(line, "offline-sale", stan, 10_000) == "00"
        assert say(line, "refund", 10, 1, 1) == "09", "the host does not know it yet"
        assert say(line, "void", 11, 10_000, 2) == "00"
        assert say(line, "reversal", 12, 10_000, 3) == "00"
        assert say(line, "void", 13, 10_000, 3) == "00", "it is reversed already"
        assert town.status()["reversals"]["owed"] == 5
        town.kill("switch")  # what is owed outlives it
        town.restart("switch")
        town.restart("core-banking")
        town.settle()
        advised = {record.stan: record.code for record in town.records(kind=RecordKind.ADVICE)}
        reversed_ = {record.stan for record in town.records(kind=RecordKind.REVERSAL)}
        assert advised == {1: "00", 4: "00", 5: "00"}
        assert reversed_ == {2, 3}
        standing = town.require_truth()
        assert sorted(standing.values()) == [10_000] * 3


def test_a_void_without_an_answer_is_taken_over(fresh_town: FreshTown) -> None:
    with fresh_town(deadline_ms=1000) as town, Line(town, TERMINALS[0]).sign_in() as line:
        assert say(line, "farm-purchase", 1, AMOUNT) == "00"
        with town.frozen("core-banking"):
            assert say(line, "void", 2, AMOUNT, 1) == "98"
            assert say(line, "void", 3, AMOUNT, 1) == "00", "the switch reverses it"
        town.settle()
        assert say(line, "void", 4, AMOUNT, 1) == "25"
        assert not town.require_truth()
        assert town.status()["transitions"]["approved: reversal owed"] == 1


def test_a_late_approval_of_what_is_unknown_is_on_record_and_undone(fresh_town: FreshTown) -> None:
    with fresh_town(deadline_ms=1000) as town, Line(town, TERMINALS[0]).sign_in() as line:
        with town.frozen("core-banking"):
            assert say(line, "farm-purchase", 1, AMOUNT) == "98"
            assert code_of(line.ask("withdrawal", {**withdrawal(10_000, PAN), de.STAN: 2})) == "98"
        town.settle()
        assert {record.stan for record in town.records(kind=RecordKind.REVERSAL)} == {1, 2}
        assert not town.require_truth()
