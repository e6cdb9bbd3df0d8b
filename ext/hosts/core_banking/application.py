"""The embedded core-banking host: judges each request, keeps the books, and answers a repeat as it answered the first.

Processing codes (first two digits of DE 3): 00 purchase, 50 payment, 01 cash withdrawal, 21 deposit and 40 transfer
move money; 30 and 31 ask for a balance. DE 102 pays, or without it the card of DE 2; DE 103 is paid; a deposit without
DE 103 goes to the card. A reversal (04xx) names its original by DE 41 and DE 90.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fengshou.ext.hosts.core_banking.ledger import Account, Ledger, Leg, read_accounts
from fengshou.ext.hosts.core_banking.register import Decided, Identity, Register, fingerprint_of, identity_of
from fengshou.ext.hosts.core_banking.report import day_rows, ledger_report
from fengshou.protocol.backend import Fields
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.day_file import DayRow
from fengshou.protocol.iso8583 import MTI, OriginalData, answer_mti, transmission_time

PURCHASE, WITHDRAWAL, DEPOSIT, TRANSFER, PAYMENT = "00", "01", "21", "40", "50"
MOVEMENTS = frozenset((PURCHASE, WITHDRAWAL, DEPOSIT, TRANSFER, PAYMENT))
ENQUIRIES = frozenset(("30", "31"))

# What an answer repeats of its request.
_ECHOED = (3, 4, 7, 11, 12, 13, 32, 33, 37, 41, 42, 49)

_OPTIONS = frozenset(("database", "accounts"))


class Refused(Exception):
    """A rung of a ladder does not hold; ``code`` is the answer's DE 39."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _wall_us() -> int:
    return time.time_ns() // 1000


