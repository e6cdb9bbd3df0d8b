"""What the host decides: a ladder for each kind of request, and what follows in the books.

Each decision is made once and remembered; whoever calls sees to repeats. Nothing here waits or commits.
"""

from collections.abc import Callable, Sequence

from fengshou.ext.hosts.core_banking.ledger import Account, Ledger, Leg
from fengshou.ext.hosts.core_banking.pins import CardPins
from fengshou.ext.hosts.core_banking.register import Decided, Identity, Register
from fengshou.protocol.backend import Fields, PinRefused
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.iso8583 import MTI, OriginalData, transmission_time

PURCHASE, WITHDRAWAL, DEPOSIT, TRANSFER, PAYMENT = "00", "01", "21", "40", "50"
BACK = "20"  # void, refund, release
MOVEMENTS = frozenset((PURCHASE, WITHDRAWAL, DEPOSIT, TRANSFER, PAYMENT))

# A completion may be more than what was held by this much (China UnionPay).
COMPLETION_PERCENT_MAX = 115


class Refused(Exception):
    """A rung of a ladder does not hold; ``code`` is the answer's DE 39."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def processing_of(fields: Fields) -> str:
    """The first two digits of DE 3; empty when it is not there."""
    return str(fields.get(3, ""))[:2]


def account_of(ledger: Ledger, fields: Fields, *numbers: int) -> Account:
    """The account in the first of the elements that is there. Raises Refused."""
    for number in numbers:
        if number in fields:
            account = ledger.account(str(fields[number]))
            if account is None or account.status == "closed":
                raise Refused("14" if number == 2 else "42")
            return account
    raise Refused("30")


class Decisions:
    def __init__(self, ledger: Ledger, register: Register, pins: CardPins, now_us: Callable[[], int]) -> None:
        self._ledger = ledger
        self._register = register
        self._pins = pins
        self._now_us = now_us

    # -- what stands for itself ------------------------------------------------------------------------------------

    def move(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Post what 0200 asks or 0220 tells. What is told has happened, so the payer may come to owe."""
        legs: Sequence[Leg] = ()
        try:
            self._require_unburied(identity)
            legs = self._legs(fields, told=str(fields[MTI])[2] == "2")
            code, state = APPROVED, "posted"
        except Refused as refused:
            code, state = refused.code, "declined"
        decided = self._remember(fields, identity, fingerprint, int(fields.get(4, "0")), code, state)
        if legs:
            self._ledger.post(decided.id, legs)
        return decided

    def authorise(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Hold what 0100 asks."""
        payer = None
        try:
            self._require_unburied(identity)
            (payer, fen), _ = self._legs(fields, told=False)
            code, state = APPROVED, "held"
        except Refused as refused:
            code, state = refused.code, "declined"
        decided = self._remember(fields, identity, fingerprint, int(fields.get(4, "0")), code, state)
        if payer is not None:
            self._register.remember_hold(decided.id, payer)
            self._ledger.hold(payer, -fen)
        return decided

    def _require_pin(self, fields: Fields) -> None:
        try:
            self._pins.require(fields)
        except PinRefused as refused:
            raise Refused(refused.code) from None

    def _require_unburied(self, identity: Identity) -> None:
        if self._register.is_buried(identity):
            raise Refused("94")

    def _legs(self, fields: Fields, *, told: bool) -> tuple[Leg, Leg]:
        """The ladder of a movement, in order of precedence, and its legs. Raises Refused."""
        processing_code = processing_of(fields)
        if processing_code not in MOVEMENTS:
            raise Refused("30" if not processing_code else "12")
        amount_fen = _amount(fields)
        payer = account_of(self._ledger, fields, *((102,) if processing_code == DEPOSIT else (102, 2)))
        payee = account_of(self._ledger, fields, *((103, 2) if processing_code == DEPOSIT else (103,)))
        if not told and processing_code != DEPOSIT:
            self._require_pin(fields)
        return self._transfer(payer, payee, amount_fen, told=told)

    @staticmethod
    def _transfer(payer: Account, payee: Account, amount_fen: int, *, told: bool = False) -> tuple[Leg, Leg]:
        if "restricted" in (payer.status, payee.status):
            raise Refused("62")
        if payer.number == payee.number:
            raise Refused("12")
        if payer.available_fen < amount_fen and not told:
            raise Refused("51")
        return (payer.number, -amount_fen), (payee.number, amount_fen)

    # -- what follows an original ------------------------------------------------------------------------------------

    def refund(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Give back some of a purchase (0220, processing code 20), all of its refunds together at most all of it."""
        original, legs = None, None
        try:
            original = self._followed(fields, identity)
            amount_fen = _amount(fields)
            if original.state != "posted":
                raise Refused("25")
            if amount_fen + self._register.refunded_fen(original.id) > original.amount_fen:
                raise Refused("64")
            payer = account_of(self._ledger, fields, 103)
            legs = self._transfer(payer, account_of(self._ledger, fields, 102, 2), amount_fen)
            code, state = APPROVED, "posted"
        except Refused as refused:
            code, state = refused.code, "declined"
        decided = self._remember(fields, identity, fingerprint, int(fields.get(4, "0")), code, state, original)
        if legs:
            self._ledger.post(decided.id, legs)
        return decided

    def complete(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Pay what was held, or what it has come to (0200 with condition code 06)."""
        original, legs = None, None
        try:
            self._require_unburied(identity)
            original = self._followed(fields, identity)
            amount_fen = _amount(fields)
            if original.state != "held":
                raise Refused("01" if original.state == "declined" else "25")
            if amount_fen * 100 > original.amount_fen * COMPLETION_PERCENT_MAX:
                raise Refused("64")
            payer = account_of(self._ledger, fields, 102, 2)
            covered = payer.available_fen + original.amount_fen >= amount_fen
            legs = self._transfer(payer, account_of(self._ledger, fields, 103), amount_fen, told=covered)
            code, state = APPROVED, "posted"
        except Refused as refused:
            code, state = refused.code, "declined"
        decided = self._remember(fields, identity, fingerprint, int(fields.get(4, "0")), code, state, original)
        if legs and original is not None:
            self._let_go(original, "completed")
            self._ledger.post(decided.id, legs)
        return decided

    def take_back(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Undo the whole original, once: a void (0200 or 0100 with processing code 20)."""
        original: Decided | None = None
        try:
            self._require_unburied(identity)
            original = self._followed(fields, identity)
            self._require_reversible(original, fields)
            code, state = APPROVED, "reversal"
        except Refused as refused:
            original, code, state = None, refused.code, "declined"
        return self._undone(fields, identity, fingerprint, original, code, state)

    def reverse(self, fields: Fields, identity: Identity, fingerprint: bytes) -> Decided:
        """Undo the original, once. An original that has not come is answered 00, and refused should it come."""
        original: Decided | None = None
        try:
            named = _original_data(fields)
            original = self._register.find_original(identity.terminal, named)
            if original is None:
                self._register.bury(identity.terminal, named)
            else:
                self._require_reversible(original, fields)
            code, state = APPROVED, "reversal"
        except Refused as refused:
            original, code, state = None, refused.code, "declined"
        return self._undone(fields, identity, fingerprint, original, code, state)

    def _undone(
        self, fields: Fields, identity: Identity, fingerprint: bytes, original: Decided | None, code: str, state: str
    ) -> Decided:
        """Remember what was decided, and undo the original unless there is none to undo."""
        amount_fen = original.amount_fen if original else 0
        decided = self._remember(fields, identity, fingerprint, amount_fen, code, state, original)
        if original is not None:
            self._undo(original, decided)
        return decided

    def _followed(self, fields: Fields, identity: Identity) -> Decided:
        """The original that a follower names. Raises Refused."""
        original = self._register.find_original(identity.terminal, _original_data(fields))
        if original is None:
            raise Refused("25")
        return original

    def _require_reversible(self, original: Decided, fields: Fields) -> None:
        """The ladder of a reversal or void whose original was found. Raises Refused."""
        if original.state in ("reversed", "released"):
            raise Refused("25")
        if original.state == "declined":
            raise Refused("01")
        if original.state not in ("posted", "held") or original.processing_code == BACK:
            raise Refused("12")
        if 4 in fields and int(fields[4]) != original.amount_fen:
            raise Refused("64")
        if self._register.refunded_fen(original.id):
            raise Refused("64")

    def _undo(self, original: Decided, by: Decided) -> None:
        if original.state == "held":
            self._let_go(original, "released")
            return
        self._ledger.reverse(original.id, by.id)
        self._register.mark(original.id, "reversed")
        if original.original is not None:  # a completion: what it was to pay is held again
            held = self._register.get(original.original)
            self._register.mark(held.id, "held")
            self._ledger.hold(self._register.held_account(held.id), held.amount_fen)

    def _let_go(self, held: Decided, state: str) -> None:
        self._ledger.hold(self._register.held_account(held.id), -held.amount_fen)
        self._register.mark(held.id, state)

    def _remember(
        self,
        fields: Fields,
        identity: Identity,
        fingerprint: bytes,
        amount_fen: int,
        code: str,
        state: str,
        original: Decided | None = None,
    ) -> Decided:
        # The switch says in which business day it counts; a request without DE 15 counts to the host's own day.
        date = str(fields.get(15, transmission_time(self._now_us())[:4]))
        processing_code = processing_of(fields)
        about = original.id if original else None
        number = self._register.add(identity, fingerprint, processing_code, amount_fen, code, date, state, about)
        return Decided(number, fingerprint, amount_fen, code, date, state, identity.kind, processing_code, about)


def _amount(fields: Fields) -> int:
    """DE 4 in fen. Raises Refused."""
    if 4 not in fields:
        raise Refused("30")
    amount_fen = int(fields[4])
    if amount_fen == 0:
        raise Refused("13")
    return amount_fen


def _original_data(fields: Fields) -> OriginalData:
    digits = fields.get(90)
    if not isinstance(digits, str):
        raise Refused("30")
    original = OriginalData.parse(digits)
    if original.mti[1] not in "12":
        raise Refused("12")
    return original
