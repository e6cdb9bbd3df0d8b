"""A core-banking host that has bad days: the real application and its real books behind a server that misbehaves."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import trio

from fengshou.codecs import Iso8583Codec
from fengshou.protocol.backend import Fields
from fengshou.protocol.day_file import DayRow
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.iso8583 import MTI, HostFormat, answer_mti
from fengshou.routing.connect import LINK_ERRORS
from fengshou.routing.iso8583_wire import READ_BYTES, drain, is_network, is_request, network_answer
from fengshou.switch.simulation.agenda import WallClock
from fengshou.switch.simulation.network import Connection, Network, Stream

HOST = "host"
APPLICATION = "fengshou.ext.hosts.core_banking.Application"
_BUSY = ("91", "96")  # nothing was done
_UNSURE = "68"
# Requests that are never sent again: what is said of them holds.
_ONCE = ("0100", "0200")


@dataclass(slots=True)
class Mood:
    """What the host does to requests; the odds are for each of them."""

    deaf: float = 0.0  # takes the request and does nothing
    mute: float = 0.0  # does it and says nothing
    late: float = 0.0
    twice: float = 0.0
    garbled: float = 0.0  # answers with the fields of another request, or without a code
    unsure: float = 0.0  # does it or not, and says that it does not know
    busy: float = 0.0  # does nothing and says so
    late_s: float = 9.0  # how late, by half of it more or less
    behind: float = 0.0  # does it as late, and has forgotten that it was taken back meanwhile
    foreign: float = 0.0  # the same, but what it answered to the reversal it answers to each repeat, and does nothing
    frozen: bool = False


def answer_head(request: Fields) -> dict[int, str | bytes]:
    """What an answer repeats of its request."""
    head = {number: request[number] for number in (3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49) if number in request}
    return {**head, MTI: answer_mti(str(request[MTI]))}


class Host:
    """The machine. ``kill`` and ``start`` are its process's; the books stay."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        accounts: Path,
        clock: WallClock,
        chance: Random,
        on_request: Callable[[Fields], None],
    ) -> None:
        self.database = folder / "ledger.db"
        self._options = {"database": str(self.database), "accounts": str(accounts)}
        self._network = network
        self._clock = clock
        self._chance = chance
        self._codec = Iso8583Codec(HostFormat())
        self._on_request = on_request
        self._application: Any = None
        self._life = 0
        self._turned_away: set[tuple[str, str]] = set()  # MTI and RRN: copies of it are not looked at
        self.done_behind: set[int] = set()  # RRNs of what it did so late that a reversal may have come first
        self.mood = Mood()
        self.dies_at_work = False  # with the next requests in its memory
        self._arrivals, self._accepted = trio.open_memory_channel[Stream](1000)

    @property
    def running(self) -> bool:
        return self._application is not None

    def start(self) -> None:
        if self._application is None:
            module, _, name = APPLICATION.rpartition(".")
            self._application = getattr(import_module(module), name)(self._options, now_us=self._clock.now_us)
            self._network.listen(HOST, self._accept)
            if self._life:
                self._network.fault("host restarted")

    def kill(self) -> None:
        """What was in its memory is gone: requests that it had read, answers that it had not sent."""
        if self._application is not None:
            self._life += 1
            self._network.ignore(HOST)
            self._network.drop(HOST)
            self._application.close()
            self._application = None

    def report(self) -> Mapping[str, Any]:
        """What the books say, see ``ledger_report`` of the application."""
        report: Mapping[str, Any] = self._application.report("totals")
        return report

    def _accept(self, connection: Connection) -> None:
        self._arrivals.send_nowait(Stream(connection.up, connection.down, connection.binding))

    async def serve(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            async for stream in self._accepted:
                nursery.start_soon(self._converse, stream, nursery)

    async def _converse(self, stream: Stream, nursery: trio.Nursery) -> None:
        buffer, life = bytearray(), self._life
        try:
            while data := await stream.receive_some(READ_BYTES):
                if self.mood.frozen:
                    self._network.fault("host frozen")
                while self.mood.frozen:
                    await trio.sleep(0.5)
                buffer += data
                requests = []
                for fields in drain(self._codec, buffer):
                    if is_network(fields):
                        if is_request(fields):
                            await stream.send_all(self._codec.frame(network_answer(fields)))
                    elif is_request(fields):
                        requests.append(fields)
                if requests:
                    nursery.start_soon(self._work, stream, requests, life)
        except (*LINK_ERRORS, UntrustedBytesError):
            self._network.diary.note(HOST, "a connection broke")
        finally:
            await trio.aclose_forcefully(stream)

    async def _work(self, stream: Stream, requests: list[dict[int, str | bytes]], life: int) -> None:
        heard = []
        for fields in requests:
            self._on_request(fields)
            if self._happens(self.mood.deaf, "host deaf"):
                continue
            request = (str(fields[MTI]), str(fields[37]))
            if request in self._turned_away:  # a copy that the network made
                continue
            if self._happens(self.mood.busy, "host busy"):
                if request[0] in _ONCE:
                    self._turned_away.add(request)
                self._write(stream, {**answer_head(fields), 39: self._chance.choice(_BUSY)}, life)
            elif self._happens(self.mood.unsure / 2, "host unsure"):  # and has not done it
                self._write(stream, {**answer_head(fields), 39: _UNSURE}, life)
            elif request[0] in _ONCE and self._happens(self.mood.behind, "host works behind"):
                self._put_behind(request, partial(self._work_behind, stream, fields, life, forgets=True))
            elif request[0] in _ONCE and self._happens(self.mood.foreign, "host works behind and answers from memory"):
                self._put_behind(request, partial(self._work_behind, stream, fields, life, forgets=False))
            else:
                heard.append(fields)
        await trio.sleep(self._chance.uniform(0.001, 0.01))
        if heard and self.dies_at_work:
            self.kill()
        if life != self._life or not heard:
            if heard:
                self._network.fault("host lost its memory")
            return
        answers = self._application.answer(heard)
        await trio.sleep(self._chance.uniform(0.0005, 0.004))
        for answer in answers:
            await self._answer(stream, answer, life)

    async def _answer(self, stream: Stream, answer: Fields, life: int) -> None:
        if life != self._life:
            self._network.fault("host lost its memory")
            return
        self._network.diary.note(HOST, f"{answer[0]!s} {answer.get(37)!s} {answer.get(39)!s}")
        if self._happens(self.mood.mute, "host mute"):
            return
        if self._happens(self.mood.late, "host late"):
            self._network.agenda.after(self._lateness(), lambda: self._write(stream, answer, life))
            return
        if self._happens(self.mood.unsure / 2, "host unsure"):  # and has done it
            answer = {**answer, 39: _UNSURE}
        if self._happens(self.mood.garbled, "host answers wrong fields"):
            answer = self._garble(answer)
        self._write(stream, answer, life)
        if self._happens(self.mood.twice, "host answers twice"):
            self._write(stream, answer, life)

    def _lateness(self) -> float:
        return self._chance.uniform(0.5, 1.5) * self.mood.late_s

    def _put_behind(self, request: tuple[str, str], work: Callable[[], None]) -> None:
        self._turned_away.add(request)
        self.done_behind.add(int(request[1]))
        self._network.agenda.after(self._lateness(), work)

    def _work_behind(self, stream: Stream, fields: Fields, life: int, *, forgets: bool) -> None:
        """As a host does that keeps no tombstones. Only its late answer tells the switch. ``forgets``: it does not
        remember either what it answered to reversals of what it did not know, and judges their repeats anew."""
        if life != self._life:
            return
        with closing(sqlite3.connect(self.database)) as books, books:
            books.execute("DELETE FROM tombstones")
            if forgets:
                books.execute("DELETE FROM transactions WHERE class = '4' AND original IS NULL")
        for answer in self._application.answer([fields]):
            self._write(stream, answer, life)

    def _garble(self, answer: Fields) -> Fields:
        match self._chance.randrange(3):
            case 0:
                return {**answer, 37: f"{self._chance.randrange(10**12):012d}"}
            case 1:
                return {number: value for number, value in answer.items() if number != 39}
        return {**answer, 41: "TT999999"}

    def _write(self, stream: Stream, answer: Fields, life: int) -> None:
        if life == self._life:
            stream.write(self._codec.frame(answer))

    def day_rows(self, business_day: int) -> list[DayRow]:
        """What it decided for a business day, as its file for the switch has it."""
        return list(self._application.day_rows(self._options, business_day))

    def _happens(self, odds: float, name: str) -> bool:
        if odds and self._chance.random() < odds:
            self._network.fault(name)
            return True
        return False
