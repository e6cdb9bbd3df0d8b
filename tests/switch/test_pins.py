"""PINs end to end: from the terminal's key through custody to the host, while keys of every kind are rotated."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from fengshou.hsm.custody import TERMINAL_MASTER, TERMINAL_WORKING, PinFormat
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol import elements as de
from fengshou.protocol.epoch import EpochState
from fengshou.protocol.message import COMMAND_KEYS, COMMAND_NONE, Value
from fengshou.protocol.record import RecordKind
from fengshou.switch.cli.main import main as fengshou
from fengshou.switch.hosting import set_pin
from fengshou.terminals.client import Response, TerminalClient
from fengshou.terminals.fleet import FleetPlan, run_fleet
from fengshou.terminals.identity import Counters
from fengshou.terminals.key_store import KeyStore, KeysUnfit
from fengshou.terminals.trades import Trade
from tests.switch.line import Line, code_of
from tests.switch.town import FARMER, PAN, PIN_PAN, SUBJECT, TERMINALS, Town, enquiry, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]


def give(town: Town, card: str, digits: bytes) -> None:
    set_pin(town.folder / "hosts/core-banking", card, bytearray(digits))


def command(town: Town, line: str) -> Any:
    result = CliRunner().invoke(fengshou, [*line.split(), "--home", str(town.folder), "--json"])
    assert result.exit_code == 0, (line, result.output)
    return json.loads(result.stdout)


def store(town: Town, terminal: str) -> KeyStore:
    """The keys of a terminal, in memory only."""
    return KeyStore.of_key(town.home(terminal).signer())


def asked(template: str, card: str) -> dict[int, Value]:
    values: dict[int, Value] = {**withdrawal(1_000, card)}
    if template == "transfer":
        values[de.TO_ACCOUNT] = FARMER
    if template == "balance":
        del values[de.AMOUNT]
    return values


async def paid(
    client: TerminalClient, card: str, digits: bytes, form: PinFormat = PinFormat.ISO_4, template: str = "withdrawal"
) -> Response:
    return await client.trade(template, {**asked(template, card), **await client.pin(bytearray(digits), card, form)})


def test_a_pin_is_right_wrong_or_entered_too_often(town: Town) -> None:
    give(town, PIN_PAN, b"1234")

    async def main() -> list[str]:
        async with town.client(TERMINALS[2], Counters(), keys=store(town, TERMINALS[2])) as client:
            digits = (b"1234", b"4321", b"4321", b"1234", b"9999", b"9998", b"9997", b"1234")
            return [(await paid(client, PIN_PAN, entered)).code for entered in digits]

    assert trio.run(main) == ["00", "55", "55", "00", "55", "55", "75", "75"]
    give(town, PIN_PAN, b"5678")  # the holder is given another PIN


@pytest.mark.parametrize("form", PinFormat)
@pytest.mark.parametrize("template", ["balance", "transfer", "preauthorisation"])
def test_every_scene_of_a_card_takes_a_pin_in_either_layout(town: Town, template: str, form: PinFormat) -> None:
    give(town, PAN, b"135790")

    async def main() -> list[str]:
        async with town.client(TERMINALS[2], Counters(), keys=store(town, TERMINALS[2])) as client:
            return [(await paid(client, PAN, digits, form, template)).code for digits in (b"135790", b"135791")]

    assert trio.run(main) == ["00", "55"]


def test_the_first_answer_of_a_repeat_is_the_second_and_no_try_is_counted_twice(town: Town) -> None:
    give(town, PAN, b"2468")

    async def main() -> None:
        async with town.client(TERMINALS[3], Counters(), keys=store(town, TERMINALS[3])) as client:
            wrong = await paid(client, PAN, b"1111", template="balance")
            for _ in range(5):
                again = await client.retry(wrong.request)
                assert (again.code, again.body) == ("55", wrong.body)
            assert (await paid(client, PAN, b"2468", template="balance")).code == "00"

    trio.run(main)


#   what is changed of a good request                          answered
CASES = [
    ({"PIN_BLOCK": bytes(16)},                                 "99"),  # no block under this key
    ({"PAN": PIN_PAN},                                    "99"),  # of another card
    ({"PIN_FORMAT": 7},                                        "99"),
    ({"PIN_FORMAT": 1},                                        "99"),  # another layout than it has
    ({"KEY_EPOCH": 0},                                         "30"),
    ({"ENTRY_MODE": 52},                                       "30"),  # says that no PIN was entered
    ({"KEY_EPOCH": 200},                                       "A7"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "code"), CASES)
def test_a_block_that_is_none_is_refused_and_costs_no_try(town: Town, changed: dict[str, Value], code: str) -> None:
    give(town, PAN, b"2468")
    keys = store(town, TERMINALS[4])
    with Line(town, TERMINALS[4]).sign_in() as line:
        told = line.ask("keys", keys.held)
        assert keys.take(told.values)
        for _ in range(4):
            values = {**asked("balance", PAN), **keys.pin_block(bytearray(b"2468"), PAN)}
            answer = line.ask("balance", {**values, **{getattr(de, name): value for name, value in changed.items()}})
            assert code_of(answer) == code
        values = {**asked("balance", PAN), **keys.pin_block(bytearray(b"2468"), PAN)}
        assert code_of(line.ask("balance", values)) == "00"


def test_keys_are_told_once_proved_and_told_again_when_they_do_not_fit(town: Town) -> None:
    keys, other = store(town, TERMINALS[5]), store(town, TERMINALS[6])
    with Line(town, TERMINALS[5]).sign_in() as line:
        assert code_of(line.ask("balance", {de.ENTRY_MODE: 12, de.LOCAL_TIME: 1, de.LOCAL_DATE: 320})) == "00"
        told = line.ask("keys", keys.held)
        assert (code_of(told), told.command) == ("00", COMMAND_KEYS)
        with pytest.raises(KeysUnfit):
            other.take(told.values)  # another terminal's envelope opens for nobody else
        for at in (0, 16, 59):
            damaged = bytearray(told.values[de.WORKING_KEYS])
            damaged[at] ^= 1
            with pytest.raises(KeysUnfit):
                keys.take({**told.values, de.WORKING_KEYS: bytes(damaged)})
        assert keys.epoch == 0, "what did not fit was not taken"
        assert keys.take(told.values)
        proof = keys.proof(line.session._binding)
        assert code_of(line.ask("keys", {**proof, de.MAC: bytes(16)})) == "A0"
        assert code_of(line.ask("keys", keys.held)) == "A0", "without a proof"
        proved = line.ask("keys", proof)
        assert (code_of(proved), proved.command) == ("00", COMMAND_NONE)
        assert de.WORKING_KEYS not in proved.values
        assert code_of(line.ask("keys", keys.proof(bytes(32)))) == "A0", "of another connection"
    with Line(town, TERMINALS[5]).sign_in(**{"KEY_EPOCH": keys.epoch, "MASTER_EPOCH": keys.master_epoch}) as line:
        assert line.ask("echo", {}).command == COMMAND_NONE
    with town.journal() as journal:
        held = {terminal: epochs for terminal, *epochs in journal.held_keys()}
    assert held[TERMINALS[5]] == [keys.epoch, keys.master_epoch]


def test_a_subject_under_the_data_key_is_opened_for_the_office_and_kept_sealed(town: Town) -> None:
    keys, other = store(town, TERMINALS[9]), store(town, TERMINALS[8])
    for terminal, held in ((TERMINALS[8], other), (TERMINALS[9], keys)):
        with Line(town, terminal).sign_in() as line:
            assert held.take(line.ask("keys", held.held).values)
    with Line(town, TERMINALS[9]).sign_in() as line:
        in_clear = line.ask("gov-enquiry", enquiry())
        first = town.next_record()
        sealed = keys.sealed(enquiry())
        assert de.SUBJECT not in sealed
        answer = line.ask("gov-enquiry", sealed)
        assert code_of(answer) == "00"
        assert answer.values[de.REPLY] == in_clear.values[de.REPLY], "the office was asked about the same person"
        again = line.ask("gov-enquiry", {**sealed, de.STAN: line.last_stan}, repeat=True)
        assert again.values == answer.values
        (intent,) = town.records(first, RecordKind.INTENT)
        kept = town.recorder.values(intent)
        assert kept[de.SUBJECT] == SUBJECT
        assert de.SEALED_SUBJECT not in kept
        assert SUBJECT.encode() not in intent.to_bytes()
        value = bytes(sealed[de.SEALED_SUBJECT])
        for wrong, code in (
            (value[:-1] + bytes((value[-1] ^ 1,)), "A0"),
            (b"", "A0"),
            (bytes(other.sealed(enquiry())[de.SEALED_SUBJECT]), "A0"),
            (bytes((200,)) + value[1:], "A7"),
        ):
            assert code_of(line.ask("gov-enquiry", {**sealed, de.SEALED_SUBJECT: wrong})) == code
        nobody = {key: value for key, value in sealed.items() if key != de.SEALED_SUBJECT}
        assert code_of(line.ask("gov-enquiry", nobody)) == "30"


def test_a_fleet_enters_pins_and_seals_subjects(town: Town) -> None:
    give(town, PAN, b"135790")
    trades = [
        *(Trade("transfer", asked("transfer", PAN), pin="135790", expect="00") for _ in range(10)),
        *(Trade("balance", asked("balance", PAN), pin="135791", expect="55") for _ in range(2)),
        *(Trade("gov-enquiry", enquiry(), expect="00") for _ in range(5)),
    ]
    plan = FleetPlan(homes=(str(town.home(TERMINALS[10]).folder),))
    result = run_fleet(plan, town.catalogue.grammar, trades, lambda progress: None)
    assert (result.answered, result.surprises, result.retries) == (17, [], 0)
    assert town.home(TERMINALS[10]).keys().epoch == 1


def test_status_says_who_lacks_the_current_keys(town: Town) -> None:
    keys = store(town, TERMINALS[7])
    with Line(town, TERMINALS[7]).sign_in() as line:
        line.ask("keys", keys.held)
        shown = command(town, "keys status")
        assert shown["terminals_behind"][TERMINALS[7]] == {"working": 0, "master": 0}
        assert keys.take(line.ask("keys", keys.held).values)
        line.ask("keys", keys.proof(line.session._binding))
    shown = command(town, "keys status")
    assert TERMINALS[7] not in shown["terminals_behind"]
    rows = {(row["key"], row["epoch"]): row["terminals"] for row in shown["keys"]}
    assert rows[TERMINAL_WORKING, keys.epoch] >= 1
    assert rows[TERMINAL_MASTER, keys.master_epoch] >= 1
    assert rows["switch.sign", 1] == ""


def test_a_pin_is_chosen_and_entered_at_the_command_line(town: Town) -> None:
    def run(line: str, entered: str) -> tuple[int, str]:
        result = CliRunner().invoke(fengshou, line.split(), input=entered)
        assert "2580" not in result.output
        assert "2581" not in result.output
        return result.exit_code, result.output

    assert run(f"host-pin {PAN} --home {town.folder}", "2580\n2580\n")[0] == 0
    pos = f"pos balance --card {PAN} --pin --home {town.folder}/terminals/{TERMINALS[8]} --json"
    assert run(pos, "2580\n")[0] == 0
    code, said = run(pos, "2581\n")
    assert (code, '"55"' in said) == (1, True)
    assert town.home(TERMINALS[8]).keys().epoch == 1, "the keys stay in the terminal's home"
    assert run(f"host-pin 9156004000009999999 --home {town.folder}", "2580\n2580\n")[0] != 0


class Payers:
    """Terminals that pay with PINs all the time; their answers."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.answers: list[Response] = []
        self.stores: dict[str, KeyStore] = {}
        self._going = True

    async def run(self, terminal: str) -> None:
        keys = self.stores[terminal] = store(self.town, terminal)
        async with self.town.client(terminal, Counters(), keys=keys) as client:
            while self._going:
                for template in ("balance", "transfer"):
                    self.answers.append(await paid(client, PAN, b"1357", template=template))

    async def more(self, count: int = 30) -> None:
        wanted = len(self.answers) + count
        with trio.fail_after(40):
            while len(self.answers) < wanted:
                await trio.sleep(0.02)

    async def caught_up(self, working: int, master: int) -> None:
        with trio.fail_after(20):
            while any((keys.epoch, keys.master_epoch) != (working, master) for keys in self.stores.values()):
                await trio.sleep(0.02)

    def stop(self) -> None:
        self._going = False


