"""Purchases that were made without coverage: several of one template under one signature, in one frame.

The body of an upload (``templates.OFFLINE_UPLOAD``) is one element: a byte with the template's id, the body of the
first item, and each further item as its difference to the ones before (``delta``), where the first has the sequence 1.
Each item is a transaction of its own with a key of its own, and an upload of n items uses n sequence numbers: item i
(from 0) is answered under the upload's sequence + i, as if it had been sent alone.

The signature covers all of them at once and no channel, because it may be made where there is none::

    leaf    the canonical form of the expanded item with flags SIGNED and sequence 0, see ``grammar``
    root    of the Merkle tree over the leaves, see ``merkle``, with SM3
    e       = SM3( ZA || "FP1O" || count (1 byte) || root )

What is replayed meets its own keys and does nothing. An item's line in the journal has as evidence all that proves it
alone: r || s (64), index (1), count (1) and the audit path from its leaf to the root, 32 bytes a level.
"""

from collections.abc import Mapping, Sequence

from fengshou.protocol import limits
from fengshou.protocol.message import Flag, Message, Value, expanded
from fengshou.protocol.session import Codec, DeltaForm

TAG_OFFLINE = b"FP1O"
_AT_PATH = limits.SIGNATURE_BYTES + 2


def signed_part(root: bytes, count: int) -> bytes:
    """What follows ZA in the digest of an upload."""
    return TAG_OFFLINE + bytes((count,)) + root


def leaf(codec: Codec, template: int, values: Mapping[int, Value], implied: Mapping[int, Value]) -> bytes:
    """The leaf of one item. Raises UntrustedBytesError for values outside the grammar."""
    return codec.canonical(template, Flag.SIGNED, 0, expanded(values, implied))


def pack_items(codec: Codec, writer: DeltaForm, template: int, items: Sequence[Mapping[int, Value]]) -> bytes:
    """The element of an upload; the writer is a new one. Raises UntrustedBytesError for values outside the grammar.

    Raises ValueError when the template has no delta form, or for more items than one upload holds.
    """
    if not writer.writes(template) or not 1 <= len(items) <= limits.OFFLINE_ITEMS_MAX:
        raise ValueError(f"an upload has 1 .. {limits.OFFLINE_ITEMS_MAX} items of a template with a delta form")
    parts = [bytes((template,))]
    for number, values in enumerate(items, 1):
        message = Message(template, Flag.SIGNED, number, dict(values))
        whole = codec.encode_body(template, False, values)
        difference = writer.body(message)
        if number > 1 and difference is None:
            raise ValueError("an item without a time of day cannot be sent among others")
        parts.append(difference or whole)
        writer.keep(message)
    return b"".join(parts)


def evidence_of(signature: bytes, index: int, count: int, path: bytes) -> bytes:
    """What proves one item of an upload, given its leaf and the signer's key."""
    return signature + bytes((index, count)) + path


def parse_evidence(evidence: bytes) -> tuple[bytes, int, int, bytes]:
    """Signature, index, count and audit path. Raises ValueError."""
    if len(evidence) < _AT_PATH:
        raise ValueError("the evidence is too short")
    signature = evidence[: limits.SIGNATURE_BYTES]
    index, count = evidence[limits.SIGNATURE_BYTES : _AT_PATH]
    return signature, index, count, evidence[_AT_PATH:]
