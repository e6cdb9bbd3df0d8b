"""What a terminal counts, over restarts and torn files, and how it goes through a settlement."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.ext.services import balance, deposit, farm_purchase, reversal
from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState, Line, Side, unpack_details
from fengshou.protocol.message import Value
from fengshou.protocol.templates import RECEIPT, Template
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.settlement import Settling

BUY, PAY_IN = farm_purchase.FARM_PURCHASE, deposit.DEPOSIT
REVERSE, ASK = reversal.REVERSAL, balance.BALANCE


def said(stan: int, fen: int = 100, original: int = 0) -> dict[int, Value]:
    values: dict[int, Value] = {de.STAN: stan, de.AMOUNT: fen}
    return {**values, de.ORIGINAL_BATCH: 7, de.ORIGINAL_STAN: original} if original else values


# fmt: off
NOTED = (
    # answers: template, values, code                                            what counts in batch 7
    ([(BUY, said(1), "00")],                                                      [Line(1, Side.DEBIT, 100)]),
    ([(PAY_IN, said(1, 5), "00")],                                                [Line(1, Side.CREDIT, 5)]),
    ([(BUY, said(1), "00"), (BUY, said(1), "00")],                                [Line(1, Side.DEBIT, 100)]),
    ([(BUY, said(1), "51"), (BUY, said(2), "98"), (BUY, said(3), "09")],          []),
    ([(ASK, said(1), "00")],                                                      []),
    ([(BUY, said(1), "00"), (REVERSE, said(2, 100, 1), "00")],                    []),
    ([(BUY, said(1), "00"), (REVERSE, said(2, 100, 1), "98")],                    []),
    ([(BUY, said(1), "00"), (REVERSE, said(2, 100, 1), "64")],                    [Line(1, Side.DEBIT, 100)]),
    ([(BUY, said(1), "00"), (REVERSE, said(2, 100, 1), "00"), (BUY, said(1), "00")], []),  # a repeat after all
    ([(BUY, said(1), "00"), (RECEIPT, said(0, 100, 1), "00")],                    [Line(1, Side.DEBIT, 100)]),
)
# fmt: on


@pytest.mark.parametrize(("answers", "counts"), NOTED)
def test_what_counts(
    answers: list[tuple[Template, Mapping[int, Value], str]], counts: list[Line], tmp_path: Path
) -> None:
    kept = BatchLog(tmp_path / "batches.jsonl")
    for log in (BatchLog(), kept):
        for template, values, code in answers:
            log.note(template, 7, values, code)
        assert log.lines(7) == counts
        assert log.batches() == ([7] if counts else [])
    assert BatchLog(tmp_path / "batches.jsonl").lines(7) == counts


@given(st.data())
def test_a_torn_file_keeps_what_was_whole(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("log") / "batches.jsonl"
    log = BatchLog(path)
    for stan in (1, 2, 3):
        log.note(BUY, 7, said(stan), "00")
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:size])
    again = BatchLog(path)
    assert [line.stan for line in again.lines(7)] == list(range(1, whole[:size].count(b"]") + 1))
    again.note(BUY, 7, said(9), "00")
    assert [line.stan for line in BatchLog(path).lines(7)][-1] == 9


def test_a_settled_batch_is_forgotten_and_the_others_stay(tmp_path: Path) -> None:
    log = BatchLog(tmp_path / "batches.jsonl")
    for batch in (7, 8):
        log.note(BUY, batch, said(1), "00")
    log.forget(7)
    assert log.batches() == BatchLog(tmp_path / "batches.jsonl").batches() == [8]


MANY = [Line(stan, Side.DEBIT, 100_000_000) for stan in range(1, 1_001)]  # three messages of details


def answers(settling: Settling, *told: tuple[str, int | None]) -> list[int]:
    """Give these answers; returns which message of details each was given to, 0 the totals."""
    asked = []
    for code, here in told:
        template, values = settling.next()
        number = values.get(de.MESSAGE_NUMBER, 0)
        assert isinstance(number, int)
        assert (template == "settle") == (number == 0)
        asked.append(number)
        settling.answered(code, {} if here is None else {de.MESSAGE_NUMBER: here})
    return asked


# fmt: off
WAYS = (
    # answers                                                  asked            how it ends
    ([("00", None)],                                           [0],             BatchState.BALANCED),
    ([("95", 0), ("00", 1), ("00", 2), ("00", 3)],             [0, 1, 2, 3],    BatchState.DIFFERS),
    ([("95", 2), ("00", 3)],                                   [0, 3],          BatchState.DIFFERS),   # two were told
    ([("95", 3)],                                              [0],             BatchState.DIFFERS),   # all were
    ([("95", 0), ("79", 2), ("00", 3)],                        [0, 1, 3],       BatchState.DIFFERS),   # one was
    ([("95", 0), ("79", 0)],                                   [0, 1],          BatchState.AWAITING_DETAILS),
    ([("94", None)],                                           [0],             BatchState.OPEN),
    ([("95", 0), ("96", None)],                                [0, 1],          BatchState.AWAITING_DETAILS),
)
# fmt: on


@pytest.mark.parametrize(("told", "asked", "state"), WAYS)
def test_settling(told: list[tuple[str, int | None]], asked: list[int], state: BatchState) -> None:
    settling = Settling(7, MANY)
    assert answers(settling, *told) == asked
    assert settling.done
    assert settling.result.state is state
    assert settling.result.code == told[-1][0]


def test_details_tell_every_line_once() -> None:
    settling, found = Settling(7, MANY), list[Line]()
    settling.answered("95", {})
    while not settling.done:
        _, values = settling.next()
        part, number = values[de.DETAILS], values[de.MESSAGE_NUMBER]
        assert isinstance(part, bytes)
        found += unpack_details(part)
        settling.answered("00", {de.MESSAGE_NUMBER: number})
    assert found == MANY
