"""Frames and messages, compiled; the twin of ``fengshou.protocol.grammar.ReferenceCodec``, which is the authority.

Same results and same errors for every input. Plans derive from the grammar's rows when the codec is made.
"""

from collections.abc import Mapping

from fengshou.protocol.history import History
from fengshou.protocol.message import Message, Value
from fengshou.protocol.templates import Grammar

class MessageCodec:
    """The codec of one grammar. Holds no state of a connection and may be shared by all."""

    def __new__(cls, grammar: Grammar) -> MessageCodec: ...
    def split(self, data: bytes | bytearray | memoryview) -> tuple[list[bytes], int]:
        """The whole frames at the start of ``data`` (without their length) and how many bytes they took.

        Raises UntrustedBytesError when a length is malformed, too long or too short.
        """

    def decode(self, frame: bytes, history: History | None = None) -> Message:
        """The message of a frame without its length. Raises UntrustedBytesError.

        ``history`` is that of a session in which the delta form is on; a message in it comes back expanded and without
        the flag.
        """

    def encode(self, message: Message) -> bytes:
        """The frame of a message, length included. Raises UntrustedBytesError for values outside the grammar."""

    def frame(self, template: int, flags: int, sequence: int, body: bytes) -> bytes:
        """The frame of a message without a signature, around a body that ``encode_body`` made.

        Raises UntrustedBytesError.
        """

    def encode_body(self, template: int, response: bool, values: Mapping[int, Value]) -> bytes:
        """Presence bits and fields only: the part of an answer that is stored and repeated byte for byte."""

    def decode_body(self, template: int, response: bool, data: bytes) -> dict[int, Value]:
        """The values of a body that ``encode_body`` made. Raises UntrustedBytesError."""

    def decode_items(self, data: bytes) -> tuple[int, list[dict[int, Value]]]:
        """Template and values of what ``protocol.offline.pack_items`` packed. Raises UntrustedBytesError."""

    def canonical(self, template: int, flags: int, sequence: int, values: Mapping[int, Value]) -> bytes:
        """The bytes that are signed, from the expanded values. Raises UntrustedBytesError."""

    def signed_text(self, za: bytes, binding: bytes, message: Message, implied: Mapping[int, Value]) -> bytes:
        """What ``digest`` hashes, for those who hash many. Raises the same."""

    def digest(self, za: bytes, binding: bytes, message: Message, implied: Mapping[int, Value]) -> bytes:
        """What a request's signature covers, 32 bytes. ``implied`` are the values of the session.

        Raises UntrustedBytesError, and ValueError when ``za`` or ``binding`` is not 32 bytes.
        """

    def pack(self, values: Mapping[int, Value]) -> bytes:
        """Values outside a template, as the journal keeps them. Raises UntrustedBytesError."""

    def pack_kept(self, values: Mapping[int, Value], columns: frozenset[int]) -> tuple[bytes, bytes]:
        """What the journal keeps: C1 and C2 values packed apart, without C3 and without ``columns``."""

    def unpack(self, data: bytes) -> dict[int, Value]:
        """The values that ``pack`` wrote. Raises UntrustedBytesError."""
