"""The reversal of a host transaction, the same whether a terminal asks for it or the switch owes it."""

from fengshou.protocol.iso8583 import original_data
from fengshou.protocol.service import Iso8583Call

REVERSAL_MTI = 400


def reversal_of(call: Iso8583Call, rrn: int, received_us: int, acquirer: int, reason: str) -> Iso8583Call:
    """The 0400 that undoes ``call``, which was sent under ``rrn`` and received from the terminal at ``received_us``.

    It repeats the original's fields, so that a host need not keep them to judge it, and adds DE 37 (the original's RRN:
    repeated reversals of one original thus are one), DE 39 (``reason``, see ``iso8583.REVERSED_…``) and DE 90.
    """
    return Iso8583Call(
        REVERSAL_MTI,
        {
            **call.fields,
            37: f"{rrn:012d}",
            39: reason,
            90: original_data(call.mti, rrn, received_us, acquirer),
        },
    )
