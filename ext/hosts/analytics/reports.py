"""The named reports: arguments in, SQL and its parameters out.

Money is fen, weight is 0.01 kg, a day is YYYYMMDD. An average price is weighted by volume: what was paid for what was
weighed, rounded to a fen per kg.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

Query = tuple[str, Sequence[Any]]

_GROUPS = ("product", "variety", "grade", "day", "town")
_FIGURES = """count(*) AS trades, sum(weight_centikg)::BIGINT AS weight_centikg, sum(amount_fen)::BIGINT AS amount_fen,
    round(sum(amount_fen) * 100 / sum(weight_centikg))::BIGINT AS average_price_fen,
    min(unit_price_fen) AS lowest_price_fen, max(unit_price_fen) AS highest_price_fen"""


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which trades a report counts; what is left out does not restrict. ``since`` and ``until`` are days, inclusive."""

    product: int | None = None
    variety: int | None = None
    grade: int | None = None
    town: int | None = None
    since: int | None = None
    until: int | None = None

    @property
    def where(self) -> Query:
        conditions = {
            "product = ?": self.product,
            "variety = ?": self.variety,
            "grade = ?": self.grade,
            "town = ?": self.town,
            "day >= ?": self.since,
            "day <= ?": self.until,
        }
        used = {condition: value for condition, value in conditions.items() if value is not None}
        return " AND ".join(("weight_centikg > 0", *used)), list(used.values())


class PricesArguments(Filter, frozen=True, forbid_unknown_fields=True):
    """``by`` is how finely prices are told apart."""

    by: tuple[str, ...] = ("product", "grade", "day")


def _prices(arguments: Mapping[str, Any]) -> Query:
    """The price index: a row for each product, grade and day, or as ``by`` says."""
    wanted = msgspec.convert(dict(arguments), PricesArguments)
    if not wanted.by or len(set(wanted.by)) < len(wanted.by) or not set(wanted.by) <= set(_GROUPS):
        raise ValueError(f"by: some of {', '.join(_GROUPS)}, each once")
    return _grouped(", ".join(wanted.by), _FIGURES, ", ".join(wanted.by), wanted)


def _villages(arguments: Mapping[str, Any]) -> Query:
    """What each place bought: the picture behind whole-village credit."""
    figures = f"count(DISTINCT farmer) AS farmers, {_FIGURES}, min(day) AS first_day, max(day) AS last_day"
    return _grouped("town, site", figures, "town, site", msgspec.convert(dict(arguments), Filter))


def _farmers(arguments: Mapping[str, Any]) -> Query:
    """What each farmer sold, under a pseudonym."""
    figures = f"count(DISTINCT product) AS products, {_FIGURES}, min(day) AS first_day, max(day) AS last_day"
    return _grouped("farmer", figures, "amount_fen DESC, farmer", msgspec.convert(dict(arguments), Filter))


def _grouped(groups: str, figures: str, order: str, wanted: Filter) -> Query:
    """``groups``, ``figures`` and ``order`` are text of this module, never of a caller."""
    where, parameters = wanted.where
    sql = f"SELECT {groups}, {figures} FROM standing_trades WHERE {where} GROUP BY {groups} ORDER BY {order}"  # noqa: S608
    return sql, parameters


# Each raises ValueError when an argument is wrong; msgspec.ValidationError is one.
REPORTS: Mapping[str, Callable[[Mapping[str, Any]], Query]] = {
    "prices": _prices,
    "villages": _villages,
    "farmers": _farmers,
}


class _Named(msgspec.Struct, frozen=True):
    id: int
    name: str
    zh: str


class _Grade(msgspec.Struct, frozen=True):
    grade: int
    name: str
    zh: str


class _Product(_Named, frozen=True):
    varieties: tuple[_Named, ...] = ()
    grades: tuple[_Grade, ...] = ()


class _File(msgspec.Struct, frozen=True):
    products: tuple[_Product, ...] = ()


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Names of products, varieties and grades, in English and Chinese."""

    products: Mapping[int, _Product]

    @classmethod
    def load(cls, path: Path | None) -> "Dictionary":
        """From the product dictionary's file; without one, nothing has a name."""
        if path is None:
            return cls({})
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        return cls({product.id: product for product in file.products})

    def named(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with ``…_name`` and ``…_zh`` beside each id that has a name."""
        product = self.products.get(row.get("product", 0))
        if product is None:
            return row
        variety = next((variety for variety in product.varieties if variety.id == row.get("variety")), None)
        grade = next((grade for grade in product.grades if grade.grade == row.get("grade")), None)
        named = dict(row)
        for column, entry in (("product", product), ("variety", variety), ("grade", grade)):
            if entry is not None:
                named |= {f"{column}_name": entry.name, f"{column}_zh": entry.zh}
        return named
