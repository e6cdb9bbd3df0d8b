"""A host that answers the reversal first and then approves what it reversed: the approval is reversed again."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from fengshou.codecs import Iso8583Codec
from fengshou.protocol import elements as de
from fengshou.protocol.iso8583 import MTI, HostFormat, answer_mti
from fengshou.protocol.record import RecordKind
from tests.switch.line import Line, code_of
from tests.switch.town import TERMINALS, Town, purchase

FreshTown = Callable[..., AbstractContextManager[Town]]
CODEC = Iso8583Codec(HostFormat())


class PerverseHost:
    """Keeps its answer to a sale until the sale has been reversed, keeps no tombstone, and answers repeats as it
    answered the first, whatever has happened since."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port))
        self._kept: list[bytes] = []
        self._judged: set[tuple[str | bytes | None, ...]] = set()
        self.silent_after = 1 << 30  # reversals that it answers
        self.heard: list[dict[int, str | bytes]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    @property
    def mtis(self) -> list[str | bytes]:
        return [fields[MTI] for fields in self.heard]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        buffer = b""
        with line, suppress(OSError):
            while data := line.recv(4096):
                frames, used = CODEC.split(buffer + data)
                buffer = (buffer + data)[used:]
                for frame in frames:
                    line.sendall(b"".join(self._answers(CODEC.decode(frame))))

    def _answers(self, fields: dict[int, str | bytes]) -> Iterator[bytes]:
        mti = str(fields[MTI])
        keep = (7, 11, 37, 41, 70)
        answer = {**{n: fields[n] for n in keep if n in fields}, MTI: answer_mti(mti), 39: "00"}
        if mti[1] != "8":
            self.heard.append(fields)
        if mti[1] == "2":
            self._kept.append(CODEC.frame({**answer, 38: "000001"}))
            return
        if mti[1] == "4":
            self._judged.add(_identity(fields))
            if len(self._judged) > self.silent_after:
                return
        yield CODEC.frame(answer)
        if mti[1] == "4":
            yield from self._kept
            self._kept.clear()


def _identity(fields: dict[int, str | bytes]) -> tuple[str | bytes | None, ...]:
    """By which such a host knows a repeat."""
    return tuple(fields.get(number) for number in (7, 11, 37, 41))


def _original(fields: dict[int, str | bytes]) -> tuple[str | bytes | None, ...]:
    return tuple(fields.get(number) for number in (4, 37, 41, 90, 102, 103))


@contextmanager
def perverse(port: int) -> Iterator[PerverseHost]:
    host = PerverseHost(port)
    try:
        yield host
    finally:
        host.close()


def _without_zone_keys(town: Town) -> None:
    """The perverse host has none: the link is as it is to a host that knows neither PINs nor MACs."""
    file = town.folder / "switch.toml"
    file.write_text(re.sub(r"^(zone-keys|mac) = true", r"\1 = false", file.read_text("utf-8"), flags=re.MULTILINE))
    town.kill("switch")
    town.restart("switch")


@contextmanager
def _town_of(fresh_town: FreshTown) -> Iterator[tuple[Town, PerverseHost]]:
    with fresh_town(deadline_ms=1000) as town:
        port = int(town.loaded.config.destination["core-banking"].addresses[0].rpartition(":")[2])  # type: ignore[union-attr]
        town.kill("core-banking")
        _without_zone_keys(town)
        with perverse(port) as host:
            town.until_up("core-banking")
            yield town, host


def test_an_approval_after_its_reversal_is_reversed_again(fresh_town: FreshTown) -> None:
    with _town_of(fresh_town) as (town, host):
        with Line(town, TERMINALS[0]).sign_in() as line:
            assert code_of(line.ask("farm-purchase", {**purchase(), de.STAN: 1})) == "98"
            town.until(lambda status: len(host.heard) == 3 and not status["reversals"]["owed"])
        assert host.mtis == ["0200", "0420", "0420"], "another demand, not a repeat"
        _, first, second = host.heard
        assert _original(first) == _original(second)
        assert first[7] != second[7]
        assert first[11] != second[11]
        late = [record for record in town.records() if record.kind == RecordKind.LATE]
        assert [record.code for record in late] == ["00"]
        taken = town.status()["transitions"]
        # Either the reversal's answer was on its way to the disk when the approval came, or was heard after it.
        assert (
            taken["reversed: late approval"]
            + taken["reversal sent: late approval"]
            + taken["reversal due: late approval"]
            == 1
        )
        with town.journal() as journal:
            assert not journal.due()


def test_a_restart_demands_it_under_the_same_identity(fresh_town: FreshTown) -> None:
    with _town_of(fresh_town) as (town, host):
        host.silent_after = 1
        with Line(town, TERMINALS[0]).sign_in() as line:
            assert code_of(line.ask("farm-purchase", {**purchase(), de.STAN: 1})) == "98"
            town.until(lambda status: host.mtis[2:] == ["0420"])
        town.kill("switch")
        before = len(host.heard)
        host.silent_after = 2
        town.restart("switch")
        town.until(lambda status: len(host.heard) > before and not status["reversals"]["owed"])
        first, second, *again = host.heard[1:]
        assert [(fields[MTI], _identity(fields)) for fields in again] == [("0421", _identity(second))] * len(again)
        assert _identity(first) != _identity(second)
        assert town.verify().good
