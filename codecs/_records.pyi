"""Records of the journal to bytes and columns, a commit's at once.

The twin of ``fengshou.protocol.record.Record.to_bytes`` and of ``fengshou.switch.journal.columns.pack_columns``, which
say what the bytes are. Both raise ValueError, OverflowError or TypeError for a record that cannot be written.
"""

from fengshou.protocol.record import Record

def pack_records(records: list[Record]) -> list[bytes]:
    """The bytes of each record."""

def pack_row(records: list[Record]) -> bytes:
    """The row of these records, one at least, without its tags."""
