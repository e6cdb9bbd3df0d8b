"""The worked examples of PROTOCOL.md, written out from ``docs/vectors.json`` byte by byte."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compact import difference_lines

from fengshou.codecs import sm3
from fengshou.ext.services import balance, farm_purchase, withdrawal
from fengshou.protocol import elements as de
from fengshou.protocol.elements import Element, Kind
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.iso8583 import HOST_FIELDS
from fengshou.protocol.kinds import wire_value
from fengshou.protocol.limits import SIGNATURE_BYTES
from fengshou.protocol.message import COMMAND_MASK, Flag, Value
from fengshou.protocol.offline import TAG_OFFLINE
from fengshou.protocol.signing import TAG_REQUEST
from fengshou.protocol.templates import Grammar, Template

FILE = Path(__file__).parents[1] / "vectors.json"
_LINE_BYTES = 32

Line = tuple[str, str]  # bytes in hexadecimal, meaning

# What to say before each example.
_WORDS = {
    "sign-in": "The first message on a connection. Nothing is implied yet, so everything stands in the message itself.",
    "sign-in answer": "Code 00; the switch's clock and the batch that now counts.",
    "farm purchase": (
        "12.50 kg of product 1, variety 3, grade 2 at CNY 60.00 a kilogram: CNY 750.00 from the terminal's own "
        "account. RECEIPT is set in the flags. Below the frame stands what is signed; five of its elements come from "
        "the session."
    ),
    "farm purchase answer": "Approved; RECEIPT in the flags says that a frame of template 30 follows.",
    "receipt": "It bears the sequence of the request that asked for it. Section 10 verifies it.",
    "balance": "Signed, because the answer is personal data.",
    "balance answer": "CNY 123.45 overdrawn, to show a negative number: zigzag(-12345) = 24689.",
    "keys": "The terminal has no keys yet and asks for them; a sign-in with the same two elements asks as well.",
    "keys answer": (
        "The keys in it are those above: DE 96.2 is the check value of the master key and its envelope, DE 96.1 the "
        "PIN, authentication and data key under the master key, each with its check value."
    ),
    "keys proved": "They arrived: DE 64 is SM4-CMAC under the authentication key. No newer ones come with the answer.",
    "withdrawal with a PIN": (
        "The PIN 123456, as ISO 9564-1 format 4 under the PIN key of epoch 3. Eight bytes of a block are random, so "
        "yours will differ; what it holds does not."
    ),
    "echo": "Not signed. The presence byte says that its one optional field is there.",
    "echo answer": "",
    "a frame of no template": "Template 62 is not in use. The sequence, 9, can still be read.",
    "error": "The answer to it: template 63 with the sequence that could be read.",
}


def load() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return document


def key_lines(document: dict[str, Any]) -> str:
    rows = []
    for name, key in document["keys"].items():
        blank = " " * len(name)
        rows += [f"{name}: d  {key['private']}", f"{blank}  P  {key['public']}", f"{blank}  ZA {key['za']}"]
    working = "\n".join(f"{name:14} {key}" for name, key in document["working_keys"].items())
    return "```\n" + "\n".join(rows) + f"\n\nsession binding {document['binding']}\n\n{working}\n```\n"


def messages(document: dict[str, Any]) -> str:
    writer = _Writer(document)
    return "\n".join(writer.message(row) for row in document["messages"])


def compact_forms(document: dict[str, Any]) -> str:
    """A delta frame and an upload, byte by byte."""
    writer = _Writer(document)
    return f"{writer.delta(document['delta'])}\n{writer.upload(document['offline'])}"


def host_messages(document: dict[str, Any]) -> str:
    names = {str(row.number): row.name for row in HOST_FIELDS} | {"0": "MTI"}
    parts = []
    for message in document["iso8583"]:
        fields = "\n".join(f"{number:>4} {names[number]:20} {value}" for number, value in message["fields"].items())
        parts.append(f"{message['name']}:\n\n```\n{_wrapped(message['frame'])}\n\n{fields}\n```\n")
    return "\n".join(parts)


def json_call(document: dict[str, Any]) -> str:
    call = document["json"]
    return (
        "```\n"
        f"{call['method']} {call['target']}\n{call['request']}\n\n"
        f"M  {_wrapped(call['request_message'], indent='   ')}\n"
        f"Fengshou-Signature (key of the switch)\n   {_wrapped(call['request_signature'], indent='   ')}\n\n"
        f"{call['status']}\n{call['answer']}\n\n"
        f"M  {_wrapped(call['answer_message'], indent='   ')}\n"
        f"Fengshou-Signature (key of the gateway)\n   {_wrapped(call['answer_signature'], indent='   ')}\n"
        "```\n"
    )


def _wrapped(digits: str, indent: str = "") -> str:
    width = 2 * _LINE_BYTES
    return f"\n{indent}".join(digits[at : at + width] for at in range(0, len(digits), width))


class _Writer:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.grammar = Grammar(
            templates=(*farm_purchase.service.templates, *balance.service.templates, *withdrawal.service.templates)
        )
        self.codec = ReferenceCodec(self.grammar)

    def message(self, row: dict[str, Any]) -> str:
        frame = bytes.fromhex(row["frame"])
        text = f"#### {row['name'].capitalize()}\n\n{_WORDS[row['name']]}\n\n"
        if row.get("bad"):
            return f"{text}```\n{frame.hex()}\n```\n"
        text += _whole(row["frame"]) + f"Byte by byte:\n\n{_table(list(self.frame_lines(frame)))}"
        return f"{text}\n{self.signed(row)}" if "canonical" in row else text

    def signed(self, row: dict[str, Any]) -> str:
        """What the signature of a request covers."""
        return (
            "What is signed:\n\n```\n"
            f"ZA         {self.document['keys']['terminal']['za']}\n"
            f'tag        {TAG_REQUEST.hex()}  "{TAG_REQUEST.decode()}"\n'
            f"binding    {self.document['binding']}\n"
            f"canonical\n{_pairs(self.canonical_lines(bytes.fromhex(row['canonical'])))}\n"
            f"e          {row['digest']}\n"
            f"r          {row['signature'][:64]}\n"
            f"s          {row['signature'][64:]}\n```\n"
        )

    def delta(self, row: dict[str, Any]) -> str:
        frame = bytes.fromhex(row["frame"])
        head = 1 + 2 + _varint_bytes(frame[3:])
        base = next(each for each in self.document["messages"] if each["sequence"] == row["base"])
        template = self.grammar.templates[row["template"]]
        values, was = self._values(row["values"]), self._values(base["values"])
        lines = [
            (frame[:1].hex(), f"length {len(frame) - 1}"),
            (frame[1:2].hex(), f"version 1, template {template.id} ({template.name})"),
            (frame[2:3].hex(), "flags: SIGNED, DELTA"),
            (frame[3:head].hex(), f"sequence {row['sequence']}"),
            *difference_lines(
                self.grammar, template, frame[head:-SIGNATURE_BYTES], row["sequence"], values, {row["base"]: was}
            ),
            (row["signature"][:64], "r"),
            (row["signature"][64:], "s"),
        ]
        return (
            "#### Farm purchase in the delta form\n\n"
            "Another farmer, 8.60 kg, four minutes later, as the difference to the purchase with sequence 2, whose "
            "answer bore an RRN. Amount, STAN, goods, price and date are as predicted and not said.\n\n"
            f"{_whole(row['frame'])}Byte by byte:\n\n{_table(lines)}\n"
            f"Sent whole it would be {len(row['whole']) // 2} bytes. The signature is that of the whole message: "
            f"DELTA is in no canonical form.\n\n{self.signed(row)}"
        )

    def upload(self, row: dict[str, Any]) -> str:
        frame = bytes.fromhex(row["frame"])
        (content,), _ = self.codec.split(frame)
        packed = self.codec.decode(content).values[de.OFFLINE_ITEMS]
        assert isinstance(packed, bytes)
        head = content.index(packed)
        template = self.grammar.templates[row["template"]]
        items = [self._values(values) for values in row["items"]]
        lines: list[Line] = [
            (frame[: len(frame) - len(content)].hex(), f"length {len(content)}"),
            (content[:1].hex(), "version 1, template 29 (offline-upload)"),
            (content[1:2].hex(), "flags: SIGNED"),
            (content[2:3].hex(), f"sequence {row['sequence']}"),
            (content[3:head].hex(), f"length of DE 121.1: {len(packed)}"),
            (packed[:1].hex(), f"its items are of template {template.id} ({template.name})"),
            *((digits, f"item 0: {meaning}") for digits, meaning in self.body_lines(template, items[0])),
        ]
        at = 1 + len(self.codec.encode_body(template.id, False, items[0]))
        earlier = {1: items[0]}
        for number, values in enumerate(items[1:], 2):
            rows = list(difference_lines(self.grammar, template, packed[at:], number, values, earlier))
            lines += [(digits, f"item {number - 1}: {meaning}") for digits, meaning in rows]
            at += sum(len(digits) for digits, _ in rows) // 2
            earlier[number] = values
        lines += [(row["signature"][:64], "r"), (row["signature"][64:], "s")]
        hashed = [sm3(bytes(1) + bytes.fromhex(leaf)).hex() for leaf in row["leaves"]]
        return (
            "#### Upload of three purchases that were stored\n\n"
            "Made without coverage at half past six and later; signed once. Each is answered in template 1, under the "
            "sequences 9, 10 and 11.\n\n"
            f"{_whole(row['frame'])}Byte by byte:\n\n{_table(lines)}\n"
            "What is signed; of the Merkle tree the first leaf in full and the hashes of all three:\n\n```\n"
            f"leaf 0\n{_pairs(self.canonical_lines(bytes.fromhex(row['leaves'][0])))}\n"
            + "".join(f"SM3(00 || leaf {at})  {leaf}\n" for at, leaf in enumerate(hashed))
            + f"root               {row['root']}\n\n"
            f"ZA                 {self.document['keys']['terminal']['za']}\n"
            f'tag                {row["signed"][:8]}  "{TAG_OFFLINE.decode()}"\n'
            f"number of items    {row['signed'][8:10]}\n"
            f"root               {row['signed'][10:]}\n"
            f"e                  {row['digest']}\n```\n"
        )

    def body_lines(self, template: Template, values: dict[int, Value]) -> Iterator[Line]:
        """Presence and elements of a request that is said whole."""
        body = self.codec.encode_body(template.id, False, values)
        optional = sum(not field.required for field in template.request)
        if size := (optional + 7) // 8:
            yield body[:size].hex(), "presence"
        for field in template.request:
            if field.key in values:
                element = self.grammar.elements[field.key]
                yield wire_value(element, values[field.key]).hex(), _named(element, values[field.key])

    def _values(self, named: dict[str, Any]) -> dict[int, Value]:
        return {self.grammar.by_name[name].key: value for name, value in named.items()}

    def frame_lines(self, frame: bytes) -> Iterator[Line]:
        """Every byte of a frame with what it means, in order."""
        (content,), _ = self.codec.split(frame)
        message = self.codec.decode(content)
        template = self.grammar.templates[message.template]
        length = len(frame) - len(content)
        yield frame[:length].hex(), f"length {len(content)}"
        yield content[:1].hex(), f"version 1, template {template.id} ({template.name})"
        yield content[1:2].hex(), _flags(message.flags, message.is_response)
        at = 2 + _varint_bytes(content[2:])
        yield content[2:at].hex(), f"sequence {message.sequence}"
        fields = template.response if message.is_response else template.request
        optional = [field for field in fields if not field.required]
        presence = content[at : at + (len(optional) + 7) // 8]
        if presence:
            there = [self.grammar.path(field.key) for field in optional if field.key in message.values]
            yield presence.hex(), f"presence: {', '.join(there) or 'none'} of {len(optional)} optional"
            at += len(presence)
        for field in fields:
            if field.key in message.values:
                element = self.grammar.elements[field.key]
                wire = wire_value(element, message.values[field.key])
                assert content[at : at + len(wire)] == wire
                yield wire.hex(), _named(element, message.values[field.key])
                at += len(wire)
        if message.signature:
            yield content[at : at + 32].hex(), "r"
            yield content[at + 32 : at + SIGNATURE_BYTES].hex(), "s"

    def canonical_lines(self, canonical: bytes) -> Iterator[Line]:
        yield canonical[:1].hex(), "version"
        yield canonical[1:2].hex(), "template"
        yield canonical[2:3].hex(), "flags"
        yield canonical[3:11].hex(), "sequence"
        at = 11
        while at < len(canonical):
            element = self.grammar.elements[int.from_bytes(canonical[at : at + 2], "big")]
            size = int.from_bytes(canonical[at + 2 : at + 4], "big")
            end = at + 4 + size
            value = canonical[at + 4 : end].hex()
            implied = element.name in self.document["implied"] and canonical[1] != 15
            source = ", of the session" if implied else ""
            yield f"{canonical[at : at + 2].hex()} {size:04x} {value}", f"{element.path} {element.name}{source}"
            at = end


def _flags(flags: int, response: bool) -> str:
    named = [flag.name for flag in (Flag.RESPONSE, Flag.SIGNED, Flag.RECEIPT) if flags & flag]
    command = [f"command {flags & COMMAND_MASK}"] if response else []
    return ", ".join(str(part) for part in ("flags:", *named, *command)).replace(":,", ":") if named else "flags: none"


def _varint_bytes(data: bytes) -> int:
    return next(index for index, byte in enumerate(data, 1) if byte < 0x80)


def _named(element: Element, value: Value) -> str:
    return f"{element.path} {element.name} = {_shown(element, value)}"


def _whole(digits: str) -> str:
    return f"Whole frame, {len(digits) // 2} bytes:\n\n```\n{_wrapped(digits)}\n```\n\n"


def _shown(element: Element, value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f'"{value}"' if element.kind in (Kind.AN, Kind.ANS, Kind.D) else str(value)


def _table(lines: list[Line]) -> str:
    rows, at = [], 0
    for digits, meaning in lines:
        for index, part in enumerate(_wrapped(digits).split("\n")):
            rows.append(f"{at:4}  {part:<40}  {meaning if index == 0 else ''}".rstrip())
            at += len(part) // 2
    return "```\n" + "\n".join(rows) + "\n```\n"


def _pairs(lines: Iterator[Line]) -> str:
    return "\n".join(f"  {digits:<60}  {meaning}" for digits, meaning in lines)
