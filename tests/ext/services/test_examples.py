"""The example data: written by its script to the byte, consistent in itself, and lawful for the services."""

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fengshou.ext.services.pan import is_card_number
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.service import Request, Service, refusal
from fengshou.protocol.templates import Grammar

Ask = Callable[..., Request]

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = ("accounts.csv", "mix.csv", "purchases.csv", "sites.csv", "terminals.csv")
NUMBERS = ("product", "variety", "grade", "weight_centikg", "unit_price_fen", "amount_fen", "town")


def rows(name: str) -> list[dict[str, str]]:
    with (EXAMPLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def test_the_script_writes_the_committed_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", str(EXAMPLES / "make_purchases.py"), str(tmp_path)], check=True)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (EXAMPLES / name).read_bytes(), name


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_that_it_is_synthetic(name: str) -> None:
    assert (EXAMPLES / name).read_text(encoding="utf-8").startswith("# Synthetic example data")


def test_every_purchase_is_lawful_and_small(services: Mapping[str, Service], grammar: Grammar, ask: Ask) -> None:
    terminals = {row["terminal"]: row for row in rows("terminals.csv")}
    ladder = services["farm-purchase"].ladder
    purchases = rows("purchases.csv")
    assert len(purchases) == 3_000
    codec = ReferenceCodec(grammar)
    own = {field.key for field in services["farm-purchase"].templates[0].request}
    sizes = []
    for stan, row in enumerate(purchases, 1):
        product, variety, grade, weight, price, amount, town = (int(row[column]) for column in NUMBERS)
        request = ask(
            "farm-purchase",
            stan=stan,
            local_date=int(row["date"][5:].replace("-", "")),
            local_time=int(row["time"].replace(":", "")),
            entry_mode=52 if row["card"] else 12,
            pan=row["card"] or None,
            to_account=row["payee"],
            product=product,
            variety=variety,
            grade=grade,
            weight=weight,
            unit_price=price,
            amount=amount,
            town=town,
            lot=row["lot"] or None,
        )
        assert refusal(ladder, request) is None
        assert "farm-purchase" in terminals[row["terminal"]]["services"].split()
        values = {key: value for key, value in request.values.items() if key in own}
        sizes.append(len(codec.encode(Message(request.template.id, Flag.SIGNED, stan, values, bytes(64)))))
    assert max(sizes) <= 120
    assert sum(sizes) / len(sizes) < 106


def test_the_files_know_each_other() -> None:
    accounts = {row["number"]: row for row in rows("accounts.csv")}
    sites = {row["site"]: row for row in rows("sites.csv")}
    terminals = {row["terminal"]: row for row in rows("terminals.csv")}
    assert len(accounts) == len(rows("accounts.csv"))
    for terminal in terminals.values():
        assert terminal["settlement_account"] in accounts
        assert sites[terminal["site"]]["town"] == terminal["town"]
        assert (len(terminal["terminal"]), len(terminal["merchant"]), len(terminal["credit_code"])) == (8, 15, 18)
    # One terminal, one merchant, one device.
    for column in ("merchant", "serial", "credit_code", "settlement_account"):
        assert len({terminal[column] for terminal in terminals.values()}) == len(terminals), column
    for account in accounts.values():
        if account["kind"] in ("card", "farmer"):
            assert len(account["number"]) == 19
            assert is_card_number(account["number"])
    for row in rows("purchases.csv"):
        assert accounts[row["payee"]]["kind"] == "farmer"
        assert row["card"] == "" or accounts[row["card"]]["kind"] == "card"


def test_buyers_can_pay_for_the_whole_season() -> None:
    opening = {row["number"]: int(row["opening_fen"]) for row in rows("accounts.csv")}
    own = {row["terminal"]: row["settlement_account"] for row in rows("terminals.csv")}
    spent: Counter[str] = Counter()
    for row in rows("purchases.csv"):
        spent[row["card"] or own[row["terminal"]]] += int(row["amount_fen"])
    assert all(total <= opening[number] for number, total in spent.items())
