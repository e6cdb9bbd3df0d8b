"""``fengshou pos`` and ``fengshou kiosk``: single trades by hand against a running switch."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState
from fengshou.protocol.message import Value
from fengshou.protocol.money import amount_of
from fengshou.protocol.record import Record
from fengshou.switch.cli.common import explained, json_option, print_json, print_table, yuan
from fengshou.switch.cli.offline import store_purchase, upload_all
from fengshou.switch.cli.trade import (
    CHIP,
    HUNDREDTHS,
    KEYED,
    amount_option,
    card_option,
    grammar_of,
    pin_option,
    print_facts,
    receipt_option,
    run,
    run_counted,
    terminal_option,
    trade,
    value_of,
)
from fengshou.terminals.client import TerminalClient
from fengshou.terminals.home import Home
from fengshou.terminals.receipt import verify_inclusion
from fengshou.terminals.signer_dialogue import SignerDialogue


@click.group()
def pos() -> None:
    """Be a POS for one trade.

    \b
    Examples:
      fengshou pos purchase --product 1 --variety 2 --grade 1 --weight 12.50 --price 60.00 --farmer 9156001001000237576
      fengshou pos withdraw --card 9156004000001267043 --amount 300 --pin --receipt
      fengshou pos send transfer pan=9156004000000316767 to_account=9156004000000395951 amount=1234 entry_mode=52
    """


@click.group()
def kiosk() -> None:
    """Be a kiosk for one trade: enquiries, balances, transfers."""


@pos.command()
@click.option("--product", type=int, required=True, help="Number in the product dictionary.")
@click.option("--variety", type=int, required=True)
@click.option("--grade", type=int, required=True)
@click.option("--weight", type=HUNDREDTHS, required=True, help="Kilograms, for example 12.50.")
@click.option("--price", type=HUNDREDTHS, required=True, help="Yuan a kilogram.")
@click.option("--farmer", required=True, help="Account that receives.")
@click.option("--buyer", help="Card that pays; without it the terminal's settlement account pays.")
@click.option("--town", type=int, help="Town of the goods, when it is not the terminal's.")
@click.option("--lot", help="Lot, for tracing.")
@click.option("--offline", is_flag=True, help="Keep it for `fengshou pos upload`: there is no coverage now.")
@receipt_option
@terminal_option
@json_option
@explained
def purchase(
    product: int, variety: int, grade: int, weight: int, price: int, farmer: str, buyer: str | None, town: int | None,
    lot: str | None, offline: bool, wants_receipt: bool, home: Path, as_json: bool,
) -> None:  # fmt: skip
    """Buy farm produce; the amount is weight times price."""
    values: dict[int, Value] = {
        de.AMOUNT: amount_of(weight, price), de.ENTRY_MODE: CHIP if buyer else KEYED, de.PRODUCT: product,
        de.VARIETY: variety, de.GRADE: grade, de.WEIGHT: weight, de.UNIT_PRICE: price, de.TO_ACCOUNT: farmer,
    }  # fmt: skip
    values |= {key: value for key, value in ((de.PAN, buyer), (de.TOWN, town), (de.LOT, lot)) if value is not None}
    if offline:
        place = Home(home)
        print_facts(store_purchase(place, grammar_of(place), "farm-purchase", values), as_json, "kept for upload")
    else:
        trade(home, "farm-purchase", values, wants_receipt, as_json)


@pos.command()
@terminal_option
@json_option
@explained
def upload(home: Path, as_json: bool) -> None:
    """Upload the purchases that were kept while there was no coverage."""
    place = Home(home)
    if not upload_all(place, grammar_of(place), run_counted, as_json):
        raise SystemExit(1)


def _by_card(name: str, template: str, tells: str) -> None:
    """A command that moves or holds an amount of a card that is read."""

    @pos.command(name, help=tells)
    @card_option
    @amount_option
    @pin_option
    @receipt_option
    @terminal_option
    @json_option
    @explained
    def command(card: str, amount: int, with_pin: bool, wants_receipt: bool, home: Path, as_json: bool) -> None:
        values: dict[int, Value] = {de.PAN: card, de.AMOUNT: amount, de.ENTRY_MODE: CHIP}
        trade(home, template, values, wants_receipt, as_json, with_pin)


_by_card("withdraw", "withdrawal", "Hand out cash against a card.")
_by_card("hold", "preauthorisation", "Hold an amount of a card, as when machines or seed are lent.")


@pos.command()
@click.option("--card", help="Card that receives.")
@click.option("--account", help="Account that receives.")
@amount_option
@receipt_option
@terminal_option
@json_option
@explained
def deposit(card: str | None, account: str | None, amount: int, wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Take cash in for a card or an account."""
    if (card is None) == (account is None):
        raise click.UsageError("give either --card or --account")
    to: dict[int, Value] = {de.PAN: card} if card else {de.TO_ACCOUNT: account or ""}
    mode = CHIP if card else KEYED
    trade(home, "deposit", {**to, de.AMOUNT: amount, de.ENTRY_MODE: mode}, wants_receipt, as_json)


