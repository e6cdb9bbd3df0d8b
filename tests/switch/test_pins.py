"""PINs end to end: keys at sign-in, a PIN from the terminal's key through custody to the host, right, wrong and locked."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import trio

from fengshou.hsm.custody import PinFormat
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.switch.hosting import set_pin
from fengshou.terminals.client import Response, TerminalClient
from fengshou.terminals.identity import Counters
from fengshou.terminals.key_store import KeyStore
from tests.switch.town import LIMITED_PAN, PAN, RETURNED_PAN, TERMINALS, Town, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]


def give(town: Town, card: str, digits: bytes) -> None:
    set_pin(town.folder / "hosts/core-banking", card, bytearray(digits))


async def paid(
    client: TerminalClient, card: str, digits: bytes, form: PinFormat = PinFormat.ISO_4, template: str = "withdrawal"
) -> Response:
    values: dict[int, Value] = {**withdrawal(1_000, card)}
    if template == "balance":
        del values[de.AMOUNT]
    return await client.trade(template, {**values, **await client.pin(bytearray(digits), card, form)})


def store(town: Town, terminal: str) -> KeyStore:
    """The keys of a terminal, in memory only."""
    return KeyStore.of_key(town.home(terminal).signer())


def test_a_pin_is_right_wrong_or_entered_too_often(town: Town) -> None:
    give(town, RETURNED_PAN, b"1234")

    async def main() -> list[str]:
        async with town.client(TERMINALS[2], Counters(), keys=store(town, TERMINALS[2])) as client:
            digits = (b"1234", b"4321", b"4321", b"1234", b"9999", b"9998", b"9997", b"1234")
            return [(await paid(client, RETURNED_PAN, entered)).code for entered in digits]

    assert trio.run(main) == ["00", "55", "55", "00", "55", "55", "75", "75"]
    give(town, RETURNED_PAN, b"5678")  # the holder is given another PIN
