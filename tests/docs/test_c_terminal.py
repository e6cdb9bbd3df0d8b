"""The C terminal that was written from PROTOCOL.md: its frames are ours, and a real switch serves it."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fengshou.codecs import BadSignature, MessageCodec, PrivateKey, PublicKey
from fengshou.ext.services import farm_purchase
from fengshou.hsm.software import save_private_key
from fengshou.protocol import elements as de
from fengshou.protocol.history import History
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.templates import SIGN_IN, Grammar
from fengshou.terminals.home import Home

from .site import APP, BUYER, FACTS, FARMER, VERSION, running_site

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "c"
PURCHASE = ("1", "3", "2", "1250", "9650", FARMER)
DELTA_BYTES_MAX = 96  # of a purchase's frame
AMOUNT_FEN = 120_625


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler builds our own modules, so there is one"
    program = tmp_path_factory.mktemp("c") / "terminal"
    flags = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, *flags, "-o", program, *EXAMPLE.glob("*.c"), "-lcrypto"], check=True)
    return program


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


def public_pem(key: PublicKey) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(key.spki) + b"-----END PUBLIC KEY-----\n"


def configuration(folder: Path, key: Path, switch: PublicKey, manifest: str) -> Path:
    (folder / "switch.pem").write_bytes(public_pem(switch))
    rows = {
        "terminal": FACTS.terminal,
        "merchant": FACTS.merchant,
        "acquirer": FACTS.acquirer,
        "serial": FACTS.serial,
        "credit_code": FACTS.credit_code,
        "settlement_account": BUYER,
        "app": APP,
        "app_version": VERSION,
        "app_manifest": manifest,
        "operator": "001",
        "key": key,
        "switch": folder / "switch.pem",
    }
    file = folder / "terminal.conf"
    file.write_text("".join(f"{name}={value}\n" for name, value in rows.items()))
    return file


class FakeSwitch:
    """Our codec in the place of the switch: reads what the C program sent, verifies it and answers.

    ``has_delta``: it grants the delta form, and remembers what it has verified.
    """

    def __init__(self, terminal: Path, folder: Path, *more: str, has_delta: bool = False) -> None:
        self.granted: int = Flag.DELTA if has_delta else 0
        self.history = History() if has_delta else None
        self.in_delta = False  # the last frame that was heard
        self.codec = MessageCodec(Grammar(templates=farm_purchase.service.templates))
        self.key = PrivateKey.generate()
        self.binding = bytes(range(32))
        save_private_key(folder / "terminal.key", self.key)
        file = configuration(folder, folder / "terminal.key", PrivateKey.generate().public_key, "ab" * 32)
        self.program = subprocess.Popen(
            [terminal, "trade", file, *PURCHASE, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "FENGSHOU_BINDING": self.binding.hex()},
        )
        self._unread = b""

    def hear(self, implied: dict[int, Any]) -> Message:
        """The next frame, when its signature holds in this session."""
        assert self.program.stdout is not None
        frames: list[bytes] = []
        while not frames:
            data = os.read(self.program.stdout.fileno(), 65536)
            assert data, "the program ended"
            self._unread += data
            frames, used = self.codec.split(self._unread)
        assert (len(frames), used) == (1, len(self._unread)), "it waits for each answer"
        self._unread = b""
        message: Message = self.codec.decode(frames[0], self.history)
        self.in_delta = bool(frames[0][1] & Flag.DELTA)
        digest = self.codec.digest(self.key.public_key.za, self.binding, message, implied)
        self.key.public_key.verify(digest, message.signature)
        wrong = self.codec.digest(self.key.public_key.za, bytes(32), message, implied)
        with pytest.raises(BadSignature):
            self.key.public_key.verify(wrong, message.signature)
        if self.history is not None and message.template != SIGN_IN.id:
            body = self.codec.encode_body(message.template, False, message.values)
            self.history.keep(message.sequence, bytes((message.template,)) + body)
        return message

    def say(self, asked: Message, values: dict[int, Any], **changed: int) -> None:
        assert self.program.stdin is not None
        granted = self.granted if asked.template == SIGN_IN.id else 0
        answer = Message(asked.template, Flag.RESPONSE | granted, changed.get("sequence", asked.sequence), values)
        self.program.stdin.write(self.codec.encode(answer))
        self.program.stdin.flush()

    def sign_in(self) -> dict[int, Any]:
        """Both sign-ins of a terminal without memory; the session's values after them."""
        asked = self.hear({})
        assert asked.template == SIGN_IN.id
        assert asked.values[de.BATCH] == 0
        self.say(asked, {de.RESPONSE_CODE: "00", de.BATCH: 999_999})
        asked = self.hear({})
        assert asked.values[de.BATCH] == 1, "after 999999 comes 1"
        self.say(asked, {de.RESPONSE_CODE: "00", de.BATCH: 1})
        return {
            de.TERMINAL: FACTS.terminal,
            de.MERCHANT: FACTS.merchant,
            de.CURRENCY: 156,
            de.BATCH: 1,
            de.OPERATOR: "001",
        }

    def end(self) -> tuple[int, str]:
        _, told = self.program.communicate(timeout=20)
        return self.program.returncode, told.decode()