@click.command()
@card_option
@click.option("--to", required=True, help="Card or account that receives.")
@amount_option
@pin_option
@receipt_option
@terminal_option
@json_option
@explained
def transfer(card: str, to: str, amount: int, with_pin: bool, wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Send money from a card to another card or account."""
    values: dict[int, Value] = {de.PAN: card, de.TO_ACCOUNT: to, de.AMOUNT: amount, de.ENTRY_MODE: CHIP}
    trade(home, "transfer", values, wants_receipt, as_json, with_pin)


@click.command()
@click.option("--card", help="Card that is read; without it the terminal's settlement account.")
@pin_option
@terminal_option
@json_option
@explained
def balance(card: str | None, with_pin: bool, home: Path, as_json: bool) -> None:
    """Ask for a balance."""
    if with_pin and not card:
        raise click.UsageError("a PIN belongs to a card: give --card")
    values: dict[int, Value] = {de.PAN: card, de.ENTRY_MODE: CHIP} if card else {de.ENTRY_MODE: KEYED}
    trade(home, "balance", values, False, as_json, with_pin)


def _following(name: str, template: str, tells: str) -> click.Command:
    """A command about an earlier trade of this terminal, named by its batch and STAN."""

    @pos.command(name, help=f"{tells} The trade is named by its batch and STAN.")
    @click.option("--batch", type=int, required=True, help="Batch of the trade that it is about.")
    @click.option("--stan", type=int, required=True, help="STAN of that trade.")
    @amount_option
    @receipt_option
    @terminal_option
    @json_option
    @explained
    def command(batch: int, stan: int, amount: int, wants_receipt: bool, home: Path, as_json: bool) -> None:
        values: dict[int, Value] = {de.ORIGINAL_BATCH: batch, de.ORIGINAL_STAN: stan, de.AMOUNT: amount}
        trade(home, template, values, wants_receipt, as_json)

    return command


reverse = _following("reverse", "reversal", "Take back a trade whose outcome is not known, or is not wanted.")
_following("void", "void", "Take back all of a trade of the open batch, because the customer changed his mind.")
_following("refund", "refund", "Give back some or all of what was paid, on any later day.")
_following("complete", "completion", "Take what a pre-authorisation held: at most 115 % of it, within 30 days.")
_following("release", "preauthorisation-void", "Let go of what a pre-authorisation holds.")


@kiosk.command()
@click.option("--item", type=int, required=True, help="Item of the catalogue of government services.")
@click.option("--domain", type=int, required=True)
@click.option("--subject", required=True, help="Person or case asked about.")
@click.option("--period", type=int, help="Year, or YYYYMM.")
@terminal_option
@json_option
@explained
def enquiry(item: int, domain: int, subject: str, period: int | None, home: Path, as_json: bool) -> None:
    """Ask an office."""
    values: dict[int, Value] = {de.ITEM: item, de.DOMAIN: domain, de.SUBJECT: subject}
    if period is not None:
        values[de.PERIOD] = period
    trade(home, "gov-enquiry", values, False, as_json)


@click.command()
@click.argument("template")
@click.argument("fields", nargs=-1, metavar="FIELD=VALUE...")
@receipt_option
@terminal_option
@json_option
@explained
def send(template: str, fields: tuple[str, ...], wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Send any message: fields by their names in the grammar, money in fen, bytes in hexadecimal."""
    grammar = grammar_of(Home(home))
    if template not in {known.name for known in grammar.templates.values()}:
        raise click.UsageError(f"no template {template}: {', '.join(t.name for t in grammar.templates.values())}")
    values: dict[int, Value] = {}
    for field in fields:
        name, equals, text = field.partition("=")
        element = grammar.by_name.get(name)
        if element is None or not equals:
            raise click.UsageError(f"{field!r} is not NAME=VALUE with a name of the grammar")
        values[element.key] = value_of(element, text)
    trade(home, template, values, wants_receipt, as_json)


@click.command()
@click.option("--batch", type=int, required=True)
@click.option("--stan", type=int, required=True)
@terminal_option
@json_option
@explained
def receipt(batch: int, stan: int, home: Path, as_json: bool) -> None:
    """Fetch the receipt of an earlier trade and verify that it stands in the signed journal."""
    place = Home(home)

    async def fetch(client: TerminalClient) -> Record:
        found = await client.receipt(batch, stan)
        return await SignerDialogue(place).proved(partial(verify_inclusion, found), client.signer)

    record = run(place, fetch)
    facts = {
        "record": record.number, "batch": record.batch, "stan": record.stan, "code": record.code,
        "rrn": f"{record.rrn:012d}", "verified": True,
    }  # fmt: skip
    print_facts(facts, as_json, "receipt")


@click.command(epilog="Exit status 1 when a batch is not in balance; the bank then looks at both lists.")
@terminal_option
@json_option
@explained
def settle(home: Path, as_json: bool) -> None:
    """Close the terminal's batch: state its totals and, when the switch has others, its transactions."""
    settled = run(Home(home), lambda client: client.settle())
    rows: list[dict[str, Any]] = [
        {
            "batch": one.batch, "state": one.state.name.lower().replace("_", " "), "code": one.code,
            "debits": one.totals.debits, "debits_fen": one.totals.debits_fen,
            "credits": one.totals.credits, "credits_fen": one.totals.credits_fen,
        }
        for one in settled
    ]  # fmt: skip
    if as_json:
        print_json(rows)
    else:
        print_table(
            "batches settled",
            ("batch", "state", "code", "debits", "yuan", "credits", "yuan"),
            [[yuan(value) if name.endswith("_fen") else value for name, value in row.items()] for row in rows],
        )
    if any(one.state is not BatchState.BALANCED for one in settled):
        raise SystemExit(1)


for _command in (transfer, balance, send, receipt, settle):
    pos.add_command(_command)
    kiosk.add_command(_command)
kiosk.add_command(reverse)
