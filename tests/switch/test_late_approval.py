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
    """Keeps its answer to a sale until the sale has been reversed."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port))
        self._kept: list[bytes] = []
        self.heard: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

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
            self.heard.append(mti)
        if mti[1] == "2":
            self._kept.append(CODEC.frame({**answer, 38: "000001"}))
            return
        yield CODEC.frame(answer)
        if mti[1] == "4":
            yield from self._kept
            self._kept.clear()


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


def test_an_approval_after_its_reversal_is_reversed_again(fresh_town: FreshTown) -> None:
    with fresh_town(deadline_ms=1000) as town:
        port = int(town.loaded.config.destination["core-banking"].addresses[0].rpartition(":")[2])  # type: ignore[union-attr]
        town.kill("core-banking")
        _without_zone_keys(town)
        with perverse(port) as host, Line(town, TERMINALS[0]).sign_in() as line:
            town.until_up("core-banking")
            assert code_of(line.ask("farm-purchase", {**purchase(), de.STAN: 1})) == "98"
            town.until(lambda status: len(host.heard) == 3 and not status["reversals"]["owed"])
            assert host.heard == ["0200", "0420", "0420"], "another demand, not a repeat"
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
