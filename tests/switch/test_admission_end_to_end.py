"""Who may do what, one effect a key, and bounds: codes that a terminal gets, and what else goes on meanwhile."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import trio

from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_SIGN_IN
from fengshou.protocol.record import RecordKind
from fengshou.switch.config import load
from fengshou.switch.enrolment import publish_app
from fengshou.terminals.binding import Status
from tests.switch.line import Closed, Line, code_of
from tests.switch.town import (
    APP,
    FARMER,
    LIMITED_PAN,
    NO_CASH,
    PAN,
    POOR_PAN,
    READER_APP,
    SERVICES,
    SLOW_HANDED,
    TERMINALS,
    VERSION,
    Town,
    enquiry,
    purchase,
    reversal,
    trade_now,
    withdrawal,
)

FreshTown = Callable[..., AbstractContextManager[Town]]

DEPOSIT = {de.AMOUNT: 5_000, de.ENTRY_MODE: 12, de.TO_ACCOUNT: FARMER, de.LOCAL_TIME: 72_150, de.LOCAL_DATE: 320}


# Ladders, through the whole switch -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "values", "code"),
    [
        ("farm-purchase", purchase(),                          "00"),
        ("farm-purchase", purchase(AMOUNT=12_120_015),         "13"),  # weight × price is 12,120,014
        ("farm-purchase", purchase(AMOUNT=0),                  "13"),
        ("farm-purchase", purchase(PRODUCT=4000),              "12"),
        ("farm-purchase", purchase(VARIETY=250),               "12"),
        ("farm-purchase", purchase(GRADE=9),                   "12"),
        ("farm-purchase", purchase(ENTRY_MODE=999),            "30"),
        ("farm-purchase", purchase(LOCAL_DATE=231),             "30"),
        ("farm-purchase", purchase(TO_ACCOUNT="9999999999"),   "42"),  # by the host: no such account
        ("farm-purchase", purchase(PAN=PAN),                   "12"),  # a card that was keyed
        ("withdrawal",    withdrawal(10_001),                  "13"),
        ("withdrawal",    withdrawal(pan="9156004000001267044"), "14"),
        ("withdrawal",    withdrawal(1_000, POOR_PAN),         "51"),
        ("deposit",       DEPOSIT,                             "00"),
        ("deposit",       {**DEPOSIT, de.PAN: PAN},            "30"),
        ("gov-enquiry",   enquiry(),                           "00"),
        ("gov-enquiry",   {**enquiry(), de.ITEM: 999},         "40"),
    ],
)  # fmt: skip
def test_a_rung_that_does_not_hold_gives_its_code(town: Town, template: str, values: dict[int, Any], code: str) -> None:
    with Line(town, TERMINALS[2]).sign_in() as line:
        response = line.ask(template, values)
        again = line.ask(template, {**values, de.STAN: line.last_stan}, repeat=True)
    assert code_of(response) == code, response.values
    assert again.values == response.values  # a refusal of the ladder is an outcome like any other


def test_a_service_must_be_allowed_to_terminal_and_application(town: Town) -> None:
    first = town.next_record()
    with Line(town, NO_CASH).sign_in() as line:
        assert code_of(line.ask("withdrawal", withdrawal())) == "58"
        assert code_of(line.ask("farm-purchase", purchase())) == "00"
    with Line(town, TERMINALS[3]) as line:
        with town.registry() as registry:
            manifest = registry.snapshot().app(READER_APP, VERSION)
        assert manifest is not None
        line.sign_in(APP=READER_APP, APP_MANIFEST=manifest.digest)
        assert code_of(line.ask("farm-purchase", purchase())) == "58"
        assert code_of(line.ask("gov-enquiry", enquiry())) == "00"
    assert town.reasons(first) == {
        ("58", "service withdrawal is not permitted"): 1,
        ("58", "service farm-purchase is not permitted"): 1,
    }


# One effect a key ----------------------------------------------------------------------------------------------------


def test_a_repeat_is_answered_byte_for_byte_from_any_session(town: Town) -> None:
    with Line(town, TERMINALS[2]).sign_in() as line:
        first = line.ask("farm-purchase", purchase())
        batch, stan = line.batch, line.last_stan
        posted = len(town.books()["transactions"])
        again = line.ask("farm-purchase", {**purchase(), de.STAN: stan}, repeat=True)
    with Line(town, TERMINALS[2]).sign_in_to(batch) as later:
        third = later.ask("farm-purchase", {**purchase(), de.STAN: stan})
        bodies = {later.body(message) for message in (first, again, third)}
    assert code_of(first) == "00"
    assert len(bodies) == 1
    assert len(town.books()["transactions"]) == posted


def test_the_same_key_with_another_body_is_refused(town: Town) -> None:
    first = town.next_record()
    with Line(town, TERMINALS[2]).sign_in() as line:
        assert code_of(line.ask("farm-purchase", purchase())) == "00"
        for other in (purchase(100), purchase(LOT="7"), purchase(LOCAL_TIME=72_151)):
            assert code_of(line.ask("farm-purchase", {**other, de.STAN: line.last_stan})) == "94"
        assert code_of(line.ask("withdrawal", {**withdrawal(), de.STAN: line.last_stan})) == "94"
    assert town.reasons(first) == {("94", "another content under the same key"): 4}


def test_a_key_in_flight_is_09_and_its_other_body_94(town: Town) -> None:
    with Line(town, TERMINALS[2]).sign_in() as line:
        with town.frozen("core-banking"):
            values = {**purchase(), de.STAN: 77}
            waiting = line.message("farm-purchase", values)
            line.post(line.codec.encode(waiting))
            assert code_of(line.ask("farm-purchase", values, repeat=True)) == "09"
            assert code_of(line.ask("farm-purchase", {**purchase(100), de.STAN: 77})) == "94"
        assert code_of(line.answer(waiting.sequence)) == "00"
        assert code_of(line.ask("farm-purchase", values, repeat=True)) == "00"


def test_twins_in_one_record_are_one_transaction(town: Town) -> None:
    """Two frames of the same key and content, and one of another content, in the same batch of the switch."""
    with Line(town, TERMINALS[2]).sign_in() as line:
        values = {**purchase(), de.STAN: 5}
        messages = [
            line.message("farm-purchase", values),
            line.message("farm-purchase", values, repeat=True),
            line.message("farm-purchase", {**purchase(100), de.STAN: 5}),
        ]
        posted = len(town.books()["transactions"])
        line.post(b"".join(line.codec.encode(message) for message in messages))
        assert [code_of(line.answer(message.sequence)) for message in messages] == ["00", "09", "94"]
    assert len(town.books()["transactions"]) == posted + 1


def test_a_reversal_undoes_once_and_only_ones_own(town: Town) -> None:
    with Line(town, TERMINALS[2]).sign_in() as line:
        amount = purchase()[de.AMOUNT]
        sale = line.ask("farm-purchase", purchase())
        batch, stan = line.batch, line.last_stan
        with Line(town, TERMINALS[3]).sign_in() as other:  # not its own: to it such a transaction does not exist
            assert code_of(other.ask("reversal", reversal(batch, stan, amount))) == "00"
        assert code_of(line.ask("reversal", reversal(batch, stan, amount - 1))) == "64"
        assert code_of(line.ask("reversal", reversal(batch, stan, amount))) == "00"
        assert code_of(line.ask("reversal", reversal(batch, stan, amount))) == "25"
        assert code_of(line.ask("farm-purchase", {**purchase(), de.STAN: stan}, repeat=True)) == "00"
    state = town.books()["transactions"][f"{sale.values[de.RRN]:012d}"]["state"]
    assert state == "reversed"


@pytest.mark.parametrize("in_one_record", [False, True])
def test_a_reversal_that_comes_before_its_original_bars_it(town: Town, in_one_record: bool) -> None:
    with Line(town, TERMINALS[2]).sign_in() as line:
        undo = line.message("reversal", {**reversal(line.batch, 500, purchase()[de.AMOUNT]), de.STAN: 499})
        late = line.message("farm-purchase", {**purchase(), de.STAN: 500})
        posted = len(town.books()["transactions"])
        if in_one_record:
            line.post(line.codec.encode(undo) + line.codec.encode(late))
        else:
            line.post(line.codec.encode(undo))
        assert code_of(line.answer(undo.sequence)) == "00"
        if not in_one_record:
            line.post(line.codec.encode(late))
        assert code_of(line.answer(late.sequence)) == "94"
    assert len(town.books()["transactions"]) == posted


def test_original_and_reversal_in_one_record_end_with_the_reversal_asked_again(town: Town) -> None:
    with Line(town, TERMINALS[2]).sign_in() as line:
        sale = line.message("farm-purchase", {**purchase(), de.STAN: 600})
        undo = line.message("reversal", {**reversal(line.batch, 600, purchase()[de.AMOUNT]), de.STAN: 601})
        line.post(line.codec.encode(sale) + line.codec.encode(undo))
        assert code_of(line.answer(undo.sequence)) == "09"
        assert code_of(line.answer(sale.sequence)) == "00"
        again = {**reversal(line.batch, 600, purchase()[de.AMOUNT]), de.STAN: 601}
        assert code_of(line.ask("reversal", again, repeat=True)) == "00"


def test_a_limit_holds_within_one_record(town: Town) -> None:
    """CNY 1,000 a card and day: of twenty withdrawals of 100 in one batch ten pass; one that is reversed makes room."""
    with Line(town, TERMINALS[4]).sign_in() as line:
        messages = [line.message("withdrawal", withdrawal(10_000, LIMITED_PAN)) for _ in range(20)]
        line.post(b"".join(line.codec.encode(message) for message in messages))
        codes = [code_of(line.answer(message.sequence)) for message in messages]
        assert Counter(codes) == {"00": 10, "61": 10}
        stan = messages[codes.index("00")].values[de.STAN]
        for code in ("00", "25"):  # only once
            assert code_of(line.ask("reversal", reversal(line.batch, stan, 10_000))) == code
        assert code_of(line.ask("withdrawal", withdrawal(10_000, LIMITED_PAN))) == "00"
        assert code_of(line.ask("withdrawal", withdrawal(10_000, LIMITED_PAN))) == "61"


# Bounds --------------------------------------------------------------------------------------------------------------


def test_a_flood_of_one_terminal_is_65_and_costs_the_others_nothing(town: Town) -> None:
    first = town.next_record()
    with Line(town, SLOW_HANDED).sign_in() as line:
        messages = [line.message("farm-purchase", purchase()) for _ in range(30)]
        for _ in range(9_970):  # refused before anybody looks at the signature
            message, _digest = line.session.prepare(1, {**purchase(), de.STAN: 1})
            message.signature = bytes(64)
            messages.append(message)
        line.post(b"".join(line.codec.encode(message) for message in messages))
        trio.run(trade_now, town, TERMINALS[1])
        codes = Counter(code_of(line.answer(message.sequence)) for message in messages)
    assert set(codes) <= {"00", "65", "63"}  # a few come so late that its rate lets them through to be looked at
    assert codes["65"] > 9_800
    assert town.next_record() - first < 500  # a flood does not fill the journal


@pytest.mark.parametrize("signed_in", [True, False])
def test_a_flood_of_nonsense_does_not_fill_the_journal(town: Town, signed_in: bool) -> None:
    before = town.next_record()
    with Line(town, SLOW_HANDED) as line:
        if signed_in:
            line.sign_in()
        line.post(b"\x03\x6e\x00\x00" * 5_000)
        codes = Counter(code_of(message) for message in line.answers_in_order(5_000))
    assert set(codes) == {"30", "65"}
    assert town.next_record() - before < 100
    trio.run(trade_now, town, TERMINALS[1])


def test_past_the_bound_of_work_in_flight_a_request_gets_96_at_once(town: Town) -> None:
    with Line(town, TERMINALS[5]).sign_in() as line:
        with town.frozen("core-banking"):
            messages = [line.message("farm-purchase", purchase()) for _ in range(700)]
            line.post(b"".join(line.codec.encode(message) for message in messages))
            refused = [line.answer(message.sequence) for message in messages[512:]]
            assert {code_of(response) for response in refused} == {"96"}
        codes = Counter(code_of(line.answer(message.sequence)) for message in messages[:512])
        assert codes == {"00": 512}
        retried = line.ask("farm-purchase", {**purchase(), de.STAN: messages[699].values[de.STAN]}, repeat=True)
        assert code_of(retried) == "00"  # nothing was done for it before


def test_a_slow_reader_is_cut_off_at_the_bound_of_its_outbox(town: Town) -> None:
    before = town.status()["closed"].get("slow reader", 0)
    with Line(town, TERMINALS[6], receive_bytes=4096).sign_in() as line:
        assert code_of(line.ask("farm-purchase", purchase())) == "00"
        values = {de.ORIGINAL_BATCH: line.batch, de.ORIGINAL_STAN: line.last_stan}
        time.sleep(0.1)  # its commit is signed within 50 ms
        frames = b"".join(line.frame("receipt", values) for _ in range(500))
        try:
            for _ in range(40):  # 20,000 receipts of a kilobyte each, and nobody reads
                line.post(frames)
                frames = b"".join(line.frame("receipt", values) for _ in range(500))
        except Closed:
            pass
        trio.run(trade_now, town, TERMINALS[1])
        town.until(lambda status: status["closed"].get("slow reader", 0) == before + 1)
    trio.run(trade_now, town, TERMINALS[6])


def test_who_reads_a_little_late_loses_nothing(town: Town) -> None:
    with Line(town, TERMINALS[6], receive_bytes=4096).sign_in() as line:
        assert code_of(line.ask("farm-purchase", purchase())) == "00"
        values = {de.ORIGINAL_BATCH: line.batch, de.ORIGINAL_STAN: line.last_stan}
        time.sleep(0.1)
        messages = [line.message("receipt", values) for _ in range(60)]
        line.post(b"".join(line.codec.encode(message) for message in messages))
        time.sleep(1)
        assert {code_of(line.answer(message.sequence)) for message in messages} == {"00"}


# Connections and operators -------------------------------------------------------------------------------------------


def test_a_new_session_of_a_terminal_ends_its_old_one(town: Town) -> None:
    """The old one is what a terminal leaves half-open when its link is cut; what it asked for still counts."""
    before = town.status()["closed"].get("the terminal signed in elsewhere", 0)
    with Line(town, TERMINALS[7]).sign_in() as old, town.frozen("core-banking"):
        asked = old.message("farm-purchase", {**purchase(), de.STAN: 9})
        old.post(old.codec.encode(asked))
        town.until(lambda status: status["in_flight"] == 1)
        with Line(town, TERMINALS[7]).sign_in_to(old.batch) as new:
            old.wait_closed()
            assert code_of(new.ask("farm-purchase", {**purchase(), de.STAN: 9}, repeat=True)) == "09"
            town.thaw("core-banking")
            town.until(lambda status: status["in_flight"] == 0)
            assert code_of(new.ask("farm-purchase", {**purchase(), de.STAN: 9}, repeat=True)) == "00"
    assert town.status()["closed"]["the terminal signed in elsewhere"] == before + 1


def test_a_second_connection_that_does_not_sign_in_does_not_disturb_the_first(town: Town) -> None:
    with Line(town, TERMINALS[7]).sign_in() as line, Line(town, TERMINALS[7]) as idle:
        assert code_of(idle.ask("echo", {})) == "00"
        assert code_of(idle.ask("sign-in", idle.sign_in_values(0, MERCHANT="000000000000000"))) == "03"
        assert code_of(line.ask("farm-purchase", purchase())) == "00"


@pytest.mark.parametrize("what", ["terminal", "application"])
def test_who_is_blocked_while_signed_in_is_closed(town: Town, what: str) -> None:
    before = town.status()["closed"].get("revoked", 0)

    def put(status: Status) -> None:
        with town.registry() as registry:
            if what == "terminal":
                registry.set_status(TERMINALS[8], status)
            else:
                registry.set_app_status(READER_APP, VERSION, status)

    terminal = TERMINALS[8]
    with town.registry() as registry:
        manifest = registry.snapshot().app(READER_APP, VERSION)
    assert manifest is not None
    with Line(town, terminal) as line:
        line.sign_in(APP=READER_APP, APP_MANIFEST=manifest.digest)
        put(Status.BLOCKED)
        try:
            line.wait_closed()
            with Line(town, terminal) as later:
                values = later.sign_in_values(0, APP=READER_APP, APP_MANIFEST=manifest.digest)
                assert code_of(later.ask("sign-in", values)) == "58"
        finally:
            put(Status.ACTIVE)
    assert town.status()["closed"]["revoked"] > before
    time.sleep(1)  # the switch looks every half second
    trio.run(trade_now, town, terminal)


def test_a_new_version_of_an_application_disturbs_nobody(town: Town) -> None:
    with Line(town, TERMINALS[8]).sign_in() as line:
        loaded = load(town.folder / "switch.toml")
        with town.registry() as registry:
            publish_app(loaded, registry, APP, "1.1", SERVICES)
        time.sleep(1)  # the switch looks every half second
        assert code_of(line.ask("farm-purchase", purchase())) == "00"


def test_the_batch_goes_on_or_one_further(town: Town) -> None:
    with Line(town, TERMINALS[9]).sign_in() as line:
        current = line.batch
        for batch, code in ((current, "00"), (current + 2, "77"), (current - 1, "77"), (current + 1, "00")):
            response = line.ask("sign-in", line.sign_in_values(batch))
            assert code_of(response) == code, batch
            assert (response.command == COMMAND_SIGN_IN) == (code == "77")
    sessions = [record.batch for record in town.records(kind=RecordKind.SESSION) if record.terminal == TERMINALS[9]]
    assert sessions[-2:] == [current, current + 1]
