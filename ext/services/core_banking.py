"""What the scenes share in speaking to core banking over ISO 8583:1987.

Whose money moves is never a matter of what a terminal claims: a card that was read pays or, without a card, the
account that the registry binds to the terminal. A terminal cannot name another account to be debited.
"""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, ClassVar

from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.message import Value
from fengshou.protocol.service import Conclusion, Iso8583Call, Reply, Request, Service

CORE_BANKING = "core-banking"
PIN_DIGITS_MAX = "12"  # DE 26, ISO 9564-1 section 8.1


# Out of a request's values; the template of every scene that asks for money requires them.
_asked_at = itemgetter(de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE)


def payer_of(request: Request) -> str:
    """The card that pays or, without one, the terminal's own settlement account."""
    return request.string(de.PAN) or request.terminal.settlement_account


def place_of(request: Request) -> dict[str, Any]:
    """Where a transaction happened, for analytics."""
    return {"town": request.terminal.town, "site": request.terminal.site}


class CoreBankingService(Service):
    """A scene that core banking completes.

    ``processing_code`` is DE 3: two digits of what is done, then the types of the account that pays and of the one that
    is paid (00, the default of card or account).
    """

    destination = CORE_BANKING
    processing_code: ClassVar[str]

    def financial_request(self, request: Request, *, payer: str = "", payee: str = "", reference: str) -> Iso8583Call:
        """A 0200. The card, amount, clock and entry mode are those of the message; ``reference`` is for statements."""
        values = request.values
        clock, day, entry_mode = _asked_at(values)
        fields: dict[int, str | bytes] = {
            3: self.processing_code,
            12: str(clock).zfill(6),
            13: str(day).zfill(4),
            15: str(request.business_day % 10_000).zfill(4),
            22: str(entry_mode).zfill(3),
            25: "00",
            48: reference,
        }
        if de.PAN in values:
            fields[2] = request.string(de.PAN)
        block = values.get(de.PIN_BLOCK)
        if isinstance(block, bytes):
            fields[26] = PIN_DIGITS_MAX
            fields[52] = block  # the terminal's; the switch puts the one for the host in its place
        if de.AMOUNT in values:
            fields[4] = str(values[de.AMOUNT]).zfill(12)
        if payer:
            fields[102] = payer
        if payee:
            fields[103] = payee
        return Iso8583Call(200, fields)

    def conclude(self, request: Request, reply: Reply) -> Conclusion:
        return Conclusion(reply.code, authorisation_of(reply))


def authorisation_of(reply: Reply) -> Mapping[int, Value]:
    """The host's authorisation (DE 38), when it approved and gave one that a terminal can print."""
    text = reply.fields.get(38)
    if reply.code == APPROVED and isinstance(text, str) and len(text) == 6 and text.isascii() and text.isprintable():
        return {de.AUTHORISATION: text}
    return {}


class MalformedAmounts(ValueError):
    """DE 54 is not what ISO 8583:1987 describes."""


_AMOUNT_CHARS = 20
LEDGER, AVAILABLE = "01", "02"


def amounts_of(untrusted: str | bytes | None) -> dict[str, int]:
    """Balances in fen by amount type (``LEDGER``, ``AVAILABLE`` …), overdrawn negative; other currencies are left out.

    DE 54 repeats 20 characters: account type 2, amount type 2, currency 3, C or D, 12 digits. Raises MalformedAmounts.
    """
    if not isinstance(untrusted, str) or len(untrusted) % _AMOUNT_CHARS:
        raise MalformedAmounts
    amounts: dict[str, int] = {}
    for at in range(0, len(untrusted), _AMOUNT_CHARS):
        kind, currency = untrusted[at + 2 : at + 4], untrusted[at + 4 : at + 7]
        sign, digits = untrusted[at + 7], untrusted[at + 8 : at + _AMOUNT_CHARS]
        if sign not in "CD" or not (digits.isascii() and digits.isdecimal()):
            raise MalformedAmounts
        if currency == f"{de.CURRENCY_CNY:03d}":
            amounts[kind] = int(digits) if sign == "C" else -int(digits)
    return amounts
