"""Keys that were made elsewhere for a label, at a card's personalisation or by a device's administration."""

from collections.abc import Sequence
from typing import TypeVar

_Key = TypeVar("_Key")


def following(prepared: Sequence[_Key], newest: _Key | None) -> _Key | None:
    """The one to be the next epoch after ``newest``, None when none is left.

    They are used in their order and none twice, not even after an epoch was destroyed.
    """
    rest = prepared[prepared.index(newest) + 1 :] if newest in prepared else prepared
    return rest[0] if rest else None