class Application:
    """An ``Iso8583Application``. Options: ``database``, the file of the books; ``accounts``, opening accounts (CSV).

    Accounts that are not in the books are added from the file at start and never otherwise.
    """

    def __init__(self, options: Mapping[str, Any], *, now_us: Callable[[], int] = _wall_us) -> None:
        """``now_us`` gives the business day. Raises ValueError naming an option that is missing or unusable."""
        if unknown := sorted(set(options) - _OPTIONS):
            raise ValueError(f"core-banking host: unknown option {unknown[0]!r}; known are accounts, database")
        if "database" not in options:
            raise ValueError("core-banking host: option 'database' is missing: the file in which the books are kept")
        self._database = Path(options["database"])
        if not self._database.parent.is_dir():
            raise ValueError(f"core-banking host: option 'database': no folder {self._database.parent}")
        self._now_us = now_us
        self._ledger = Ledger(self._database)
        self._register = Register(self._ledger.connection)
        if "accounts" in options:
            self._ledger.open_accounts(read_accounts(Path(options["accounts"])))

    def answer(self, requests: Sequence[Fields]) -> Sequence[Fields | None]:
        """One durable transaction for all of them. Raises sqlite3.Error or LedgerError, and then nothing was done."""
        with self._ledger.batch():
            return [self._answer(fields) for fields in requests]

    def report(self, name: str) -> Mapping[str, Any]:
        """The report ``totals``, see ``ledger_report``. Raises LookupError for another name."""
        if name != "totals":
            raise LookupError(f"no report {name!r}; there is 'totals'")
        return ledger_report(self._database)

    @staticmethod
    def day_rows(options: Mapping[str, Any], business_day: int) -> Iterator[DayRow]:
        """See ``protocol.backend.DayBooks``."""
        return day_rows(Path(options["database"]), business_day)

    def close(self) -> None:
        self._ledger.close()

    def _answer(self, fields: Fields) -> Fields:
        identity = identity_of(fields)
        if identity is None:
            return _response(fields, "30")
        match str(fields[MTI])[1:3]:
            case "20" if str(fields.get(3, ""))[:2] in ENQUIRIES:
                return self._enquire(fields)
            case "20":
                return self._once(fields, identity, self._move)
            case "40" | "42":
                return self._once(fields, identity, self._reverse)
        return _response(fields, "40")

    def _once(self, fields: Fields, identity: Identity, decide: Callable[[Fields, Identity, bytes], Decided]) -> Fields:
        """Decide a request, or answer as it was decided before."""
        fingerprint = fingerprint_of(fields)
        decided = self._register.find(identity)
        if decided is None:
            decided = decide(fields, identity, fingerprint)
        elif decided.fingerprint != fingerprint:
            return _response(fields, "94")
        return _response(fields, decided.code, decided)

    def _move(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Post what 0200 asks, when its ladder holds."""
        legs: Sequence[Leg] = ()
        try:
            if self._register.is_buried(identity):
                raise Refused("94")
            legs = self._legs(fields)
            code, state = APPROVED, "posted"
        except Refused as refused:
            code, state = refused.code, "declined"
        decided = self._remember(fields, identity, fingerprint, int(fields.get(4, "0")), code, state)
        if legs:
            self._ledger.post(decided.id, legs)
        return decided

    def _legs(self, fields: Fields) -> Sequence[Leg]:
        """The ladder of a movement, in order of precedence, and its legs. Raises Refused."""
        processing_code = str(fields.get(3, ""))[:2]
        if processing_code not in MOVEMENTS:
            raise Refused("30" if not processing_code else "12")
        if 4 not in fields:
            raise Refused("30")
        amount_fen = int(fields[4])
        if amount_fen == 0:
            raise Refused("13")
        payer = self._account(fields, *((102,) if processing_code == DEPOSIT else (102, 2)))
        payee = self._account(fields, *((103, 2) if processing_code == DEPOSIT else (103,)))
        if "restricted" in (payer.status, payee.status):
            raise Refused("62")
        if payer.number == payee.number:
            raise Refused("12")
        if payer.balance_fen < amount_fen:
            raise Refused("51")
        return [(payer.number, -amount_fen), (payee.number, amount_fen)]

    def _account(self, fields: Fields, *numbers: int) -> Account:
        """The account in the first of the elements that is there. Raises Refused."""
        for number in numbers:
            if number in fields:
                account = self._ledger.account(str(fields[number]))
                if account is None or account.status == "closed":
                    raise Refused("14" if number == 2 else "42")
                return account
        raise Refused("30")

    def _enquire(self, fields: Fields) -> Fields:
        """DE 54: ledger and available balance, which differ only where a host holds amounts back; this one does not."""
        try:
            account = self._account(fields, 102, 2)
            if account.status == "restricted":
                raise Refused("62")
        except Refused as refused:
            return _response(fields, refused.code)
        amount = f"156{'D' if account.balance_fen < 0 else 'C'}{abs(account.balance_fen):012d}"
        return {**_response(fields, APPROVED), 54: f"0001{amount}0002{amount}"}

    def _reverse(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Undo the original, once. An original that has not come is answered 00, and refused should it come."""
        amount_fen = 0
        try:
            original_data = self._original_data(fields)
            original = self._register.find_original(identity.terminal, original_data)
            if original is None:
                self._register.bury(identity.terminal, original_data)
            else:
                _require_reversible(original, fields)
                amount_fen = original.amount_fen
            code, state = APPROVED, "reversal"
        except Refused as refused:
            original, code, state = None, refused.code, "declined"
        decided = self._remember(fields, identity, fingerprint, amount_fen, code, state)
        if original is not None:
            self._ledger.reverse(original.id, decided.id)
            self._register.mark_reversed(original.id)
        return decided

    def _original_data(self, fields: Fields) -> OriginalData:
        digits = fields.get(90)
        if not isinstance(digits, str):
            raise Refused("30")
        original = OriginalData.parse(digits)
        if original.mti[1] != "2":
            raise Refused("12")
        return original

    def _remember(
        self, fields: Fields, identity: Identity, fingerprint: bytes, amount_fen: int, code: str, state: str
    ) -> Decided:
        # The switch says in which business day it counts; a request without DE 15 counts to the host's own day.
        settlement_date = str(fields.get(15, transmission_time(self._now_us())[:4]))
        processing_code = str(fields.get(3, ""))[:2]
        number = self._register.add(identity, fingerprint, processing_code, amount_fen, code, settlement_date, state)
        return Decided(number, fingerprint, amount_fen, code, settlement_date, state)


def _require_reversible(original: Decided, reversal: Fields) -> None:
    """The ladder of a reversal whose original was found. Raises Refused."""
    if original.state == "reversed":
        raise Refused("25")
    if original.state == "declined":
        raise Refused("01")
    if 4 in reversal and int(reversal[4]) != original.amount_fen:
        raise Refused("64")


def _response(request: Fields, code: str, decided: Decided | None = None) -> dict[int, str | bytes]:
    """The answer's message. DE 38 is the number of the decision, so a repeat gets the same."""
    response: dict[int, str | bytes] = {number: request[number] for number in _ECHOED if number in request}
    response[MTI] = answer_mti(str(request[MTI]))
    response[39] = code
    if decided is not None:
        response[15] = decided.settlement_date
        if code == APPROVED:
            response[38] = f"{decided.id % 1_000_000:06d}"
    return response
