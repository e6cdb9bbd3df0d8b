"""Keys are rotated under a running switch while terminals trade: nothing is declined for it, old epochs end in time."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from fengshou.hsm.channel import TlsStream
from fengshou.hsm.custody import JOURNAL_DATA, SWITCH_SIGN, SWITCH_TLS
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.epoch import EpochState
from fengshou.switch.certificate_files import read_certificate
from fengshou.switch.cli import main
from fengshou.terminals.client import Response
from fengshou.terminals.receipt import ReceiptInvalid, verify_inclusion
from tests.switch.town import TERMINALS, Town, enquiry, purchase

FreshTown = Callable[..., AbstractContextManager[Town]]


def command(town: Town, line: str) -> Any:
    result = CliRunner().invoke(main, [*line.split(), "--home", str(town.folder), "--json"])
    assert result.exit_code == 0, (line, result.output)
    return json.loads(result.stdout)


class Trade:
    """Terminals that sell, ask the government and connect anew all the time; their answers, with receipts."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.answers: list[Response] = []
        self._going = True

    async def run(self, terminal: str) -> None:
        # The counters are the home's: a terminal that comes back goes on where it was.
        with closing(self.town.home(terminal).counters()) as counters:
            while self._going:
                async with self.town.client(terminal, counters) as client:
                    for turn in range(6):
                        self.answers.append(await client.trade("farm-purchase", purchase(100 + turn), receipt=True))
                        if turn == 3:
                            self.answers.append(await client.trade("gov-enquiry", enquiry()))

    async def more(self, count: int = 40) -> None:
        """Wait until so many more requests were answered."""
        wanted = len(self.answers) + count
        with trio.fail_after(40):
            while len(self.answers) < wanted:
                await trio.sleep(0.02)

    def stop(self) -> None:
        self._going = False


async def certificate_shown(town: Town) -> int:
    """The serial number of the certificate that the switch shows now."""
    home = town.home(TERMINALS[-1])
    stream = TlsStream.client(await trio.open_tcp_stream(*town.address), home.context(), home.switch_name)
    async with stream:
        await stream.do_handshake()
        return stream.peer.serial


async def rotate_everything(town: Town, trade: Trade) -> None:
    async with trio.open_nursery() as nursery:
        for terminal in TERMINALS[:3]:
            nursery.start_soon(trade.run, terminal)
        await trade.more()
        shown = await certificate_shown(town)
        for kind in ("ca", "switch-sign", "switch-tls", "journal", "audit-sign", "tickets"):
            await trio.to_thread.run_sync(command, town, f"keys rotate {kind} --yes")
            await trade.more()
        assert await certificate_shown(town) != shown
        await trio.to_thread.run_sync(command, town, "keys rollback switch-tls --yes")
        with trio.fail_after(10):
            while await certificate_shown(town) != shown:
                await trio.sleep(0.1)
        await trio.to_thread.run_sync(command, town, "keys rollback switch-sign --yes")
        await trade.more()
        await trio.to_thread.run_sync(command, town, "keys rotate switch-sign --yes")
        await trio.to_thread.run_sync(command, town, "keys rotate switch-tls --yes")
        await trade.more()
        for label in (SWITCH_SIGN, SWITCH_TLS):
            await trio.to_thread.run_sync(command, town, f"keys retire {label} 1 --yes")
        await trade.more()
        trade.stop()


@pytest.mark.slow
def test_every_key_of_the_site_is_rotated_under_load_and_nothing_is_declined(fresh_town: FreshTown) -> None:
    with fresh_town() as town:
        process = town.process("switch").pid
        trade = Trade(town)
        trio.run(rotate_everything, town, trade)
        assert Counter(answer.code for answer in trade.answers) == {"00": len(trade.answers)}
        assert len(trade.answers) > 300
        assert town.status()["process"] == process
        town.settle()
        town.require_truth()

        finding = town.verify()
        assert len(finding.signed_by) == 2  # each epoch vouches for commits of its own
        new, old = town.switch_keys
        by = Counter(_signer(answer, {"new": new, "old": old}) for answer in trade.answers if answer.receipt)
        assert by["new"] > 20
        assert by["old"] > 20
        assert not by["nobody"]

        for answer in trade.answers[::7]:  # terminals believe both
            assert answer.receipt is None or verify_inclusion(answer.receipt, town.home(TERMINALS[0]).switch_keys())

        custody = SoftwareCustody(town.folder / "keys")
        states = {(info.label, info.epoch): info.state for info in custody.inventory()}
        assert states[SWITCH_SIGN, 1] is states[SWITCH_TLS, 1] is EpochState.RETIRED
        assert (states[JOURNAL_DATA, 1], states[JOURNAL_DATA, 2]) == (EpochState.RETIRING, EpochState.CURRENT)
        assert read_certificate(town.folder / "certificates/switch.crt").public_key == custody.public_key(SWITCH_TLS)
        records = json.loads(
            CliRunner().invoke(main, ["journal", "show", "--last", "400", "--json", "--home", str(town.folder)]).stdout
        )
        assert len(records) == 400  # sealed under either epoch, all open

        proved = command(town, "audit verify")
        assert (proved["verified"], proved["open_acts"]) == (True, [])
        town.kill("switch")
        town.restart("switch")  # what is on disk fits together
        town.until_up("core-banking", "government")


def _signer(answer: Response, keys: dict[str, Any]) -> str:
    assert answer.receipt is not None
    for name, key in keys.items():
        try:
            verify_inclusion(answer.receipt, key)
        except ReceiptInvalid:
            continue
        return name
    return "nobody"


def test_what_was_cut_short_is_taken_up_again(town: Town) -> None:
    custody = SoftwareCustody(town.folder / "keys")
    waiting = custody.renew("audit.sign")
    plan = command(town, "keys rotate audit-sign --dry-run")["plan"]
    assert plan[0] == f"take up epoch {waiting.epoch} of audit.sign"
    command(town, "keys rotate audit-sign --yes")
    custody.refresh()
    assert custody.key("audit.sign").epoch == waiting.epoch
    assert command(town, "audit verify")["verified"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("keys rollback journal --yes", "nothing to go back to"),
        ("keys retire switch.sign 9 --yes", "has no epoch 9"),
        ("keys destroy switch.sign 1 --yes", "retire it first"),
        ("keys retire", "give a key and its epoch, or --due"),
    ],
)
def test_what_cannot_be_done_is_said_and_on_record(town: Town, line: str, said: str) -> None:
    result = CliRunner().invoke(main, [*line.split(), "--home", str(town.folder)])
    assert result.exit_code != 0
    assert said in result.output


def test_status_says_what_is_due(town: Town) -> None:
    rows = {(row["key"], row["epoch"]): row for row in command(town, "keys status")["keys"]}
    row = rows["switch.sign", 1]
    assert (row["kind"], row["state"], row["age_days"]) == ("SM2", "current", 0)
    assert len(row["check_value"]) == 8
    assert row["due"]
