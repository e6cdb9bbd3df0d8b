"""How long a terminal waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds.

    The answer must come later than the switch's own deadline for back ends, or every slow answer would be sent twice.
    """

    connect_s: float = 10.0
    answer_s: float = 30.0
    receipt_s: float = 10.0
    trade_s: float = 90.0
    first_delay_s: float = 0.2
    longest_delay_s: float = 10.0
    renewal_s: float = 60.0  # between two wishes for a certificate
