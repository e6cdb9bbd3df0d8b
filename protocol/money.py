"""Arithmetic of goods and money that every end must do alike, in integers only."""


def amount_of(weight_centikg: int, unit_price_fen: int) -> int:
    """What goods cost in fen: weight (0.01 kg) times unit price (fen per kg), half a fen rounded up.

    A terminal computes the amount by this rule and the switch refuses any other.
    """
    return (weight_centikg * unit_price_fen + 50) // 100
