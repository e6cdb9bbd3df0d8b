"""Keys are rotated under a running switch while terminals trade: nothing is declined for it, old epochs end in time."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from OpenSSL import SSL

from fengshou.codecs import PublicKey
from fengshou.hsm.channel import TlsStream
from fengshou.hsm.custody import JOURNAL_DATA, SWITCH_TLS, CustodyError, KeyInfo, Kind
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol import elements as de
from fengshou.protocol.epoch import EpochState
from fengshou.switch import followers
from fengshou.switch.certificate_files import read_certificate
from fengshou.switch.cli.keys import TICKETS
from fengshou.switch.cli.main import main
from fengshou.switch.followers import AUTHORITY
from fengshou.switch.rotation import HOST_POLICIES, POLICIES, ZONE
from fengshou.terminals.client import Response
from fengshou.terminals.home import Home
from fengshou.terminals.identity import Counters
from fengshou.terminals.receipt import ReceiptInvalid, verify_inclusion
from fengshou.terminals.signer_dialogue import signer_of
from tests.switch.line import Closed, Line, code_of
from tests.switch.test_renewals import authority_watching
from tests.switch.town import PAN, TERMINALS, Town, enquiry, purchase

FreshTown = Callable[..., AbstractContextManager[Town]]

KINDS = (*POLICIES, ZONE, TICKETS, AUTHORITY)  # whatever kinds there are
ROUNDS = int(os.environ.get("FENGSHOU_ROTATIONS", "1"))  # `make rotate-drill` asks for more
TRADERS = TERMINALS[:3]


def command(town: Town, line: str, home: str = "--home") -> Any:
    where = [home, str(town.folder)] if home else []
    result = CliRunner().invoke(main, [*line.split(), *where, "--json"])
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
                keys = self.town.home(terminal).keys()
                async with self.town.client(terminal, counters, keys=keys, renewal_s=0.5) as client:
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
    """Each kind that there is, in a row; then what they left retiring ends."""

    async def run(line: str) -> Any:
        return await trio.to_thread.run_sync(command, town, line)

    async with trio.open_nursery() as nursery:
        for terminal in TRADERS:
            nursery.start_soon(trade.run, terminal)
        await trade.more()
        shown = await certificate_shown(town)
        for _ in range(ROUNDS):
            for kind in KINDS:
                await run(f"keys rotate {kind} --yes")
                await trade.more()
        assert await certificate_shown(town) != shown
        await run("keys rollback switch-tls --yes")
        with trio.fail_after(10):
            while ROUNDS == 1 and await certificate_shown(town) != shown:
                await trio.sleep(0.1)
        await run("keys rollback switch-sign --yes")
        await trade.more()
        await run("keys rotate switch-sign --yes")
        await run("keys rotate switch-tls --yes")
        for host, kind in product(("government", "analytics"), HOST_POLICIES):
            await run(f"keys rotate {kind} --host {host} --yes")
        await trade.more()
        for kind in (*followers.KINDS, AUTHORITY):
            with trio.fail_after(60):
                while {
                    name for name in (await run(f"keys progress {kind}"))["behind"] if name in TRADERS or "/" in name
                }:
                    await trio.sleep(0.2)
        await trade.more()
        for label, epoch in retiring(town):
            await run(f"keys retire {label} {epoch} --force --yes")
        await trio.to_thread.run_sync(retire_authority, town)
        await trade.more()
        trade.stop()


def retiring(town: Town) -> list[tuple[str, int]]:
    """Epochs that end; those of the journal's key stay for as long as its records."""
    keys = command(town, "keys status")["keys"]
    return [(row["key"], row["epoch"]) for row in keys if row["state"] == "retiring" and row["key"] != JOURNAL_DATA]


def retire_authority(town: Town) -> None:
    line = ["pki", "retire", "--yes", "--pki", str(town.folder / "pki")]
    refused = CliRunner().invoke(main, line)
    assert "terminals would be refused" in refused.output  # those that have not been on line
    assert CliRunner().invoke(main, [*line, "--force"]).exit_code == 0


