"""No card, account or person in clear in anything that the switch leaves behind: searched for in the raw bytes."""

import base64
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path

import structlog

from fengshou.hsm.software import load_private_key
from fengshou.protocol import elements as de
from fengshou.switch.hosting import set_pin
from fengshou.switch.logs import configure
from fengshou.switch.masking import masked
from tests.switch.line import Line, code_of
from tests.switch.town import FARMER, PAN, POOR_PAN, SUBJECT, TERMINALS, Town, account_of, enquiry, purchase, withdrawal

FreshTown = Callable[..., AbstractContextManager[Town]]

# What the switch and its neighbours leave that is not a back end's own books and no terminal's own home.
_LEFT_BEHIND = ("journal/*", "registry.db*", "*.log", "*.toml", "publisher/**/*", "certificates/*", "hosts/analytics/*")


def _forms(text: str) -> dict[str, bytes]:
    """A number as it could stand in a file."""
    forms = {"text": text.encode(), "UTF-16": text.encode("utf-16-le")}
    if text.isdecimal():
        forms["packed"] = bytes.fromhex(text + "f" * (len(text) % 2))
        forms["packed, zero in front"] = bytes.fromhex("0" * (len(text) % 2) + text)
    return forms


def _require_nowhere(town: Town, planted: dict[str, str], extra: dict[str, bytes]) -> int:
    files = sorted({file for pattern in _LEFT_BEHIND for file in town.folder.glob(pattern) if file.is_file()})
    sources = {str(file.relative_to(town.folder)): file.read_bytes() for file in files} | extra
    for source, data in sources.items():
        for name, text in planted.items():
            for form, wanted in _forms(text).items():
                assert wanted not in data, f"{name} stands in {source} as {form}"
    return len(files)


def test_nothing_that_identifies_a_person_is_left_in_clear(fresh_town: FreshTown) -> None:
    with fresh_town(deadline_ms=1000) as town:
        with Line(town, TERMINALS[0]).sign_in() as line:
            reply = _trade_in_every_way(town, line)
        planted = {
            "the card": PAN,
            "the declined card": POOR_PAN,
            "the farmer's account": FARMER,
            "the point's account": account_of(TERMINALS[0]),
            "the subject": SUBJECT,
            "the office's reply": reply,
        }
        shown = _command(town, "journal", "show", "--last", "200", "--json")
        assert any(row["values"].get("pan", "").startswith("915600******") for row in json.loads(shown))
        extra = {"status": json.dumps(town.status()).encode(), "journal show": shown}
        extra["journal verify"] = _command(town, "journal", "verify", "--json")
        assert _require_nowhere(town, planted, extra) > 10
        town.kill("switch")
        town.restart("switch")
        town.settle()
        with Line(town, TERMINALS[0]).sign_in() as line:  # sealed values open again after all that
            assert code_of(line.ask("withdrawal", withdrawal(1_000))) == "00"
        _require_nowhere(town, planted, {})


def _trade_in_every_way(town: Town, line: Line) -> str:
    """Approved, declined, refused, unknown, reversed and repeated; returns what the office said of the subject."""
    assert code_of(line.ask("farm-purchase", purchase(), receipt=True)) == "00"
    assert code_of(line.ask("farm-purchase", purchase(PAN=PAN, ENTRY_MODE=51))) == "00"
    assert code_of(line.ask("farm-purchase", purchase(PAN=PAN))) == "12"
    assert code_of(line.ask("withdrawal", withdrawal())) == "00"
    assert code_of(line.ask("withdrawal", {**withdrawal(20_000), de.STAN: line.last_stan})) == "94"
    assert code_of(line.ask("withdrawal", withdrawal(1_000, POOR_PAN))) == "51"
    assert code_of(line.ask("balance", {de.PAN: PAN, de.ENTRY_MODE: 51, de.LOCAL_TIME: 1, de.LOCAL_DATE: 320})) == "00"
    answer = line.ask("gov-enquiry", enquiry())
    assert code_of(answer) == "00"
    broken = line.frame("withdrawal", withdrawal())[:-1]
    line.post(bytes((broken[0] - 1,)) + broken[1:])
    assert code_of(line.answers(1)[0]) == "30"
    with town.frozen("core-banking"):
        assert code_of(line.ask("withdrawal", withdrawal(2_000))) == "98"
    town.settle()
    return str(answer.values[de.REPLY])


