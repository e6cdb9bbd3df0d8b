"""Batches settled over real connections: in balance, out of balance, interrupted, repeated; and what that closes."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState, Difference, Line, Side, Totals, pack_details
from fengshou.protocol.message import COMMAND_SIGN_IN
from fengshou.switch.cli.pos import pos
from fengshou.switch.settlement.totals import Settlements, differences
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.fleet import FleetPlan, run_fleet
from fengshou.terminals.identity import Counters
from fengshou.terminals.offline import Offline
from fengshou.terminals.offline_store import OfflineStore
from fengshou.terminals.trades import Trade
from tests.switch.line import Line as Wire
from tests.switch.line import code_of
from tests.switch.town import FARMER, TERMINALS, Town, purchase, reversal

CLOCK = {de.LOCAL_TIME: 72_150, de.LOCAL_DATE: 320}


def totals(batch: int, lines: list[Line]) -> dict[int, Any]:
    summed = Totals.of(lines)
    return {
        **CLOCK, de.ORIGINAL_BATCH: batch, de.DEBITS: summed.debits, de.DEBITS_AMOUNT: summed.debits_fen,
        de.CREDITS: summed.credits, de.CREDITS_AMOUNT: summed.credits_fen,
    }  # fmt: skip


def details(batch: int, lines: list[Line], number: int = 1, last: int = 1) -> dict[int, Any]:
    (part,) = pack_details(lines)
    return {
        **CLOCK, de.ORIGINAL_BATCH: batch, de.DETAILS: part, de.MESSAGE_NUMBER: number, de.LAST_MESSAGE: last,
    }  # fmt: skip


def deposit(amount_fen: int) -> dict[int, Any]:
    return {**CLOCK, de.AMOUNT: amount_fen, de.ENTRY_MODE: 12, de.TO_ACCOUNT: FARMER}


def known(town: Town, terminal: str, batch: int) -> Any:
    """The batch as the journal has it."""
    merchant = town.home(terminal).identity.merchant
    with town.journal() as journal:
        return Settlements(journal, town.catalogue, town.recorder).batch(terminal, merchant, batch)


def buy(line: Wire, weight: int = 1_000) -> Line:
    values = purchase(weight)
    assert code_of(line.ask("farm-purchase", values)) == "00"
    return Line(line.last_stan, Side.DEBIT, values[de.AMOUNT])


def test_a_batch_in_balance_is_closed_at_once(town: Town) -> None:
    with Wire(town, TERMINALS[1]).sign_in() as line:
        lines = [buy(line), buy(line, 2_000)]
        taken_back = buy(line, 3_000)
        assert code_of(line.ask("reversal", reversal(line.batch, taken_back.stan, taken_back.fen))) == "00"
        assert code_of(line.ask("deposit", deposit(5_000))) == "00"
        lines.append(Line(line.last_stan, Side.CREDIT, 5_000))
        assert code_of(line.ask("withdrawal", {**CLOCK, de.PAN: "18", de.AMOUNT: 1_000, de.ENTRY_MODE: 51})) == "14"
        answer = line.ask("settle", totals(line.batch, lines))
        assert (code_of(answer), answer.values[de.SETTLEMENT_CODE], answer.command) == ("00", 1, COMMAND_SIGN_IN)
        # From now on the batch takes nothing more, not in this session and not in another.
        assert code_of(line.ask("farm-purchase", purchase())) == "22"
        refused = line.ask("sign-in", line.sign_in_values(line.batch))
        assert code_of(refused) == "77"
        closed = line.batch
        line.sign_in_to(closed + 1)
        # Under another key and in another batch the answer is the same; with other totals it is refused.
        assert code_of(line.ask("settle", totals(closed, lines))) == "00"
        assert code_of(line.ask("settle", totals(closed, lines[1:]))) == "94"
        assert code_of(line.ask("batch-details", details(closed, lines))) == "79"
        assert code_of(line.ask("farm-purchase", purchase())) == "00"
    batch = known(town, TERMINALS[1], closed)
    assert (batch.state, list(batch.lines), batch.stated) == (BatchState.BALANCED, lines, Totals.of(lines))
    assert differences(batch) == []


def test_a_batch_that_differs_is_told_message_by_message_and_every_difference_is_named(town: Town) -> None:
    with Wire(town, TERMINALS[2]).sign_in() as line:
        same, unknown_to_terminal, smaller_there = buy(line), buy(line, 2_000), buy(line, 3_000)
        ours = [same, unknown_to_terminal, smaller_there]
        invented = Line(900, Side.DEBIT, 77_700)
        theirs = [same, Line(smaller_there.stan, Side.DEBIT, smaller_there.fen - 1), invented]
        batch = line.batch
        answer = line.ask("settle", totals(batch, theirs))
        assert (code_of(answer), answer.values[de.SETTLEMENT_CODE]) == ("95", 2)
        assert answer.values[de.DEBITS_AMOUNT] == sum(one.fen for one in ours)
        line.sign_in_to(batch + 1)
        # Not in order, then in order; a repeat of what came is nothing new; then the terminal comes over a new line.
        assert code_of(line.ask("batch-details", details(batch, theirs[1:], 2, 2))) == "79"
        for _ in range(2):
            answer = line.ask("batch-details", details(batch, theirs[:1], 1, 2))
            assert (code_of(answer), answer.values[de.MESSAGE_NUMBER]) == ("00", 1)
        assert known(town, TERMINALS[2], batch).state is BatchState.AWAITING_DETAILS
    with Wire(town, TERMINALS[2]).sign_in() as line:
        answer = line.ask("settle", totals(batch, theirs))
        assert (code_of(answer), answer.values[de.MESSAGE_NUMBER]) == ("95", 1)
        answer = line.ask("batch-details", details(batch, theirs[1:], 2, 2))
        assert (code_of(answer), answer.values[de.SETTLEMENT_CODE]) == ("00", 2)
    found = known(town, TERMINALS[2], batch)
    assert found.state is BatchState.DIFFERS
    assert [(one.difference, one.stan) for one in differences(found)] == [
        (Difference.MISSING_THERE, unknown_to_terminal.stan),
        (Difference.DIFFERS, smaller_there.stan),
        (Difference.MISSING_HERE, invented.stan),
    ]


def test_no_terminal_settles_what_is_not_its_own(town: Town) -> None:
    with Wire(town, TERMINALS[3]).sign_in() as line:
        line.sign_in()
        assert code_of(line.ask("settle", totals(line.batch + 1, []))) == "25"
        assert code_of(line.ask("settle", totals(999_999, []))) == "25"
        assert code_of(line.ask("settle", totals(line.batch, []))) == "00"


def test_a_batch_with_a_transaction_in_flight_is_not_settled_yet(town: Town) -> None:
    with Wire(town, TERMINALS[4]).sign_in() as line, town.frozen("core-banking"):
        running = line.message("farm-purchase", purchase())
        line.post(line.codec.encode(running))
        asked = line.message("settle", totals(line.batch, []))
        assert code_of(line.say(line.codec.encode(asked), asked.sequence)) == "09"
        assert code_of(line.answer(running.sequence)) == "98"
        # What is unknown was never approved: an empty batch is in balance.
        assert code_of(line.ask("settle", totals(line.batch, []))) == "00"
    town.settle()


def test_what_is_owed_a_reversal_does_not_count_at_either_end(town: Town) -> None:
    """The terminal takes a purchase back, the host is silent: 98 says that the switch delivers the reversal."""
    log = BatchLog()

    async def trade() -> None:
        async with town.client(TERMINALS[8], Counters(), log=log) as client:
            bought = (await client.trade("farm-purchase", purchase(1_000))).request
            kept = (await client.trade("farm-purchase", purchase(2_000))).request
            with town.frozen("core-banking"):
                back = reversal(bought.batch, bought.stan, int(bought.values[de.AMOUNT]))
                assert (await client.trade("reversal", back)).code == "98"
                assert [line.stan for line in log.lines(kept.batch)] == [kept.stan]
                (settled,) = await client.settle()
                assert (settled.state, settled.totals.debits) == (BatchState.BALANCED, 1)

    trio.run(trade)
    town.settle()


def test_settlement_and_trade_in_one_record_end_in_one_order(town: Town) -> None:
    """What stands behind the settlement in the same bytes is not traded; what stands before it makes it wait."""
    with Wire(town, TERMINALS[5]).sign_in() as line:
        settle, late = line.message("settle", totals(line.batch, [])), line.message("farm-purchase", purchase())
        line.post(line.codec.encode(settle) + line.codec.encode(late))
        assert (code_of(line.answer(settle.sequence)), code_of(line.answer(late.sequence))) == ("00", "22")
        line.sign_in_to(line.batch + 1)
        early, settle = line.message("farm-purchase", purchase()), line.message("settle", totals(line.batch, []))
        line.post(line.codec.encode(early) + line.codec.encode(settle))
        assert (code_of(line.answer(early.sequence)), code_of(line.answer(settle.sequence))) == ("00", "09")


def test_two_messages_of_the_same_details_count_once(town: Town) -> None:
    with Wire(town, TERMINALS[6]).sign_in() as line:
        lines = [Line(5, Side.DEBIT, 100)]
        batch = line.batch
        assert code_of(line.ask("settle", totals(batch, lines))) == "95"
        line.sign_in_to(batch + 1)
        twins = [line.message("batch-details", details(batch, lines, 1, 2)) for _ in range(2)]
        line.post(b"".join(map(line.codec.encode, twins)))
        assert sorted(code_of(line.answer(twin.sequence)) for twin in twins) == ["00", "09"]
        assert len(known(town, TERMINALS[6], batch).details) == 1


def test_the_client_settles_what_it_traded_and_goes_on(town: Town, tmp_path: Path) -> None:
    log = tmp_path / "batches.jsonl"

    async def trade_and_settle() -> None:
        async with town.client(TERMINALS[7], Counters(), log=BatchLog(log)) as client:
            for weight in (1_000, 2_000):
                assert (await client.trade("farm-purchase", purchase(weight))).approved
            (settled,) = await client.settle()
            assert (settled.state, settled.totals.debits) == (BatchState.BALANCED, 2)
            assert (await client.trade("farm-purchase", purchase(3_000))).approved
        # Another process of the same terminal: the log tells what counts, the lost line shows.
        kept = BatchLog(log)
        (batch,) = kept.batches()
        assert batch == settled.batch + 1
        log.write_bytes(b"")
        async with town.client(TERMINALS[7], Counters(batch, 500), log=BatchLog(log)) as client:
            assert (await client.trade("farm-purchase", purchase(4_000))).approved
            (settled,) = await client.settle()
            assert (settled.batch, settled.state, settled.totals.debits) == (batch, BatchState.DIFFERS, 1)
            assert client.log.batches() == []
        found = known(town, TERMINALS[7], batch)
        assert [one.difference for one in differences(found)] == [Difference.MISSING_THERE]

    trio.run(trade_and_settle)


def test_what_was_bought_without_coverage_counts_once_it_is_uploaded(town: Town, tmp_path: Path) -> None:
    async def run() -> None:
        counters = Counters()
        with OfflineStore(tmp_path / "offline.log", town.catalogue.codec) as store:
            async with town.client(TERMINALS[7], counters) as client:
                mobile = Offline(client, store, town.home(TERMINALS[7]).signer(), counters)
                for number in range(5):
                    mobile.store("farm-purchase", purchase(1_000 + number))
                assert [one.code for one in await mobile.upload()] == ["00"] * 5
                assert (await client.trade("farm-purchase", purchase())).approved
                (settled,) = await client.settle()
                assert (settled.state, settled.totals.debits) == (BatchState.BALANCED, 6)

    trio.run(run)


def test_a_pos_settles_by_command_over_several_runs(town: Town) -> None:
    """Each command is a process of its own in the field: the terminal's folder knows what counts."""

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(pos, [*arguments, "--home", str(town.home(TERMINALS[8]).folder), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    goods = ("--product", "1", "--variety", "3", "--grade", "2", "--price", "96.50", "--farmer", FARMER)
    for weight in ("10", "20.50"):
        assert run("purchase", *goods, "--weight", weight)["code"] == "00"
    (settled,) = run("settle")
    assert (settled["state"], settled["debits"], settled["debits_fen"]) == ("balanced", 2, 96_500 + 197_825)
    (empty,) = run("settle")
    assert (empty["state"], empty["batch"], empty["debits"]) == ("balanced", settled["batch"] + 1, 0)


def test_a_fleet_settles_what_it_traded_whatever_was_in_the_batch_before(town: Town) -> None:
    homes = tuple(str(town.home(terminal).folder) for terminal in TERMINALS[9:11])
    plan = FleetPlan(homes=homes, in_flight=2, settle=True)
    for _ in range(2):
        trades = [Trade("farm-purchase", purchase(1_000 + number)) for number in range(6)]
        result = run_fleet(plan, town.catalogue.grammar, trades, lambda _: None)
        assert (result.codes["farm-purchase"], result.codes["settle"]) == ({"00": 6}, {"00": 2})
        assert (result.batches_balanced, result.batches_different) == (2, 0)


@pytest.mark.slow
def test_a_switch_killed_while_a_batch_is_told_goes_on_where_it_was(
    fresh_town: Callable[..., AbstractContextManager[Town]],
) -> None:
    with fresh_town() as town:
        with Wire(town, TERMINALS[0]).sign_in() as line:
            batch, real = line.batch, buy(line)
            theirs = [real, Line(800, Side.CREDIT, 1)]
            assert code_of(line.ask("settle", totals(batch, theirs))) == "95"
            line.sign_in_to(batch + 1)
            assert code_of(line.ask("batch-details", details(batch, theirs[:1], 1, 2))) == "00"
            town.kill("switch")
        town.restart("switch")
        town.until_up("core-banking")
        with Wire(town, TERMINALS[0]) as line:
            refused = line.ask("sign-in", line.sign_in_values(batch))
            assert code_of(refused) == "77"
            line.sign_in()
            assert code_of(line.ask("settle", totals(batch, theirs))) == "95"
            assert code_of(line.ask("batch-details", details(batch, theirs[1:], 2, 2))) == "00"
        assert [one.stan for one in differences(known(town, TERMINALS[0], batch))] == [800]
        town.require_truth()
