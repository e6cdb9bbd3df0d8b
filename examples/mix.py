"""A mix of the other scenes, a row a request, each with the code that must answer it.

Rows of one terminal are sent in their order, each after the answer to the one before: a reversal names an earlier row.
"""

import random
from dataclasses import dataclass

from cast import Account, Cast, Terminal, account_number, card_number

REGULAR = 300
_CHIP, _KEYED = 52, 12  # DE 22: chip without PIN, keyed

# Items of the government catalogue: (domain, item), all enquiries about a person that want no period.
_ITEMS = ((1, 1), (1, 7), (2, 102), (4, 301))


@dataclass(frozen=True, slots=True)
class Step:
    """``reverses`` is the step of the original, or -1: an original that was never sent."""

    step: int
    terminal: str
    service: str
    expect: str
    why: str
    entry_mode: int | None = None
    card: str = ""
    to_account: str = ""
    amount_fen: int | None = None
    product: int | None = None
    variety: int | None = None
    grade: int | None = None
    weight_centikg: int | None = None
    unit_price_fen: int | None = None
    item: int | None = None
    domain: int | None = None
    subject: str = ""
    period: int | None = None
    reverses: int | None = None


class Script:
    """Collects steps and numbers them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, terminal: Terminal, service: str, expect: str, why: str, **values: int | str) -> int:
        step = len(self.steps) + 1
        self.steps.append(Step(step, terminal.terminal, service, expect, why, **values))  # type: ignore[arg-type]
        return step


def make_mix(rng: random.Random, cast: Cast) -> list[Step]:
    script = Script()
    points = [terminal for terminal in cast.terminals if "withdrawal" in terminal.services]
    kiosks = [terminal for terminal in cast.terminals if terminal.channel == "KIOSK"]
    field = [terminal for terminal in cast.terminals if "farm-purchase" in terminal.services]
    # The first customers serve the cases below, so that no regular step uses up what a case needs.
    cases, regulars = cast.customers[:12], cast.customers[12:]
    _regular(rng, script, points, kiosks, regulars)
    _cash_cases(script, points[0], cases)
    _transfer_cases(script, points[1], kiosks[0], cases)
    _reversal_cases(script, points[2], cases)
    _enquiry_cases(script, kiosks[1], cases)
    _purchase_cases(script, field[0], cast.farmers[1][0])
    return script.steps


def _regular(
    rng: random.Random, script: Script, points: list[Terminal], kiosks: list[Terminal], customers: list[Account]
) -> None:
    """What an ordinary day brings: everything is approved."""
    left = {customer.number: 100_000 for customer in customers}  # CNY 1,000 a card and day
    for _ in range(REGULAR):
        card = rng.choice(customers).number
        other = rng.choice([customer.number for customer in customers if customer.number != card])
        point, anywhere = rng.choice(points), rng.choice(points + kiosks)
        kind = rng.choices(("withdrawal", "balance", "deposit", "transfer", "gov-enquiry"), (34, 24, 14, 12, 16))[0]
        if kind == "withdrawal" and left[card] >= 10_000:
            amount = 1_000 * rng.randrange(5, 1 + min(50, left[card] // 1_000))
            left[card] -= amount
            script.add(point, kind, "00", "cash", entry_mode=_CHIP, card=card, amount_fen=amount)
        elif kind == "deposit":
            amount = 1_000 * rng.randrange(1, 60)
            script.add(point, kind, "00", "cash to a card", entry_mode=_CHIP, card=card, amount_fen=amount)
        elif kind == "transfer":
            amount = rng.randrange(100, 20_000)
            script.add(
                anywhere, kind, "00", "to a relative", entry_mode=_CHIP, card=card, to_account=other, amount_fen=amount
            )
        elif kind == "gov-enquiry":
            domain, item = rng.choice(_ITEMS)
            script.add(anywhere, kind, "00", "an office asked", item=item, domain=domain, subject=_subject(rng))
        else:
            script.add(anywhere, "balance", "00", "a look at the card", entry_mode=_CHIP, card=card)


def _subject(rng: random.Random) -> str:
    """An identity number of nobody: the region does not exist."""
    born = f"{rng.randrange(1950, 2005)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    return f"990211{born}{rng.randrange(10**4):04d}"


def _cash_cases(script: Script, point: Terminal, cases: list[Account]) -> None:
    card, poor = cases[0].number, cases[1].number
    wrong_digit = card[:-1] + str((int(card[-1]) + 1) % 10)
    rows = (
        ("withdrawal", "13", "not a multiple of CNY 10", _CHIP, card, 10_500),
        ("withdrawal", "13", "nothing asked for", _CHIP, card, 0),
        ("withdrawal", "61", "more than CNY 1,000 at once", _CHIP, card, 101_000),
        ("withdrawal", "00", "CNY 800", _CHIP, card, 80_000),
        ("withdrawal", "61", "CNY 1,100 in one day", _CHIP, card, 30_000),
        ("withdrawal", "00", "CNY 1,000 in one day", _CHIP, card, 20_000),
        ("withdrawal", "12", "a keyed card number", _KEYED, poor, 10_000),
        ("withdrawal", "14", "wrong check digit", _CHIP, wrong_digit, 10_000),
        ("withdrawal", "14", "a card that the bank does not know", _CHIP, card_number(9999, 1), 10_000),
        ("withdrawal", "30", "an entry mode that does not exist", 999, card, 10_000),
        ("deposit", "13", "no cash given", _CHIP, poor, 0),
        ("deposit", "00", "a keyed card may receive", _KEYED, poor, 12_300),
        ("balance", "00", "what is there after it", _CHIP, poor, None),
        ("balance", "14", "a card that the bank does not know", _CHIP, card_number(9999, 1), None),
    )
    for service, expect, why, entry_mode, number, amount in rows:
        optional = {} if amount is None else {"amount_fen": amount}
        script.add(point, service, expect, why, entry_mode=entry_mode, card=number, **optional)
    script.add(
        point, "deposit", "42", "an account that the bank does not know", entry_mode=_KEYED,
        to_account=account_number(9999, 1), amount_fen=5_000,
    )  # fmt: skip
    script.add(point, "deposit", "00", "to an account", entry_mode=_KEYED, to_account=cases[2].number, amount_fen=5_000)


def _transfer_cases(script: Script, point: Terminal, kiosk: Terminal, cases: list[Account]) -> None:
    payer, payee = cases[3], cases[4]
    rows = (
        (point, "00", "to another card", payee.number, 1_234),
        (point, "51", "more than there is", payee.number, payer.opening_fen),
        (point, "12", "to itself", payer.number, 1_000),
        (point, "13", "nothing", payee.number, 0),
        (point, "42", "to an account that the bank does not know", account_number(9999, 2), 1_000),
        (kiosk, "00", "at a kiosk", payee.number, 2_345),
    )
    for terminal, expect, why, to_account, amount in rows:
        script.add(
            terminal, "transfer", expect, why, entry_mode=_CHIP, card=payer.number, to_account=to_account,
            amount_fen=amount,
        )  # fmt: skip
    script.add(kiosk, "withdrawal", "58", "a kiosk has no cash", entry_mode=_CHIP, card=payer.number, amount_fen=10_000)


def _reversal_cases(script: Script, point: Terminal, cases: list[Account]) -> None:
    card = cases[5].number
    cash = script.add(point, "withdrawal", "00", "to be taken back", entry_mode=_CHIP, card=card, amount_fen=30_000)
    refused = script.add(
        point, "withdrawal", "61", "to be taken back in vain", entry_mode=_CHIP, card=card, amount_fen=200_000
    )
    look = script.add(point, "balance", "00", "nothing to take back", entry_mode=_CHIP, card=card)
    rows = (
        ("64", "another amount", cash, 20_000),
        ("00", "taken back", cash, 30_000),
        ("25", "taken back already", cash, 30_000),
        ("01", "the original was refused", refused, 200_000),
        ("12", "the original moved no money", look, 1_000),
        ("00", "an original that was never sent", -1, 10_000),
    )
    for expect, why, reverses, amount in rows:
        script.add(point, "reversal", expect, why, reverses=reverses, amount_fen=amount)


def _enquiry_cases(script: Script, kiosk: Terminal, cases: list[Account]) -> None:
    subject = "990211197001010010"
    rows = (
        ("00", "without a period", 1, 1, subject, None),
        ("00", "a year asked about", 2, 1, subject, 2025),
        ("00", "a month asked about", 302, 4, subject, 202_512),
        ("40", "an item that no office offers", 1023, 1, subject, None),
        ("40", "an item of another domain", 301, 1, subject, None),
        ("40", "a domain that does not exist", 1, 9, subject, None),
        ("25", "a person whom no office knows", 1, 1, "990211197013010010", None),
        ("25", "a year that is still to come", 2, 1, subject, 2099),
        ("30", "about nobody", 1, 1, "", None),
        ("30", "an item that wants a period, without one", 2, 1, subject, None),
        ("30", "a thirteenth month", 2, 1, subject, 202_513),
    )
    for expect, why, number, domain_number, about, period in rows:
        optional = {} if period is None else {"period": period}
        script.add(kiosk, "gov-enquiry", expect, why, item=number, domain=domain_number, subject=about, **optional)
    script.add(kiosk, "balance", "00", "a look at the card", entry_mode=_CHIP, card=cases[6].number)


def _purchase_cases(script: Script, buyer: Terminal, farmer: Account) -> None:
    rows = (
        # product, variety, grade, weight, price, amount
        ("13", "weight × price is not the amount", 1, 1, 2, 12_050, 4_000, 482_001),
        ("12", "a product that the dictionary lacks", 99, 1, 1, 10_000, 4_000, 400_000),
        ("12", "a variety of another product", 2, 5, 1, 10_000, 4_000, 400_000),
        ("12", "a grade that does not exist", 1, 1, 6, 10_000, 4_000, 400_000),
        ("61", "a price far above the band", 1, 1, 1, 10_000, 90_000, 9_000_000),
        ("61", "a price far below the band", 1, 1, 1, 10_000, 100, 10_000),
    )
    for expect, why, product, variety, grade, weight, price, amount in rows:
        script.add(
            buyer, "farm-purchase", expect, why, entry_mode=_KEYED, to_account=farmer.number, product=product,
            variety=variety, grade=grade, weight_centikg=weight, unit_price_fen=price, amount_fen=amount,
        )  # fmt: skip
