"""Settlement by the contract alone: what a batch in the journal, and what a terminal says of it, come to."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.ext.services.settlement import Settlement
from fengshou.protocol import elements as de
from fengshou.protocol import limits
from fengshou.protocol.batch import (
    DETAILS_BYTES_MAX,
    STAN_MAX,
    Batch,
    BatchState,
    Difference,
    Line,
    Side,
    Totals,
    mismatches,
    pack_details,
    unpack_details,
)
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.service import Answer, Request

Ask = Callable[..., Request]

LINES = (Line(3, Side.DEBIT, 30_000), Line(4, Side.CREDIT, 12_345), Line(9, Side.DEBIT, 10_000))
SAME = Totals(2, 40_000, 1, 12_345)
OTHER = Totals(2, 40_001, 1, 12_345)
PART = pack_details(LINES[:1])[0]
REST = pack_details(LINES[1:])[0]

OPEN, BALANCED, AWAITING, DIFFERS = BatchState


def batch(state: BatchState = OPEN, **changed: Any) -> Batch:
    known: dict[str, Any] = {"in_flight": False, "lines": LINES, **changed}
    return Batch(6, state, **known)


# fmt: off
TOTALS = (
    # what the journal has                          stated changes        code  DE 66  DE 71  becomes
    (batch(),                                       {},                   "00", 1,     None,  BALANCED),
    (batch(lines=()),                               {"debits": 0, "debits_amount": 0, "credits": 0,
                                                     "credits_amount": 0}, "00", 1,    None,  BALANCED),
    (batch(),                                       {"debits": 3},        "95", 2,     0,     AWAITING),
    (batch(),                                       {"debits_amount": 1}, "95", 2,     0,     AWAITING),
    (batch(),                                       {"credits": 0},       "95", 2,     0,     AWAITING),
    (batch(),                                       {"credits_amount": 12_344}, "95", 2, 0,   AWAITING),
    (batch(lines=LINES[:2]),                        {},                   "95", 2,     0,     AWAITING),
    (batch(in_flight=True),                         {},                   "09", None,  None,  None),
    (None,                                          {},                   "25", None,  None,  None),
    # asked again under another key: the same answer, and nothing is settled twice
    (batch(BALANCED, stated=SAME),                  {},                   "00", 1,     None,  None),
    (batch(BALANCED, stated=SAME, lines=LINES[:2]), {},                   "00", 1,     None,  None),
    (batch(AWAITING, stated=SAME, lines=LINES[:2]), {},                   "95", 2,     0,     None),
    (batch(AWAITING, stated=SAME, details=(PART,)), {},                   "95", 2,     1,     None),
    (batch(DIFFERS, stated=SAME, details=(PART, REST)), {},               "95", 2,     2,     None),
    (batch(BALANCED, stated=OTHER),                 {},                   "94", None,  None,  None),
    (batch(AWAITING, stated=OTHER),                 {},                   "94", None,  None,  None),
)

DETAILS = (
    # what the journal has                            message              code  DE 66  DE 71  becomes
    (batch(AWAITING),                                 (1, 2, PART),        "00", None,  1,     AWAITING),
    (batch(AWAITING, details=(PART,)),                (2, 2, REST),        "00", 2,     2,     DIFFERS),
    (batch(AWAITING),                                 (1, 1, b""),         "00", 2,     1,     DIFFERS),
    # what came before may come again, as it was
    (batch(AWAITING, details=(PART,)),                (1, 2, PART),        "00", None,  1,     None),
    (batch(DIFFERS, details=(PART, REST)),            (2, 2, REST),        "00", 2,     2,     None),
    (batch(AWAITING, details=(PART,)),                (1, 2, REST),        "79", None,  1,     None),
    (batch(DIFFERS, details=(PART, REST)),            (2, 2, PART),        "79", None,  2,     None),
    # not the next, or nobody waits for it
    (batch(AWAITING),                                 (2, 2, REST),        "79", None,  0,     None),
    (batch(AWAITING, details=(PART,)),                (3, 3, REST),        "79", None,  1,     None),
    (batch(DIFFERS, details=(PART, REST)),            (3, 3, REST),        "79", None,  2,     None),
    (batch(OPEN),                                     (1, 2, PART),        "79", None,  0,     None),
    (batch(BALANCED),                                 (1, 2, PART),        "79", None,  0,     None),
    (batch(AWAITING, in_flight=True),                 (1, 2, PART),        "09", None,  0,     None),
    (None,                                            (1, 2, PART),        "25", None,  0,     None),
)
# fmt: on


def _said(answer: object) -> tuple[Any, ...]:
    assert isinstance(answer, Answer)
    return answer.code, answer.values.get(de.SETTLEMENT_CODE), answer.values.get(de.MESSAGE_NUMBER), answer.settles


@pytest.mark.parametrize(("known", "changes", "code", "flag", "here", "becomes"), TOTALS)
def test_totals(
    ask: Ask, known: Batch | None, changes: dict[str, Any], code: str, flag: int, here: int, becomes: BatchState
) -> None:
    request = ask("settlement", batch=known, **changes)
    assert Settlement().batch_named(request) == 6
    answer = Settlement().call(request)
    assert _said(answer) == (code, flag, here, becomes)
    if code == "95":
        assert known is not None
        ours = Totals(*(answer.values[key] for key in (de.DEBITS, de.DEBITS_AMOUNT, de.CREDITS, de.CREDITS_AMOUNT)))
        assert ours == Totals.of(known.lines)


@pytest.mark.parametrize(("known", "message", "code", "flag", "here", "becomes"), DETAILS)
def test_details(
    ask: Ask, known: Batch | None, message: tuple[int, int, bytes], code: str, flag: int, here: int, becomes: BatchState
) -> None:
    number, last, details = message
    request = ask("settlement", template=1, batch=known, message_number=number, last_message=last, details=details)
    assert _said(Settlement().call(request)) == (code, flag, here, becomes)


def _lines() -> st.SearchStrategy[list[Line]]:
    line = st.builds(Line, st.integers(1, STAN_MAX), st.sampled_from(Side), st.integers(1, limits.AMOUNT_FEN_MAX))
    return st.lists(line, unique_by=lambda line: line.stan, max_size=2_000)


@given(_lines())
def test_details_say_every_transaction_in_few_bytes(lines: list[Line]) -> None:
    parts = pack_details(lines)
    assert all(len(part) <= DETAILS_BYTES_MAX for part in parts)
    assert [line for part in parts for line in unpack_details(part)] == sorted(lines)


@given(st.binary(max_size=64))
def test_any_bytes_are_details_or_refused(untrusted: bytes) -> None:
    try:
        lines = unpack_details(untrusted)
    except UntrustedBytesError:
        return
    assert [line.stan for line in lines] == sorted({line.stan for line in lines})
    assert b"".join(pack_details(lines)) == untrusted


@given(_lines(), st.data())
def test_every_difference_is_named_once(lines: list[Line], data: st.DataObject) -> None:
    theirs, expected = [], {}
    for line in lines:
        match data.draw(st.sampled_from(("same", "lost", "amount", "side"))):
            case "same":
                theirs.append(line)
            case "lost":
                expected[line.stan] = Difference.MISSING_THERE
            case "amount":
                theirs.append(Line(line.stan, line.side, line.fen + 1))
                expected[line.stan] = Difference.DIFFERS
            case "side":
                side = Side.CREDIT if line.side is Side.DEBIT else Side.DEBIT
                theirs.append(Line(line.stan, side, line.fen))
                expected[line.stan] = Difference.DIFFERS
    unknown = STAN_MAX + 1
    theirs.append(Line(unknown, Side.DEBIT, 1))
    expected[unknown] = Difference.MISSING_HERE
    found = mismatches(lines, theirs)
    assert {one.stan: one.difference for one in found} == expected
    assert len(found) == len(expected)
