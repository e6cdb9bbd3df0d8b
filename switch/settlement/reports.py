"""Sums of what counts, by service, merchant or site, and what the programme is measured by.

All money is integers of fen. Nothing here reads a file: it takes what ``settlement.Settlements`` counts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fengshou.protocol.batch import Side
from fengshou.switch.settlement.totals import Counted

# What a farmer would have paid for having the money of a purchase transferred: 0.1 % (the bank's own tariff).
FEE_SAVED_PER_MILLE = 1
FARM_PURCHASE = "farm-purchase"


@dataclass(slots=True)
class Sums:
    """What one group adds up to. Enquiries move no money."""

    debits: int = 0
    debits_fen: int = 0
    credits: int = 0
    credits_fen: int = 0
    enquiries: int = 0

    def add(self, one: Counted) -> None:
        match one.side:
            case Side.DEBIT:
                self.debits += 1
                self.debits_fen += one.fen
            case Side.CREDIT:
                self.credits += 1
                self.credits_fen += one.fen
            case None:
                self.enquiries += 1

    @property
    def served(self) -> int:
        """How many times somebody was served."""
        return self.debits + self.credits + self.enquiries

    @property
    def fen(self) -> int:
        """Money that moved, on either side."""
        return self.debits_fen + self.credits_fen


Group = tuple[str, ...]


def grouped(counted: Iterable[Counted], group: Callable[[Counted], Group]) -> dict[Group, Sums]:
    """Sums by group, in the order of the groups' names."""
    sums: dict[Group, Sums] = {}
    for one in counted:
        sums.setdefault(group(one), Sums()).add(one)
    return dict(sorted(sums.items()))


def total(sums: Iterable[Sums]) -> Sums:
    result = Sums()
    for one in sums:
        result.debits += one.debits
        result.debits_fen += one.debits_fen
        result.credits += one.credits
        result.credits_fen += one.credits_fen
        result.enquiries += one.enquiries
    return result


def per_mille(fen: int, rate: int) -> int:
    """``rate`` per mille of an amount, half a fen rounded up."""
    return (fen * rate + 500) // 1000


@dataclass(frozen=True, slots=True)
class Indicators:
    """What a day, month or season was good for."""

    served: int
    fen: int
    fees_saved_fen: int  # by farmers
    trips_saved: int  # each service at a point is a way to a branch that nobody had to go
    substitution_per_mille: int | None  # of all services, those that no counter had to give; None: not known


def indicators(by_service: Mapping[Group, Sums], counter: int | None = None) -> Indicators:
    """``by_service`` is grouped by service name; ``counter`` is how many the branches' counters served meanwhile."""
    everything = total(by_service.values())
    purchases = by_service.get((FARM_PURCHASE,), Sums())
    everybody = everything.served + (counter or 0)
    return Indicators(
        everything.served,
        everything.fen,
        per_mille(purchases.fen, FEE_SAVED_PER_MILLE),
        everything.served,
        None if counter is None or not everybody else (1000 * everything.served + everybody // 2) // everybody,
    )


@dataclass(slots=True)
class Progress:
    """Passes on what counts and tells how many records were read."""

    advance: Callable[[int], None]
    every: int = 1000
    _read: int = field(default=0, init=False)

    def of(self, records: Iterable[Counted | None]) -> Iterable[Counted]:
        for one in records:
            self._read += 1
            if self._read == self.every:
                self.advance(self._read)
                self._read = 0
            if one is not None:
                yield one
        self.advance(self._read)
