"""``python -m bench profile``: a switch under full load, seen from outside: a flame graph, and a table of its parts.

py-spy samples the stacks of all threads that are not idle, without stopping them: once for the table, then for the
picture, never both at a time, because a sampler takes as much from the terminals' core as it looks at. Each sample
counts for the part whose function stands nearest to its leaf. What waits for the disk or for something to happen is
left out.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fengshou.switch.load import LoadFailed, LoadPlan, LoadResult, Phase, own_site, run_load

# Samples a second: at 250 a sampler used half a core, and the switch was not saturated any more.
_RATE = 100
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
    """Load a site made in ``folder`` and sample its switch twice, for ``seconds`` each; the flame graph is written to
    ``picture`` (SVG).

    Raises ProfileFailed, LoadFailed, ProcessFailed.
    """
    stacks = folder / "stacks"
    with own_site(folder, terminals, ledger=False, switch_cores=1) as (site, processes):
        sampler = _Sampler(processes.running["switch"].pid, seconds, [("raw", stacks), ("flamegraph", picture)])

        def watch(phase: Phase, done: float, total: float) -> None:
            if phase is Phase.TRADING and done > _WARM_UP_S:
                sampler.go_on()

        length = 2 * seconds + _SLACK_S
        ahead = round(_SIGNED_AHEAD_A_SECOND * (length + _WARM_UP_S) / terminals)
        plan = LoadPlan(seconds=length, warm_up_s=_WARM_UP_S, in_flight=in_flight, sign_ahead=ahead)
        load = run_load(site.folder, plan, watch)
        sampler.finish()
    text = stacks.read_text("utf-8")
    title = f"The switch at {load.rate:,.0f} transactions a second, all threads"
    picture.write_text(_TITLE.sub(rf"\g<1>{title}\g<2>", picture.read_text("utf-8")), "utf-8")
    if not load.clean:
        raise LoadFailed("; ".join(load.problems))
    return Profile(load, shares(text.splitlines()))


class _Sampler:
    """Runs py-spy on a process, in one form of output after the other."""

    def __init__(self, pid: int, seconds: float, forms: list[tuple[str, Path]]) -> None:
        self._command = [_py_spy(), "record", "--nonblocking", "--threads", "-p", str(pid), "-r", str(_RATE)]
        self._command += ["-d", f"{seconds:.0f}"]
        self._forms = forms
        self._running: subprocess.Popen[bytes] | None = None

    def go_on(self) -> None:
        """Begin with the next form when the one before has ended. Raises ProfileFailed."""
        if self._running is not None and self._running.poll() is None:
            return
        self._end()
        if self._forms:
            form, out = self._forms.pop(0)
            command = [*self._command, "-f", form, "-o", str(out)]
            self._running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self) -> None:
        """Raises ProfileFailed, when there was no time for all forms too."""
        self._end()
        if self._forms:
            raise ProfileFailed("the load ended before py-spy did")

    def _end(self) -> None:
        if self._running is not None:
            told = self._running.communicate()[1]
            if self._running.returncode:
                raise ProfileFailed(f"py-spy failed: {told.decode(errors='replace')[-500:]}")
            self._running = None


def _py_spy() -> str:
    """Beside this interpreter, or in the path."""
    beside = Path(sys.executable).parent
    found = shutil.which("py-spy", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise ProfileFailed("py-spy is not installed: pip install 'fengshou[bench]'")
    return found


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