def test_it_verifies_the_receipt_of_the_document_and_no_other(terminal: Path, tmp_path: Path) -> None:
    vectors = json.loads((ROOT / "docs" / "vectors.json").read_text("utf-8"))
    frame = next(bytes.fromhex(row["frame"]) for row in vectors["messages"] if row["name"] == "receipt")
    (tmp_path / "switch.pem").write_bytes(public_pem(PublicKey(bytes.fromhex(vectors["keys"]["switch"]["public"]))))
    command = [terminal, "receipt", tmp_path / "switch.pem"]
    good = subprocess.run(command, input=frame, capture_output=True)
    assert good.returncode == 0, good.stderr
    for at in range(9, len(frame), 7):  # the code before it is under no signature
        wounded = bytearray(frame)
        wounded[at] ^= 1 << at % 8
        assert subprocess.run(command, input=wounded, capture_output=True).returncode == 2, at
    for size in range(0, len(frame), 13):
        assert subprocess.run(command, input=frame[:size], capture_output=True).returncode == 2, size


def test_its_frames_decode_and_verify(terminal: Path, tmp_path: Path) -> None:
    switch = FakeSwitch(terminal, tmp_path)
    implied = switch.sign_in()
    asked = switch.hear(implied)
    assert asked.flags == Flag.SIGNED | Flag.RECEIPT
    assert asked.sequence == 3
    expected = {
        de.AMOUNT: AMOUNT_FEN, de.STAN: 1, de.ENTRY_MODE: 12, de.PRODUCT: 1, de.VARIETY: 3, de.GRADE: 2,
        de.WEIGHT: 1250, de.UNIT_PRICE: 9650, de.TO_ACCOUNT: FARMER,
    }  # fmt: skip
    assert {key: asked.values[key] for key in expected} == expected
    switch.say(asked, {de.RESPONSE_CODE: "51", de.TEXT: "余额不足"})
    status, told = switch.end()
    assert status == 1
    assert "51 余额不足" in told


#   weight  price   account                what of the purchase before is not as predicted
SALES = [
    ("860",  "9650", "9156001004001190002"),  # the end of the account
    ("860",  "9100", "9156001004001190002"),  # the price, lower
    ("1",    "9900", "91560010040011900"),    # an account of another length
    ("1",    "9900", "91560010040011901"),    # one digit
    ("1249", "9900", "8"),
]  # fmt: skip


def test_it_sends_what_differs_when_that_is_granted(terminal: Path, tmp_path: Path) -> None:
    more = [word for sale in SALES for word in sale]
    switch = FakeSwitch(terminal, tmp_path, *more, has_delta=True)
    implied = switch.sign_in()
    for number, (weight, price, account) in enumerate([PURCHASE[3:], *SALES], 1):
        asked = switch.hear(implied)
        assert switch.in_delta is (number > 1)
        assert asked.values[de.STAN] == number
        assert asked.values[de.AMOUNT] == (int(weight) * int(price) + 50) // 100
        assert (asked.values[de.WEIGHT], asked.values[de.UNIT_PRICE]) == (int(weight), int(price))
        assert asked.values[de.TO_ACCOUNT] == account
        switch.say(asked, {de.RESPONSE_CODE: "00", de.RRN: number})
    assert switch.end()[0] == 0


