"""The delta form's writer, compiled; the twin of ``fengshou.protocol.delta.ReferenceDeltaWriter``, the authority.

Same bytes for every valid message.
"""

from fengshou.codecs._message import MessageCodec
from fengshou.protocol.message import Message

class DeltaWriter:
    """The terminal's end of one connection: remembers what was acknowledged and makes frames of the difference.

    ``keep``, ``frame`` and ``body`` raise UntrustedBytesError for values outside the grammar, and KeyError for a
    template that has no delta form.
    """

    def __new__(cls, codec: MessageCodec) -> DeltaWriter: ...
    def clear(self) -> None:
        """The switch remembers nothing, or something else: begin anew."""

    def writes(self, template: int) -> bool:
        """Whether the template has a delta form."""

    def keep(self, message: Message) -> None:
        """The switch has this request."""

    def frame(self, message: Message) -> bytes | None:
        """The shortest frame, length included, that says a message as a difference; None when there is none."""

    def body(self, message: Message) -> bytes | None:
        """The shortest difference by which a message can be said; None when there is none."""