async def rotate(town: Town, trade: Payers) -> None:
    async def run(line: str) -> None:
        await trio.to_thread.run_sync(command, town, line)
        await trade.more()

    async with trio.open_nursery() as nursery:
        for terminal in TERMINALS[:3]:
            nursery.start_soon(trade.run, terminal)
        await trade.more()
        await run("keys rotate terminal-working --yes")
        await trade.caught_up(2, 1)
        await run("keys rollback terminal-working --yes")
        await trade.caught_up(1, 1)
        await run("keys rotate terminal-working --yes")
        await run("keys rotate terminal-master --yes")
        await trade.caught_up(2, 2)
        await run("keys rotate zone --yes")
        await run("keys rollback zone --yes")
        await run("keys rotate zone --yes")
        for label in (TERMINAL_WORKING, TERMINAL_MASTER, "zone.core-banking.pin", "zone.core-banking.mac"):
            await run(f"keys retire {label} 1 --force --yes")
        trade.stop()


@pytest.mark.slow
def test_working_master_and_zone_keys_are_rotated_under_traffic_and_nothing_is_declined(fresh_town: FreshTown) -> None:
    with fresh_town(workers=2) as town:
        give(town, PAN, b"1357")
        trade, old = Payers(town), store(town, TERMINALS[5])
        with Line(town, TERMINALS[5]).sign_in() as line:
            assert old.take(line.ask("keys", old.held).values)
        trio.run(rotate, town, trade)
        assert Counter(answer.code for answer in trade.answers) == {"00": len(trade.answers)}
        assert len(trade.answers) > 200
        states = {(info.label, info.epoch): info.state for info in SoftwareCustody(town.folder / "keys").inventory()}
        for label in (TERMINAL_WORKING, TERMINAL_MASTER, "zone.core-banking.pin", "zone.core-banking.mac"):
            assert (states[label, 1], states[label, 2]) == (EpochState.RETIRED, EpochState.CURRENT)
        with Line(town, TERMINALS[5]).sign_in(KEY_EPOCH=old.epoch, MASTER_EPOCH=old.master_epoch) as line:
            values = {**asked("balance", PAN), **old.pin_block(bytearray(b"1357"), PAN)}
            refused = line.ask("balance", values)
            assert (code_of(refused), refused.command) == ("A7", COMMAND_KEYS)
            told = line.ask("keys", old.proof(line.session._binding))
            assert old.take(told.values), "what is retired counts as nothing"
            assert (old.epoch, old.master_epoch) == (2, 2)
            values = {**asked("balance", PAN), **old.pin_block(bytearray(b"1357"), PAN)}
            assert code_of(line.ask("balance", values)) == "00"
        town.settle()
        town.require_truth()
        town.kill("core-banking")
        town.restart("core-banking")  # it has kept its keys
        town.until_up("core-banking")
        with Line(town, TERMINALS[5]).sign_in() as line:
            values = {**asked("balance", PAN), **old.pin_block(bytearray(b"1357"), PAN)}
            assert code_of(line.ask("balance", values)) == "00"
