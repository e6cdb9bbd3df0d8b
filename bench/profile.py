"""``python -m bench profile``: a switch under full load, seen from outside: a flame graph, and a table of its parts.

py-spy samples the stacks of all threads that are not idle, without stopping them. Each sample counts for the part whose
function stands nearest to its leaf. What waits for the disk or for something to happen is left out.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fengshou.switch.load import LoadFailed, LoadPlan, LoadResult, Phase, own_site, run_load

_RATE = 250  # samples a second
_WARM_UP_S, _SLACK_S = 2.0, 2.0  # before and after what is sampled
_SIGNED_AHEAD_A_SECOND = 6_000
_REST = "event loop, tasks, threads"

# py-spy's own is its command line.
_TITLE = re.compile(r'(<text id="title"[^>]*>).*?(</text>)')

# Functions as py-spy names them and the part that they are; inside of one another, the inner one counts.
PARTS = (
    ("Writer._work (switch/writer.py", "journal: numbering, Merkle tree, indexes, LMDB"),
    ("Writer._put (switch/writer.py", "hand-over to the journal's thread"),
    ("Notary._work (switch/writer.py", "notary: signatures of commits"),
    ("Pump.ready (terminals/pump.py", "terminals: sockets, TLS in, frames"),
    ("Peer.send (terminals/pump.py", "terminals: TLS out, sockets"),
    ("Inbound.read (switch/inbound.py", "messages, session, rate"),
    ("Inbound.verify (switch/inbound.py", "signatures"),
    ("Admission.permit (switch/admission.py", "admission: service, digest of the content, key"),
    ("Duplicates.look (switch/duplicates.py", "admission: duplicates"),
    ("Admission.begin (switch/admission.py", "admission: RRN, ladder, limits, call"),
    ("Recorder.intent (switch/recording.py", "intents: values packed and sealed"),
    ("Inbound.admit (switch/inbound.py", "admission: the rest"),
    ("Sender.route (switch/outbound.py", "link: calls matched, encoded, MACs"),
    ("Line._", "link: calls matched, encoded, MACs"),
    ("Sender.conclude (switch/outbound.py", "outcomes and events"),
    ("Sender.answer (switch/outbound.py", "answers encoded"),
)


# A thread whose innermost function is one of these waits: for LMDB's sync, for sockets, for another thread.
_WAITING = (
    "Journal._transact (switch/journal/store.py", "EpollIOManager.get_events (trio", "Condition.wait (threading.py",
    "Writer._work (switch/writer.py",
)  # fmt: skip


class ProfileFailed(Exception):
    """The profiler cannot run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the CPU of one run went."""

    load: LoadResult
    shares: dict[str, float]  # of the CPU, by part

    def rows(self) -> Iterator[tuple[str, float, float]]:
        """Part, its share and its microseconds a transaction, the largest first."""
        for part, share in sorted(self.shares.items(), key=lambda row: -row[1]):
            yield part, share, share * self.load.switch_us


def run(folder: Path, picture: Path, seconds: float, terminals: int = 200, in_flight: int = 4) -> Profile:
    """Load a site made in ``folder`` and sample its switch; the flame graph is written to ``picture`` (SVG).

    Raises ProfileFailed, LoadFailed, ProcessFailed.
    """
    stacks = folder / "stacks"
    samplers: list[subprocess.Popen[bytes]] = []
    with own_site(folder, terminals, ledger=False, switch_cores=1) as (site, processes):
        pid = processes.running["switch"].pid

        def watch(phase: Phase, done: float, total: float) -> None:
            if phase is Phase.TRADING and not samplers and done > _WARM_UP_S:
                samplers.extend(
                    _sample(pid, seconds, form, out) for form, out in (("raw", stacks), ("flamegraph", picture))
                )

        ahead = round(_SIGNED_AHEAD_A_SECOND * (seconds + _WARM_UP_S + _SLACK_S) / terminals)
        plan = LoadPlan(seconds=seconds + _SLACK_S, warm_up_s=_WARM_UP_S, in_flight=in_flight, sign_ahead=ahead)
        load = run_load(site.folder, plan, watch)
        for sampler in samplers:
            told = sampler.communicate()[1]
            if sampler.returncode:
                raise ProfileFailed(f"py-spy failed: {told.decode(errors='replace')[-500:]}")
        text = stacks.read_text("utf-8")
    title = f"The switch at {load.rate:,.0f} transactions a second, all threads"
    picture.write_text(_TITLE.sub(rf"\g<1>{title}\g<2>", picture.read_text("utf-8")), "utf-8")
    if not load.clean:
        raise LoadFailed("; ".join(load.problems))
    return Profile(load, shares(text.splitlines()))


def _sample(pid: int, seconds: float, form: str, out: Path) -> "subprocess.Popen[bytes]":
    command = [
        "py-spy",
        "record",
        "--nonblocking",
        "--threads",
        "-p",
        str(pid),
        "-r",
        str(_RATE),
        "-d",
        f"{seconds:.0f}",
    ]
    try:
        return subprocess.Popen(
            [*command, "-f", form, "-o", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise ProfileFailed("py-spy is not installed: pip install 'fengshou[bench]'") from None


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Each part's share of the CPU, from lines ``frame;frame;… count``, the root first."""
    counts: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not frames[-1].startswith(_WAITING):
            counts[_part(frames)] += int(count)
    whole = sum(counts.values())
    return {part: count / whole for part, count in counts.items()}


def _part(frames: list[str]) -> str:
    """That of the innermost function that is listed."""
    found = _REST
    for frame in frames:
        for name, part in PARTS:
            if frame.startswith(name):
                found = part
                break
    return found


def show(profile: Profile) -> None:
    """The table, as Markdown takes it."""
    load = profile.load
    console = Console()
    table = Table(
        title=f"{load.rate:,.0f} transactions a second, {load.switch_us:.0f} µs of CPU each, "
        f"{load.switch_cpu_s / load.seconds:.0%} of a core",
        title_justify="left",
    )
    table.add_column("part")
    table.add_column("share", justify="right")
    table.add_column("µs", justify="right")
    for part, share, us in profile.rows():
        table.add_row(part, f"{share:.1%}", f"{us:.1f}")
    console.print(table)
