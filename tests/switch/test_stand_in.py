"""Standing in for core banking: within signed limits, told to the host when it is back, differences listed."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fengshou.codecs import PrivateKey
from fengshou.protocol import elements as de
from fengshou.protocol.record import RecordKind
from fengshou.switch.stand_in import Caps, Limits, StandInError, load, sign
from fengshou.terminals.key_store import KeyStore
from tests.switch.line import Line, code_of
from tests.switch.town import PAN, POOR_PAN, TERMINALS, Town, purchase, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]

NOW = datetime.now(UTC)
CAPS = Caps(transaction_fen=30_000, card_fen=50_000, terminal_fen=70_000, service_fen=80_000)
LIMITS = Limits(NOW, NOW + timedelta(days=1), {"withdrawal": CAPS})


def fengshou(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fengshou.switch", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("30000", "30001"), "not signed"),
        (lambda text: text.replace("withdrawal", "transfer"), "not signed"),
        (lambda text: text[:-4], "not a limits file"),
        (lambda text: "{}", "not a limits file"),
        (lambda text: text.replace('"signature": "', '"signature": "zz'), "not a limits file"),
    ],
)
def test_only_what_was_signed_counts(tmp_path: Path, change: Callable[[str], str], why: str) -> None:
    key, file = PrivateKey.generate(), tmp_path / "limits.json"
    file.write_bytes(sign(LIMITS, key))
    assert load(file, key.public_key) == LIMITS
    with pytest.raises(StandInError, match="not signed"):
        load(file, PrivateKey.generate().public_key)
    file.write_text(change(file.read_text()))
    with pytest.raises(StandInError, match=why):
        load(file, key.public_key)


def _sign_limits(town: Town) -> None:
    limits = town.folder / "limits.toml"
    caps = "\n".join(f"{name} = {getattr(CAPS, name)}" for name in Caps.__struct_fields__)
    limits.write_text(f"valid_until = {LIMITS.valid_until.isoformat()}\n[services.withdrawal]\n{caps}\n")
    keys = str(town.folder / "publisher/keys")
    done = fengshou("stand-in", "sign", str(limits), str(town.folder / "limits.json"), "--keys", keys)
    assert done.returncode == 0, done.stderr
    file = town.folder / "switch.toml"
    section = '[stand-in]\nlimits = "limits.json"\nsigner = "publisher/publisher.crt"\n'
    file.write_text(f"{file.read_text('utf-8')}\n{section}", "utf-8")


# fmt: off
WHILE_AWAY = (
    # terminal  card      fen     code  why
    (0,         PAN,      30_000, "00", "within all limits"),
    (0,         PAN,      31_000, "91", "more than one may be"),
    (0,         PAN,      20_000, "00", "the card's day is full now"),
    (0,         PAN,      1_000,  "91", "the card's day"),
    (1,         PAN,      1_000,  "91", "the card's day, at any terminal"),
    (0,         POOR_PAN, 21_000, "91", "the terminal's day"),
    (0,         POOR_PAN, 20_000, "00", "the terminal's day is full now"),
    (1,         POOR_PAN, 11_000, "91", "the service's day"),
    (1,         POOR_PAN, 10_000, "00", "the service's day is full now"),
)
# fmt: on


def test_within_the_limits_while_core_banking_is_away(fresh_town: FreshTown) -> None:
    with fresh_town() as town:
        _sign_limits(town)
        town.process("switch").stop()
        town.restart("switch")
        town.until_up("core-banking")
        with Line(town, TERMINALS[0]).sign_in() as first, Line(town, TERMINALS[1]).sign_in() as second:
            assert code_of(first.ask("withdrawal", withdrawal(1_000, POOR_PAN))) == "51", "the host is there"
            town.kill("core-banking")
            town.until(lambda status: not status["destinations"]["core-banking"]["up"])
            keys = KeyStore.of_key(town.home(TERMINALS[0]).signer())
            assert keys.take(first.ask("keys", keys.held).values)
            with_pin = {**withdrawal(1_000), **keys.pin_block(bytearray(b"1234"), PAN)}
            assert code_of(first.ask("withdrawal", with_pin)) == "91", "nobody else can tell whether a PIN is right"
            told: list[tuple[Any, ...]] = []
            for terminal, pan, fen, _, why in WHILE_AWAY:
                answer = (first, second)[terminal].ask("withdrawal", withdrawal(fen, pan))
                told.append((terminal, pan, fen, code_of(answer), why))
                if code_of(answer) == "00":
                    assert str(answer.values[de.AUTHORISATION]).startswith("S")
            assert told == list(WHILE_AWAY)
            assert code_of(first.ask("farm-purchase", purchase())) == "91", "it has no limits"
        town.restart("core-banking")
        town.settle()
        assert [record.code for record in town.records(kind=RecordKind.ADVICE)] == ["00"] * 4
        town.require_truth()  # the poor card owes now: it was told, not asked
        assert fengshou("stand-in", "differences", "--home", str(town.folder)).returncode == 0


def test_what_core_banking_will_not_have_is_listed(fresh_town: FreshTown) -> None:
    with fresh_town() as town, Line(town, TERMINALS[0]).sign_in() as line:
        town.kill("core-banking")
        town.until(lambda status: not status["destinations"]["core-banking"]["up"])
        nobody = {**withdrawal(10_000), de.TO_ACCOUNT: "9156001009999999999"}
        assert code_of(line.ask("offline-sale", nobody)) == "00"
        town.restart("core-banking")
        town.settle()
        assert [record.code for record in town.records(kind=RecordKind.ADVICE)] == ["42"]
        assert town.status()["transitions"]["advice sent: advice refused"] == 1
        done = fengshou("stand-in", "differences", "--json", "--home", str(town.folder))
        assert done.returncode == 1
        (difference,) = json.loads(done.stdout)
        assert (difference["fen"], difference["code"]) == (10_000, "42")
