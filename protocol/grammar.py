"""The grammar of frames and messages as construct definitions: the readable authority.

The compiled twin is ``fengshou.codecs``; tests hold the two equal. A frame is::

    length      varint, 1 or 2 bytes: how many bytes follow
    head        1 byte: version (2 bits) and template id (6 bits)
    flags       1 byte: see ``message.Flag``
    sequence    varint
    presence    one bit for each optional field of the template, first field = most significant bit, whole bytes
    fields      those that are there, in the template's order
    signature   64 bytes r || s, when the SIGNED flag is set

The delta form has others in the place of presence and fields, see ``delta``.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import construct as c

from fengshou.protocol import delta, limits
from fengshou.protocol.elements import Element, Privacy, path_of
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.history import History
from fengshou.protocol.kinds import VARINT, Exactly, element_grammar, is_integer, wire_value
from fengshou.protocol.message import COMMAND_MASK, Flag, Message, Value, expanded
from fengshou.protocol.signing import TAG_REQUEST
from fengshou.protocol.templates import SIGN_IN, Field, Grammar, Template


class Fields(c.Construct):  # type: ignore[misc]
    """Presence bits and the fields they announce, as a dict of element keys."""

    def __init__(self, grammar: Grammar, fields: tuple[Field, ...]) -> None:
        super().__init__()
        self.fields = fields
        self.optional = [field.key for field in fields if not field.required]
        self.presence_bytes = (len(self.optional) + 7) // 8
        self.values = {field.key: element_grammar(grammar.elements[field.key]) for field in fields}
        self.paths = {field.key: grammar.path(field.key) for field in fields}

    def _parse(self, stream: Any, context: Any, path: str) -> dict[int, Value]:
        presence = Exactly(self.presence_bytes)._parse(stream, context, path)
        width = 8 * self.presence_bytes
        bits = int.from_bytes(presence, "big")
        if bits & ((1 << (width - len(self.optional))) - 1):
            raise UntrustedBytesError(WireError.UNKNOWN_FIELD)
        there = {key for index, key in enumerate(self.optional) if bits >> (width - 1 - index) & 1}
        values: dict[int, Value] = {}
        for field in self.fields:
            if field.required or field.key in there:
                try:
                    values[field.key] = self.values[field.key]._parsereport(stream, context, path)
                except UntrustedBytesError as error:
                    raise UntrustedBytesError(error.error, self.paths[field.key]) from None
        return values

    def _build(self, obj: Mapping[int, Value], stream: Any, context: Any, path: str) -> Mapping[int, Value]:
        bits = 0
        for index, key in enumerate(self.optional):
            if key in obj:
                bits |= 1 << (8 * self.presence_bytes - 1 - index)
        stream.write(bits.to_bytes(self.presence_bytes, "big"))
        for field in self.fields:
            if field.key in obj:
                try:
                    self.values[field.key]._build(obj[field.key], stream, context, path)
                except UntrustedBytesError as error:
                    raise UntrustedBytesError(error.error, self.paths[field.key]) from None
            elif field.required:
                raise UntrustedBytesError(WireError.TRUNCATED, self.paths[field.key])
        refuse_strangers(obj, self.values)
        return obj


def _framed(content: bytes) -> bytes:
    """The frame of this content. Raises UntrustedBytesError: it is too long."""
    if len(content) > limits.FRAME_BYTES_MAX:
        raise UntrustedBytesError(WireError.FRAME_TOO_LONG)
    return bytes(VARINT.build(len(content)) + content)


def refuse_strangers(values: Mapping[int, Value], known: Mapping[int, object]) -> None:
    """Values whose key has no place: of a template, or of the whole grammar."""
    for key in values:
        if key not in known:
            raise UntrustedBytesError(WireError.UNKNOWN_FIELD, path_of(key))


HEAD = c.BitStruct("version" / c.BitsInteger(2), "template" / c.BitsInteger(6))


class ReferenceCodec:
    """Frames and messages by the construct grammar. Slow and readable; the same face as ``codecs.MessageCodec``."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.elements = {key: element_grammar(element) for key, element in grammar.elements.items()}
        self.sides = {
            (template.id, response): Fields(grammar, template.response if response else template.request)
            for template in grammar.templates.values()
            for response in (False, True)
        }

    def split(self, data: bytes | bytearray | memoryview) -> tuple[list[bytes], int]:
        """The whole frames at the start of ``data`` (without their length) and how many bytes they took.

        Raises UntrustedBytesError when a length is malformed, too long or too short.
        """
        frames: list[bytes] = []
        used = 0
        while used < len(data):
            length, at = 0, used
            for index in range(limits.LENGTH_BYTES_MAX):
                if at >= len(data):
                    return frames, used
                byte = data[at]
                at += 1
                length |= (byte & 0x7F) << (7 * index)
                if byte < 0x80:
                    if byte == 0 and index:
                        raise UntrustedBytesError(WireError.LENGTH_MALFORMED)
                    break
            else:
                raise UntrustedBytesError(WireError.FRAME_TOO_LONG)
            if length > limits.FRAME_BYTES_MAX:
                raise UntrustedBytesError(WireError.FRAME_TOO_LONG)
            if length < limits.FRAME_BYTES_MIN:
                raise UntrustedBytesError(WireError.FRAME_TOO_SHORT)
            if at + length > len(data):
                return frames, used
            frames.append(bytes(data[at : at + length]))
            used = at + length
        return frames, used

    def decode(self, frame: bytes, history: History | None = None) -> Message:
        """The message of a frame without its length. Raises UntrustedBytesError.

        ``history`` is that of a session in which the delta form is on; a message in it comes back expanded and without
        the flag.
        """
        if len(frame) < limits.FRAME_BYTES_MIN:
            raise UntrustedBytesError(WireError.FRAME_TOO_SHORT)
        if len(frame) > limits.FRAME_BYTES_MAX:
            raise UntrustedBytesError(WireError.FRAME_TOO_LONG)
        stream = c.io.BytesIO(frame)
        head = HEAD.parse_stream(stream)
        if head.version != limits.PROTOCOL_VERSION:
            raise UntrustedBytesError(WireError.UNKNOWN_VERSION)
        template = self._template(head.template)
        flags = stream.read(1)[0]
        earlier = None
        if history is not None and flags & Flag.DELTA and template.operators and not flags & Flag.RESPONSE:
            flags ^= int(Flag.DELTA)
            earlier = partial(self._earlier, history, template.id)
        self._judge(template, flags)
        signed = bool(flags & Flag.SIGNED)
        sequence = VARINT.parse_stream(stream)
        if earlier is not None:
            values = delta.read(stream, self.grammar, template, sequence, earlier)
        else:
            values = self.sides[template.id, bool(flags & Flag.RESPONSE)].parse_stream(stream)
        signature = Exactly(limits.SIGNATURE_BYTES).parse_stream(stream) if signed else b""
        if stream.read(1):
            raise UntrustedBytesError(WireError.TRAILING_BYTES)
        return Message(template.id, flags, sequence, values, signature)

    def encode(self, message: Message) -> bytes:
        """The frame of a message, length included. Raises UntrustedBytesError for values outside the grammar."""
        head = self._head(message.template, message.flags, message.sequence, message.signature)
        body = self.sides[message.template, message.is_response].build(message.values)
        return _framed(head + body + message.signature)

    def frame(self, template: int, flags: int, sequence: int, body: bytes) -> bytes:
        """The frame of a message without a signature, around a body that ``encode_body`` made.

        Raises UntrustedBytesError.
        """
        return _framed(self._head(template, flags, sequence, b"") + body)

    def _head(self, template: int, flags: int, sequence: int, signature: bytes) -> bytes:
        """What stands before the body of a message that has this signature."""
        found = self._template(template)
        self._judge(found, flags)
        signed = bool(flags & Flag.SIGNED)
        if not isinstance(signature, bytes) or len(signature) != limits.SIGNATURE_BYTES * signed:
            raise UntrustedBytesError(WireError.SIGNATURE_MISSING if signed else WireError.SIGNATURE_UNEXPECTED)
        head = HEAD.build({"version": limits.PROTOCOL_VERSION, "template": found.id})
        return bytes(head + bytes((flags,)) + VARINT.build(sequence))

    def encode_body(self, template: int, response: bool, values: Mapping[int, Value]) -> bytes:
        """Presence bits and fields only: the part of an answer that is stored and repeated byte for byte."""
        return bytes(self.sides[self._template(template).id, response].build(values))

    def decode_body(self, template: int, response: bool, data: bytes) -> dict[int, Value]:
        """The values of a body that ``encode_body`` made. Raises UntrustedBytesError."""
        fields = self.sides[self._template(template).id, response]
        stream = c.io.BytesIO(data)
        values: dict[int, Value] = fields.parse_stream(stream)
        if stream.read(1):
            raise UntrustedBytesError(WireError.TRAILING_BYTES)
        return values

    def decode_items(self, data: bytes) -> tuple[int, list[dict[int, Value]]]:
        """Template and values of what ``offline.pack_items`` packed. Raises UntrustedBytesError."""
        stream = c.io.BytesIO(data)
        template = self._template(Exactly(1).parse_stream(stream)[0])
        if not template.operators:
            raise UntrustedBytesError(WireError.FORM_UNSUPPORTED)
        history, items = History(), [self.sides[template.id, False].parse_stream(stream)]
        earlier = partial(self._earlier, history, template.id)
        while stream.tell() < len(data):
            if len(items) == limits.OFFLINE_ITEMS_MAX:
                raise UntrustedBytesError(WireError.TRAILING_BYTES)
            stated = bytes((template.id,)) + self.encode_body(template.id, False, items[-1])
            history.keep(len(items), stated)
            items.append(delta.read(stream, self.grammar, template, len(items) + 1, earlier))
        return template.id, items

    def canonical(self, template: int, flags: int, sequence: int, values: Mapping[int, Value]) -> bytes:
        """The bytes that are signed: version, template, flags but DELTA, sequence, every element by ascending key.

        ``values`` are the expanded values, those of the session included. Each element is its number, its sub-number,
        a two-byte length and its canonical value. Raises UntrustedBytesError for what could not be encoded either.
        """
        identity = self._template(template).id
        if not is_integer(flags) or not 0 <= flags <= 0xFF:
            raise UntrustedBytesError(WireError.UNKNOWN_FLAG)
        if not is_integer(sequence) or not 0 <= sequence <= limits.UINT_MAX:
            raise UntrustedBytesError(WireError.VALUE_OUT_OF_RANGE)
        parts = [bytes((limits.PROTOCOL_VERSION, identity, flags & ~Flag.DELTA)), sequence.to_bytes(8, "big")]
        refuse_strangers(values, self.elements)
        for key in sorted(values):
            value = canonical_value(self.grammar.elements[key], values[key])
            parts.append(key.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value)
        return b"".join(parts)

    def signed_text(self, za: bytes, binding: bytes, message: Message, implied: Mapping[int, Value]) -> bytes:
        """What ``digest`` hashes; see ``signing``. ``implied`` are the values of the session.

        Raises UntrustedBytesError as ``canonical`` does, and ValueError when ``za`` or ``binding`` is not 32 bytes:
        with another length the bytes after it would change their meaning.
        """
        if len(za) != limits.DIGEST_BYTES or len(binding) != limits.BINDING_BYTES:
            raise ValueError("ZA and the session binding have 32 bytes each")
        canonical = self.canonical(message.template, message.flags, message.sequence, expanded(message.values, implied))
        return za + TAG_REQUEST + binding + canonical

    def digest(self, za: bytes, binding: bytes, message: Message, implied: Mapping[int, Value]) -> bytes:
        """What a request's signature covers, 32 bytes. Raises what ``signed_text`` does."""
        return hashlib.new("sm3", self.signed_text(za, binding, message, implied)).digest()

    def pack(self, values: Mapping[int, Value]) -> bytes:
        """Values outside a template, as the journal keeps them: by ascending key, each its key (2 bytes), wire form."""
        refuse_strangers(values, self.elements)
        return b"".join(
            key.to_bytes(2, "big") + wire_value(self.grammar.elements[key], values[key]) for key in sorted(values)
        )

    def pack_kept(self, values: Mapping[int, Value], columns: frozenset[int]) -> tuple[bytes, bytes]:
        """What the journal keeps: C1 and C2 values packed apart, without C3 and without ``columns``.

        Classes are those of JR/T 0171-2020; ``columns`` stand in the record elsewhere.
        """
        refuse_strangers(values, self.elements)
        rest = {key: value for key, value in values.items() if key not in columns}
        privacy = {key: self.grammar.elements[key].privacy for key in rest}
        return (
            self.pack({key: value for key, value in rest.items() if privacy[key] is Privacy.C1}),
            self.pack({key: value for key, value in rest.items() if privacy[key] is Privacy.C2}),
        )

    def unpack(self, data: bytes) -> dict[int, Value]:
        """The values that ``pack`` wrote. Raises UntrustedBytesError: unknown key, keys not ascending, cut short."""
        stream = c.io.BytesIO(data)
        values: dict[int, Value] = {}
        last = 0
        while stream.tell() < len(data):
            key = int.from_bytes(Exactly(2).parse_stream(stream), "big")
            if key not in self.elements or key <= last:
                raise UntrustedBytesError(WireError.UNKNOWN_FIELD, path_of(key))
            try:
                values[key] = self.elements[key].parse_stream(stream)
            except UntrustedBytesError as error:
                raise UntrustedBytesError(error.error, self.grammar.path(key)) from None
            last = key
        return values

    def _earlier(self, history: History, template: int, sequence: int) -> Mapping[int, Value] | None:
        """The values of an earlier request of the template; None when it is not known."""
        stated = history.find(sequence)
        return self.decode_body(template, False, stated[1:]) if stated[:1] == bytes((template,)) else None

    def _template(self, template: int) -> Template:
        if template not in self.grammar.templates:
            raise UntrustedBytesError(WireError.UNKNOWN_TEMPLATE)
        return self.grammar.templates[template]

    def _judge(self, template: Template, flags: int) -> None:
        """Whether a message of this template may carry these flags; the same ladder for both directions."""
        if not is_integer(flags) or not 0 <= flags <= 0xFF:
            raise UntrustedBytesError(WireError.UNKNOWN_FLAG)
        response, signed = bool(flags & Flag.RESPONSE), bool(flags & Flag.SIGNED)
        if flags & Flag.DELTA and template is not SIGN_IN:
            raise UntrustedBytesError(WireError.FORM_UNSUPPORTED)
        if not response and flags & COMMAND_MASK & ~Flag.REPEAT:
            raise UntrustedBytesError(WireError.UNKNOWN_FLAG)
        if template.signed and not response and not signed:
            raise UntrustedBytesError(WireError.SIGNATURE_MISSING)
        if signed and (response or not template.signed):
            raise UntrustedBytesError(WireError.SIGNATURE_UNEXPECTED)


def canonical_value(element: Element, value: Value) -> bytes:
    """One value as it is signed; see the table in ``elements``. What has no wire form has no canonical form."""
    wire_value(element, value)
    if isinstance(value, int):
        return value.to_bytes(8, "big", signed=True)
    if isinstance(value, str):
        return value.encode("utf-8")
    return value
