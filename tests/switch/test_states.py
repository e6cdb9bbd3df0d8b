"""Every event in every state of the session and of the transaction: the transition of the table, or a named refusal."""

import itertools

import pytest

from fengshou.protocol import session as sessions
from fengshou.protocol import transaction as transactions
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.session import SessionRefusal, SwitchSession
from fengshou.protocol.templates import ECHO, RECEIPT, SIGN_IN, SIGN_OFF

S, E = sessions.State, sessions.Event
C, I, X = S.CONNECTED, S.SIGNED_IN, S.CLOSED  # noqa: E741 one letter a column

SESSION_TABLE = [
    #             connected  signed in  closed
    (E.ECHO,      C,         I,         None),
    (E.SIGN_IN,   I,         I,         None),
    (E.SIGN_OFF,  None,      C,         None),
    (E.REQUEST,   None,      I,         None),
    (E.CLOSE,     X,         X,         X),
]  # fmt: skip

T, V, N = transactions.State, transactions.Event, transactions.Refusal
# Names of the columns and of what stands in them; a refusal begins with a hyphen.
NAMES: dict[str, transactions.State | transactions.Refusal] = {
    "rec": T.RECEIVED,
    "ref": T.REFUSED,
    "tomb": T.TOMBSTONE,
    "jour": T.JOURNALLED,
    "sent": T.SENT,
    "answ": T.ANSWERED,
    "tout": T.TIMED_OUT,
    "appr": T.APPROVED,
    "decl": T.DECLINED,
    "rdue": T.REVERSAL_DUE,
    "rsent": T.REVERSAL_SENT,
    "revd": T.REVERSED,
    "adue": T.ADVICE_DUE,
    "asent": T.ADVICE_SENT,
    "disp": T.DISPUTED,
    "pdue": T.REPEAT_DUE,
    "-int": N.NO_INTENT,
    "-nevr": N.NEVER_BEGAN,
    "-stnd": N.INTENT_STANDS,
    "-nsnt": N.NOTHING_SENT,
    "-fly": N.IN_FLIGHT,
    "-nout": N.NO_OUTCOME,
    "-know": N.OUTCOME_KNOWN,
    "-unkn": N.OUTCOME_UNKNOWN,
    "-end": N.OUTCOME_STANDS,
    "-othr": N.ANOTHER_OWED,
    "-owed": N.NOTHING_OWED,
}
TRANSACTION_TABLE = """
event         rec   ref   tomb  jour  sent  answ  tout  appr  decl  rdue  rsent revd  adue  asent disp  pdue
REFUSE        ref   -nevr tomb  -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd
BAR           tomb  -nevr -nevr -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd
JOURNAL       jour  -nevr -nevr -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd -stnd
SEND          -int  -nevr -nevr sent  -fly  -know -unkn -end  -end  rsent -fly  -end  asent -fly  -end  sent
REPLY         -int  -nevr -nevr -nsnt answ  -know -unkn -end  -end  -nsnt rdue  -end  -nsnt adue  -end  answ
UNSENT        -int  -nevr -nevr answ  answ  -know -unkn -end  -end  -nsnt rdue  -end  -nsnt adue  -end  -nsnt
LOSE          -int  -nevr -nevr -nsnt tout  -know -unkn -end  -end  -nsnt rdue  -end  -nsnt adue  -end  -nsnt
APPROVE       -int  -nevr -nevr appr  -fly  appr  -unkn -end  -end  -end  -end  -end  -end  -end  -end  -nout
DECLINE       -int  -nevr -nevr decl  -fly  decl  decl  -end  -end  -end  -end  -end  -end  -end  -end  -nout
OWE           -int  -nevr -nevr rdue  -fly  rdue  rdue  rdue  -end  -end  -end  -end  rdue  rdue  -end  -nout
ACCEPT        -int  -nevr -nevr adue  -fly  -know -unkn -end  -end  -end  -end  -end  -end  -end  -end  -nout
KEEP          -int  -nevr -nevr pdue  -fly  pdue  pdue  -end  -end  -end  -end  -end  -end  -end  -end  -nout
REVERSE       -int  -nevr -nevr -nout -nout -nout -nout revd  -owed revd  revd  -owed -othr -othr -owed -nout
ADVISE        -int  -nevr -nevr -nout -nout -nout -nout -owed -owed -othr -othr -owed appr  appr  -owed -nout
DISPUTE       -int  -nevr -nevr -nout -nout -nout -nout -owed -owed -othr -othr -owed disp  disp  -owed -nout
LATE_APPROVAL -int  -nevr -nevr -nsnt -fly  -know tout  -end  decl  rdue  rsent rdue  -end  -end  -end  pdue
LATE_DECLINE  -int  -nevr -nevr -nsnt -fly  -know tout  -end  decl  rdue  rsent revd  -end  -end  -end  pdue
"""
_HEAD, *_ROWS = [line.split() for line in TRANSACTION_TABLE.strip().splitlines()]
CELLS = [
    (NAMES[column], V[name], NAMES[cell])
    for name, *cells in _ROWS
    for column, cell in zip(_HEAD[1:], cells, strict=True)
]


