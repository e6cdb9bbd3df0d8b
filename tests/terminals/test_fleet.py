"""A fleet against the stand-in switch in a thread of its own."""

import time

import pytest

from fengshou.codecs import PrivateKey
from fengshou.ext.services.withdrawal import WITHDRAWAL
from fengshou.hsm import x509
from fengshou.protocol import elements as de
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import COMMAND_SIGN_IN, Flag
from fengshou.protocol.templates import SIGN_IN, SIGNER
from fengshou.terminals import fleet, fleet_terminal
from fengshou.terminals.fleet import FleetPlan, run_fleet
from fengshou.terminals.fleet_session import SignInRefused
from fengshou.terminals.latency import highest_of
from fengshou.terminals.signer_dialogue import SIGNER_NAME
from fengshou.terminals.trades import Trade
from tests.terminals.conftest import NOW

NAMES = ("FS000001", "FS000002", "FS000003")


def cash(count: int, terminal: str = "") -> list[Trade]:
    values = {de.PAN: "9156004000001267043", de.AMOUNT: 31_000, de.ENTRY_MODE: 52}
    return [Trade("withdrawal", values, terminal, expect="00") for _ in range(count)]


@pytest.fixture
def run(network, serving, tmp_path):
    """Runs a fleet of three terminals over trades; gives the stand-in and the result."""

    def go(trades, prepare=lambda stand_in: None, terminals=NAMES, watch=lambda progress: None, **plan):
        stand_in = network.stand_in()
        prepare(stand_in)
        seen = []

        def progress(so_far):
            seen.append(so_far)
            watch(so_far)

        with serving(stand_in):
            homes = tuple(str(network.home(tmp_path, name, stand_in.port).folder) for name in terminals)
            result = run_fleet(FleetPlan(homes=homes, progress_s=0.01, **plan), network.grammar, trades, progress)
        return stand_in, result, seen

    return go


