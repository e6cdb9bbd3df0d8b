"""What can be wrong with bytes from outside. One exception for all: the caller answers or closes, never guesses."""

from enum import Enum

from fengshou.protocol.codes import FORMAT_ERROR, RESYNC


class WireError(Enum):
    """Every way in which received bytes can break the grammar. The value is the name that documents and peers see."""

    FRAME_TOO_LONG = "frame-too-long"
    FRAME_TOO_SHORT = "frame-too-short"
    LENGTH_MALFORMED = "length-malformed"
    UNKNOWN_VERSION = "unknown-version"
    UNKNOWN_TEMPLATE = "unknown-template"
    UNKNOWN_FLAG = "unknown-flag"
    UNKNOWN_FIELD = "unknown-field"
    FORM_UNSUPPORTED = "form-unsupported"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing-bytes"
    VARINT_MALFORMED = "varint-malformed"
    VALUE_OUT_OF_RANGE = "value-out-of-range"
    TEXT_MALFORMED = "text-malformed"
    SIGNATURE_MISSING = "signature-missing"
    SIGNATURE_UNEXPECTED = "signature-unexpected"
    BASE_LOST = "base-lost"


class UntrustedBytesError(Exception):
    """Bytes of a peer break the grammar.

    ``error`` names how, ``field`` is the element path (for example ``DE 48.4``) or empty. The text never holds a value.
    """

    def __init__(self, error: WireError, field: str = "") -> None:
        super().__init__(f"{error.value}{f' at {field}' if field else ''}")
        self.error = error
        self.field = field

    @property
    def code(self) -> str:
        """The response code: R0 asks for the whole message, 30 is any other error of format."""
        return RESYNC if self.error is WireError.BASE_LOST else FORMAT_ERROR
