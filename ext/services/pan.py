"""Check digits of card numbers: ISO/IEC 7812-1 annex B, the Luhn formula."""


def check_digit(payload: str) -> str:
    """The digit that completes a card number; ``payload`` is the number without it."""
    total = 0
    for place, digit in enumerate(reversed(payload)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def is_card_number(pan: str) -> bool:
    """Whether ``pan`` has the length of a card number (ISO/IEC 7812-1: 10 to 19 digits) and its right check digit."""
    return 10 <= len(pan) <= 19 and check_digit(pan[:-1]) == pan[-1]