#   plan of a run
PLANS = [
    {"in_flight": 1},
    {"in_flight": 8},
    {"rate": 400.0},
    {"in_flight": 4, "sign_ahead": 20},
    {"rate": 400.0, "sign_ahead": 1000},
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
def test_every_trade_is_made_once_and_counted(run, plan):
    stand_in, result, seen = run(cash(90), **plan)
    assert (result.sent, result.answered, result.unknown) == (90, 90, 0)
    assert result.codes == {"withdrawal": {"00": 90}}
    assert result.approved_fen == {"withdrawal": 90 * 31_000}
    assert len(set(stand_in.effects)) == len(stand_in.effects) == 90
    assert sum(result.latencies.values()) == 90
    assert result.connections == 3
    assert result.tls_bytes_up > result.frame_bytes_up > 90 * 64
    assert result.tls_bytes_down > result.frame_bytes_down > 0
    assert all(0 <= progress.answered <= 90 for progress in seen)


def test_trades_that_name_a_terminal_are_made_by_it_in_order(run):
    trades = [trade for pair in zip(*(cash(5, name) for name in NAMES), strict=True) for trade in pair]
    stand_in, _, _ = run(trades)
    for name in NAMES:
        stans = [stan for terminal, _, stan in stand_in.effects if terminal == name]
        assert stans == sorted(stans)
        assert len(stans) == 5


def test_cut_connections_cost_retries_and_nothing_else(run):
    def cut(stand_in):
        stand_in.cuts = [0, 5, 30, 1, 12, 400, 0, 3]

    stand_in, result, _ = run(cash(60), cut, in_flight=4)
    assert (result.answered, result.unknown, result.surprises) == (60, 0, [])
    assert len(set(stand_in.effects)) == len(stand_in.effects) == 60
    assert result.retries > 0
    assert result.connections > 3


def test_what_was_signed_ahead_for_a_lost_session_is_signed_again(run):
    def cut(stand_in):
        stand_in.cuts = [40, 0, 5, 30]

    stand_in, result, _ = run(cash(60), cut, in_flight=4, sign_ahead=20)
    assert result.signed_ahead == 60
    assert (result.answered, result.unknown, result.surprises) == (60, 0, [])
    assert len(set(stand_in.effects)) == len(stand_in.effects) == 60
    assert result.connections > 3


@pytest.fixture
def taken_over(monkeypatch):
    """Trades that were not ordinary: the tasks that were made for them."""
    tasks, start = [], fleet._Run.start

    def noted(self, work):
        tasks.append(work)
        start(self, work)

    monkeypatch.setattr(fleet._Run, "start", noted)
    return tasks


@pytest.mark.parametrize("plan", [{"in_flight": 4}, {"rate": 600.0}])
def test_an_ordinary_trade_needs_no_task(run, taken_over, plan):
    _, result, _ = run(cash(60), sign_ahead=20, **plan)
    assert (result.answered, result.approved_fen) == (60, {"withdrawal": 60 * 31_000})
    assert taken_over == []


#   answered first     trades that a task takes over, turned away
NOT_FINAL = [
    (["R0"],           1,                             {}),
    (["R0", "R0"],     1,                             {}),
    (["90"],           1,                             {"90": 1}),
    (["22"],           1,                             {"22": 1}),
    (["51"],           0,                             {}),
]  # fmt: skip


@pytest.mark.parametrize(("codes", "tasks", "turned_away"), NOT_FINAL)
def test_what_is_not_answered_for_good_is_taken_over_and_sent_again_under_its_key(
    run, taken_over, codes, tasks, turned_away
):
    def answer(stand_in):
        stand_in.codes = list(codes)

    stand_in, result, _ = run(cash(3, "FS000001"), answer, terminals=NAMES[:1], sign_ahead=3)
    assert len(taken_over) == tasks
    assert result.turned_away == turned_away
    assert result.retries == len(codes) * tasks
    assert result.answered == 3
    sent = [message for message in stand_in.seen if message.template == WITHDRAWAL.id]
    stan = sent[0].values[de.STAN]
    assert [bool(message.flags & Flag.REPEAT) for message in sent if message.values[de.STAN] == stan] == (
        [False] + [True] * len(codes) * tasks
    )
    assert result.sign_ins == (3 if codes == ["22"] else 2)  # one asks for the batch


def test_an_answer_that_demands_a_sign_in_gets_it_before_the_next_trade(run):
    def demand(stand_in):
        stand_in.command = COMMAND_SIGN_IN

    stand_in, result, _ = run(cash(3, "FS000001"), demand, terminals=NAMES[:1])
    assert result.codes == {"withdrawal": {"00": 3}}
    order = [message.template for message in stand_in.seen]
    assert order == [SIGN_IN.id] + 3 * [SIGN_IN.id, WITHDRAWAL.id]


def test_a_connection_that_brings_no_answer_is_given_up_and_the_trade_made_over_another(run, monkeypatch):
    monkeypatch.setattr(fleet_terminal, "ANSWER_S", 0.2)

    def silence(stand_in):
        stand_in.mute = 1

    stand_in, result, _ = run(cash(4, "FS000001"), silence, terminals=NAMES[:1], sign_ahead=4)
    assert (result.answered, result.unknown, result.connections, result.retries) == (4, 0, 2, 1)
    assert len(set(stand_in.effects)) == len(stand_in.effects) == 4


@pytest.mark.parametrize("plan", [{"receipt_every": 3}, {"repeat_every": 3}])
def test_what_was_signed_ahead_is_signed_again_when_a_later_sequence_has_left(run, plan):
    _, result, _ = run(cash(12, "FS000001"), terminals=NAMES[:1], sign_ahead=12, **plan)
    assert result.codes == {"withdrawal": {"00": 12}}
    assert result.receipts_verified + result.repeats_equal == 4


def test_an_open_loop_that_is_late_itself_makes_what_was_due_and_says_how_late(run):
    """The fleet stands still for a second: nothing that was due then is left out, and all of it is late."""
    stalled = []

    def stall(progress):
        if progress.sent and not stalled:
            stalled.append(progress.sent)
            time.sleep(1)

    _, result, _ = run(iter(lambda: cash(1)[0], None), watch=stall, rate=50.0, seconds=1.6)
    assert stalled
    assert result.sent == result.answered == sum(result.latencies.values()) == 80
    late = sum(count for bucket, count in result.latencies.items() if highest_of(bucket) >= 500_000)
    assert late >= 23  # due in the first half of that second: 25


def test_what_is_turned_away_is_asked_again_and_told(run):
    def busy(stand_in):
        stand_in.codes = ["90", "09"]

    _, result, _ = run(cash(6), busy, sign_ahead=6)
    assert result.turned_away == {"90": 1, "09": 1}
    assert result.codes == {"withdrawal": {"00": 6}}


def test_repeats_get_the_same_answer(run):
    stand_in, result, _ = run(cash(30), repeat_every=3)
    assert (result.repeats_equal, result.repeats_different) == (10, 0)
    assert len(stand_in.effects) == 30


def test_receipts_are_verified(run):
    _, result, _ = run(cash(12), receipt_every=2)
    assert (result.receipts_verified, result.receipts_missing, result.receipts_invalid) == (6, 0, 0)


def test_a_receipt_of_another_signer_is_found_out(run, network):
    def forge(stand_in):
        stand_in.signing_key = network.terminal_keys["FS000001"]

    _, result, _ = run(cash(4), forge, receipt_every=1)
    assert (result.receipts_verified, result.receipts_invalid) == (0, 4)


def test_a_renewed_signer_is_learnt_from_the_switch(run, network):
    key = PrivateKey.generate()
    certificate = network.authority.issue(x509.PUBLISHER, x509.Subject(SIGNER_NAME), key.public_key, NOW)

    def renew(stand_in):
        stand_in.signing_key, stand_in.signer = key, {de.CERTIFICATE: certificate.der}

    stand_in, result, _ = run([trade for name in NAMES for trade in cash(3, name)], renew, receipt_every=1)
    assert (result.receipts_verified, result.receipts_invalid) == (9, 0)
    assert [message.template for message in stand_in.seen].count(SIGNER.id) == len(NAMES)


def test_an_unexpected_code_is_told(run):
    def decline(stand_in):
        stand_in.codes = ["51"]

    _, result, _ = run(cash(3), decline)
    assert result.codes == {"withdrawal": {"00": 2, "51": 1}}
    assert result.surprises == ["step 0 withdrawal: 51 instead of 00"]


def test_silence_is_counted_as_unknown(run):
    def silence(stand_in):
        stand_in.mute = 2

    stand_in, result, _ = run(cash(2, "FS000001"), silence, give_up_s=0.3, in_flight=2)
    assert (result.sent, result.answered, result.unknown) == (2, 0, 2)
    assert len(stand_in.effects) == 2


def test_what_was_sent_in_a_closed_batch_is_unknown_and_not_sent_in_the_next(run):
    """The first answer is cut off; when the terminal comes back, the switch is two batches further."""

    def close_batch(stand_in):
        stand_in.cuts = [0]
        stand_in.leaps = [2]

    stand_in, result, _ = run(cash(3, "FS000001"), close_batch, terminals=NAMES[:1])
    assert (result.sent, result.answered, result.unknown) == (3, 2, 1)
    assert len(set(stand_in.effects)) == len(stand_in.effects) == 3


def test_the_clock_ends_a_run(run):
    stand_in, result, _ = run(iter(lambda: cash(1)[0], None), seconds=0.3)
    assert result.sent == result.answered == len(stand_in.effects) > 0


#   a trade                                                       what ends the run
FAULTS = [
    (Trade("no-such-template", {}),                               LookupError),
    (Trade("withdrawal", {}, "FS999999"),                         LookupError),
    (Trade("withdrawal", {de.AMOUNT: 1}, reverses=7),             LookupError),
    (Trade("withdrawal", {de.AMOUNT: -1}),                        UntrustedBytesError),
]  # fmt: skip


@pytest.mark.parametrize(("trade", "raised"), FAULTS)
def test_a_trade_that_cannot_be_made_ends_the_run(run, trade, raised):
    with pytest.raises(raised):
        run([*cash(3), trade])


def test_a_terminal_that_is_refused_ends_the_run(run):
    def refuse(stand_in):
        stand_in.sign_in_codes = ["97"]

    with pytest.raises(SignInRefused, match="97"):
        run(cash(3), refuse)
