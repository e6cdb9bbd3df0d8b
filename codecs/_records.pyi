"""Records of the journal to bytes, a commit's at once: the twin of ``fengshou.protocol.record.Record.to_bytes``."""

from collections.abc import Sequence

from fengshou.protocol.record import Record

def pack_records(records: Sequence[Record]) -> list[bytes]:
    """The bytes of each record. Raises ValueError, OverflowError or TypeError for one that cannot be written."""
