"""PROTOCOL.md: its examples decode, encode and verify; its commands run; its generated parts are what the code says."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gmssl import sm2 as gmssl_sm2

from fengshou.codecs import BadSignature, Iso8583Codec, MessageCodec, PublicKey, sm3
from fengshou.codecs import za as za_of
from fengshou.ext.services import balance, farm_purchase, withdrawal
from fengshou.protocol import elements as de
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.history import History
from fengshou.protocol.iso8583 import HostFormat
from fengshou.protocol.iso8583_reference import ReferenceIso8583Codec
from fengshou.protocol.message import Flag, Message
from fengshou.protocol.templates import OFFLINE_UPLOAD, RECEIPT, SIGN_IN, Grammar
from fengshou.terminals.receipt import Exchange, Receipt, ReceiptInvalid, verify_receipt

from .test_c_terminal import public_pem

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "PROTOCOL.md").read_text("utf-8")
VECTORS: dict[str, Any] = json.loads((DOCS / "vectors.json").read_text("utf-8"))
MESSAGES: dict[str, dict[str, Any]] = {row["name"]: row for row in VECTORS["messages"]}
GOOD = [row for row in VECTORS["messages"] if not row.get("bad")]
SIGNED = [row for row in GOOD if "signature" in row]
KEYS = {name: PublicKey(bytes.fromhex(key["public"])) for name, key in VECTORS["keys"].items()}
BINDING = bytes.fromhex(VECTORS["binding"])
GRAMMAR = Grammar(
    templates=(*farm_purchase.service.templates, *balance.service.templates, *withdrawal.service.templates)
)
CODECS = [MessageCodec(GRAMMAR), ReferenceCodec(GRAMMAR)]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


def values_of(named: dict[str, Any]) -> dict[int, Any]:
    """Values by key; what is kept in hexadecimal is bytes again."""
    return {
        GRAMMAR.by_name[name].key: bytes.fromhex(value) if GRAMMAR.by_name[name].kind.value.startswith("b") else value
        for name, value in named.items()
    }


def message_of(row: dict[str, Any]) -> Message:
    signature = bytes.fromhex(row.get("signature", ""))
    return Message(row["template"], row["flags"], row["sequence"], values_of(row["values"]), signature)


def implied_of(row: dict[str, Any]) -> dict[int, Any]:
    return {} if row["template"] == SIGN_IN.id else values_of(VECTORS["implied"])


def body_of(row: dict[str, Any]) -> bytes:
    return CODECS[0].encode_body(row["template"], bool(row["flags"] & Flag.RESPONSE), values_of(row["values"]))


def test_generated_parts_are_up_to_date() -> None:
    command = [sys.executable, DOCS / "tools" / "generate.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("codec", CODECS, ids=["compiled", "reference"])
@pytest.mark.parametrize("row", GOOD, ids=ids(GOOD))
def test_examples_decode_and_encode(row: dict[str, Any], codec: Any) -> None:
    frame = bytes.fromhex(row["frame"])
    frames, used = codec.split(frame)
    assert used == len(frame)
    assert codec.decode(frames[0]) == message_of(row)
    assert codec.encode(message_of(row)) == frame


def test_the_bad_example_is_bad_in_the_way_it_says() -> None:
    frames, _ = CODECS[0].split(bytes.fromhex(MESSAGES["a frame of no template"]["frame"]))
    with pytest.raises(UntrustedBytesError) as caught:
        CODECS[0].decode(frames[0])
    assert caught.value.error is WireError.UNKNOWN_TEMPLATE
    assert MESSAGES["error"]["values"]["response_code"] == caught.value.code


@pytest.mark.parametrize("codec", CODECS, ids=["compiled", "reference"])
@pytest.mark.parametrize("row", SIGNED, ids=ids(SIGNED))
def test_signatures_of_examples(row: dict[str, Any], codec: Any) -> None:
    message, implied = message_of(row), implied_of(row)
    canonical = codec.canonical(message.template, message.flags, message.sequence, {**implied, **message.values})
    digest = codec.digest(KEYS["terminal"].za, BINDING, message, implied)
    assert canonical.hex() == row["canonical"]
    assert digest.hex() == row["digest"]
    KEYS["terminal"].verify(digest, message.signature)
    # And by hand and another library, as a reader would.
    by_hand = hashlib.new("sm3", KEYS["terminal"].za + b"FP1Q" + BINDING + canonical).digest()
    assert by_hand == digest
    public = VECTORS["keys"]["terminal"]["public"][2:]
    assert gmssl_sm2.CryptSM2(private_key="", public_key=public).verify(row["signature"], digest)


@pytest.mark.parametrize("codec", CODECS, ids=["compiled", "reference"])
def test_the_delta_example_expands_to_what_is_signed(codec: Any) -> None:
    row, base = VECTORS["delta"], MESSAGES["farm purchase"]
    assert row["base"] == base["sequence"]
    history = History()
    history.keep(base["sequence"], bytes((base["template"],)) + body_of(base))
    (frame,), _ = codec.split(bytes.fromhex(row["frame"]))
    message = codec.decode(frame, history)
    assert message.values == values_of(row["values"])
    assert message.signature.hex() == row["signature"]
    digest = codec.digest(KEYS["terminal"].za, BINDING, message, implied_of(row))
    assert digest.hex() == row["digest"]
    KEYS["terminal"].verify(digest, message.signature)
    (whole,), _ = codec.split(bytes.fromhex(row["whole"]))
    assert codec.decode(whole).values == message.values
    with pytest.raises(UntrustedBytesError) as caught:  # another session, which has no base
        codec.decode(frame, History())
    assert caught.value.error is WireError.BASE_LOST


@pytest.mark.parametrize("codec", CODECS, ids=["compiled", "reference"])
def test_the_upload_example_is_what_is_signed(codec: Any) -> None:
    row = VECTORS["offline"]
    (frame,), _ = codec.split(bytes.fromhex(row["frame"]))
    message = codec.decode(frame)
    assert (message.template, message.sequence) == (OFFLINE_UPLOAD.id, row["sequence"])
    template, items = codec.decode_items(message.values[de.OFFLINE_ITEMS])
    assert (template, items) == (row["template"], [values_of(values) for values in row["items"]])
    implied = values_of(VECTORS["implied"])
    leaves = [codec.canonical(template, Flag.SIGNED, 0, {**implied, **values}) for values in items]
    assert [leaf.hex() for leaf in leaves] == row["leaves"]
    # By hand: RFC 6962 section 2.1 with SM3, for three leaves.
    first, second, third = (hashlib.new("sm3", b"\0" + leaf).digest() for leaf in leaves)
    root = hashlib.new("sm3", b"\1" + hashlib.new("sm3", b"\1" + first + second).digest() + third).digest()
    assert root.hex() == row["root"]
    digest = hashlib.new("sm3", KEYS["terminal"].za + b"FP1O\x03" + root).digest()
    assert digest.hex() == row["digest"]
    KEYS["terminal"].verify(digest, message.signature)


def test_za_of_the_terminal_is_that_of_the_standard() -> None:
    assert VECTORS["keys"]["terminal"]["za"] == "b2e14c5c79c6df5b85f4fe7ed8db7a262b9da7e07ccb0ea9f4747b8ccda8a4f3"
    for name, key in VECTORS["keys"].items():
        assert za_of(bytes.fromhex(key["public"])).hex() == key["za"], name


def test_the_receipt_of_the_example() -> None:
    purchase, answer = MESSAGES["farm purchase"], MESSAGES["farm purchase answer"]
    implied = VECTORS["implied"]
    exchange = Exchange(
        implied["terminal"], implied["merchant"], implied["batch"], purchase["values"]["stan"], purchase["template"],
        body_of(purchase), body_of(answer),
    )  # fmt: skip
    receipt = Receipt.from_values(values_of(MESSAGES["receipt"]["values"]))
    assert verify_receipt(receipt, KEYS["switch"], exchange).code == "00"
    with pytest.raises(ReceiptInvalid):
        verify_receipt(receipt, KEYS["gateway"], exchange)


# -- the commands of section 10, run as they stand there -------------------------------------------------------------


def commands(name: str) -> str:
    found = re.search(rf"<!-- run: {name} -->\n```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture
def receipt_folder(tmp_path: Path) -> Path:
    for key, value in values_of(MESSAGES["receipt"]["values"]).items():
        file = tmp_path / GRAMMAR.elements[key].name
        file.write_bytes(value) if isinstance(value, bytes) else file.write_text(f"{value}\n")
    (tmp_path / "switch.pem").write_bytes(public_pem(KEYS["switch"]))
    (tmp_path / "template").write_bytes(bytes((MESSAGES["farm purchase"]["template"],)))
    (tmp_path / "request_body").write_bytes(body_of(MESSAGES["farm purchase"]))
    (tmp_path / "answer_body").write_bytes(body_of(MESSAGES["farm purchase answer"]))
    return tmp_path


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_receipt_verifies_with_openssl_alone(receipt_folder: Path) -> None:
    done = run(commands("receipt"), receipt_folder)
    assert done.returncode == 0, done.stderr
    assert "Verified OK" in done.stdout
    assert "code 00, terminal FS000001, batch 7, STAN 42, RRN 619300000417" in done.stdout
    done = run(commands("exchange"), receipt_folder)
    assert done.returncode == 0, done.stderr
    assert RECEIPT.id == MESSAGES["receipt"]["template"]


@pytest.mark.parametrize(
    ("file", "at"),
    [
        ("record", 9), ("record", 71), ("record", 150), ("audit_path", 0), ("audit_path", 63), ("commits", 8),
        ("commits", 28), ("commits", 91), ("commits", 92 + 60), ("commits", 183), ("root_signature", 5),
        ("root_signature", 63),
    ],
)  # fmt: skip
def test_a_receipt_that_was_altered_does_not(receipt_folder: Path, file: str, at: int) -> None:
    data = bytearray((receipt_folder / file).read_bytes())
    data[at] ^= 1
    (receipt_folder / file).write_bytes(data)
    assert run(commands("receipt"), receipt_folder).returncode != 0


@pytest.mark.parametrize("file", ["template", "request_body", "answer_body"])
def test_a_receipt_of_another_exchange_is_told(receipt_folder: Path, file: str) -> None:
    data = bytearray((receipt_folder / file).read_bytes())
    data[-1] ^= 1
    (receipt_folder / file).write_bytes(data)
    assert run(commands("exchange"), receipt_folder).returncode != 0


def test_a_request_verifies_with_the_openssl_command_of_section_7(tmp_path: Path) -> None:
    row = MESSAGES["farm purchase"]
    (tmp_path / "M").write_bytes(b"FP1Q" + BINDING + bytes.fromhex(row["canonical"]))
    (tmp_path / "public.pem").write_bytes(public_pem(KEYS["terminal"]))
    integers = [bytes.fromhex(row["signature"])[at : at + 32] for at in (0, 32)]
    der = b"".join(b"\x02" + bytes((len(part),)) + part for part in (b"\0" * (n[0] >> 7) + n for n in integers))
    (tmp_path / "signature.der").write_bytes(b"\x30" + bytes((len(der),)) + der)
    command = next(line for line in DOCUMENT.splitlines() if line.startswith("openssl dgst -sm3 -verify public.pem"))
    assert "Verified OK" in run(command, tmp_path).stdout


# -- towards back ends -----------------------------------------------------------------------------------------------


def test_the_signed_json_of_the_example() -> None:
    call = VECTORS["json"]
    asked = f"FP1G{call['method']}\n{call['target']}\n".encode() + sm3(call["request"].encode())
    signature = bytes.fromhex(call["request_signature"])
    told = f"FP1G{call['status']}\n".encode() + signature + sm3(call["answer"].encode())
    assert (asked.hex(), told.hex()) == (call["request_message"], call["answer_message"])
    KEYS["switch"].verify(sm3(KEYS["switch"].za + asked), signature)
    answer = bytes.fromhex(call["answer_signature"])
    KEYS["gateway"].verify(sm3(KEYS["gateway"].za + told), answer)
    with pytest.raises(BadSignature):
        KEYS["gateway"].verify(sm3(KEYS["gateway"].za + told + b" "), answer)


@pytest.mark.parametrize("codec", [Iso8583Codec(HostFormat()), ReferenceIso8583Codec(HostFormat())])
@pytest.mark.parametrize("row", VECTORS["iso8583"], ids=ids(VECTORS["iso8583"]))
def test_host_messages_of_the_example(row: dict[str, Any], codec: Any) -> None:
    fields = {int(number): value for number, value in row["fields"].items()}
    frame = bytes.fromhex(row["frame"])
    assert codec.frame(fields) == frame
    assert codec.decode(frame[2:]) == fields


def test_a_reversal_of_the_example_names_its_original() -> None:
    rows = {row["name"]: row["fields"] for row in VECTORS["iso8583"]}
    asked, undo, again = rows["farm purchase"], rows["reversal"], rows["repeated reversal"]
    assert undo["90"] == f"0200{asked['11']}{asked['7']}{int(asked['32']):011d}{0:011d}"
    assert (undo["0"], again["0"]) == ("0400", "0401")
    assert {**again, "0": undo["0"]} == undo


def test_purchase_of_the_example_fits_its_budget() -> None:
    frame = bytes.fromhex(MESSAGES["farm purchase"]["frame"])
    assert len(frame) <= 97, "96 bytes after the length"
    assert de.PAN not in values_of(MESSAGES["farm purchase"]["values"])
