"""Farm-produce purchase: a buyer pays a farmer at the field, account to account, for goods weighed and graded there.

Codes of its own: 12 goods that the dictionary does not know, 13 weight × price is not the amount, 61 a price outside
the band of its product and grade.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from fengshou.ext.data.products import PRODUCTS_FILE, DictionaryError, load
from fengshou.ext.services.core_banking import CoreBankingService, payer_of
from fengshou.ext.services.options import options_as
from fengshou.ext.services.rungs import (
    AMOUNT_GIVEN,
    CARD_NUMBER_VALID,
    CARD_READ,
    ENTRY_MODE_KNOWN,
    ENTRY_MODES,
    PAYEE_IS_ANOTHER,
    WELL_FORMED,
    is_clock_reading,
)
from fengshou.protocol import elements as de
from fengshou.protocol.batch import Side
from fengshou.protocol.money import amount_of
from fengshou.protocol.operators import Operator
from fengshou.protocol.service import Conclusion, Iso8583Call, OptionError, Request, Rung
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

FARM_PURCHASE = Template(
    1,
    "farm-purchase",
    200,
    layout(
        required(
            de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE, de.PRODUCT, de.VARIETY, de.GRADE,
            de.WEIGHT, de.UNIT_PRICE, de.TO_ACCOUNT,
        ),
        optional(de.PAN, de.TOWN, de.LOT),
    ),
    ANSWER,
    side=Side.DEBIT,
    operators=(
        (de.PAN, Operator.TAIL),
        (de.AMOUNT, Operator.DERIVED),
        (de.STAN, Operator.INCREMENT),
        (de.LOCAL_TIME, Operator.CLOCK),
        (de.LOCAL_DATE, Operator.DELTA),
        (de.LOT, Operator.TAIL),
        (de.WEIGHT, Operator.PLAIN),
        (de.UNIT_PRICE, Operator.DELTA),
        (de.TO_ACCOUNT, Operator.TAIL),
    ),
)  # fmt: skip


# Out of a request's values; the template requires them.
_goods_of = itemgetter(de.PRODUCT, de.VARIETY, de.GRADE, de.WEIGHT, de.UNIT_PRICE)
_frame_of = itemgetter(de.AMOUNT, de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ENTRY_MODE, de.TO_ACCOUNT)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``dictionary``: the bank's own file of products and price bands; see ``fengshou.ext.data.products``."""

    dictionary: str = str(PRODUCTS_FILE)


class FarmPurchase(CoreBankingService):
    name = "farm-purchase"
    templates = (FARM_PURCHASE,)
    processing_code = "000000"

    def __init__(self) -> None:
        self.configure({})

    def configure(self, options: Mapping[str, Any]) -> None:
        path = Path(options_as(Options, options, self.name).dictionary)
        try:
            self._dictionary = load(path)
        except DictionaryError as error:
            raise OptionError(f"service {self.name}: dictionary: {error}") from None
        self.ladder = (
            *WELL_FORMED,
            ENTRY_MODE_KNOWN,
            Rung("product is in the dictionary", "12", self._product_known),
            Rung("variety is one of the product's", "12", self._variety_known),
            Rung("grade is one of the product's", "12", self._grade_known),
            AMOUNT_GIVEN,
            Rung("weight × price = amount", "13", _amount_agrees),
            Rung("price is in the band of product and grade", "61", self._price_in_band),
            CARD_NUMBER_VALID,
            CARD_READ,
            PAYEE_IS_ANOTHER,
        )

    def sound(self, request: Request) -> bool:
        """A purchase without a card: most of a season's messages. It saves 4 of the 5 µs that the ladder takes."""
        product, variety, grade, weight, price = _goods_of(request.values)
        amount, stan, clock, day, entry_mode, payee = _frame_of(request.values)
        return (
            de.PAN not in request.values
            and price in self._dictionary.prices.get((product, variety, grade), ())
            and 0 < amount == amount_of(weight, price)
            and stan > 0
            and entry_mode in ENTRY_MODES
            and is_clock_reading(clock, day)
            and payee != request.terminal.settlement_account
        )

    def call(self, request: Request) -> Iso8583Call:
        product, variety, grade, weight, price = _goods_of(request.values)
        return self.financial_request(
            request,
            payer="" if de.PAN in request.values else payer_of(request),
            payee=request.string(de.TO_ACCOUNT),
            reference=f"FARM {product}.{variety}.{grade} {weight}*{price}",
        )

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        """A trade: the goods in full, the two parties as pseudonyms."""
        product, variety, grade, weight, price = _goods_of(request.values)
        amount, _, _, day, _, payee = _frame_of(request.values)
        return {
            "kind": "farm-trade",
            "day": _traded_on(request.business_day, day),
            "product": product,
            "variety": variety,
            "grade": grade,
            "weight_centikg": weight,
            "unit_price_fen": price,
            "amount_fen": amount,
            "town": request.integer(de.TOWN) or request.terminal.town,
            "site": request.terminal.site,
            "farmer": request.pseudonym(payee),
            "buyer": request.pseudonym(payer_of(request)),
            "lot": request.string(de.LOT),
        }

    def _product_known(self, request: Request) -> bool:
        return self._dictionary.has_product(request.integer(de.PRODUCT))

    def _variety_known(self, request: Request) -> bool:
        return self._dictionary.has_variety(request.integer(de.PRODUCT), request.integer(de.VARIETY))

    def _grade_known(self, request: Request) -> bool:
        return self._dictionary.grade(request.integer(de.PRODUCT), request.integer(de.GRADE)) is not None

    def _price_in_band(self, request: Request) -> bool:
        product, _, grade, _, price = _goods_of(request.values)
        band = self._dictionary.grade(product, grade)
        return band is not None and band.price_low_fen <= price <= band.price_high_fen


@lru_cache(maxsize=64)
def _traded_on(business_day: int, local_date: int) -> int:
    """YYYYMMDD of a trade at its place, remembered because the trades of a day ask for the same.

    DE 13 (MMDD) has no year; a trade lies back, or its clock runs a few days ahead.
    """
    day = date(business_day // 10_000, business_day // 100 % 100, business_day % 100)
    latest = day + timedelta(days=7)
    year = latest.year if local_date <= latest.month * 100 + latest.day else latest.year - 1
    return year * 10_000 + local_date


def _amount_agrees(request: Request) -> bool:
    return request.integer(de.AMOUNT) == amount_of(request.integer(de.WEIGHT), request.integer(de.UNIT_PRICE))


service = FarmPurchase()