def test_the_tables_here_are_whole() -> None:
    assert {row[0] for row in SESSION_TABLE} == set(E)
    assert all(len(row) == len(S) + 1 for row in SESSION_TABLE)
    assert {(state, event) for state, event, _ in CELLS} == set(itertools.product(T, V))
    assert len(CELLS) == len(T) * len(V)
    assert {cell for _, _, cell in CELLS} == {*T, *N} - {T.RECEIVED}, "each state can be reached, each refusal happens"


@pytest.mark.parametrize(
    ("state", "event", "target"),
    [(state, row[0], target) for row in SESSION_TABLE for state, target in zip((C, I, X), row[1:], strict=True)],
)
def test_session(state: sessions.State, event: sessions.Event, target: sessions.State | None) -> None:
    session = SwitchSession(bytes(32), state=state)
    if target is not None:
        session.advance(event)
        assert session.state is target
    else:
        with pytest.raises(sessions.UnlawfulEvent, match=event.value):
            session.advance(event, {})
        assert session.state is state  # nothing has changed


@pytest.mark.parametrize(("state", "event", "expected"), CELLS)
def test_transaction(
    state: transactions.State, event: transactions.Event, expected: transactions.State | transactions.Refusal
) -> None:
    machine = transactions.Machine()
    if isinstance(expected, transactions.State):
        assert machine.step(state, event) is expected
        assert machine.taken == {(state, event): 1}
    else:
        with pytest.raises(transactions.UnlawfulEvent, match=f"{event.value} while {state.value}") as refused:
            machine.step(state, event)
        assert refused.value.refusal is expected
        assert not machine.taken


def test_each_transition_is_counted_under_a_name() -> None:
    machine = transactions.Machine()
    counts = machine.counts()
    assert len(counts) == len(transactions.TRANSITIONS)
    assert not any(counts.values())
    machine.step(T.SENT, V.LOSE)
    assert machine.counts() == {**counts, "sent: no reply": 1}


def test_money_is_never_left_in_between() -> None:
    """From every state a transaction can still come to an end, and what has ended in approval or refusal stays told."""
    ends = {T.REFUSED, T.TOMBSTONE, T.DECLINED, T.APPROVED, T.REVERSED, T.DISPUTED}
    for state in T:
        reached, frontier = {state}, [state]
        while frontier:
            here = frontier.pop()
            for event in V:
                target = transactions.TRANSITIONS.get((here, event))
                if target is not None and target not in reached:
                    reached.add(target)
                    frontier.append(target)
        assert reached & ends, state
        if state in {T.DECLINED, T.REFUSED, T.TOMBSTONE, T.DISPUTED}:
            assert reached == {state}


R = SessionRefusal


@pytest.mark.parametrize(
    ("template", "connected", "signed_in"),
    [
        (SIGN_IN.id,  None,             None),
        (SIGN_OFF.id, R.NOT_SIGNED_IN,  None),
        (ECHO.id,     None,             None),
        (RECEIPT.id,  R.NOT_SIGNED_IN,  None),
        (1,           R.NOT_SIGNED_IN,  None),
    ],
)  # fmt: skip
def test_what_a_session_refuses(template: int, connected: R | None, signed_in: R | None) -> None:
    for state, expected in ((C, connected), (I, signed_in), (X, R.CLOSED)):
        session = SwitchSession(bytes(32), state=state)
        assert session.refusal(Message(template, 0, 1)) is expected
        assert session.state is state
        assert session.refusal(Message(template, Flag.RESPONSE, 2)) in (R.RESPONSE_UNEXPECTED, R.CLOSED)


def test_a_sequence_only_grows_whatever_becomes_of_its_message() -> None:
    session = SwitchSession(bytes(32))
    highest = 2**63 - 1
    lawful = {5: R.NOT_SIGNED_IN, highest: R.NOT_SIGNED_IN}
    for sequence in (5, 5, 4, 0, highest):
        expected = R.REPLAY if sequence <= session.last_sequence else lawful[sequence]
        assert session.refusal(Message(1, 0, sequence)) is expected
    for sequence in itertools.islice(itertools.count(), 10):
        assert session.refusal(Message(1, 0, sequence)) is R.REPLAY
