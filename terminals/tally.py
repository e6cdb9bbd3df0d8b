"""What a fleet of simulated terminals counts."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from fengshou.terminals.fleet_link import Traffic
from fengshou.terminals.latency import Latencies


@dataclass(slots=True)
class Tally:
    """What a fleet has counted so far."""

    sent: int = 0
    answered: int = 0
    unknown: int = 0  # trades whose outcome the terminal did not learn
    signed_ahead: int = 0
    turned_away: Counter[str] = field(default_factory=Counter)  # codes that said: not now; each was asked again
    codes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by template
    approved_fen: Counter[str] = field(default_factory=Counter)  # sum of amounts by template
    surprises: list[str] = field(default_factory=list)  # answers other than expected, in words
    retries: int = 0  # the same key sent again because no answer came
    repeats_equal: int = 0  # the same key sent again on purpose: the answer was the same
    repeats_different: int = 0
    connections: int = 0
    sign_ins: int = 0
    receipts_verified: int = 0
    receipts_missing: int = 0
    receipts_invalid: int = 0
    batches_balanced: int = 0
    batches_different: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    timed_from: float = 0.0  # trades that were due before this have no latency, see ``time.perf_counter``
    traffic: Traffic = field(default_factory=Traffic)
