"""Bytes of a signed farm purchase over the season of the examples, in our two forms and in what others would use.

Each peer says the whole purchase with a signature of 64 bytes, because none of them has a session that would imply
terminal, merchant, batch, currency and operator. TCP/IP is left out everywhere, TLS records (5 bytes and a tag of 16)
too, except that HTTP has its usual headers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from bench import purchase
from bench.figures import Figure
from fengshou.codecs import DeltaWriter, Iso8583Codec, MessageCodec
from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.protocol import elements as de
from fengshou.protocol.backend import Fields
from fengshou.protocol.iso8583 import HostFormat
from fengshou.protocol.kinds import varint
from fengshou.protocol.limits import OFFLINE_ITEMS_MAX
from fengshou.protocol.message import Flag, Message, Value
from fengshou.protocol.money import amount_of
from fengshou.protocol.offline import pack_items
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import OFFLINE_UPLOAD, SIGN_IN
from fengshou.terminals.trades import read_trades

PURCHASES = Path(__file__).resolve().parents[1] / "examples/purchases.csv"
_SIGNATURE = bytes(range(64))
_HTTP = (
    "POST /v1/farm-purchases HTTP/1.1\r\nHost: switch.bank.example\r\nContent-Type: application/json\r\n"
    "Authorization: Bearer {token}\r\nContent-Length: {length}\r\nAccept: application/json\r\n\r\n"
)
_OF_EACH_ITEM = (de.LOCAL_DATE, de.ENTRY_MODE, de.PRODUCT, de.VARIETY, de.GRADE, de.UNIT_PRICE)
_TOKEN = "0" * 43  # 256 bits in base64
_WHOLE, _DELTA = "ours, whole", "ours, delta form"
_AIMS = {(_WHOLE, "max"): 120.0, (_DELTA, "mean"): 96.0}


def figures() -> list[Figure]:
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    for values in season():
        for what, data in others(values).items():
            sizes[what].append(len(data))
    for whole, sent in ours():
        sizes[_WHOLE].append(whole)
        if sent < whole:  # the first of a session has no base
            sizes[_DELTA].append(sent)
    found = [_figure(what, kind, value) for what, each in sizes.items() for kind, value in _summary(each)]
    found.append(
        Figure(
            key="bytes.offline", what=f"ours, each of {OFFLINE_ITEMS_MAX} stored offline, with the signature",
            value=stored(), unit="bytes", aim=14.0,
        )
    )  # fmt: skip
    share = 100 * sum(size <= 96 for size in sizes[_DELTA]) / len(sizes[_DELTA])
    found.append(
        Figure(key="bytes.within-96", what=f"{_DELTA}, at most 96", value=share, unit="%", aim=99.0, more=True)
    )
    return found


def _summary(sizes: list[int]) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("mean", sum(sizes) / len(sizes)), ("max", float(max(sizes)))


def _figure(what: str, kind: str, value: float) -> Figure:
    key = what.replace(",", "").replace(" ", "-").lower()
    return Figure(
        key=f"bytes.{key}.{kind}", what=f"{what}, {kind}", value=value, unit="bytes", aim=_AIMS.get((what, kind))
    )


def season() -> Iterator[dict[int, Value]]:
    """Each purchase with its STAN and everything that a session would imply."""
    for number, trade in enumerate(read_trades(PURCHASES, "farm-purchase"), 1):
        yield {**purchase.IMPLIED, de.TERMINAL: trade.terminal, de.STAN: number, **trade.values}


def ours() -> Iterator[tuple[int, int]]:
    """Whole, and as a session sends it: one session a terminal, each request answered before the next."""
    codec = MessageCodec(purchase.GRAMMAR)
    sessions: dict[str, TerminalSession] = {}
    stans: Counter[str] = Counter()
    for trade in read_trades(PURCHASES, "farm-purchase"):
        stans[trade.terminal] += 1
        if trade.terminal not in sessions:
            sessions[trade.terminal] = session = TerminalSession(
                codec, bytes(32), bytes(32), {1: True, SIGN_IN.id: True}, DeltaWriter(codec)
            )
            session.receive(codec.encode(Message(SIGN_IN.id, Flag.RESPONSE | Flag.DELTA, 0, {de.RESPONSE_CODE: "00"})))
        session = sessions[trade.terminal]
        message, _ = session.prepare(1, {de.STAN: stans[trade.terminal], **trade.values})
        shortest = session.frame(message, _SIGNATURE)
        yield len(codec.encode(message)), len(shortest)
        session.receive(codec.encode(Message(1, Flag.RESPONSE, message.sequence, {de.RESPONSE_CODE: "00", de.RRN: 1})))


def stored() -> float:
    """Bytes of frame a purchase in an upload that is full: a morning at one point, with farmers who come again."""
    draw = Random(20)
    farmers = [f"91560010040011{number:05d}" for number in (18785, 55433, 15838, 82137, 23757)]
    items: list[dict[int, Value]] = []
    second = 6 * 3600
    for stan in range(1, OFFLINE_ITEMS_MAX + 1):
        second += draw.randint(120, 600)
        weight = draw.randint(500, 16_000)
        items.append(
            {
                **{key: purchase.VALUES[key] for key in _OF_EACH_ITEM},
                de.AMOUNT: amount_of(weight, int(purchase.VALUES[de.UNIT_PRICE])),
                de.STAN: stan,
                de.LOCAL_TIME: second // 3600 * 10_000 + second // 60 % 60 * 100 + second % 60,
                de.WEIGHT: weight,
                de.TO_ACCOUNT: draw.choice(farmers),
            }
        )
    codec = MessageCodec(purchase.GRAMMAR)
    data = pack_items(codec, DeltaWriter(codec), FARM_PURCHASE.id, items)
    upload = Message(OFFLINE_UPLOAD.id, Flag.SIGNED, 200, {de.OFFLINE_ITEMS: data}, _SIGNATURE)
    return len(codec.encode(upload)) / len(items)


def others(values: dict[int, Value]) -> dict[str, bytes]:
    elements = purchase.GRAMMAR.elements
    named = {elements[key].name: value for key, value in sorted(values.items())}
    body = msgspec.json.encode({**named, "signature": _SIGNATURE})  # base64
    http = _HTTP.format(token=_TOKEN, length=len(body)).encode()
    goods = " ".join(str(values[key]) for key in (de.PRODUCT, de.VARIETY, de.GRADE, de.WEIGHT, de.UNIT_PRICE))
    fields: Fields = {
        **purchase.HOST_FIELDS,
        4: f"{int(values[de.AMOUNT]):012d}",
        11: f"{int(values[de.STAN]):06d}",
        48: goods,
        57: str(values.get(de.LOT, "")),
        60: f"22{int(values[de.BATCH]):06d}",
        62: _SIGNATURE.hex(),
        63: str(values[de.OPERATOR]),
        103: str(values[de.TO_ACCOUNT]),
    }
    tpdu_and_length = bytes(7)
    return {
        "JSON over HTTPS": http + body,
        "ISO 8583, BCD": tpdu_and_length + Iso8583Codec(HostFormat()).encode(fields),
        "protobuf": protobuf(values),
        "CBOR, array": cbor([*named.values(), _SIGNATURE]),
    }


def protobuf(values: dict[int, Value]) -> bytes:
    """A field a element, numbered 1 …; integers as varints, text and bytes with their length (wire types 0 and 2)."""
    parts = []
    for number, value in enumerate([*(values[key] for key in sorted(values)), _SIGNATURE], 1):
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(data)) + data)
    message = b"".join(parts)
    return varint(len(message)) + message


def cbor(items: list[Value]) -> bytes:
    """RFC 8949: an array of integers, texts and bytes, each in its shortest form."""
    parts = [_cbor_head(4, len(items))]
    for item in items:
        if isinstance(item, int):
            parts.append(_cbor_head(0, item))
        else:
            data = item.encode() if isinstance(item, str) else item
            parts.append(_cbor_head(3 if isinstance(item, str) else 2, len(data)) + data)
    return b"".join(parts)


def _cbor_head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
    return bytes((major << 5 | 23 + size.bit_length(),)) + number.to_bytes(size, "big")
