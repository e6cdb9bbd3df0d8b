"""A switch of several workers: a terminal has one of them, the journal is one, and any process may die."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Any

import lmdb
import pytest
import trio
from click.testing import CliRunner

from fengshou.ext.services.withdrawal import DAILY_CAP_FEN
from fengshou.protocol.record import RecordKind
from fengshou.switch.affinity import worker_of
from fengshou.switch.cli.main import main
from fengshou.terminals.client import Response
from fengshou.terminals.identity import Counters
from tests.switch.conftest import LIMITS
from tests.switch.line import Line, code_of
from tests.switch.test_kills import ROUNDS, require_one_effect_each, round_after_round
from tests.switch.town import LIMITED_PAN, TERMINALS, Town, purchase, running_town, trade_now, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]

OF_WORKER = [[name for name in TERMINALS if worker_of(name, 2) == worker] for worker in range(2)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town whose switch has two workers."""
    with running_town(tmp_path_factory.mktemp("pair") / "site", workers=2, **LIMITS) as town:
        yield town


def workers(town: Town) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = town.status()["workers"]
    return found


def test_each_terminal_is_served_by_its_own_worker(pair: Town) -> None:
    before = [row["status"]["answered"].get("00", 0) for row in workers(pair)]
    first = pair.next_record()
    for terminal in TERMINALS[:4]:
        trio.run(trade_now, pair, terminal)
    pair.settle()
    for record in pair.records(first, RecordKind.INTENT):
        assert record.rrn % 2 == worker_of(record.terminal, 2)  # each numbers by itself, and no number is given twice
    after = [row["status"]["answered"].get("00", 0) for row in workers(pair)]
    assert all(now > then for now, then in zip(after, before, strict=True))
    assert pair.status()["answered"]["00"] == sum(after)
    pair.require_truth()


@pytest.mark.parametrize("name", ["", OF_WORKER[0][0].lower()])
def test_who_comes_to_another_worker_is_told_so(pair: Town, name: str) -> None:
    """Without its own id as server name a terminal may come to the wrong worker, which knows none of its keys."""
    lost = OF_WORKER[1][0]
    first = pair.next_record()
    with Line(pair, lost, server_name=name) as line:
        assert code_of(line.ask("sign-in", line.sign_in_values(0))) == "97"
    assert pair.reasons(first)["97", "another worker's terminal: the server name is not its id"] == 1
    trio.run(trade_now, pair, lost)


def test_a_terminal_that_names_nobody_is_served_if_it_belongs_to_the_first_worker(pair: Town) -> None:
    with Line(pair, OF_WORKER[0][0], server_name="").sign_in() as line:
        assert code_of(line.ask("farm-purchase", purchase())) == "00"


def test_a_limit_holds_across_workers(pair: Town) -> None:
    """Both have admitted as much as one card may have in all, when neither's intents are in the journal yet."""
    each = DAILY_CAP_FEN // 10_000
    first = pair.next_record()
    with Line(pair, OF_WORKER[0][0]).sign_in() as one, Line(pair, OF_WORKER[1][0]).sign_in() as other:
        asked = [
            (line, [line.message("withdrawal", withdrawal(10_000, LIMITED_PAN)) for _ in range(each)])
            for line in (one, other)
        ]
        with lmdb.open(str(pair.folder / "journal"), max_dbs=20) as journal:
            held = journal.begin(write=True)  # nobody else can commit
            for line, messages in asked:
                line.post(b"".join(map(line.codec.encode, messages)))
            pair.until(lambda status: status["in_flight"] == 2 * each)
            held.abort()
        codes = [Counter(code_of(line.answer(message.sequence)) for message in messages) for line, messages in asked]
    assert sum(codes, Counter()) == {"00": each, "61": each}
    pair.settle()
    kinds = Counter(record.kind for record in pair.records(first) if record.template == asked[0][1][0].template)
    assert kinds == {RecordKind.INTENT: 2 * each, RecordKind.OUTCOME: 2 * each}  # a refusal by a limit is on record too
    pair.require_truth()