def _command(town: Town, *arguments: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "fengshou.switch", *arguments, "--home", str(town.folder)],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_no_key_is_left_anywhere_but_in_its_folder(fresh_town: FreshTown) -> None:
    with fresh_town() as town:
        with Line(town, TERMINALS[0]).sign_in() as line:
            assert code_of(line.ask("withdrawal", withdrawal(), receipt=True)) == "00"
        shown = _command(town, "keys", "rotate", "journal", "--yes") + _command(town, "keys", "status", "--json")
        with Line(town, TERMINALS[0]).sign_in() as line:
            assert code_of(line.ask("withdrawal", withdrawal(), receipt=True)) == "00"
        limits = Path(f"/proc/{town.process('switch').pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)  # a crash leaves no image of the memory
        town.settle()
        keys = {file.name: _secret(file) for file in town.folder.glob("keys/*.*.*") if file.suffix != ".json"}
        assert len(keys) >= 6
        patterns = (*_LEFT_BEHIND, "audit.log", "pki/*", "terminals/*/terminal.toml")
        files = [file for pattern in patterns for file in town.folder.glob(pattern) if file.is_file()]
        sources = {str(file.relative_to(town.folder)): file.read_bytes() for file in files} | {"screen": shown}
        assert {"audit.log", "switch.log", "screen"} <= sources.keys()
        for source, data in sources.items():
            for name, key in keys.items():
                for form in (key, key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key)[:40]):
                    assert form not in data, f"{name} stands in {source}"


PIN = "271828182845"


def test_no_pin_and_no_key_of_a_terminal_is_left_anywhere(fresh_town: FreshTown) -> None:
    with fresh_town() as town:
        set_pin(town.folder / "hosts/core-banking", PAN, bytearray(PIN.encode()))
        home = town.home(TERMINALS[0])
        keys = home.keys()
        blocks = []
        with Line(town, TERMINALS[0]).sign_in(KEY_EPOCH=0, MASTER_EPOCH=0) as line:
            assert keys.take(line.ask("keys", keys.held).values)
            for digits in (PIN, PIN[::-1]):
                carried = keys.pin_block(bytearray(digits.encode()), PAN)
                answer = line.ask("withdrawal", {**withdrawal(), **carried}, receipt=True)
                assert code_of(answer) == ("00" if digits == PIN else "55")
                blocks.append(bytes(carried[de.PIN_BLOCK]))
            broken = line.frame("withdrawal", {**withdrawal(), **carried, de.KEY_EPOCH: 9})
            line.post(broken)
            assert code_of(line.answers(1)[0]) == "A7"
        shown = b"".join(
            _command(town, *words, "--json")
            for words in (("journal", "show", "--last", "50"), ("keys", "status"), ("status",))
        )
        town.settle()
        stored = json.loads((home.folder / "working.keys").read_bytes())
        held = {name: bytes.fromhex(value) for name, value in stored.items() if isinstance(value, str)}
        assert len(held) == 4
        assert all(len(key) == 16 for key in held.values())
        secrets = {**held, **{f"block {number}": block for number, block in enumerate(blocks)}}
        patterns = (*_LEFT_BEHIND, "audit.log", "hosts/core-banking/ledger.db*", "terminals/*/[!w]*")
        files = [file for pattern in patterns for file in town.folder.glob(pattern) if file.is_file()]
        sources = {str(file.relative_to(town.folder)): file.read_bytes() for file in files} | {"screen": shown}
        assert {"switch.log", "core-banking.log", "hosts/core-banking/ledger.db", "screen"} <= sources.keys()
        for source, data in sources.items():
            for name, secret in secrets.items():
                for form in (secret, secret.hex().encode(), secret.hex().upper().encode()):
                    assert form not in data, f"{name} stands in {source}"
            for form in (PIN, PIN[::-1]):
                assert form.encode() not in data, f"the PIN stands in {source}"
                assert bytes.fromhex(form) not in data, f"the PIN stands in {source}, packed"
        _require_nowhere(town, {"the card": PAN}, {})


def _secret(file: Path) -> bytes:
    if file.suffix == ".pem":
        return bytes(load_private_key(file).to_scalar())
    return bytes.fromhex(file.read_text())


def test_a_failure_is_logged_by_kind_and_place_never_by_its_text() -> None:
    stream = StringIO()
    root = logging.getLogger()
    before, level = root.handlers, root.level
    try:
        configure("info", stream)
        for log in (logging.getLogger("library"), structlog.get_logger("ours")):
            try:
                card = PAN
                raise ValueError(f"no such card: {card}")
            except ValueError:
                log.exception("a request cannot be judged")
    finally:
        root.handlers, root.level = before, level
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["failure"] for line in lines] == ["ValueError", "ValueError"]
    assert all(Path(__file__).name in line["at"][0] for line in lines)
    assert PAN not in stream.getvalue()


def test_values_are_shown_by_their_class(town: Town) -> None:
    shown = masked(town.catalogue.grammar, {de.PAN: PAN, de.AMOUNT: 100, de.SUBJECT: SUBJECT, de.REPLY: "her pension"})
    assert shown == {"pan": "915600*********7043", "amount": "100", "subject": "990***********0834", "reply": "*" * 11}
