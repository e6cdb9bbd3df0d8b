"""One season of purchases: when each variety is ripe, what it costs at which time, how much a farmer brings."""

import math
import random
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from cast import TOWNS, Cast, Terminal

from fengshou.ext.data.products import ProductDictionary
from fengshou.protocol.money import amount_of

PURCHASES = 3_000
_CARD_SHARE = 0.08
_NEIGHBOUR_SHARE = 0.2  # a handheld POS is carried to the next town
_LOT_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Harvest:
    """A variety's season. ``price_fen`` is that of grade 1 on the first day; it falls towards ``price_late_fen``."""

    product: int
    variety: int
    first: date
    days: int
    price_fen: int
    price_late_fen: int
    weight_kg: float  # median
    share: float


HARVESTS = (
    Harvest(1, 3, date(2026, 3, 20), 60, 12_800, 7_400, 195, 8),  # Emerald, under glass
    Harvest(1, 1, date(2026, 6, 5), 30, 7_800, 4_600, 559, 20),
    Harvest(1, 2, date(2026, 6, 15), 35, 6_800, 4_200, 624, 16),
    Harvest(1, 4, date(2026, 6, 28), 30, 6_200, 4_400, 546, 9),
    Harvest(1, 5, date(2026, 6, 18), 28, 5_400, 3_700, 598, 5),
    Harvest(2, 2, date(2026, 5, 12), 22, 6_400, 3_200, 676, 10),
    Harvest(2, 1, date(2026, 5, 20), 28, 8_200, 4_000, 728, 14),
    Harvest(2, 4, date(2026, 5, 26), 20, 7_400, 4_200, 468, 5),
    Harvest(2, 3, date(2026, 6, 6), 24, 6_000, 3_400, 624, 6),
    Harvest(3, 1, date(2026, 4, 8), 45, 52_000, 14_000, 81, 9),
    Harvest(3, 2, date(2026, 4, 14), 45, 40_000, 13_000, 91, 6),
    Harvest(3, 3, date(2026, 4, 20), 50, 32_000, 12_500, 101, 4),
    Harvest(3, 4, date(2026, 4, 10), 45, 46_000, 13_500, 83, 4),
)
_GRADE_SHARES = (18, 36, 28, 13, 5)
_GRADE_PRICE = (1.0, 0.76, 0.55, 0.36, 0.17)


@dataclass(frozen=True, slots=True)
class Purchase:
    date: str
    time: str
    terminal: str
    card: str  # empty: the terminal's own account pays
    payee: str
    product: int
    variety: int
    grade: int
    weight_centikg: int
    unit_price_fen: int
    amount_fen: int
    town: int
    lot: str


def make_season(rng: random.Random, cast: Cast, dictionary: ProductDictionary) -> list[Purchase]:
    """The season's purchases in the order of their time."""
    field = [terminal for terminal in cast.terminals if "farm-purchase" in terminal.services]
    purchases = [_purchase(rng, cast, dictionary, field) for _ in range(PURCHASES)]
    return sorted(purchases, key=lambda purchase: (purchase.date, purchase.time, purchase.terminal))


def _purchase(rng: random.Random, cast: Cast, dictionary: ProductDictionary, field: list[Terminal]) -> Purchase:
    harvest = rng.choices(HARVESTS, [harvest.share for harvest in HARVESTS])[0]
    elapsed = rng.triangular(0, 1, 0.35)
    day = harvest.first + timedelta(days=int(elapsed * harvest.days))
    clock = datetime.combine(day, time(5, 30)) + timedelta(seconds=int(rng.triangular(0, 13.5 * 3600, 4 * 3600)))
    terminal = rng.choice([terminal for terminal in field if harvest.product in TOWNS[terminal.town][2]])
    town = terminal.town
    if rng.random() < _NEIGHBOUR_SHARE:
        town = rng.choice([number for number, (_, _, products) in TOWNS.items() if harvest.product in products])
    # Some farmers sell often, most now and then.
    farmers = cast.farmers[town]
    farmer = farmers[int(len(farmers) * rng.random() ** 1.6)]
    grade = rng.choices(range(1, 6), _GRADE_SHARES)[0]
    weight = max(50, round(100 * harvest.weight_kg * math.exp(rng.gauss(0, 0.75))))
    price = _price(rng, harvest, elapsed, grade, dictionary)
    return Purchase(
        date=day.isoformat(),
        time=clock.time().isoformat(),
        terminal=terminal.terminal,
        card=cast.buyer_cards[terminal.terminal].number if rng.random() < _CARD_SHARE else "",
        payee=farmer.number,
        product=harvest.product,
        variety=harvest.variety,
        grade=grade,
        weight_centikg=weight,
        unit_price_fen=price,
        amount_fen=amount_of(weight, price),
        town=town,
        lot=f"{TOWNS[town][0][:2].upper()}{rng.randrange(1, 400):03d}" if rng.random() < _LOT_SHARE else "",
    )


def _price(rng: random.Random, harvest: Harvest, elapsed: float, grade: int, dictionary: ProductDictionary) -> int:
    """Early goods are dear; the price sinks fast at first, then slowly. Always whole jiao and inside the band."""
    premium = (harvest.price_fen - harvest.price_late_fen) * math.exp(-3 * elapsed)
    price = (harvest.price_late_fen + premium) * _GRADE_PRICE[grade - 1] * math.exp(rng.gauss(0, 0.05))
    band = dictionary.grade(harvest.product, grade)
    assert band is not None
    return 10 * min(max(round(price / 10), -(-band.price_low_fen // 10)), band.price_high_fen // 10)
