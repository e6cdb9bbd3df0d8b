"""What ``fengshou pos`` and ``fengshou kiosk`` make a trade with: options, the session, how it is told."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any, TypeVar

import click
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fengshou.protocol import elements as de
from fengshou.protocol.elements import Element, Kind, mask
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import COMMAND_NONE, COMMANDS, Value
from fengshou.protocol.templates import Grammar
from fengshou.switch.cli.common import ask_pin, print_json, yuan
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.terminals.client import Response, TerminalClient, connect
from fengshou.terminals.home import Home
from fengshou.terminals.identity import Counters
from fengshou.terminals.receipt import verify_receipt
from fengshou.terminals.signer_dialogue import SignerDialogue

T = TypeVar("T")

_HUNDREDTHS = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?")
CHIP, CHIP_AND_PIN, KEYED = 52, 51, 12  # DE 22: the card's chip without and with PIN, typed in

_SLOW_S = 3.0  # after so long the person is told that there is no answer; the terminal goes on trying

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

terminal_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="FENGSHOU_TERMINAL",
    show_envvar=True,
    help="The terminal's folder, made by `fengshou terminal enrol`.",
)
receipt_option = click.option("--receipt", "wants_receipt", is_flag=True, help="Ask for a receipt and verify it.")
pin_option = click.option("--pin", "with_pin", is_flag=True, help="Ask for the card's PIN.")
card_option = click.option("--card", required=True, help="Number of the card that is read.")
amount_option = click.option("--amount", type=HUNDREDTHS, required=True, help="Yuan, for example 300 or 12.50.")


def grammar_of(home: Home) -> Grammar:
    return Catalogue(load_service(module, {}) for module in home.configuration.services).grammar


def run(home: Home, use: Callable[[TerminalClient], Awaitable[T]]) -> T:
    return run_counted(home, lambda client, _: use(client))


def run_counted(home: Home, use: Callable[[TerminalClient, Counters], Awaitable[T]]) -> T:
    with counters_of(home) as counters, told_when_slow(home):

        async def session() -> T:
            async with connect(
                home.address,
                home.context(),
                home.switch_name,
                home.identity,
                home.signer(),
                counters,
                grammar_of(home),
                log=home.batch_log(),
                keys=home.keys(),
                home=home,
            ) as client:
                result = await use(client, counters)
                await client.sign_off()
                return result

        return trio.run(session)


@contextmanager
def counters_of(home: Home) -> Iterator[Counters]:
    counters = home.counters()
    try:
        yield counters
    finally:
        counters.close()


@contextmanager
def told_when_slow(home: Home) -> Iterator[None]:
    host, port = home.address
    notice = Timer(_SLOW_S, partial(click.echo, f"waiting for the switch at {host}:{port}", err=True))
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def trade(
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
        entered = {de.ENTRY_MODE: CHIP_AND_PIN, **await client.pin(digits, str(values[de.PAN]))} if digits else {}
        hidden = await client.sealed(values) if de.SUBJECT in values else values
        response = await client.trade(template, {**hidden, **entered}, receipt=wants_receipt)
        if not wants_receipt:
            return response, ""
        if response.receipt is None:
            return response, "not yet; ask later: fengshou pos receipt"
        exchange = client.exchange_of(response)
        prove = partial(verify_receipt, response.receipt, exchange=exchange)
        record = await SignerDialogue(home).proved(prove, client.signer)
        return response, f"verified, record {record.number}"

    try:
        response, proof = run(home, trade)
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
    grammar = grammar_of(home)
    for key, value in response.values.items():
        if key != de.RESPONSE_CODE:
            element = grammar.elements[key]
            facts["reason" if key == de.TEXT else element.name] = shown(element, value, as_json)
    if response.command != COMMAND_NONE:
        facts["command"] = COMMANDS.get(response.command, str(response.command))
    if proof:
        facts["receipt"] = proof
    print_facts(facts, as_json, template, good=response.approved)
    if not response.approved:
        raise SystemExit(1)


def shown(element: Element, value: Value, as_json: bool) -> Any:
    if element.key in _IN_YUAN and isinstance(value, int) and not as_json:
        return f"{yuan(value)} yuan"
    if element.key == de.RRN and isinstance(value, int):
        return f"{value:012d}"
    if element.key == de.REPLY:  # the customer asked for it
        return value
    return value if as_json and isinstance(value, int) else mask(element, value)


def value_of(element: Element, text: str) -> Value:
    try:
        match element.kind:
            case Kind.N | Kind.Z:
                return int(text)
            case Kind.B | Kind.BV:
                return bytes.fromhex(text)
    except ValueError:
        raise click.UsageError(f"{element.name}: {text!r} is not of kind {element.kind.value}") from None
    return text


def print_facts(facts: Mapping[str, Any], as_json: bool, title: str, *, good: bool = True) -> None:
    if as_json:
        print_json(facts)
        return
    table = Table(title=title, title_justify="left", show_header=False, border_style="green" if good else "red")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(str(value), overflow="fold"))
    Console().print(table)
