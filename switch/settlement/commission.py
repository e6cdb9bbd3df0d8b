"""Merchants' volume commission: what the bank owes the points for what they served in a month.

A rate table is a TOML file, money in yuan and rates in per mille, both as text: no binary fraction touches them::

    monthly-cap = "3000.00"     # most that one merchant gets for a month; leave it out for none

    [[rate]]
    service = "withdrawal"
    each = "0.20"               # for each transaction, beside what its volume earns
    cap = "5.00"                # most for one transaction
    tier = [{ from = "0", per-mille = "1.2" }, { from = "100000", per-mille = "0.8" }]

A tier's rate holds for the part of a merchant's monthly volume of that service that lies above ``from``: nobody earns
less by serving more. Commission is summed in millionths of a fen and rounded once, half a fen up, at the month's close.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from fengshou.switch.settlement.totals import Counted

_MICRO = 1_000_000  # of a fen: rates have at most three decimals of a per mille, which is a millionth
_DECIMAL = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?")


class RatesError(Exception):
    """The rate table cannot be used; the text says which row and why."""


class _Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    from_: str = msgspec.field(name="from")
    per_mille: str = msgspec.field(name="per-mille")


class _Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: str
    each: str = "0"
    cap: str = ""
    tier: list[_Tier] = []


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    rate: Annotated[list[_Rate], msgspec.Meta(min_length=1)]
    monthly_cap: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one service earns. ``tiers``: (monthly volume in fen from which, millionths) in ascending order."""

    each_fen: int
    cap_fen: int | None
    tiers: tuple[tuple[int, int], ...]

    def earned(self, volume_fen: int, fen: int) -> int:
        """Millionths of a fen for a transaction of ``fen`` after ``volume_fen`` in the same month."""
        micro = self.each_fen * _MICRO
        bounds = [*self.tiers[1:], (volume_fen + fen, 0)]
        for (start, ppm), (end, _) in zip(self.tiers, bounds, strict=False):
            part = min(volume_fen + fen, end) - max(volume_fen, start)
            micro += max(part, 0) * ppm
        return micro if self.cap_fen is None else min(micro, self.cap_fen * _MICRO)


@dataclass(frozen=True, slots=True)
class RateTable:
    rates: dict[str, Rate]
    monthly_cap_fen: int | None


@dataclass(slots=True)
class Commission:
    """What one merchant has earned in a month, before and after the cap of the month."""

    merchant: str
    transactions: int = 0
    volume_fen: int = 0
    earned_fen: int = 0
    payable_fen: int = 0


def load_rates(file: Path) -> RateTable:
    """Read and check a rate table. Raises RatesError."""
    try:
        table = msgspec.convert(tomllib.loads(file.read_text("utf-8")), _Table)
    except OSError as error:
        raise RatesError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise RatesError(f"{file}: {error}") from None
    rates: dict[str, Rate] = {}
    try:
        for row in table.rate:
            if row.service in rates:
                raise RatesError(f"{row.service} stands twice")
            rates[row.service] = _rate(row)
        return RateTable(rates, _fen(table.monthly_cap) if table.monthly_cap else None)
    except RatesError as error:
        raise RatesError(f"{file}: {error}") from None


def _rate(row: _Rate) -> Rate:
    tiers = tuple((_fen(tier.from_), _thousandths(tier.per_mille)) for tier in row.tier)
    starts = [start for start, _ in tiers]
    if starts and (starts[0] != 0 or starts != sorted(set(starts))):
        raise RatesError(f"{row.service}: tiers begin at 0 and ascend")
    return Rate(_fen(row.each), _fen(row.cap) if row.cap else None, tiers)


def _thousandths(text: str) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise RatesError(f"{text!r} is not a number such as 12 or 0.125")
    return int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))


def _fen(text: str) -> int:
    fen, rest = divmod(_thousandths(text), 10)
    if rest:
        raise RatesError(f"{text!r} has parts of a fen")
    return fen


def commissions(counted: Iterable[Counted], table: RateTable) -> list[Commission]:
    """What each merchant earned, by merchant. ``counted`` is all of one month, in the order of the journal."""
    result: dict[str, Commission] = {}
    volumes: dict[tuple[str, str], int] = {}
    micros: dict[str, int] = {}
    for one in counted:
        rate = table.rates.get(one.service)
        if rate is None:
            continue
        key = one.merchant, one.service
        volume = volumes.get(key, 0)
        volumes[key] = volume + one.fen
        micros[one.merchant] = micros.get(one.merchant, 0) + rate.earned(volume, one.fen)
        commission = result.setdefault(one.merchant, Commission(one.merchant))
        commission.transactions += 1
        commission.volume_fen += one.fen
    for merchant, commission in result.items():
        commission.earned_fen = (micros[merchant] + _MICRO // 2) // _MICRO
        cap = table.monthly_cap_fen
        commission.payable_fen = commission.earned_fen if cap is None else min(commission.earned_fen, cap)
    return [result[merchant] for merchant in sorted(result)]
