"""``fengshou pos`` and ``fengshou kiosk``: single trades by hand against a running switch."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fengshou.protocol import elements as de
from fengshou.protocol.batch import BatchState
from fengshou.protocol.elements import Element, Kind, mask
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import COMMAND_NONE, COMMANDS, Value
from fengshou.protocol.money import amount_of
from fengshou.protocol.templates import Grammar
from fengshou.switch.cli_common import ask_pin, explained, json_option, print_json, print_table, yuan
from fengshou.switch.cli_offline import store_purchase, upload_all
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.terminals.client import Response, TerminalClient, connect
from fengshou.terminals.home import Home
from fengshou.terminals.identity import Counters
from fengshou.terminals.receipt import Receipt, verify_inclusion, verify_receipt

T = TypeVar("T")

_HUNDREDTHS = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?")
_CHIP, _CHIP_AND_PIN, _KEYED = 52, 51, 12  # DE 22: the card's chip without and with PIN, typed in

_IN_YUAN = (de.AMOUNT, de.UNIT_PRICE, de.LEDGER_BALANCE, de.AVAILABLE_BALANCE)


class Hundredths(click.ParamType[int]):
    """Yuan as fen, or kilograms as 0.01 kg: a decimal with at most two places, read without floating point."""

    name = "decimal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _HUNDREDTHS.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not a number such as 12 or 12.50", param, ctx)
        return int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))


HUNDREDTHS = Hundredths()

_home = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="FENGSHOU_TERMINAL",
    show_envvar=True,
    help="The terminal's folder, made by `fengshou terminal enrol`.",
)
_receipt = click.option("--receipt", "wants_receipt", is_flag=True, help="Ask for a receipt and verify it.")
_pin = click.option("--pin", "with_pin", is_flag=True, help="Ask for the card's PIN.")
_card = click.option("--card", required=True, help="Number of the card that is read.")
_amount = click.option("--amount", type=HUNDREDTHS, required=True, help="Yuan, for example 300 or 12.50.")


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
@_receipt
@_home
@json_option
@explained
def purchase(
    product: int, variety: int, grade: int, weight: int, price: int, farmer: str, buyer: str | None, town: int | None,
    lot: str | None, offline: bool, wants_receipt: bool, home: Path, as_json: bool,
) -> None:  # fmt: skip
    """Buy farm produce; the amount is weight times price."""
    values: dict[int, Value] = {
        de.AMOUNT: amount_of(weight, price), de.ENTRY_MODE: _CHIP if buyer else _KEYED, de.PRODUCT: product,
        de.VARIETY: variety, de.GRADE: grade, de.WEIGHT: weight, de.UNIT_PRICE: price, de.TO_ACCOUNT: farmer,
    }  # fmt: skip
    values |= {key: value for key, value in ((de.PAN, buyer), (de.TOWN, town), (de.LOT, lot)) if value is not None}
    if offline:
        place = Home(home)
        _print(store_purchase(place, _grammar(place), "farm-purchase", values), as_json, "kept for upload")
    else:
        _trade(home, "farm-purchase", values, wants_receipt, as_json)


@pos.command()
@_home
@json_option
@explained
def upload(home: Path, as_json: bool) -> None:
    """Upload the purchases that were kept while there was no coverage."""
    place = Home(home)
    if not upload_all(place, _grammar(place), _run_counted, as_json):
        raise SystemExit(1)


@pos.command()
@_card
@_amount
@_pin
@_receipt
@_home
@json_option
@explained
def withdraw(card: str, amount: int, with_pin: bool, wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Hand out cash against a card."""
    values: dict[int, Value] = {de.PAN: card, de.AMOUNT: amount, de.ENTRY_MODE: _CHIP}
    _trade(home, "withdrawal", values, wants_receipt, as_json, with_pin)


