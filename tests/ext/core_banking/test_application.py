"""The embedded core-banking host: a row per business case, and books that balance after each."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fengshou.ext.hosts.core_banking import Application, ledger_report
from fengshou.ext.hosts.core_banking.ledger import OPENING_ACCOUNT, Ledger, LedgerError, trial_balance
from fengshou.protocol.backend import Fields
from tests.ext.core_banking.bank import BUYER, CARD, CLOSED, FARMER, FROZEN, SHOP, balances, changed, request, reversal


def only(host: Application, message: Fields) -> Fields:
    (answer,) = host.answer([message])
    assert answer is not None
    return answer


START = {"buyer": 100_000, "farmer": 0, "shop": 50_000, "card": 200_000}

# fmt: off
CASES = [
    # what                          DE 3  fen      fields                               code  what moves
    ("purchase from an account",    "00", 12_345,  {"f102": BUYER, "f103": FARMER},     "00", "buyer>farmer"),
    ("purchase with a card",        "00", 12_345,  {"f2": CARD, "f103": FARMER},        "00", "card>farmer"),
    ("purchase, DE 102 wins",       "00", 12_345,  {"f2": CARD, "f102": BUYER, "f103": FARMER}, "00", "buyer>farmer"),
    ("payment",                     "50", 700,     {"f102": BUYER, "f103": SHOP},       "00", "buyer>shop"),
    ("cash withdrawal",             "01", 50_000,  {"f2": CARD, "f103": SHOP},          "00", "card>shop"),
    ("deposit to a card",           "21", 20_000,  {"f2": CARD, "f102": SHOP},          "00", "shop>card"),
    ("deposit to an account",       "21", 20_000,  {"f102": SHOP, "f103": FARMER},      "00", "shop>farmer"),
    ("transfer",                    "40", 1,       {"f102": BUYER, "f103": FARMER},     "00", "buyer>farmer"),
    ("all there is",                "40", 100_000, {"f102": BUYER, "f103": FARMER},     "00", "buyer>farmer"),
    ("one fen too much",            "40", 100_001, {"f102": BUYER, "f103": FARMER},     "51", ""),
    ("shop without float",          "21", 50_001,  {"f2": CARD, "f102": SHOP},          "51", ""),
    ("largest amount",              "40", 999_999_999_999, {"f102": BUYER, "f103": FARMER}, "51", ""),
    ("unknown card",                "01", 100,     {"f2": "6217000000000000000", "f103": SHOP}, "14", ""),
    ("unknown payer",               "40", 100,     {"f102": "1", "f103": FARMER},       "42", ""),
    ("unknown payee",               "40", 100,     {"f102": BUYER, "f103": "1"},        "42", ""),
    ("closed payee",                "40", 100,     {"f102": BUYER, "f103": CLOSED},     "42", ""),
    ("restricted payer",            "40", 100,     {"f102": FROZEN, "f103": FARMER},    "62", ""),
    ("restricted payee",            "40", 100,     {"f102": BUYER, "f103": FROZEN},     "62", ""),
    ("to oneself",                  "40", 100,     {"f102": BUYER, "f103": BUYER},      "12", ""),
    ("unknown processing code",     "99", 100,     {"f102": BUYER, "f103": FARMER},     "12", ""),
    ("zero amount",                 "40", 0,       {"f102": BUYER, "f103": FARMER},     "13", ""),
    ("no amount",                   "40", None,    {"f102": BUYER, "f103": FARMER},     "30", ""),
    ("no payer",                    "00", 100,     {"f103": FARMER},                    "30", ""),
    ("no payee",                    "00", 100,     {"f102": BUYER},                     "30", ""),
    ("no processing code",          "00", 100,     {"f3": None, "f102": BUYER, "f103": FARMER}, "30", ""),
    ("no STAN",                     "00", 100,     {"f11": None, "f102": BUYER, "f103": FARMER}, "30", ""),
    ("no RRN",                      "00", 100,     {"f37": None, "f102": BUYER, "f103": FARMER}, "30", ""),
    ("no terminal",                 "00", 100,     {"f41": None, "f102": BUYER, "f103": FARMER}, "30", ""),
    ("balance of a card",           "31", None,    {"f2": CARD},                        "00", ""),
    ("balance of an unknown card",  "31", None,    {"f2": "62"},                        "14", ""),
    ("balance of a frozen account", "30", None,    {"f102": FROZEN},                    "62", ""),
    ("balance of nothing",          "31", None,    {},                                  "30", ""),
    ("a reversal without DE 90",    "00", 100,     {"f0": "0400", "f102": BUYER, "f103": FARMER}, "30", ""),
]
# fmt: on


@pytest.mark.parametrize(("what", "code", "fen", "fields", "expected", "moves"), CASES, ids=[case[0] for case in CASES])
def test_cases(
    host: Application,
    what: str,
    code: str,
    fen: int | None,
    fields: dict[str, str | None],
    expected: str,
    moves: str,
) -> None:
    message = request(1, code, fen, **fields)
    answer = only(host, message)
    assert answer[39] == expected
    assert answer[0] == {"0200": "0210", "0400": "0410"}[str(message[0])]
    assert all(answer[number] == message[number] for number in (11, 37, 41) if number in message)
    assert (38 in answer) is bool(moves), "an authorisation is given for what was posted"
    payer, _, payee = moves.partition(">")
    moved = {payer: -(fen or 0), payee: fen or 0}
    assert balances(host) == {name: balance + moved.get(name, 0) for name, balance in START.items()}
    report = host.report("totals")
    assert report["balanced"]
    assert report["by_processing_code"] == ({code: {"count": 1, "fen": fen}} if moves else {})


def test_a_balance_is_in_the_form_of_iso_8583(host: Application) -> None:
    assert only(host, request(1, "31", None, f2=CARD))[54] == "0001156C000000200000" + "0002156C000000200000"


PURCHASE = request(1, "00", 30_000, f102=BUYER, f103=FARMER)


def test_a_repeat_posts_once_and_gets_the_same_answer(open_host: Callable[[], Application]) -> None:
    host = open_host()
    first = only(host, PURCHASE)
    repeat = changed(PURCHASE, f0="0201")
    assert only(host, repeat) == first
    host.close()
    assert only(open_host(), repeat) == first, "also after a restart"
    assert balances(open_host())["farmer"] == 30_000


def test_a_repeat_of_a_decline_stays_declined_when_funds_have_come(host: Application) -> None:
    too_much = request(1, "00", 100_001, f102=BUYER, f103=FARMER)
    assert only(host, too_much)[39] == "51"
    assert only(host, request(2, "40", 1_000, f102=SHOP, f103=BUYER))[39] == "00"
    assert only(host, changed(too_much, f0="0201"))[39] == "51"


def test_a_batch_with_its_own_repeats_posts_each_once(host: Application) -> None:
    batch = [changed(PURCHASE, f37=f"{rrn:012d}") for rrn in (1, 2, 1, 3, 2, 1)]
    answers = host.answer(batch)
    assert [answer[38] for answer in answers if answer] == [answers[i][38] for i in (0, 1, 0, 3, 1, 0)]  # type: ignore[index]
    assert balances(host)["farmer"] == 90_000


@pytest.mark.parametrize("fields", [{"f4": f"{30_001:012d}"}, {"f103": SHOP}, {"f3": "400000"}, {"f2": CARD}])
def test_another_content_under_the_same_key_is_refused(host: Application, fields: dict[str, str]) -> None:
    assert only(host, PURCHASE)[39] == "00"
    assert only(host, changed(PURCHASE, **fields))[39] == "94"
    assert only(host, PURCHASE)[39] == "00"
    assert balances(host) == {**START, "buyer": 70_000, "farmer": 30_000}


# --- reversals: the matching rules --------------------------------------------------------------------------------


def test_a_reversal_undoes_its_original_once(host: Application) -> None:
    only(host, PURCHASE)
    undo = reversal(PURCHASE, 2)
    first = only(host, undo)
    assert first[39] == "00"
    assert balances(host) == START
    assert only(host, changed(undo, f0="0401")) == first, "a repeat of it gets the same answer"
    assert only(host, reversal(PURCHASE, 3))[39] == "25", "another one finds it reversed"
    assert balances(host) == START
    assert host.report("totals")["transactions"] == {f"{1:012d}": {"kind": "00", "fen": 30_000, "state": "reversed"}}
    assert only(host, PURCHASE)[39] == "00", "a repeat of the original is told what happened then"
    assert balances(host) == START


def test_a_reversal_before_its_original_leaves_a_tombstone(host: Application) -> None:
    undo = reversal(PURCHASE, 2)
    assert only(host, undo)[39] == "00"
    assert only(host, PURCHASE)[39] == "94"
    assert only(host, changed(PURCHASE, f0="0201"))[39] == "94"
    assert only(host, undo)[39] == "00"
    assert only(host, changed(PURCHASE, f41="POS00002"))[39] == "00", "another terminal's is not meant"
    assert balances(host)["farmer"] == 30_000


def test_original_and_reversal_in_one_batch(host: Application) -> None:
    answers = host.answer([PURCHASE, reversal(PURCHASE, 2), changed(PURCHASE, f0="0201")])
    assert [answer[39] for answer in answers if answer] == ["00", "00", "00"]
    assert balances(host) == START


# fmt: off
REVERSALS = [
    # what                      original            reversal                         code  farmer has
    ("amount differs",          {},                 {"f4": f"{30_001:012d}"},        "64", 30_000),
    ("amount is left out",      {},                 {"f4": None},                    "00", 0),
    ("original was declined",   {"f102": FROZEN},   {"f102": FROZEN},                "01", 0),
    ("advice instead of 0400",  {},                 {"f0": "0420"},                  "00", 0),
    ("of another terminal",     {},                 {"f41": "POS00002"},             "00", 30_000),
    ("of another acquirer",     {},                 {"f90": f"0200000001112413595900009999999{0:011d}"}, "00", 30_000),
    ("of another time",         {},                 {"f90": f"0200000001112413595800001020000{0:011d}"}, "00", 30_000),
    ("of a sign-on",            {},                 {"f90": f"0800000001112413595900001020000{0:011d}"}, "12", 30_000),
]
# fmt: on


@pytest.mark.parametrize(("what", "original", "undo", "code", "farmer"), REVERSALS, ids=[row[0] for row in REVERSALS])
def test_reversals(
    host: Application, what: str, original: dict[str, str], undo: dict[str, str | None], code: str, farmer: int
) -> None:
    first = changed(PURCHASE, **original)
    only(host, first)
    assert only(host, changed(reversal(first, 2), **undo))[39] == code
    assert balances(host)["farmer"] == farmer
    assert host.report("totals")["balanced"]


def test_what_was_spent_meanwhile_is_owed_back(host: Application) -> None:
    only(host, PURCHASE)
    assert only(host, request(2, "40", 30_000, f102=FARMER, f103=SHOP))[39] == "00"
    assert only(host, reversal(PURCHASE, 3))[39] == "00"
    assert balances(host) == {**START, "farmer": -30_000, "shop": 80_000}
    assert only(host, request(4, "31", None, f102=FARMER))[54] == "0001156D000000030000" + "0002156D000000030000"


# --- the books ----------------------------------------------------------------------------------------------------


def test_a_posting_that_does_not_balance_is_refused_with_its_whole_batch(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.open_accounts([])
    for legs in ([(OPENING_ACCOUNT, 5)], [(OPENING_ACCOUNT, 5), ("nobody", -5)]):
        with pytest.raises(LedgerError), ledger.batch():
            ledger.post(1, legs)
    assert trial_balance(ledger.connection).balanced
    with pytest.raises(LedgerError), ledger.batch():
        ledger.reverse(7, 8)
    ledger.close()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("UPDATE legs SET fen = fen + 1 WHERE rowid = 1", "sum_fen"),
        ("UPDATE accounts SET balance_fen = balance_fen - 1 WHERE number = 'OPENING'", "misstated_accounts"),
        ("UPDATE legs SET fen = fen + 1 WHERE posting = (SELECT max(posting) FROM legs)", "unbalanced_postings"),
    ],
)
def test_the_trial_balance_finds_damage(host: Application, options: dict[str, str], damage: str, finding: str) -> None:
    only(host, PURCHASE)
    database = Path(options["database"])
    assert ledger_report(database)["balanced"]
    with sqlite3.connect(database) as connection:
        connection.execute(damage)
    connection.close()
    report = ledger_report(database)
    assert not report["balanced"]
    assert report[finding] != 0


def test_accounts_are_opened_once_and_stay_as_they_are(open_host: Callable[[], Application]) -> None:
    only(open_host(), PURCHASE)
    assert balances(open_host()) == {**START, "buyer": 70_000, "farmer": 30_000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"database": None}, "'database' is missing"),
        ({"database": "/nowhere/at/all/ledger.db"}, "'database': no folder"),
        ({"datbase": "x"}, "unknown option 'datbase'"),
    ],
)
def test_options_are_checked(options: dict[str, str], change: dict[str, str | None], message: str) -> None:
    chosen = {key: value for key, value in {**options, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Application(chosen)


@pytest.mark.parametrize("row", ["6230,x,account,", "6230,x,account,ten", "6230,x", ",,,"])
def test_a_wrong_line_of_the_accounts_file_is_named(options: dict[str, str], row: str) -> None:
    Path(options["accounts"]).write_text(f"# c\n\nnumber,name,kind,opening_fen\n{row}\n", "utf-8")
    with pytest.raises(ValueError, match="line 4"):
        Application(options)


def test_there_is_no_other_report(host: Application) -> None:
    with pytest.raises(LookupError, match="totals"):
        host.report("total")


def test_the_books_open_with_the_example_accounts(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "examples" / "accounts.csv"
    host = Application({"database": str(tmp_path / "ledger.db"), "accounts": str(examples)})
    report = host.report("totals")
    host.close()
    assert report["balanced"]
    assert report["transactions"] == {}
