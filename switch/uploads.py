"""Uploads of purchases that were made without coverage: from one signed message to the requests in it."""

from dataclasses import dataclass

from fengshou.codecs import merkle_path, merkle_root, sm3
from fengshou.protocol import elements as de
from fengshou.protocol import offline
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.limits import UINT_MAX
from fengshou.protocol.message import Flag, Message, Value
from fengshou.protocol.session import Codec
from fengshou.switch.exchange import Exchange

# What an upload says of all its items.
_SHARED_FLAGS = Flag.SIGNED | Flag.RECEIPT | Flag.REPEAT


@dataclass(slots=True)
class Upload:
    """What is known of one between its decoding and its verdict."""

    template: int
    items: list[dict[int, Value]]
    leaves: list[bytes]


def unpack(codec: Codec, exchange: Exchange) -> Upload:
    """Read an upload and use up the sequences of its items. Raises UntrustedBytesError."""
    session, packed = exchange.peer.session, exchange.asked.values[de.OFFLINE_ITEMS]
    assert isinstance(packed, bytes)
    template, items = codec.decode_items(packed)
    if exchange.sequence > UINT_MAX - len(items):
        raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
    session.last_sequence += len(items) - 1
    return Upload(template, items, [offline.leaf(codec, template, values, session.implied) for values in items])


def digest(za: bytes, upload: Upload) -> bytes:
    """e, what the terminal signed."""
    return sm3(za + offline.signed_part(merkle_root(upload.leaves), len(upload.leaves)))


def requests(exchange: Exchange, upload: Upload) -> list[Exchange]:
    """The requests of an upload whose signature holds, each as if it had come alone, with its own evidence."""
    message, count = exchange.asked, len(upload.items)
    return [
        Exchange(
            exchange.peer,
            exchange.frame,
            exchange.received_us,
            exchange.arrived,
            exchange.machine,
            asked=Message(
                upload.template,
                message.flags & _SHARED_FLAGS,
                message.sequence + index,
                values,
                message.signature,
            ),
            sequence=message.sequence + index,
            digest=exchange.digest,
            evidence=offline.evidence_of(message.signature, index, count, merkle_path(upload.leaves, index)),
        )
        for index, values in enumerate(upload.items)
    ]