def test_only_what_was_answered_with_an_rrn_is_a_base(terminal: Path, tmp_path: Path) -> None:
    more = [word for sale in SALES[:3] for word in sale]
    switch = FakeSwitch(terminal, tmp_path, *more, has_delta=True)
    implied = switch.sign_in()
    in_delta = []
    for values in ({}, {de.RRN: 1}, {de.RRN: 2}, {de.RRN: 3}):
        asked = switch.hear(implied)
        in_delta.append(switch.in_delta)
        switch.say(asked, {de.RESPONSE_CODE: "13", **values})
    assert in_delta == [False, False, True, True]
    assert switch.end()[0] == 1


def test_a_base_that_the_switch_has_not_is_forgotten_and_the_same_goes_whole(terminal: Path, tmp_path: Path) -> None:
    more = [word for sale in SALES[:2] for word in sale]
    switch = FakeSwitch(terminal, tmp_path, *more, has_delta=True)
    implied = switch.sign_in()
    first = switch.hear(implied)
    switch.say(first, {de.RESPONSE_CODE: "00", de.RRN: 1})
    second = switch.hear(implied)
    assert switch.in_delta
    switch.say(second, {de.RESPONSE_CODE: "R0"})
    again = switch.hear(implied)
    assert not switch.in_delta
    assert (again.values, again.flags, again.sequence) == (second.values, second.flags, second.sequence + 1)
    switch.say(again, {de.RESPONSE_CODE: "00", de.RRN: 2})
    assert switch.hear(implied).values[de.STAN] == 3
    assert switch.in_delta, "what was answered since is a base again"
    switch.program.kill()
    switch.end()


def test_it_repeats_the_same_body_under_a_new_sequence(terminal: Path, tmp_path: Path) -> None:
    switch = FakeSwitch(terminal, tmp_path)
    implied = switch.sign_in()
    first = switch.hear(implied)
    switch.say(first, {de.RESPONSE_CODE: "09"})
    again = switch.hear(implied)
    assert again.flags == first.flags | Flag.REPEAT
    assert again.sequence == first.sequence + 1
    assert again.values == first.values
    switch.say(again, {de.RESPONSE_CODE: "00", de.RRN: 7})
    assert switch.end()[0] == 0


def test_it_believes_no_answer_to_another_request(terminal: Path, tmp_path: Path) -> None:
    switch = FakeSwitch(terminal, tmp_path)
    asked = switch.hear({})
    switch.say(asked, {de.RESPONSE_CODE: "00", de.BATCH: 1}, sequence=asked.sequence + 1)
    status, told = switch.end()
    assert status == 2
    assert "another request" in told


def test_a_real_switch_serves_it_and_its_receipt_holds(terminal: Path, home: Home, tmp_path: Path) -> None:
    identity = home.identity
    file = configuration(tmp_path, home.folder / "terminal.key", home.switch_keys()[0], identity.app_manifest)
    command = [
        sys.executable, EXAMPLE / "tls_pipe.py", home.folder, "--", terminal, "trade", file, *PURCHASE,
        "860", "9650", FARMER, "7", "9600", FARMER,
    ]  # fmt: skip
    for _ in range(2):  # the second run goes on in the next batch
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("purchase: 00") == 3
        assert len(re.findall(r"receipt: record \d+, verified", done.stderr)) == 3
        first, *following = map(int, re.findall(r"(\d+) bytes", done.stderr))
        # In the first hours of a day the time of one takes fewer bytes, in the whole form too.
        assert max(following) < first - 10, "the switch takes the delta form"
        assert max(following) <= DELTA_BYTES_MAX


def test_another_switch_key_makes_the_receipt_worthless(terminal: Path, home: Home, tmp_path: Path) -> None:
    identity = home.identity
    stranger = PrivateKey.generate().public_key
    file = configuration(tmp_path, home.folder / "terminal.key", stranger, identity.app_manifest)
    command = [sys.executable, EXAMPLE / "tls_pipe.py", home.folder, "--", terminal, "trade", file, *PURCHASE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the switch did not sign the last commit" in done.stderr