@pytest.mark.slow
def test_every_key_of_the_site_is_rotated_under_load_and_nothing_is_declined(fresh_town: FreshTown) -> None:
    with fresh_town(workers=2) as town, authority_watching(town):
        process = town.process("switch").pid
        trade = Trade(town)
        trio.run(rotate_everything, town, trade)
        assert Counter(answer.code for answer in trade.answers) == {"00": len(trade.answers)}
        assert len(trade.answers) > 300
        assert town.process("switch").pid == process
        town.settle()
        town.require_truth()

        finding = town.verify()
        assert len(finding.signed_by) == 1 + ROUNDS  # each epoch vouches for commits of its own
        new, *old = town.switch_keys
        by = Counter(_signer(answer, {"new": new, "old": old}) for answer in trade.answers if answer.receipt)
        assert by["new"] > 20
        assert by["old"] > 20
        assert not by["nobody"]

        for answer in trade.answers[::7]:  # terminals believe both
            assert answer.receipt is None or verify_inclusion(answer.receipt, town.home(TERMINALS[0]).switch_keys())

        custody = SoftwareCustody(town.folder / "keys")
        assert retiring(town) == []
        for info in custody.inventory():
            if info.state is EpochState.RETIRED:
                with pytest.raises(CustodyError, match="is retired"):
                    use(custody, info)
        assert read_certificate(town.folder / "certificates/switch.crt").public_key == custody.public_key(SWITCH_TLS)
        before = read_certificate(town.folder / "certificates/switch.1.crt").serial
        states = {row["serial"]: row["state"] for row in command(town, f"pki list --pki {town.folder / 'pki'}", "")}
        assert states[f"{before:032x}"] == "revoked: superseded"
        # Who has a certificate of the authority that ended.
        with pytest.raises((Closed, SSL.Error)), Line(town, TERMINALS[-2]) as line:
            line.sign_in()
        records = json.loads(
            CliRunner().invoke(main, ["journal", "show", "--last", "400", "--json", "--home", str(town.folder)]).stdout
        )
        assert len(records) == 400  # sealed under either epoch, all open

        proved = command(town, "audit verify")
        assert (proved["verified"], proved["open_acts"]) == (True, [])
        town.kill("switch")
        town.restart("switch")  # what is on disk fits together
        town.until_up("core-banking", "government")


def use(custody: SoftwareCustody, info: KeyInfo) -> None:
    """Something that this epoch of a key is good for."""
    if info.kind is Kind.SM2:
        custody.sign(info.label, bytes(32), info.epoch)
    else:
        custody.export_envelope(info.label, custody.public_key(SWITCH_TLS), epoch=info.epoch)


def _signer(answer: Response, keys: dict[str, Any]) -> str:
    assert answer.receipt is not None
    for name, key in keys.items():
        try:
            verify_inclusion(answer.receipt, key)
        except ReceiptInvalid:
            continue
        return name
    return "nobody"


async def signer_told(town: Town) -> PublicKey:
    async with town.client(TERMINALS[1], Counters()) as client:
        return signer_of(await client.signer(), town.home(TERMINALS[1]).trust)


def test_a_terminal_elsewhere_learns_of_the_new_signer_from_the_switch(fresh_town: FreshTown, tmp_path: Path) -> None:
    """Its home is nowhere near the site, and was made before the authority that issued the new certificate."""
    with fresh_town() as town:
        home = tmp_path / "elsewhere"
        shutil.copytree(town.home(TERMINALS[0]).folder, home)
        (old,) = Home(home).switch_keys()
        command(town, "keys rotate ca --yes")
        command(town, "keys rotate switch-sign --yes")
        assert Home(home).switch_keys() == (old,)
        withdraw = f"pos withdraw --card {PAN} --amount 100 --receipt --json --home {home}"
        paid = CliRunner().invoke(main, withdraw.split())
        assert paid.exit_code == 0, paid.output
        assert json.loads(paid.stdout)["receipt"].startswith("verified, record ")
        new = town.switch_keys[0]
        assert Home(home).switch_keys() == (new, old)
        assert trio.run(signer_told, town) == new
        command(town, "keys rollback switch-sign --yes")
        assert trio.run(signer_told, town) == old
        with Line(town, TERMINALS[2]) as line:
            assert code_of(line.ask("signer", {de.STAN: 1})) == "22"  # nobody has signed in yet


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
        ("keys retire switch.sign 1 --yes", "is in use: rotate first"),
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
