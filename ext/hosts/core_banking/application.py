"""The embedded core-banking host: judges each request, keeps the books, and answers a repeat as it answered the first.

Processing codes (first two digits of DE 3): 00 purchase, 50 payment, 01 cash withdrawal, 21 deposit and 40 transfer
move money; 30 and 31 ask for a balance. DE 102 pays, or without it the card of DE 2; DE 103 is paid; a deposit without
DE 103 goes to the card. 0220 tells of a movement that has happened. What names an original does so by DE 41 and DE 90:
a reversal (04xx), a void (0200 with 20), a refund (0220 with 20); and of a pre-authorisation (0100) its completion
(0200 with 00) and its void (0100 with 20).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fengshou.ext.hosts.core_banking.decisions import BACK, Decisions, Refused, account_of, processing_of
from fengshou.ext.hosts.core_banking.ledger import Ledger, read_accounts
from fengshou.ext.hosts.core_banking.pins import CardPins
from fengshou.ext.hosts.core_banking.register import Decided, Identity, Register, fingerprint_of, identity_of
from fengshou.ext.hosts.core_banking.report import day_rows, ledger_report
from fengshou.protocol.backend import Fields, PinRefused, PinVerifier
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.day_file import DayRow
from fengshou.protocol.iso8583 import MTI, answer_mti

ENQUIRIES = frozenset(("30", "31"))

# What an answer repeats of its request.
_ECHOED = (3, 4, 7, 11, 12, 13, 32, 33, 37, 41, 42, 49)

_OPTIONS = frozenset(("database", "accounts"))

Decide = Callable[[Fields, Identity, bytes], Decided]


def _wall_us() -> int:
    return time.time_ns() // 1000


class Application:
    """An ``Iso8583Application``. Options: ``database``, the file of the books; ``accounts``, opening accounts (CSV).

    Accounts that are not in the books are added from the file at start and never otherwise.
    """

    def __init__(
        self, options: Mapping[str, Any], *, now_us: Callable[[], int] = _wall_us, pins: PinVerifier | None = None
    ) -> None:
        """``now_us`` gives the business day; without ``pins`` a request with a PIN is refused.

        Raises ValueError naming an option that is missing or unusable.
        """
        if unknown := sorted(set(options) - _OPTIONS):
            raise ValueError(f"core-banking host: unknown option {unknown[0]!r}; known are accounts, database")
        if "database" not in options:
            raise ValueError("core-banking host: option 'database' is missing: the file in which the books are kept")
        self._database = Path(options["database"])
        if not self._database.parent.is_dir():
            raise ValueError(f"core-banking host: option 'database': no folder {self._database.parent}")
        self._ledger = Ledger(self._database)
        self._register = Register(self._ledger.connection)
        self._pins = CardPins(self._ledger.connection, pins)
        self._decisions = Decisions(self._ledger, self._register, self._pins, now_us)
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

    @staticmethod
    def give_pin(options: Mapping[str, Any], card: str, offset: str) -> None:
        """See ``protocol.backend.PinBooks``."""
        ledger = Ledger(Path(options["database"]))
        try:
            if ledger.account(card) is None:
                raise LookupError("no such card in the books")
            with ledger.batch():
                CardPins(ledger.connection, None).give(card, offset)
        finally:
            ledger.close()

    def close(self) -> None:
        self._ledger.close()

    def _answer(self, fields: Fields) -> Fields:
        identity = identity_of(fields)
        if identity is None:
            return _response(fields, "30")
        match str(fields[MTI])[1:3]:
            case "20" if processing_of(fields) in ENQUIRIES:
                return self._enquire(fields)
            case kind if decide := self._decision(kind, fields):
                return self._once(fields, identity, decide)
        return _response(fields, "40")

    def _decision(self, kind: str, fields: Fields) -> Decide | None:
        """What decides a request; ``kind`` is the second and third digit of its MTI."""
        decisions, back, follows = self._decisions, processing_of(fields) == BACK, 90 in fields
        match kind:
            case "10":
                return decisions.take_back if back else decisions.authorise
            case "20" if back:
                return decisions.take_back
            case "20" if follows:
                return decisions.complete
            case "22" if back:
                return decisions.refund
            case "20" | "22":
                return decisions.move
            case "40" | "42":
                return decisions.reverse
        return None

    def _once(self, fields: Fields, identity: Identity, decide: Decide) -> Fields:
        """Decide a request, or answer as it was decided before."""
        fingerprint = fingerprint_of(fields)
        decided = self._register.find(identity)
        if decided is None:
            decided = decide(fields, identity, fingerprint)
        elif decided.fingerprint != fingerprint:
            return _response(fields, "94")
        return _response(fields, decided.code, decided)

    def _enquire(self, fields: Fields) -> Fields:
        """DE 54: ledger balance and, without what pre-authorisations hold, available balance."""
        try:
            account = account_of(self._ledger, fields, 102, 2)
            self._pins.require(fields)
            if account.status == "restricted":
                raise Refused("62")
        except (Refused, PinRefused) as refused:
            return _response(fields, refused.code)
        balances = f"0001{_balance(account.balance_fen)}0002{_balance(account.available_fen)}"
        return {**_response(fields, APPROVED), 54: balances}


def _balance(fen: int) -> str:
    return f"156{'D' if fen < 0 else 'C'}{abs(fen):012d}"


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
