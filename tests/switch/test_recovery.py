"""What a restart makes of each kind of open intent."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from fengshou.protocol import elements as de
from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.journal.store import Journal
from tests.switch.line import Line, code_of
from tests.switch.town import LIMITED_PAN, TERMINALS, Town, enquiry, purchase, reversal, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]

SALE, CASH, UNDO, ENQUIRY, ORIGINAL = range(901, 906)


def _kill_with_open_intents(town: Town) -> dict[int, Record]:
    """One intent of each kind is sent and not answered when the switch dies. Returns the intents by STAN."""
    with Line(town, TERMINALS[0]).sign_in() as line:
        amount = purchase()[de.AMOUNT]
        assert code_of(line.ask("farm-purchase", {**purchase(), de.STAN: ORIGINAL})) == "00"
        with town.frozen("core-banking"), town.frozen("government"):
            for template, values in (
                ("farm-purchase", {**purchase(), de.STAN: SALE}),
                ("withdrawal", {**withdrawal(100_000, LIMITED_PAN), de.STAN: CASH}),
                ("reversal", {**reversal(line.batch, ORIGINAL, amount), de.STAN: UNDO}),
                ("gov-enquiry", {**enquiry(), de.STAN: ENQUIRY}),
            ):
                line.post(line.frame(template, values))
            town.until(_four_calls_are_out)  # a call leaves after its intent is durable
            town.kill("switch")
            with town.journal() as journal:
                assert len(journal.open_intents()) == 4
                assert not journal.due()
    return {record.stan: record for record in town.records(kind=RecordKind.INTENT)}


def _four_calls_are_out(status: dict[str, Any]) -> bool:
    return sum(destination["in_flight"] for destination in status["destinations"].values()) == 4


def _debts(journal: Journal) -> set[int]:
    return {journal.record(number).stan for number, _ in journal.due()}


def test_each_kind_of_open_intent_gets_its_outcome_and_its_debt(fresh_town: FreshTown) -> None:
    with fresh_town() as town:
        _kill_with_open_intents(town)
        with town.frozen("core-banking"):
            town.restart("switch")
            outcomes = {record.stan: record.code for record in town.records(kind=RecordKind.OUTCOME)}
            assert outcomes == {ORIGINAL: "00", SALE: "98", CASH: "98", UNDO: "98", ENQUIRY: "98"}
            with town.journal() as journal:
                # Money that may have moved is owed back; a reversal is owed for what it was about to undo; an enquiry
                # owes nothing. What a withdrawal used up of its limit counts until it is certain that it was undone.
                assert _debts(journal) == {SALE, CASH, ORIGINAL}
                assert not journal.open_intents()
        town.settle()
        assert {record.stan for record in town.records(kind=RecordKind.REVERSAL)} == {SALE, CASH, ORIGINAL}
        assert not town.require_truth()
        with Line(town, TERMINALS[0]).sign_in() as line:
            assert code_of(line.ask("withdrawal", withdrawal(100_000, LIMITED_PAN))) == "00"
            assert code_of(line.ask("withdrawal", withdrawal(1_000, LIMITED_PAN))) == "61"


def test_what_was_on_the_way_for_a_service_that_is_gone_waits_until_it_is_back(fresh_town: FreshTown) -> None:
    with fresh_town() as town:
        _kill_with_open_intents(town)
        file = town.folder / "switch.toml"
        whole = file.read_text("utf-8")
        without = whole.replace('[[service]]\nmodule = "fengshou.ext.services.farm_purchase"\n', "")
        assert without != whole
        file.write_text(without, "utf-8")
        town.restart("switch")
        town.until(lambda status: status["reversals"]["delivered"] >= 1)
        with town.journal() as journal:
            assert [journal.record(number).stan for number in journal.open_intents()] == [SALE]
        assert "stays open" in town.log("switch")
        town.process("switch").stop()
        file.write_text(whole, "utf-8")
        town.restart("switch")
        town.settle()
        assert not town.require_truth()
