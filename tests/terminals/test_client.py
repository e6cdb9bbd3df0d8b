"""The client against a stand-in switch over real TLS: retries, cut answers, silence, garbage, batches."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_SIGN_IN, Flag, Message
from fengshou.protocol.templates import SIGN_IN
from fengshou.terminals.client import (
    BatchClosed,
    OutcomeUnknown,
    SignInRefused,
    Unanswered,
    Unreachable,
)
from fengshou.terminals.identity import Counters, CountersError
from fengshou.terminals.receipt import ReceiptInvalid, verify_receipt

CASH = {de.PAN: "9156004000001267043", de.AMOUNT: 31_000, de.ENTRY_MODE: 52}


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        with trio.fail_after(30):
            await body()

    trio.run(limited)


def test_a_trade(staged):
    async def body():
        async with staged() as (switch, client):
            response = await client.trade("withdrawal", CASH)
            assert (response.code, response.action, response.rrn) == ("00", "A", 632_800_000_001)
            assert response.text("zh") == "交易成功"
            assert switch.effects == [("FS000001", 8, response.request.stan)]

    run(body)


def test_a_new_terminal_learns_its_batch_and_begins_the_next(staged):
    async def body():
        async with staged() as (switch, client):
            await client.trade("withdrawal", CASH)
            asked = [message.values[de.BATCH] for message in switch.seen if message.template == SIGN_IN.id]
            assert asked == [0, 8]

    run(body)


def test_a_terminal_that_is_behind_takes_the_next_batch(staged):
    async def body():
        async with staged(Counters(batch=3, stan=500)) as (switch, client):
            response = await client.trade("withdrawal", CASH)
            assert response.approved
            assert switch.effects == [("FS000001", 8, response.request.stan)]

    run(body)


def test_retry_is_the_same_key_and_body_under_a_new_signature(staged):
    async def body():
        async with staged(answer_s=0.3) as (switch, client):
            await client.sign_in()
            switch.mute = 1
            with pytest.raises(Unanswered) as caught:
                await client.send("withdrawal", CASH)
            response = await client.retry(caught.value.request)
            assert response.approved
            first, second = switch.seen[-2:]
            assert first.values == second.values
            assert second.sequence > first.sequence
            assert second.signature != first.signature
            assert (first.flags & Flag.REPEAT, second.flags & Flag.REPEAT) == (0, Flag.REPEAT)
            assert len(switch.effects) == 1

    run(body)


def test_an_answer_cut_at_every_byte_is_fetched_and_done_once(staged):
    """The connection dies after each number of bytes of the answer; whatever is missing, the trade ends the same."""

    async def body():
        async with staged() as (switch, client):
            whole = await client.trade("withdrawal", CASH)
            size = len(switch.codec.encode(Message(5, Flag.RESPONSE, 1, dict(whole.values))))
            for keep in range(size + 1):
                before = len(switch.effects)
                switch.cuts.append(keep)
                response = await client.trade("withdrawal", CASH)
                assert response.approved
                assert len(switch.effects) == before + 1

    run(body)


def test_pipelining_matches_answers_in_any_order(staged):
    async def body():
        async with staged() as (switch, client):
            await client.sign_in()
            switch.hold = 20
            amounts = {}

            async def one(amount):
                amounts[amount] = await client.send("withdrawal", {**CASH, de.AMOUNT: amount})

            async with trio.open_nursery() as nursery:
                for amount in range(1_000, 21_000, 1_000):
                    nursery.start_soon(one, amount)
            assert {amount: answer.request.values[de.AMOUNT] for amount, answer in amounts.items()} == {
                amount: amount for amount in range(1_000, 21_000, 1_000)
            }
            done = {key[2]: number for number, key in enumerate(switch.effects, 1)}
            assert all(answer.rrn == 632_800_000_000 + done[answer.request.stan] for answer in amounts.values())
            assert switch.connections == 1

    run(body)


def test_in_progress_is_asked_again_with_the_same_key(staged):
    async def body():
        async with staged() as (switch, client):
            switch.codes = ["09", "90"]
            response = await client.trade("withdrawal", CASH)
            assert response.approved
            assert {message.values[de.STAN] for message in switch.seen[-3:]} == {response.request.stan}

    run(body)


@pytest.mark.parametrize("code", ["22", "77"])
def test_a_code_that_wants_a_sign_in_gets_one(staged, code):
    async def body():
        async with staged() as (switch, client):
            await client.sign_in()
            switch.codes = [code]
            assert (await client.trade("withdrawal", CASH)).approved
            assert switch.seen[-2].template == SIGN_IN.id

    run(body)


def test_the_command_to_sign_in_is_obeyed_before_the_next_request(staged):
    async def body():
        async with staged() as (switch, client):
            await client.sign_in()
            switch.command = COMMAND_SIGN_IN
            assert (await client.send("withdrawal", CASH)).command == COMMAND_SIGN_IN
            switch.command = 0
            await client.send("withdrawal", CASH)
            assert [message.template for message in switch.seen[-3:]] == [5, SIGN_IN.id, 5]
            await client.send("withdrawal", CASH)
            assert switch.seen[-2].template == 5

    run(body)


#  answers to sign-ins       what the trade raises
SIGN_INS = [
    (["97"],                   SignInRefused),
    (["58"],                   SignInRefused),
    (["96", "00"],             None),
]  # fmt: skip


@pytest.mark.parametrize(("codes", "raised"), SIGN_INS)
def test_a_refused_sign_in(staged, codes, raised):
    async def body():
        async with staged() as (switch, client):
            switch.sign_in_codes = [code for code in codes if code != "00"]
            if raised is None:
                assert (await client.trade("withdrawal", CASH)).approved
            else:
                with pytest.raises(raised) as caught:
                    await client.trade("withdrawal", CASH)
                assert caught.value.response.code == codes[0]
                assert switch.effects == []

    run(body)


def test_silence_ends_as_outcome_unknown(staged):
    async def body():
        async with staged(answer_s=0.1, trade_s=0.5) as (switch, client):
            switch.mute = 1_000
            with pytest.raises(OutcomeUnknown) as caught:
                await client.trade("withdrawal", CASH)
            assert switch.effects == [("FS000001", 8, caught.value.request.stan)]
            assert switch.connections > 1, "a connection that does not answer is given up"

    run(body)


def test_no_switch_is_known_to_have_done_nothing(staged):
    async def body():
        async with staged(trade_s=0.2) as (_, client):
            client._dial = refuse
            with pytest.raises(Unreachable):
                await client.trade("withdrawal", CASH)

    async def refuse():
        raise ConnectionRefusedError("nobody listens")

    run(body)


GARBAGE = [
    ("a length that is too long",     b"\xff\xff\x7f"),
    ("an unknown version",            b"\x03\xc5\x80\x01"),
    ("an unknown template",           b"\x03\x69\x80\x01"),
    ("a request",                     b"\x04\x52\x00\x01\x00"),
    ("zeros",                         bytes(64)),
]  # fmt: skip


@pytest.mark.parametrize(("what", "garbage"), GARBAGE, ids=[row[0] for row in GARBAGE])
def test_garbage_from_the_switch_ends_the_connection_and_nothing_else(staged, what, garbage):
    async def body():
        async with staged() as (switch, client):
            await client.sign_in()
            switch.garbage = garbage
            with pytest.raises(Unanswered):
                await client.send("withdrawal", CASH)
            switch.garbage = b""
            assert (await client.trade("withdrawal", CASH)).approved

    run(body)


def test_a_request_of_a_closed_batch_is_not_sent(staged):
    async def body():
        counters = Counters()
        async with staged(counters, answer_s=0.2) as (switch, client):
            await client.sign_in()
            switch.mute = 1
            with pytest.raises(Unanswered) as caught:
                await client.send("withdrawal", CASH)
            counters.begin(counters.batch + 1)
            with pytest.raises(BatchClosed):
                await client.retry(caught.value.request)
            assert len(switch.effects) == 1

    run(body)


def test_receipts_with_the_answer_and_later(staged, network):
    async def body():
        async with staged() as (switch, client):
            response = await client.trade("withdrawal", CASH, receipt=True)
            key = network.signing_key.public_key
            assert response.receipt is not None
            record = verify_receipt(response.receipt, key, client.exchange_of(response))
            assert (record.code, record.stan) == ("00", response.request.stan)
            later = await client.receipt(response.request.batch, response.request.stan)
            assert later == response.receipt
            with pytest.raises(ReceiptInvalid, match="25"):
                await client.receipt(response.request.batch, 999)
            switch.withhold_receipts = True
            assert (await client.trade("withdrawal", CASH, receipt=True)).receipt is None

    run(body)


def test_sign_off_and_echo(staged):
    async def body():
        async with staged() as (switch, client):
            assert (await client.echo()).approved
            await client.sign_off()
            assert (await client.trade("withdrawal", CASH)).approved
            assert switch.connections == 1

    run(body)


def test_many_tasks_through_a_breaking_connection(staged):
    async def body():
        async with staged() as (switch, client):
            answers = []

            async def cashier(count):
                for _ in range(count):
                    answers.append(await client.trade("withdrawal", CASH))

            async def vandal():
                for keep in (0, 3, 9, 20, 1, 40):
                    await trio.sleep(0.02)
                    switch.cuts.append(keep)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(vandal)
                for _ in range(8):
                    nursery.start_soon(cashier, 10)
            assert len(answers) == 80
            assert all(answer.approved for answer in answers)
            assert len(set(switch.effects)) == len(switch.effects) == 80

    run(body)


def test_counters_survive_a_kill(tmp_path: Path):
    used = set()
    for _ in range(5):
        counters = Counters.open(tmp_path / "counters.json")
        used |= {counters.next() for _ in range(100)}
        os.close(counters._lock)  # what a kill does: the lock goes, nothing is written
    assert len(used) == 500


def test_counters_closed_in_good_order_skip_nothing(tmp_path: Path):
    for stan in range(1, 4):
        counters = Counters.open(tmp_path / "counters.json")
        assert counters.next() == (0, stan)
        counters.close()


def test_a_terminal_runs_once(tmp_path: Path):
    counters = Counters.open(tmp_path / "counters.json")
    with pytest.raises(CountersError, match="in use"):
        Counters.open(tmp_path / "counters.json")
    counters.close()
    (tmp_path / "counters.json").write_text('{"batch": 1')
    with pytest.raises(CountersError, match="damaged"):
        Counters.open(tmp_path / "counters.json")


def test_a_full_batch_opens_the_next():
    counters = Counters(batch=7, stan=999_998)
    assert [counters.next() for _ in range(3)] == [(7, 999_999), (8, 1), (8, 2)]