def test_an_operator_sees_each_worker_and_the_sum(pair: Town) -> None:
    shown = CliRunner().invoke(main, ["status", "--home", str(pair.folder)])
    assert shown.exit_code == 0, shown.output
    assert f"switch, process {pair.process('switch').pid}" in shown.output
    for row in workers(pair):
        assert f" {row['process']} " in shown.output


def test_a_signal_to_the_switch_reaches_every_worker(pair: Town) -> None:
    before = pair.log("switch").count("certificates read again")
    os.kill(pair.process("switch").pid, signal.SIGHUP)
    pair.until(lambda _: pair.log("switch").count("certificates read again") == before + 2)


def test_workers_killed_under_load_again_and_again(fresh_town: FreshTown) -> None:
    """Its terminals find back to the one that takes its place; those of the other hear nothing of it."""
    with fresh_town(deadline_ms=2000, workers=2) as town:
        victims = cycle(range(2))

        def kill() -> None:
            row = workers(town)[next(victims)]
            os.kill(row["process"], signal.SIGKILL)
            town.until(lambda status: status["workers"][row["worker"]]["starts"] > row["starts"])

        load = trio.run(round_after_round, town, kill, max(2, ROUNDS // 2))
        assert set(load.codes()) <= {"00", "61", "98", "01", "25", "91"}, load.codes()
        require_one_effect_each(town, load)


def test_the_supervisor_killed_under_load_takes_its_workers_along(fresh_town: FreshTown) -> None:
    with fresh_town(deadline_ms=2000, workers=2) as town:

        def kill() -> None:
            town.kill("switch")
            town.restart("switch")
            town.process("switch").wait_ready()

        load = trio.run(round_after_round, town, kill, max(1, ROUNDS // 4))
        assert set(load.codes()) <= {"00", "61", "98", "01", "25", "91"}, load.codes()
        require_one_effect_each(town, load)


def test_stopped_under_load_every_worker_drains(fresh_town: FreshTown) -> None:
    with fresh_town(deadline_ms=30_000, drain_s=30, workers=2) as town:

        def stop() -> None:
            assert town.process("switch").stop() == 0, town.log("switch")[-4000:]
            town.restart("switch")
            town.process("switch").wait_ready()

        load = trio.run(round_after_round, town, stop, 1)
        assert set(load.codes()) <= {"00", "61"}, load.codes()
        assert not town.records(kind=RecordKind.REVERSAL)
        require_one_effect_each(town, load)


def test_another_number_of_workers_is_a_restart(fresh_town: FreshTown) -> None:
    """Whoever serves a terminal then knows what was answered before, finishes what is open, goes on in one chain."""
    with fresh_town(workers=2) as town:
        counters = {terminal: Counters() for terminal in TERMINALS[:4]}
        answers: dict[str, list[Response]] = {terminal: [] for terminal in counters}

        async def trade(terminal: str) -> None:
            async with town.client(terminal, counters[terminal]) as client:
                for response in answers[terminal]:
                    assert (await client.retry(response.request)).body == response.body
                for number in range(5):
                    answers[terminal].append(await client.trade("farm-purchase", purchase(100 + number)))

        async def all_trade() -> None:
            async with trio.open_nursery() as nursery:
                for terminal in counters:
                    nursery.start_soon(trade, terminal)

        for number in (1, 3):
            trio.run(all_trade)
            town.kill("switch")
            _set_workers(town.folder / "switch.toml", number)
            town.start("switch")
            assert len(town.status().get("workers", [0])) == number
        town.settle()
        assert len(town.require_truth()) == 2 * 4 * 5


def _set_workers(file: Path, number: int) -> None:
    lines = file.read_text("utf-8").splitlines()
    file.write_text("\n".join(f"workers = {number}" if line.startswith("workers") else line for line in lines), "utf-8")
