"""A small bank: its accounts, and the requests that a switch would send."""

from fengshou.ext.hosts.core_banking import Application
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import original_data, transmission_time

BUYER, FARMER, SHOP, FROZEN, CLOSED = (f"623000000000000{n}" for n in range(1, 6))
CARD = "6217001234567890123"

ACCOUNTS = f"""\
# synthetic
number,name,kind,opening_fen,status
{BUYER},buyer,account,100000,open
{FARMER},farmer,account,0,
{SHOP},shop,settlement,50000,
{FROZEN},frozen,account,70000,restricted
{CLOSED},closed,account,0,closed
{CARD},holder,card,200000,
"""

NOW_US = 1_763_963_999_000_000  # 2025-11-24 13:59:59 in UTC+8
TERMINAL = "POS00001"
ACQUIRER = 1020000


def request(rrn: int, code: str, fen: int | None, **fields: str | None) -> Fields:
    """A 0200. Keywords ``f2=…`` set elements; None removes one."""
    message: dict[int, str | bytes] = {
        0: "0200",
        3: f"{code}0000",
        7: transmission_time(NOW_US),
        11: f"{rrn % 1_000_000:06d}",
        32: f"{ACQUIRER:08d}",
        37: f"{rrn:012d}",
        41: TERMINAL,
        42: "MERCHANT0000001",
        49: "156",
    }
    if fen is not None:
        message[4] = f"{fen:012d}"
    return changed(message, **fields)


def reversal(original: Fields, rrn: int, **fields: str | None) -> Fields:
    """The 0400 that undoes ``original``."""
    message = dict(original)
    message |= {
        0: "0400",
        11: f"{rrn % 1_000_000:06d}",
        39: "98",
        90: original_data(200, int(original[37]), NOW_US, ACQUIRER),
    }
    return changed(message, **fields)


def changed(message: Fields, **fields: str | None) -> Fields:
    result = dict(message)
    for name, value in fields.items():
        result.pop(int(name[1:]), None)
        if value is not None:
            result[int(name[1:])] = value
    return result


def balances(host: Application) -> dict[str, int]:
    """Ledger balances as the host itself tells them, in fen."""
    answers = host.answer(
        [request(9_000_000 + n, "31", None, f102=a) for n, a in enumerate((BUYER, FARMER, SHOP, CARD))]
    )
    texts = [str(answer[54]) for answer in answers if answer is not None]
    return {
        name: int(text[8:20]) * (1 if text[7] == "C" else -1)
        for name, text in zip(("buyer", "farmer", "shop", "card"), texts, strict=True)
    }
