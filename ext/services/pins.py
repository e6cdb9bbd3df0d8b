"""PINs in the scenes that a card pays.

A request carries its PIN as a block under the terminal's own key; the switch has it translated for the back end, and
nobody between keypad and host sees it. Whether a scene wants one is the bank's choice: option ``pin``. Codes: 30 the
block is not said to be under a key, or comes without a card, 99 a PIN is wanted and there is none.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

from fengshou.ext.services.core_banking import CoreBankingService
from fengshou.ext.services.options import options_as
from fengshou.protocol import elements as de
from fengshou.protocol.codes import FORMAT_ERROR, PIN_FORMAT_ERROR
from fengshou.protocol.service import Request, Rung
from fengshou.protocol.templates import optional

# What a request carries for its PIN.
PIN_FIELDS = optional(de.PIN_BLOCK, de.KEY_EPOCH, de.PIN_FORMAT)

_PIN_ENTERED = 1  # DE 22, position 3


def _block_in_order(request: Request) -> bool:
    if de.PIN_BLOCK not in request.values:
        return True
    entered = request.integer(de.ENTRY_MODE) % 10 == _PIN_ENTERED
    return entered and request.integer(de.KEY_EPOCH) > 0 and de.PAN in request.values


PIN_BLOCK_IN_ORDER = Rung("a PIN has a card and a key", FORMAT_ERROR, _block_in_order)

PIN_GIVEN = Rung(
    "a card pays with its PIN",
    PIN_FORMAT_ERROR,
    lambda request: de.PAN not in request.values or de.PIN_BLOCK in request.values,
)


class PinOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``pin``: whether a card may pay without one."""

    pin: Literal["optional", "required"] = "optional"


class PinService(CoreBankingService):
    """A scene that a card pays, with its PIN. ``guards`` come before those of the PIN in its ladder."""

    guards: ClassVar[tuple[Rung, ...]]

    def __init__(self) -> None:
        self.configure({})

    def configure(self, options: Mapping[str, Any]) -> None:
        self.take(options_as(PinOptions, options, self.name))

    def take(self, options: PinOptions) -> None:
        """Make the ladder that the options ask for."""
        wanted = (PIN_GIVEN,) if options.pin == "required" else ()
        self.ladder = (*self.guards, PIN_BLOCK_IN_ORDER, *wanted)