@pos.command()
@click.option("--card", help="Card that receives.")
@click.option("--account", help="Account that receives.")
@_amount
@_receipt
@_home
@json_option
@explained
def deposit(card: str | None, account: str | None, amount: int, wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Take cash in for a card or an account."""
    if (card is None) == (account is None):
        raise click.UsageError("give either --card or --account")
    to: dict[int, Value] = {de.PAN: card} if card else {de.TO_ACCOUNT: account or ""}
    mode = _CHIP if card else _KEYED
    _trade(home, "deposit", {**to, de.AMOUNT: amount, de.ENTRY_MODE: mode}, wants_receipt, as_json)


@click.command()
@_card
@click.option("--to", required=True, help="Card or account that receives.")
@_amount
@_pin
@_receipt
@_home
@json_option
@explained
def transfer(card: str, to: str, amount: int, with_pin: bool, wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Send money from a card to another card or account."""
    values: dict[int, Value] = {de.PAN: card, de.TO_ACCOUNT: to, de.AMOUNT: amount, de.ENTRY_MODE: _CHIP}
    _trade(home, "transfer", values, wants_receipt, as_json, with_pin)


@click.command()
@click.option("--card", help="Card that is read; without it the terminal's settlement account.")
@_pin
@_home
@json_option
@explained
def balance(card: str | None, with_pin: bool, home: Path, as_json: bool) -> None:
    """Ask for a balance."""
    if with_pin and not card:
        raise click.UsageError("a PIN belongs to a card: give --card")
    values: dict[int, Value] = {de.PAN: card, de.ENTRY_MODE: _CHIP} if card else {de.ENTRY_MODE: _KEYED}
    _trade(home, "balance", values, False, as_json, with_pin)


@click.command()
@click.option("--batch", type=int, required=True)
@click.option("--stan", type=int, required=True)
@_amount
@_receipt
@_home
@json_option
@explained
def reverse(batch: int, stan: int, amount: int, wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Take back a trade of this terminal, named by its batch and STAN."""
    values: dict[int, Value] = {de.ORIGINAL_BATCH: batch, de.ORIGINAL_STAN: stan, de.AMOUNT: amount}
    _trade(home, "reversal", values, wants_receipt, as_json)


@kiosk.command()
@click.option("--item", type=int, required=True, help="Item of the catalogue of government services.")
@click.option("--domain", type=int, required=True)
@click.option("--subject", required=True, help="Person or case asked about.")
@click.option("--period", type=int, help="Year, or YYYYMM.")
@_home
@json_option
@explained
def enquiry(item: int, domain: int, subject: str, period: int | None, home: Path, as_json: bool) -> None:
    """Ask an office."""
    values: dict[int, Value] = {de.ITEM: item, de.DOMAIN: domain, de.SUBJECT: subject}
    if period is not None:
        values[de.PERIOD] = period
    _trade(home, "gov-enquiry", values, False, as_json)


@click.command()
@click.argument("template")
@click.argument("fields", nargs=-1, metavar="FIELD=VALUE...")
@_receipt
@_home
@json_option
@explained
def send(template: str, fields: tuple[str, ...], wants_receipt: bool, home: Path, as_json: bool) -> None:
    """Send any message: fields by their names in the grammar, money in fen, bytes in hexadecimal."""
    grammar = _grammar(Home(home))
    if template not in {known.name for known in grammar.templates.values()}:
        raise click.UsageError(f"no template {template}: {', '.join(t.name for t in grammar.templates.values())}")
    values: dict[int, Value] = {}
    for field in fields:
        name, equals, text = field.partition("=")
        element = grammar.by_name.get(name)
        if element is None or not equals:
            raise click.UsageError(f"{field!r} is not NAME=VALUE with a name of the grammar")
        values[element.key] = _value(element, text)
    _trade(home, template, values, wants_receipt, as_json)


@click.command()
@click.option("--batch", type=int, required=True)
@click.option("--stan", type=int, required=True)
@_home
@json_option
@explained
def receipt(batch: int, stan: int, home: Path, as_json: bool) -> None:
    """Fetch the receipt of an earlier trade and verify that it stands in the signed journal."""
    place = Home(home)

    async def fetch(client: TerminalClient) -> Receipt:
        return await client.receipt(batch, stan)

    found = _run(place, fetch)
    record = verify_inclusion(found, place.switch_keys())
    facts = {
        "record": record.number, "batch": record.batch, "stan": record.stan, "code": record.code,
        "rrn": f"{record.rrn:012d}", "verified": True,
    }  # fmt: skip
    _print(facts, as_json, "receipt")


@click.command(epilog="Exit status 1 when a batch is not in balance; the bank then looks at both lists.")
@_home
@json_option
@explained
def settle(home: Path, as_json: bool) -> None:
    """Close the terminal's batch: state its totals and, when the switch has others, its transactions."""
    settled = _run(Home(home), lambda client: client.settle())
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


for _command in (transfer, balance, reverse, send, receipt, settle):
    pos.add_command(_command)
    kiosk.add_command(_command)


def _grammar(home: Home) -> Grammar:
    return Catalogue(load_service(module, {}) for module in home.configuration.services).grammar


def _run(home: Home, use: Callable[[TerminalClient], Awaitable[T]]) -> T:
    return _run_counted(home, lambda client, _: use(client))


def _run_counted(home: Home, use: Callable[[TerminalClient, Counters], Awaitable[T]]) -> T:
    with _counters(home) as counters:

        async def session() -> T:
            async with connect(
                home.address,
                home.context(),
                home.switch_name,
                home.identity,
                home.signer(),
                counters,
                _grammar(home),
                log=home.batch_log(),
                keys=home.keys(),
                home=home,
            ) as client:
                result = await use(client, counters)
                await client.sign_off()
                return result

        return trio.run(session)


@contextmanager
def _counters(home: Home) -> Iterator[Counters]:
    counters = home.counters()
    try:
        yield counters
    finally:
        counters.close()


def _trade(
    folder: Path,
    template: str,
    values: Mapping[int, Value],
    wants_receipt: bool,
    as_json: bool,
    with_pin: bool = False,
) -> None:
    """Make one trade and print how it ended; exit status 1 when it was not approved."""
    home = Home(folder)
    digits = ask_pin() if with_pin else bytearray()

    async def trade(client: TerminalClient) -> tuple[Response, str]:
        entered = {de.ENTRY_MODE: _CHIP_AND_PIN, **await client.pin(digits, str(values[de.PAN]))} if digits else {}
        hidden = await client.sealed(values) if de.SUBJECT in values else values
        response = await client.trade(template, {**hidden, **entered}, receipt=wants_receipt)
        if not wants_receipt:
            return response, ""
        if response.receipt is None:
            return response, "not yet; ask later: fengshou pos receipt"
        record = verify_receipt(response.receipt, home.switch_keys(), client.exchange_of(response))
        return response, f"verified, record {record.number}"

    try:
        response, proof = _run(home, trade)
    except UntrustedBytesError as error:
        raise click.ClickException(f"the grammar does not admit this: {error}") from None
    except KeyError:
        raise click.ClickException(f"this terminal has no service {template}") from None
    facts: dict[str, Any] = {
        "code": response.code,
        "action": response.action,
        "meaning": response.text("en"),
        "text": response.text("zh"),
        "batch": response.request.batch,
        "stan": response.request.stan,
    }
    grammar = _grammar(home)
    for key, value in response.values.items():
        if key != de.RESPONSE_CODE:
            element = grammar.elements[key]
            facts["reason" if key == de.TEXT else element.name] = _shown(element, value, as_json)
    if response.command != COMMAND_NONE:
        facts["command"] = COMMANDS.get(response.command, str(response.command))
    if proof:
        facts["receipt"] = proof
    _print(facts, as_json, template, good=response.approved)
    if not response.approved:
        raise SystemExit(1)


def _shown(element: Element, value: Value, as_json: bool) -> Any:
    if element.key in _IN_YUAN and isinstance(value, int) and not as_json:
        return f"{yuan(value)} yuan"
    if element.key == de.RRN and isinstance(value, int):
        return f"{value:012d}"
    if element.key == de.REPLY:  # the customer asked for it
        return value
    return value if as_json and isinstance(value, int) else mask(element, value)


def _value(element: Element, text: str) -> Value:
    try:
        match element.kind:
            case Kind.N | Kind.Z:
                return int(text)
            case Kind.B | Kind.BV:
                return bytes.fromhex(text)
    except ValueError:
        raise click.UsageError(f"{element.name}: {text!r} is not of kind {element.kind.value}") from None
    return text


def _print(facts: Mapping[str, Any], as_json: bool, title: str, *, good: bool = True) -> None:
    if as_json:
        print_json(facts)
        return
    table = Table(title=title, title_justify="left", show_header=False, border_style="green" if good else "red")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(str(value), overflow="fold"))
    Console().print(table)
