"""What a load shall be, and what became of it."""

from enum import Enum
from typing import Annotated, Any

import msgspec

from fengshou.protocol.codes import APPROVED, text_of
from fengshou.switch.load.pace import Pace
from fengshou.terminals.fleet import FleetResult
from fengshou.terminals.latency import Latencies

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
_PROBLEMS_SHOWN = 5


class LoadFailed(Exception):
    """The load could not be made at all; the text says why and what to do."""


class Phase(Enum):
    """What a load is at; the value is for people."""

    SIGNING = "signing ahead"
    TRADING = "trading"


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Closed loop: each terminal keeps ``in_flight`` requests going. Open loop: ``rate`` requests begin each
    second, whatever the switch does, and latency counts from when each was due."""

    seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0  # that are measured
    warm_up_s: Annotated[float, msgspec.Meta(ge=0)] = 2.0  # before them
    rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # of all terminals together; 0: closed loop
    in_flight: Annotated[int, msgspec.Meta(ge=1)] = 1  # of each terminal, in the closed loop
    terminals: Annotated[int, msgspec.Meta(ge=0)] = 0  # how many of the site's; 0: all that have a home
    fleets: Annotated[int, msgspec.Meta(ge=1)] = 1  # processes that share them
    sign_ahead: Annotated[int, msgspec.Meta(ge=0)] = 0  # requests of each terminal that are signed before the first
    delta: bool = True
    trades: str = ""  # CSV of what is sent, over and over; farm purchases by default


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to. Costs and rates are of the measured window, counts of the whole run."""

    plan: LoadPlan
    seconds: float  # of the window
    transactions: int  # answered by the switch in it
    switch_cpu_s: float  # of all its processes in it, user and system
    fleets_cpu_s: float
    machine_cpu_s: float  # everything that ran on the machine, these two included
    idle_bytes: int  # memory of the switch before the terminals came
    connected_bytes: int  # when they were all signed in and nobody had traded
    terminals: FleetResult
    core: Pace  # of the one that the switch keeps to

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.seconds

    @property
    def switch_us(self) -> float:
        """The switch's CPU a transaction, microseconds."""
        return self.switch_cpu_s / max(self.transactions, 1) * 1e6

    @property
    def busy(self) -> float:
        """Cores that the switch used."""
        return self.switch_cpu_s / self.seconds

    @property
    def pace(self) -> float | None:
        """The share of its own speed that the switch's core had; None where that is not known, or it has none."""
        return self.core.share

    @property
    def fleets_us(self) -> float:
        return self.fleets_cpu_s / max(self.transactions, 1) * 1e6

    @property
    def strangers(self) -> float:
        """Cores that neither the switch nor the terminals used."""
        return max(self.machine_cpu_s - self.switch_cpu_s - self.fleets_cpu_s, 0.0) / self.seconds

    @property
    def connection_bytes(self) -> float:
        """What a terminal that is signed in and silent takes of the switch's memory."""
        return max(self.connected_bytes - self.idle_bytes, 0) / self.terminals.terminals

    def ms(self, percent: float) -> float:
        """The latency that so many percent of the answers did not exceed."""
        return Latencies(self.terminals.latencies).percentile(percent) / 1000

    @property
    def declined(self) -> dict[str, int]:
        """Answers other than approved, by code."""
        found: dict[str, int] = {}
        for codes in self.terminals.codes.values():
            for code, count in codes.items():
                if code != APPROVED:
                    found[code] = found.get(code, 0) + count
        return found

    @property
    def problems(self) -> list[str]:
        """Everything that a switch in good order does not let a terminal see."""
        seen = self.terminals
        found = [f"{count} answered {code} {text_of(code)}" for code, count in sorted(self.declined.items())]
        found += [
            f"{count} turned away with {code} {text_of(code)} and asked again"
            for code, count in sorted(seen.turned_away.items())
        ]
        if seen.unknown:
            found.append(f"{seen.unknown} without any answer")
        if seen.retries:
            found.append(f"{seen.retries} sent again, because an answer or a connection was lost")
        if seen.connections > seen.terminals:
            found.append(f"{seen.connections - seen.terminals} connections made anew")
        if not seen.answered:
            found.append("nothing was answered")
        return found + seen.surprises[:_PROBLEMS_SHOWN]

    @property
    def clean(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        seen = self.terminals
        up, down = seen.tls_bytes_up - seen.handshake_bytes_up, seen.tls_bytes_down - seen.handshake_bytes_down
        return {
            "clean": self.clean,
            "problems": self.problems,
            "loop": "open" if self.plan.rate else "closed",
            "asked_per_s": self.plan.rate or None,
            "reached_per_s": round(self.rate, 1),
            "seconds": round(self.seconds, 3),
            "transactions": self.transactions,
            "latency_ms": {f"p{percent:g}": self.ms(percent) for percent in PERCENTILES},
            "switch_cpu_us": round(self.switch_us, 1),
            "fleets_cpu_us": round(self.fleets_us, 1),
            "cores": {
                "switch": round(self.busy, 2),
                "fleets": round(self.fleets_cpu_s / self.seconds, 2),
                "others": round(self.strangers, 2),
            },
            "switch_core_pace": None if self.pace is None else round(self.pace, 3),
            "bytes": {
                "request_frame": _mean(seen.frame_bytes_up, seen.sent),
                "request_tls": _mean(up, seen.sent),
                "answer_frame": _mean(seen.frame_bytes_down, seen.answered),
                "answer_tls": _mean(down, seen.answered),
                "handshake": _mean(seen.handshake_bytes_up + seen.handshake_bytes_down, seen.connections),
            },
            "connection_bytes": round(self.connection_bytes),
            "connections": seen.connections,
            "signed_ahead": seen.signed_ahead,
            "sent": seen.sent,
            "answered": seen.answered,
            "codes": seen.codes,
            "turned_away": seen.turned_away,
            "sent_again": seen.retries,
            "unknown": seen.unknown,
        }


def _mean(total: int, count: int) -> float:
    return round(total / count, 1) if count else 0.0
