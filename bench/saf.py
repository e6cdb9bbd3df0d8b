"""Store and forward: how fast what a host is owed drains, once the host is willing.

The real depot over a real ISO 8583 link to the embedded host in a process of its own. The debts are reversals of
originals that never came, each of an account of its own, from a journal that was filled beforehand. The host decides
and commits each; the switch journals each answer.
"""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import trio

from bench.figures import Figure
from bench.purchase import EXAMPLES
from fengshou.codecs import sm3
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.config import load
from fengshou.switch.demo import prepare
from fengshou.switch.journal.store import Entry
from fengshou.switch.processes import SiteProcesses
from fengshou.switch.server import Switch
from fengshou.terminals.registry_csv import read_terminals

_GROUP = 500


def _fill(switch: Switch, debts: int) -> None:
    """Transfers of many cards without an outcome that is known, as a night without a host leaves them."""
    facts = next(new.facts for new in read_terminals(EXAMPLES / "terminals.csv") if "transfer" in new.services)
    template = switch.catalogue.grammar.templates[7]
    now_us = time.time_ns() // 1000
    day = 20_000_101
    for start in range(0, debts, _GROUP):
        intents, outcomes = [], []
        for number in range(start, min(start + _GROUP, debts)):
            values: dict[int, Value] = {
                de.AMOUNT: 100, de.LOCAL_TIME: 93_000, de.LOCAL_DATE: 612, de.ENTRY_MODE: 52,
                de.PAN: f"91560040{number:011d}", de.TO_ACCOUNT: f"91560010{number:011d}",
            }  # fmt: skip
            content = sm3(number.to_bytes(8, "big"))
            clear, sealed = switch.recorder._keep(values, RecordKind.INTENT, content, frozenset())
            record = Record(
                RecordKind.INTENT, 0, now_us + number, day, 632_800_000_000 + number, template.id, facts.terminal,
                facts.merchant, 1 + number // 900_000, 1 + number % 900_000, content=content, evidence=bytes(96),
                clear=clear, sealed=sealed,
            )  # fmt: skip
            intents.append(Entry(record))
        switch.journal.commit(intents)
        for entry in intents:
            was = entry.record
            outcomes.append(
                Entry(
                    Record(
                        RecordKind.OUTCOME, 0, was.time_us, day, was.rrn, was.template, was.terminal, was.merchant,
                        was.batch, was.stan, refers=was.number, code="98", content=was.content, evidence=bytes(32),
                    ),
                    owes=was.number,
                )
            )  # fmt: skip
        switch.journal.commit(outcomes)


async def _drain(switch: Switch) -> float:
    """Seconds until nothing is owed, from the moment at which the links are up."""
    async with trio.open_nursery() as nursery:
        switch.writer.start()
        route = switch.routes["core-banking"]
        nursery.start_soon(route.destination.run, switch._sink)
        nursery.start_soon(switch.forwarder.run)
        with trio.fail_after(30):
            while not route.destination.up:
                await trio.sleep(0.01)
        start = trio.current_time()
        switch.forwarder.resume()
        with trio.fail_after(300):
            while switch.forwarder.owed:
                await trio.sleep(0.01)
        took = trio.current_time() - start
        nursery.cancel_scope.cancel()
    await switch.writer.stop()
    return took


def figures(debts: int, folder: Path) -> list[Figure]:
    """``folder`` is made anew, on the project's disk."""
    shutil.rmtree(folder, ignore_errors=True)
    site = prepare(folder / "site", EXAMPLES)
    with SiteProcesses(site.folder) as processes, ExitStack() as stack:
        processes.start("core-banking")
        processes.running["core-banking"].wait_ready()
        switch = Switch(load(site.path("switch.toml")), stack)
        _fill(switch, debts)
        cpu = time.process_time()
        took = trio.run(_drain, switch)
        cpu = time.process_time() - cpu
    shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure(
            key="saf.rate", what=f"{debts} reversals drained to a willing host", value=debts / took, unit="reversals/s",
            aim=2000, more=True,
        ),
        Figure(key="saf.cpu", what="CPU of the switch", value=cpu / debts * 1e6, unit="µs/reversal"),
    ]  # fmt: skip
