"""Decode and encode one purchase: our wire format and host format, and what would stand in their place.

What is called is a partial, which adds 0.03 µs to a call; a lambda would add twice as much.
"""

from collections.abc import Callable
from functools import partial

import iso8583
import msgspec
from iso8583sim import wire as iso8583sim

from bench import purchase
from bench.figures import Figure
from bench.measure import cpu_us
from fengshou.codecs import DeltaWriter, Iso8583Codec, MessageCodec
from fengshou.protocol import elements as de
from fengshou.protocol.delta import ReferenceDeltaWriter
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.iso8583 import HostFormat
from fengshou.protocol.iso8583_reference import ReferenceIso8583Codec
from fengshou.protocol.session import DeltaForm

Pair = tuple[Callable[[], object], Callable[[], object], int]


def pairs() -> dict[str, tuple[str, Pair]]:
    """By key: what it is; its decoder, its encoder and the size of the message."""
    compiled, reference = MessageCodec(purchase.GRAMMAR), ReferenceCodec(purchase.GRAMMAR)
    sample = purchase.message()
    framed = compiled.encode(sample)
    (frame,), _ = compiled.split(framed)

    host, host_reference = Iso8583Codec(HostFormat()), ReferenceIso8583Codec(HostFormat())
    fields = purchase.HOST_FIELDS
    host_message = host.encode(fields)
    spec, document = purchase.pyiso8583_spec(), purchase.pyiso8583_document()
    assert bytes(iso8583.encode(dict(document), spec)[0]) == host_message, "the peer must do the same work"

    sim_format, sim_message = iso8583sim.WireFormat.bcd(), purchase.iso8583sim_message()
    theirs = iso8583sim.encode_message(sim_message, sim_format)
    assert iso8583sim.decode_message(theirs, sim_format).fields == sim_message.fields

    struct = purchase.struct()
    pack, json = msgspec.msgpack.Encoder(), msgspec.json.Encoder()
    unpack, read = msgspec.msgpack.Decoder(purchase.Purchase), msgspec.json.Decoder(purchase.Purchase)
    unpack_dict = msgspec.msgpack.Decoder()
    packed, text = pack.encode(struct), json.encode(struct)
    as_dict = unpack_dict.decode(packed)

    return {
        "fengshou": (
            "our message, compiled", (partial(compiled.decode, frame), partial(compiled.encode, sample), len(framed)),
        ),
        "construct": (
            "our message, construct grammar",
            (partial(reference.decode, frame), partial(reference.encode, sample), len(framed)),
        ),
        "iso8583": (
            "ISO 8583, compiled", (partial(host.decode, host_message), partial(host.encode, fields), len(host_message)),
        ),
        "iso8583-plain": (
            "ISO 8583, plain Python",
            (partial(host_reference.decode, host_message), partial(host_reference.encode, fields), len(host_message)),
        ),
        "pyiso8583": (
            "ISO 8583, pyiso8583",
            (
                partial(iso8583.decode, host_message, spec),
                partial(iso8583.encode, document, spec),
                len(host_message),
            ),
        ),
        "iso8583sim": (
            "ISO 8583, iso8583sim",
            (
                partial(iso8583sim.decode_message, theirs, sim_format),
                partial(iso8583sim.encode_message, sim_message, sim_format),
                len(theirs),
            ),
        ),
        "msgpack": (
            "MessagePack, msgspec", (partial(unpack.decode, packed), partial(pack.encode, struct), len(packed)),
        ),
        "msgpack-dict": (
            "MessagePack, msgspec, into a dict as ours",
            (partial(unpack_dict.decode, packed), partial(pack.encode, as_dict), len(packed)),
        ),
        "json": ("JSON, msgspec", (partial(read.decode, text), partial(json.encode, struct), len(text))),
    }  # fmt: skip


# Our wire format is set against MessagePack, the fastest of what is at hand; our host format against its peer.
_PEERS = {"fengshou": "msgpack", "construct": "fengshou", "iso8583": "pyiso8583", "iso8583-plain": "iso8583"}
_AIMS_US = {"fengshou": 1.0}
_AIMS_BYTES = {"fengshou": 120.0}  # of the self-contained form


def _differences(seconds: float) -> list[Figure]:
    """What a session adds to the encoding of a request: its difference to one that was answered, and to remember it."""
    sample, base = purchase.message(), purchase.message()
    base.sequence -= 1
    base.values |= {de.WEIGHT: 9_000, de.TO_ACCOUNT: "9156001004001182137"}
    compiled, reference = DeltaWriter(MessageCodec(purchase.GRAMMAR)), ReferenceDeltaWriter(purchase.GRAMMAR)
    found = []
    writers: dict[str, tuple[str, DeltaForm]] = {
        "delta": ("compiled", compiled), "delta-plain": ("plain Python", reference),
    }  # fmt: skip
    for key, (what, writer) in writers.items():
        writer.keep(base)
        assert writer.frame(sample) == compiled.frame(sample) is not None
        taken = cpu_us(partial(writer.frame, sample), seconds / 2) + cpu_us(partial(writer.keep, base), seconds / 2)
        found.append(
            Figure(
                key=f"codec.{key}.cpu", what=f"write as a difference + remember: our message, {what}", value=taken,
                unit="µs", peer="codec.delta.cpu" if writer is reference else "",
            )
        )  # fmt: skip
    return found


def figures(seconds: float) -> list[Figure]:
    times, sizes = [], []
    for key, (what, (decode, encode, size)) in pairs().items():
        peer = _PEERS.get(key, "")
        taken = cpu_us(decode, seconds / 2) + cpu_us(encode, seconds / 2)
        times.append(
            Figure(
                key=f"codec.{key}.cpu",
                what=f"decode + encode: {what}",
                value=taken,
                unit="µs",
                peer=f"codec.{peer}.cpu" if peer else "",
                aim=_AIMS_US.get(key),
            )
        )
        if key not in ("construct", "iso8583-plain", "pyiso8583", "iso8583sim", "msgpack-dict"):
            sizes.append(
                Figure(
                    key=f"codec.{key}.bytes",
                    what=f"size: {what}",
                    value=size,
                    unit="bytes",
                    peer="codec.msgpack.bytes" if key != "msgpack" else "",
                    aim=_AIMS_BYTES.get(key),
                )
            )
    return times + _differences(seconds) + sizes
