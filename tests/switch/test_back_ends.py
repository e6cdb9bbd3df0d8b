"""Back ends that are down, silent or killed: certain outcomes for their requests, and no effect on anyone else's."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import duckdb
import pytest
import trio

from fengshou.protocol import elements as de
from fengshou.protocol.message import Message
from fengshou.protocol.record import RecordKind
from fengshou.terminals.identity import Counters
from tests.full_disk import full_disk
from tests.switch.line import Line, code_of
from tests.switch.town import RETURNED_PAN, TERMINALS, Town, enquiry, purchase, reversal, trade_now, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]


def _approved_purchases(town: Town) -> int:
    """Of farm purchases, those that the journal holds as approved."""
    return sum(record.code == "00" and record.template == 1 for record in town.records(kind=RecordKind.OUTCOME))


@pytest.mark.parametrize(
    ("down", "template", "values", "others", "other_values"),
    [
        ("core-banking", "farm-purchase", purchase(), "gov-enquiry",   enquiry()),
        ("government",   "gov-enquiry",   enquiry(),  "farm-purchase", purchase()),
    ],
)  # fmt: skip
def test_a_back_end_that_is_down_is_91_at_once_and_the_other_works(
    town: Town, down: str, template: str, values: dict[int, int], others: str, other_values: dict[int, int]
) -> None:
    first = town.next_record()
    with Line(town, TERMINALS[0]).sign_in() as line:
        town.kill(down)
        town.until(lambda status: not status["destinations"][down]["up"])
        assert code_of(line.ask(template, values)) == "91"
        refused = line.last_stan
        assert code_of(line.ask(others, other_values)) == "00"
        town.restart(down)
        town.until_up(down)
        # Nothing was done, and that is the outcome of this key for ever; a new key is a new transaction.
        assert code_of(line.ask(template, {**values, de.STAN: refused}, repeat=True)) == "91"
        assert code_of(line.ask(template, values)) == "00"
    assert not town.records(first, RecordKind.REVERSAL)


def test_a_silent_back_end_is_98_and_the_reversal_that_is_owed_is_delivered(town: Town) -> None:
    first = town.next_record()
    with Line(town, TERMINALS[0]).sign_in() as line:
        with town.frozen("core-banking"):
            asked = line.message("farm-purchase", {**purchase(), de.STAN: 1001})
            line.post(line.codec.encode(asked))
            assert code_of(line.ask("gov-enquiry", enquiry())) == "00"  # meanwhile
            response = line.answer(asked.sequence)
            assert code_of(response) == "98"
            assert town.status()["reversals"]["owed"] == 1
            # The terminal may say it too, as often as it likes: the switch owes it and will deliver it.
            for stan in (1002, 1003):
                undo = {**reversal(line.batch, 1001, purchase()[de.AMOUNT]), de.STAN: stan}
                assert code_of(line.ask("reversal", undo)) == "00"
        town.settle()
        again = line.ask("farm-purchase", {**purchase(), de.STAN: 1001}, repeat=True)
        assert line.body(again) == line.body(response)
    rrn = f"{response.values[de.RRN]:012d}"
    kinds = [record.kind for record in town.records(first) if record.rrn == response.values[de.RRN]]
    assert kinds[:2] == [RecordKind.INTENT, RecordKind.OUTCOME]
    # Twice when the late approval came across the answer to the reversal: nobody can tell which of them was first.
    assert kinds.count(RecordKind.REVERSAL) in (1, 2)
    state = town.books()["transactions"].get(rrn, {"state": "never came"})["state"]
    assert state in ("reversed", "never came", "declined")
    town.require_truth()


def test_a_reversal_whose_answer_is_lost_is_delivered_and_gives_the_limit_back_once(town: Town) -> None:
    """Two reversals of a withdrawal, both without an answer: one debt, one reversal, one return of what was used up."""
    with Line(town, TERMINALS[1]).sign_in() as line:
        for _ in range(2):
            assert code_of(line.ask("withdrawal", withdrawal(50_000, RETURNED_PAN))) == "00"
        stan = line.last_stan
        with town.frozen("core-banking"):
            undo = line.message("reversal", reversal(line.batch, stan, 50_000))
            line.post(line.codec.encode(undo))
            assert code_of(line.answer(undo.sequence)) == "98"
            assert code_of(line.ask("reversal", reversal(line.batch, stan, 50_000))) == "00"  # it is owed already
        town.settle()
        assert code_of(line.ask("reversal", reversal(line.batch, stan, 50_000))) == "25"
        assert code_of(line.ask("withdrawal", withdrawal(50_000, RETURNED_PAN))) == "00"
        assert code_of(line.ask("withdrawal", withdrawal(1_000, RETURNED_PAN))) == "61"
    town.require_truth()


def test_an_enquiry_without_an_answer_is_98_and_owes_nothing(town: Town) -> None:
    with Line(town, TERMINALS[0]).sign_in() as line, town.frozen("government"):
        assert code_of(line.ask("gov-enquiry", enquiry())) == "98"
        assert code_of(line.ask("farm-purchase", purchase())) == "00"
        assert town.status()["reversals"]["owed"] == 0


async def _trade_until(town: Town, terminal: str, stop: trio.Event, codes: dict[str, int]) -> None:
    """Purchases one after the other; every one must come to an end."""
    async with town.client(terminal, Counters()) as client:
        while not stop.is_set():
            response = await client.trade("farm-purchase", purchase(100))
            codes[response.code] = codes.get(response.code, 0) + 1


def test_core_banking_killed_under_load_leaves_books_and_journal_equal(town: Town) -> None:
    codes: dict[str, int] = {}

    async def main() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for terminal in TERMINALS[:6]:
                nursery.start_soon(_trade_until, town, terminal, stop, codes)
            for _ in range(3):
                await trio.sleep(0.7)
                town.kill("core-banking")
                await trio.to_thread.run_sync(town.restart, "core-banking")
                await trio.to_thread.run_sync(town.until_up, "core-banking")
            await trio.sleep(0.5)
            stop.set()

    trio.run(main)
    town.settle()
    assert codes["00"] > 100
    assert set(codes) <= {"00", "91", "98"}
    town.require_truth()


def test_analytics_killed_under_load_counts_every_trade_once(fresh_town: FreshTown) -> None:
    codes: dict[str, int] = {}
    with fresh_town() as town:

        async def main() -> None:
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                for terminal in TERMINALS[:6]:
                    nursery.start_soon(_trade_until, town, terminal, stop, codes)
                for _ in range(3):
                    await trio.sleep(0.5)
                    town.kill("analytics")
                    await trio.sleep(0.2)  # events wait in the journal, trade goes on
                    await trio.to_thread.run_sync(town.restart, "analytics")
                stop.set()

        trio.run(main)
        town.settle()
        assert set(codes) == {"00"}
        approved = _approved_purchases(town)
        rrns = {record.rrn for record in town.records(kind=RecordKind.OUTCOME) if record.template == 1}
        town.process("analytics").stop()  # it lets go of its file
        with duckdb.connect(str(town.folder / "hosts/analytics/analytics.duckdb"), read_only=True) as store:
            counted = store.execute("SELECT count(*), count(DISTINCT rrn), sum(amount_fen) FROM farm_trades").fetchone()
            there = {int(rrn) for (rrn,) in store.execute("SELECT rrn FROM farm_trades").fetchall()}
        assert counted is not None
        assert counted[:2] == (approved, approved)
        assert approved == codes["00"]
        assert there == rrns
        assert counted[2] == approved * purchase(100)[de.AMOUNT]


# The switch's own disk -----------------------------------------------------------------------------------------------


def test_a_full_disk_is_96_and_nothing_is_lost(fresh_town: FreshTown) -> None:
    """Requests that cannot be journalled are refused with nothing done; answers of back ends wait for room."""
    with fresh_town() as town:
        with Line(town, TERMINALS[0]).sign_in() as line:
            good, bad = purchase(), purchase(AMOUNT=1)  # bad: the ladder refuses it, intent and outcome in one commit
            sent: list[tuple[Message, dict[int, int]]] = []

            def post(**flags: bool) -> None:
                messages = [(line.message("farm-purchase", values, **flags), values) for values in (good, bad) * 5]
                line.post(b"".join(line.codec.encode(message) for message, _ in messages))
                sent.extend(messages)

            post()
            town.until(lambda status: status["answered"].get("13") == 5 and not status["in_flight"])
            with full_disk((town.folder / "journal/data.mdb").stat().st_size, town.process("switch").pid):
                while town.status()["answered"].get("96", 0) < 100:
                    post(receipt=True)
                assert code_of(line.ask("echo", {})) == "00"
            post()
            answers = {int(message.values[de.STAN]): line.answer(message.sequence) for message, _ in sent}
            codes = [code_of(answer) for answer in answers.values()]
            assert codes[:10] == codes[-10:] == ["00", "13"] * 5
            assert set(codes) == {"00", "13", "96"}
            # What was answered stays answered; what was refused for want of room was never begun.
            for message, values in sent:
                stan = int(message.values[de.STAN])
                again = line.ask("farm-purchase", {**values, de.STAN: stan}, repeat=True)
                if code_of(answers[stan]) == "96":
                    assert code_of(again) == ("00" if values is good else "13")
                else:
                    assert line.body(again) == line.body(answers[stan])
        assert "cannot be written" in town.log("switch")
        trio.run(trade_now, town, TERMINALS[1])
        town.settle()
        town.require_truth()
