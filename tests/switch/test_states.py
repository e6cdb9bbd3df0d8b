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

T, V = transactions.State, transactions.Event
_ = None
TRANSACTION_TABLE = [
    #              received      refused  journalled   sent         approved     declined  unknown      reversed
    (V.REFUSE,     T.REFUSED,    _,       _,           _,           _,           _,        _,           _),
    (V.JOURNAL,    T.JOURNALLED, _,       _,           _,           _,           _,        _,           _),
    (V.SEND,       _,            _,       T.SENT,      _,           _,           _,        _,           _),
    (V.APPROVE,    _,            _,       T.APPROVED,  T.APPROVED,  _,           _,        _,           _),
    (V.DECLINE,    _,            _,       T.DECLINED,  T.DECLINED,  _,           _,        _,           _),
    (V.LOSE,       _,            _,       T.UNKNOWN,   T.UNKNOWN,   _,           _,        _,           _),
    (V.LATE_REPLY, _,            _,       _,           _,           _,           _,        T.UNKNOWN,   T.REVERSED),
    (V.REVERSE,    _,            _,       _,           _,           T.REVERSED,  _,        T.REVERSED,  _),
]  # fmt: skip


def test_the_tables_here_are_whole() -> None:
    assert {row[0] for row in SESSION_TABLE} == set(E)
    assert {row[0] for row in TRANSACTION_TABLE} == set(V)
    assert all(len(row) == len(S) + 1 for row in SESSION_TABLE)
    assert all(len(row) == len(T) + 1 for row in TRANSACTION_TABLE)


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


@pytest.mark.parametrize(
    ("state", "event", "target"),
    [(state, row[0], target) for row in TRANSACTION_TABLE for state, target in zip(T, row[1:], strict=True)],
)
def test_transaction(state: transactions.State, event: transactions.Event, target: transactions.State | None) -> None:
    if target is not None:
        assert transactions.step(state, event) is target
    else:
        with pytest.raises(transactions.UnlawfulEvent, match=f"{event.value} while {state.value}"):
            transactions.step(state, event)


def test_money_is_never_left_in_between() -> None:
    """From every state a transaction can still come to an end, and what has ended in approval or refusal stays told."""
    ends = {T.REFUSED, T.DECLINED, T.APPROVED, T.REVERSED}
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
    assert not any(source is T.DECLINED or source is T.REFUSED for source, _event in transactions.TRANSITIONS)


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
