"""Who takes part in the examples: towns, sites, buyers, farmers, customers, and the terminals between them.

All are made up. Card numbers begin with 9156, the range that ISO/IEC 7812-1 leaves to national assignment, and belong
to no bank.
"""

import random
from dataclasses import dataclass

from fengshou.ext.services.pan import check_digit

ACQUIRER = 99904520
_CARD_PREFIX = "915600"
_BANK = "999"  # the acquirer in a merchant number
_AREA = "4520"  # Qingdao in a merchant number
_COOPERATIVE, _SHOP, _OFFICE = "0763", "5411", "9399"  # merchant category codes, ISO 18245

# Numbers of our own for towns of Huangdao, Qingdao, and what is bought there, most often first.
TOWNS = {
    1: ("Baoshan", "宝山镇", (1, 2)),
    2: ("Zhangjialou", "张家楼街道", (1, 2)),
    3: ("Liuwang", "六汪镇", (1,)),
    4: ("Cangma", "藏马镇", (2, 1)),
    5: ("Dacun", "大村镇", (2, 3)),
    6: ("Haiqing", "海青镇", (3,)),
    7: ("Boli", "泊里镇", (2,)),
    8: ("Tieshan", "铁山街道", (3, 2)),
}
_VILLAGES = (("East Hill", "东山村"), ("Stone Bridge", "石桥村"), ("West River", "西河村"))

FIELD_SERVICES = "balance farm-purchase offline-sale refund reversal settlement transfer void"
POINT_SERVICES = (
    "balance completion deposit gov-enquiry preauthorisation preauthorisation-void refund reversal settlement transfer "
    "void withdrawal"
)
KIOSK_SERVICES = "balance gov-enquiry reversal settlement transfer"


@dataclass(frozen=True, slots=True)
class Account:
    number: str
    name: str
    kind: str
    opening_fen: int


@dataclass(frozen=True, slots=True)
class Site:
    site: str
    name: str
    kind: str
    town: int


@dataclass(frozen=True, slots=True)
class Terminal:
    terminal: str
    merchant: str
    acquirer: int
    serial: str
    credit_code: str
    settlement_account: str
    channel: str
    site: str
    town: int
    services: str


@dataclass(frozen=True, slots=True)
class Cast:
    sites: list[Site]
    terminals: list[Terminal]
    buyers: list[Account]
    buyer_cards: dict[str, Account]  # by the terminal that the buyer owns
    farmers: dict[int, list[Account]]  # by town
    points: list[Account]
    customers: list[Account]

    @property
    def accounts(self) -> list[Account]:
        farmers = [farmer for town in self.farmers.values() for farmer in town]
        return [*self.buyers, *self.buyer_cards.values(), *farmers, *self.points, *self.customers]


def card_number(group: int, index: int) -> str:
    """A 19-digit card number. Equal arguments give the equal number."""
    payload = f"{_CARD_PREFIX}{group:04d}{index * 7919 % 10**8:08d}"
    return payload + check_digit(payload)


def account_number(group: int, index: int) -> str:
    """A 16-digit account number without a card."""
    return f"90{group:04d}{index * 104_729 % 10**10:010d}"


def credit_code(index: int) -> str:
    """A unified social credit code with the right check characters: GB 32100-2015 around GB 11714-1997."""
    body = f"FENG{index:04d}"
    total = sum(weight * int(char, 36) for weight, char in zip((3, 7, 9, 10, 5, 8, 4, 2), body, strict=True))
    code = "93370211" + body + "0123456789X0"[11 - total % 11]
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    total = sum(pow(3, place, 31) * alphabet.index(char) for place, char in enumerate(code))
    return code + alphabet[-total % 31]


def make_cast(rng: random.Random) -> Cast:
    cast = Cast([], [], [], {}, {}, [], [])
    for town, (name, _, _) in TOWNS.items():
        for village, (english, chinese) in enumerate(_VILLAGES, 1):
            site = f"{name[:2].upper()}{town}{village}"
            cast.sites.append(Site(site, f"{TOWNS[town][1]}{chinese} {name} {english}", "point", town))
        cast.farmers[town] = [
            Account(card_number(1000 + town, index), f"farmer {town}-{index:02d}", "farmer", rng.randrange(0, 500_000))
            for index in range(1, 41)
        ]
    # One terminal, one merchant, one settlement account: a buyer's own POS spends from the buyer's own account.
    for index in range(1, 13):
        town = 1 + (index - 1) % len(TOWNS)
        buyer = Account(account_number(2000, index), f"buyer {index:02d}", "buyer", 4_000_000_000)
        terminal = _terminal(cast, index, _COOPERATIVE, buyer, "POS", f"FSPOS{index:08d}", town, FIELD_SERVICES)
        cast.buyers.append(buyer)
        cast.buyer_cards[terminal.terminal] = Account(
            card_number(2000, index), f"buyer {index:02d} card", "card", 500_000_000
        )
    for index in range(13, 19):
        town = 1 + index % len(TOWNS)
        shop = Account(account_number(3000, index), f"convenience point {index}", "settlement", 50_000_000)
        _terminal(cast, index, _SHOP, shop, "POS_DUAL", f"FSDUAL{index:07d}", town, POINT_SERVICES)
        cast.points.append(shop)
    for index in range(19, 23):
        town = 1 + index % len(TOWNS)
        office = Account(account_number(3000, index), f"village e-station {index}", "settlement", 10_000_000)
        _terminal(cast, index, _OFFICE, office, "KIOSK", f"FSKIOSK{index:06d}", town, KIOSK_SERVICES)
        cast.points.append(office)
    cast.customers.extend(
        Account(card_number(4000, index), f"customer {index:03d}", "card", rng.randrange(500_000, 6_000_000))
        for index in range(1, 121)
    )
    return cast


def _terminal(
    cast: Cast, index: int, category: str, account: Account, channel: str, serial: str, town: int, services: str
) -> Terminal:
    sites = [site for site in cast.sites if site.town == town]
    terminal = Terminal(
        f"FS{index:06d}",
        f"{_BANK}{_AREA}{category}{index:04d}",
        ACQUIRER,
        serial,
        credit_code(index),
        account.number,
        channel,
        sites[index % len(sites)].site,
        town,
        services,
    )
    cast.terminals.append(terminal)
    return terminal
