"""Guards that several scenes share. Each scene puts them in its ladder in the order in which they shall be named.

Codes: 30 the message cannot be what it says, 12 the transaction is not one that may be asked for, 13 the amount is
wrong, 14 the card number is wrong.
"""

from functools import lru_cache

from fengshou.ext.services.core_banking import payer_of
from fengshou.ext.services.pan import is_card_number
from fengshou.protocol import elements as de
from fengshou.protocol.service import Rung

# DE 22, positions 1 and 2: how the number came in. A card was there for all but keyed entry.
_KEYED = 1
_READ = frozenset({2, 5, 7, 90, 95, 98})  # magnetic stripe, chip, contactless, and their fall-back forms
_PIN_CAPABILITY = frozenset({1, 2})  # position 3: PIN entered, none entered
ENTRY_MODES = frozenset(10 * how + pin for how in (_KEYED, *_READ) for pin in _PIN_CAPABILITY)

_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def is_clock_reading(hhmmss: int, mmdd: int) -> bool:
    """Whether a clock can show this time and a calendar this date; 29 February is in some calendar."""
    return hhmmss < 24_00_00 and hhmmss % 1_00_00 < 60_00 and hhmmss % 1_00 < 60 and _is_date(mmdd)


@lru_cache(maxsize=512)  # of which a season asks for a few
def _is_date(mmdd: int) -> bool:
    month, day = mmdd // 100, mmdd % 100
    return 1 <= month <= 12 and 1 <= day <= _DAYS_OF_MONTH[month - 1]


STAN_GIVEN = Rung("STAN is 1 .. 999999", "30", lambda request: request.integer(de.STAN) > 0)

CLOCK_READ = Rung(
    "local time and date exist",
    "30",
    lambda request: is_clock_reading(request.integer(de.LOCAL_TIME), request.integer(de.LOCAL_DATE)),
)

ENTRY_MODE_KNOWN = Rung("entry mode is known", "30", lambda request: request.integer(de.ENTRY_MODE) in ENTRY_MODES)

AMOUNT_GIVEN = Rung("amount is more than zero", "13", lambda request: request.integer(de.AMOUNT) > 0)

CARD_NUMBER_VALID = Rung(
    "card number has its check digit",
    "14",
    lambda request: de.PAN not in request.values or is_card_number(request.string(de.PAN)),
)

# Whoever knows a number could otherwise spend from it or look into it. Only a receiving number may be keyed.
CARD_READ = Rung(
    "the card was read, not keyed",
    "12",
    lambda request: de.PAN not in request.values or request.integer(de.ENTRY_MODE) // 10 in _READ,
)

PAYEE_IS_ANOTHER = Rung(
    "payer and payee are two",
    "12",
    lambda request: request.string(de.TO_ACCOUNT) != payer_of(request),
)

# What every message of a scene must satisfy first.
WELL_FORMED = (STAN_GIVEN, CLOCK_READ)
