"""What follows an original at the host: voids, refunds, completions, releases, advices. Each row is a small story."""

import pytest

from fengshou.ext.hosts.core_banking import Application
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import original_data
from tests.ext.core_banking.bank import ACQUIRER, BUYER, CARD, FARMER, FROZEN, NOW_US, SHOP, request

# Who a step is about: the request that it names, MTI, processing code, condition.
STEPS = {
    "buy":      ("",     "0200", "00", None),
    "told":     ("",     "0220", "00", None),
    "hold":     ("",     "0100", "00", "06"),
    "void":     ("buy",  "0200", "20", None),
    "refund":   ("buy",  "0220", "20", None),
    "complete": ("hold", "0200", "00", "06"),
    "let go":   ("hold", "0100", "20", "06"),
    "void completion":    ("complete", "0200", "20", "06"),
    "reverse":            ("buy",      "0420", "00", None),
    "reverse hold":       ("hold",     "0420", "00", "06"),
    "reverse completion": ("complete", "0420", "00", "06"),
    "reverse refund":     ("refund",   "0420", "20", None),
}  # fmt: skip

# fmt: off
STORIES = [
    # what, then steps: what, fen, code                    then what changed: card, shop, held
    ("void",                                  "buy 300 00, void 300 00",                     0, 0, 0),
    ("void twice",                            "buy 300 00, void 300 00, void 300 25",        0, 0, 0),
    ("void of another amount",                "buy 300 00, void 299 64",                     -300, 300, 0),
    ("void of a decline",                     "buy 999999 51, void 999999 01",               0, 0, 0),
    ("void of nothing",                       "void 300 25",                                 0, 0, 0),
    ("reversal after a void",                 "buy 300 00, void 300 00, reverse 300 25",     0, 0, 0),
    ("void after a reversal",                 "buy 300 00, reverse 300 00, void 300 25",     0, 0, 0),
    ("refund in parts",                       "buy 300 00, refund 100 00, refund 200 00",    0, 0, 0),
    ("refund of too much",                    "buy 300 00, refund 100 00, refund 201 64",    -200, 200, 0),
    ("refund of what was taken back",         "buy 300 00, void 300 00, refund 100 25",      0, 0, 0),
    ("void of what was refunded",             "buy 300 00, refund 1 00, void 300 64",        -299, 299, 0),
    ("reversal of what was refunded",         "buy 300 00, refund 1 00, reverse 300 64",     -299, 299, 0),
    ("a refund is never reversed",            "buy 300 00, refund 100 00, reverse refund 100 12", -200, 200, 0),
    ("refund of nothing",                     "buy 300 00, refund 0 13",                     -300, 300, 0),
    ("hold",                                  "hold 1000 00",                                0, 0, 1000),
    ("hold of too much",                      "hold 200001 51",                              0, 0, 0),
    ("what is held cannot be spent",          "hold 199900 00, buy 101 51, buy 100 00",      -100, 100, 199900),
    ("completion",                            "hold 1000 00, complete 1000 00",              -1000, 1000, 0),
    ("completion of less",                    "hold 1000 00, complete 1 00",                 -1, 1, 0),
    ("completion of 115 %",                   "hold 1000 00, complete 1150 00",              -1150, 1150, 0),
    ("completion of more",                    "hold 1000 00, complete 1151 64",              0, 0, 1000),
    ("completion of more than there is",      "hold 200000 00, complete 200001 51",          0, 0, 200000),
    ("completion twice",                      "hold 1000 00, complete 900 00, complete 100 25", -900, 900, 0),
    ("completion of nothing",                 "complete 100 25",                             0, 0, 0),
    ("let go",                                "hold 1000 00, let go 1000 00",                0, 0, 0),
    ("let go twice",                          "hold 1000 00, let go 1000 00, let go 1000 25", 0, 0, 0),
    ("completion of what was let go",         "hold 1000 00, let go 1000 00, complete 1000 25", 0, 0, 0),
    ("let go of what was completed",          "hold 1000 00, complete 1000 00, let go 1000 12", -1000, 1000, 0),
    ("reversal of a hold",                    "hold 1000 00, reverse hold 1000 00, complete 1000 25", 0, 0, 0),
    ("reversal of a hold that never came",    "reverse hold 1000 00, hold 1000 94",          0, 0, 0),
    ("void of a completion holds again",      "hold 1000 00, complete 900 00, void completion 900 00", 0, 0, 1000),
    ("reversal of a completion holds again",  "hold 1000 00, complete 900 00, reverse completion 900 00, "
                                              "complete 1000 00", -1000, 1000, 0),
    ("an advice may overdraw",                "told 200001 00",                              -200001, 200001, 0),
]
# fmt: on


class Story:
    """Requests of one terminal about the same card and shop; a follower names the last request of its kind."""

    def __init__(self, host: Application) -> None:
        self._host = host
        self._last: dict[str, Fields] = {}
        # What may be reversed before it came has the number that it will have.
        self._numbers = {"buy": 1, "hold": 2}
        self._count = 10

    def step(self, what: str, fen: int) -> str:
        about, mti, code, condition = STEPS[what]
        self._count += 1
        number = self._count if what in self._last else self._numbers.get(what, self._count)
        fields: dict[str, str | None] = {"f0": mti, "f2": CARD, "f103": SHOP, "f25": condition}
        if about:
            named = self._last.get(about)
            named_mti = int(str(named[0])) if named else int(STEPS[about][1])
            named_rrn = int(str(named[37])) if named else self._numbers.get(about, 9)
            fields["f90"] = original_data(named_mti, named_rrn, NOW_US, ACQUIRER)
        message = request(number, code, fen, **fields)
        (answer,) = self._host.answer([message])
        assert answer is not None
        if answer[39] != "25":
            self._last[what] = message
        assert self._host.answer([message]) == [answer], "a repeat gets the same answer"
        return str(answer[39])


@pytest.mark.parametrize(("what", "steps", "card", "shop", "held"), STORIES, ids=[row[0] for row in STORIES])
def test_story(host: Application, what: str, steps: str, card: int, shop: int, held: int) -> None:
    story = Story(host)
    told = []
    for step in steps.split(", "):
        name, fen, _ = step.rsplit(" ", 2)
        told.append(f"{name} {fen} {story.step(name, int(fen))}")
    assert ", ".join(told) == steps
    assert funds(host, CARD) == (200_000 + card, 200_000 + card - held)
    assert funds(host, SHOP) == (50_000 + shop, 50_000 + shop)
    assert host.report("totals")["balanced"]


def funds(host: Application, account: str) -> tuple[int, int]:
    """Ledger and available balance in fen."""
    (answer,) = host.answer([request(9_000_000, "31", None, f102=account)])
    assert answer is not None
    text = str(answer[54])
    first, second = text[:20], text[20:]
    signed = [int(part[8:]) * (1 if part[7] == "C" else -1) for part in (first, second)]
    return signed[0], signed[1]


@pytest.mark.parametrize(
    ("payer", "payee", "code"),
    [(BUYER, FARMER, "00"), (FROZEN, FARMER, "62"), ("62300000", FARMER, "42"), (BUYER, BUYER, "12")],
)
def test_an_advice_of_what_the_books_cannot_hold_is_refused(
    host: Application, payer: str, payee: str, code: str
) -> None:
    (answer,) = host.answer([request(1, "00", 100, f0="0220", f102=payer, f103=payee)])
    assert answer is not None
    assert answer[0] == "0230"
    assert answer[39] == code
