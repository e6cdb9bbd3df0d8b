"""Trades to be made by terminals, as rows of a CSV file: the purchases of a season, or a mix of other services."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.terminals.csv_rows import CsvError, Row, read_rows

# Step of a reversal's original that was never sent.
NEVER_SENT = -1

# DE 22 when a row does not say: the card's chip with or without PIN, or no card at all.
_CHIP_AND_PIN, _CHIP, _KEYED = 51, 52, 12

_NUMBERS = {
    "amount_fen": de.AMOUNT, "entry_mode": de.ENTRY_MODE, "product": de.PRODUCT, "variety": de.VARIETY,
    "grade": de.GRADE, "weight_centikg": de.WEIGHT, "unit_price_fen": de.UNIT_PRICE, "town": de.TOWN, "item": de.ITEM,
    "domain": de.DOMAIN, "period": de.PERIOD,
}  # fmt: skip
_TEXTS = {
    "card": de.PAN, "payee": de.TO_ACCOUNT, "to_account": de.TO_ACCOUNT, "lot": de.LOT, "subject": de.SUBJECT,
}  # fmt: skip
_OTHERS = ("date", "time", "step", "service", "expect", "why", "reverses", "pin")


@dataclass(frozen=True, slots=True)
class Trade:
    """One request to be made. ``terminal`` is empty when any may make it."""

    template: str
    values: Mapping[int, Value]
    terminal: str = ""
    step: int = 0  # its number, by which a later one of the same terminal can take it back
    reverses: int = 0  # step of the trade that it takes back, or NEVER_SENT; 0 for none
    expect: str = ""  # the response code that it must get; empty: any
    pin: str = ""  # what the holder of a made-up card enters; empty: none


def read_trades(path: Path, template: str) -> Iterator[Trade]:
    """The trades of a file; ``template`` is for rows that name no service. Raises CsvError."""
    for row in read_rows(path, ("terminal",), (*_NUMBERS, *_TEXTS, *_OTHERS)):
        reverses = row.text("reverses")
        yield Trade(
            template=row.text("service") or template,
            values=_values(row),
            terminal=row.text("terminal"),
            step=row.integer("step") if row.text("step") else 0,
            reverses=NEVER_SENT if reverses == str(NEVER_SENT) else row.integer("reverses") if reverses else 0,
            expect=row.text("expect"),
            pin=row.text("pin"),
        )


def _values(row: Row) -> dict[int, Value]:
    values: dict[int, Value] = {key: row.integer(column) for column, key in _NUMBERS.items() if row.text(column)}
    values |= {key: row.text(column) for column, key in _TEXTS.items() if row.text(column)}
    if de.AMOUNT in values and not row.text("reverses"):
        card = _CHIP_AND_PIN if row.text("pin") else _CHIP
        values.setdefault(de.ENTRY_MODE, card if de.PAN in values else _KEYED)
    if de.ITEM in values:
        values.setdefault(de.SUBJECT, "")  # an enquiry always names somebody, if only nobody
    if row.text("date"):
        values[de.LOCAL_DATE] = _digits(row, "date", 8) % 10_000
    if row.text("time"):
        values[de.LOCAL_TIME] = _digits(row, "time", 6)
    return values


def _digits(row: Row, column: str, count: int) -> int:
    """A date ``2026-03-20`` or time ``07:21:50`` without its marks."""
    digits = row.text(column).replace("-", "").replace(":", "")
    if len(digits) != count or not (digits.isascii() and digits.isdecimal()):
        raise CsvError(f"{row.where}: {column} is malformed")
    return int(digits)
