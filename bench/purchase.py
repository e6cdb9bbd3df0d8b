"""The message that everything here is measured with: one farm purchase of twelve fields, as each format carries it."""

from pathlib import Path
from typing import Any

import msgspec
from iso8583sim.core.types import ISO8583Message

from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.protocol import elements as de
from fengshou.protocol.backend import Fields
from fengshou.protocol.message import Flag, Message, Value
from fengshou.protocol.templates import Grammar

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
GRAMMAR = Grammar((), (FARM_PURCHASE,))

VALUES: dict[int, Value] = {
    de.AMOUNT: 1_158_000,
    de.STAN: 123_456,
    de.LOCAL_TIME: 72_150,
    de.LOCAL_DATE: 612,
    de.ENTRY_MODE: 12,
    de.PRODUCT: 1,
    de.VARIETY: 3,
    de.GRADE: 2,
    de.WEIGHT: 12_000,
    de.UNIT_PRICE: 9_650,
    de.TO_ACCOUNT: "9156001004001187857",
    de.TOWN: 4,
}

# What the session knows and the terminal signs with each message.
IMPLIED: dict[int, Value] = {
    de.TERMINAL: "FS000001",
    de.MERCHANT: "999452007630001",
    de.BATCH: 1,
    de.OPERATOR: "001",
    de.CURRENCY: de.CURRENCY_CNY,
}


def message(signature: bytes = bytes(64)) -> Message:
    return Message(FARM_PURCHASE.id, Flag.SIGNED, 42, dict(VALUES), signature)


# The same purchase as a host sees it. ISO 8583 names terminal and merchant in every message and has no goods.
HOST_FIELDS: Fields = {
    0: "0200",
    3: "000000",
    4: "000001158000",
    7: "0612072150",
    11: "123456",
    22: "012",
    32: "99904520",
    37: "632800123456",
    41: "FS000001",
    42: "999452007630001",
    49: "156",
    103: "9156001004001187857",
}


def pyiso8583_spec() -> dict[str, dict[str, Any]]:
    """HOST_FIELDS and their answer for pyiso8583, in packed form: BCD numbers and lengths, a binary bitmap."""

    def field(encoding: str, length_bytes: int, size: int, **more: str) -> dict[str, Any]:
        row = {"data_enc": encoding, "len_enc": "bcd", "len_type": length_bytes, "max_len": size, "desc": ""}
        return {**row, **more}

    def digits(size: int, length_bytes: int = 0, pad: str = "left_pad") -> dict[str, Any]:
        return field("b", length_bytes, size, len_count="nibbles", **{pad: "0"})

    return {
        "h": field("ascii", 0, 0), "t": field("b", 0, 2), "p": field("b", 0, 8), "1": field("b", 0, 8),
        "3": digits(6), "4": digits(12), "7": digits(10), "11": digits(6), "15": digits(4), "22": digits(3),
        "32": digits(11, 1, "right_pad"), "37": field("ascii", 0, 12), "38": field("ascii", 0, 6),
        "39": field("ascii", 0, 2), "41": field("ascii", 0, 8), "42": field("ascii", 0, 15),
        "49": field("ascii", 0, 3), "102": field("ascii", 1, 28), "103": field("ascii", 1, 28),
    }  # fmt: skip


def pyiso8583_document() -> dict[str, str]:
    return {"t" if number == 0 else str(number): str(value) for number, value in HOST_FIELDS.items()}


def iso8583sim_message() -> ISO8583Message:
    """HOST_FIELDS for iso8583sim."""
    fields = {number: str(value) for number, value in HOST_FIELDS.items()}
    return ISO8583Message(mti=fields[0], fields=fields)


class Purchase(msgspec.Struct):
    """The purchase as a program without a protocol of its own would send it, with the same signature."""

    sequence: int
    amount: int
    stan: int
    local_time: int
    local_date: int
    entry_mode: int
    product: int
    variety: int
    grade: int
    weight: int
    unit_price: int
    to_account: str
    town: int
    signature: bytes


def struct(signature: bytes = bytes(64)) -> Purchase:
    fields: dict[str, Any] = dict(zip(Purchase.__struct_fields__, (42, *VALUES.values(), signature), strict=True))
    return Purchase(**fields)
