"""What the switch says to a host of an earlier call: that it is undone, or that it was approved without the host."""

from fengshou.protocol.iso8583 import host_stan, original_data, transmission_time
from fengshou.protocol.service import Iso8583Call

# ISO 8583:1987 4.3.2: asked for by a terminal, or told as an advice by the switch, which a host may not decline.
REVERSAL_MTI = 400
REVERSAL_ADVICE_MTI = 420
FINANCIAL_ADVICE_MTI = 220


def reversal_of(
    call: Iso8583Call, rrn: int, received_us: int, acquirer: int, reason: str, mti: int = REVERSAL_MTI
) -> Iso8583Call:
    """The 0400 that undoes ``call``, which was sent under ``rrn`` and received from the terminal at ``received_us``.

    It repeats the original's fields, so that a host need not keep them to judge it, and adds DE 37 (the original's RRN:
    repeated reversals of one original thus are one), DE 39 (``reason``, see ``iso8583.REVERSED_…``) and DE 90.
    """
    return Iso8583Call(
        mti,
        {
            **call.fields,
            37: f"{rrn:012d}",
            39: reason,
            90: original_data(call.mti, rrn, received_us, acquirer),
        },
    )


def demanded_again(reversal: Iso8583Call, rrn: int, late_us: int) -> Iso8583Call:
    """A reversal under an identity of its own: its original (``rrn``) was approved late, at ``late_us``.

    A host that remembers how it answered the first one would answer the same message so again, and do nothing. DE 11 is
    never that of the original, which the first one bears; DE 37 and 90 name the original as before.
    """
    return Iso8583Call(
        reversal.mti,
        {**reversal.fields, 7: transmission_time(late_us), 11: host_stan(rrn + 1 + late_us % 999_999)},
    )


def advice_of(call: Iso8583Call, authorisation: str) -> Iso8583Call:
    """The 0220 that tells a host of ``call``, which the switch has approved under ``authorisation`` (DE 38)."""
    return Iso8583Call(FINANCIAL_ADVICE_MTI, {**call.fields, 38: authorisation})


def authorisation_of(rrn: int) -> str:
    """DE 38 of what the switch approves by itself: S and the last five digits of the RRN."""
    return f"S{rrn % 100_000:05d}"
