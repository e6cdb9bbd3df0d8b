"""Merkle trees of RFC 6962 section 2.1: one hash for many records, and a short proof that a record is among them.

::

    leaf = H(00 || record)        node = H(01 || left || right)

Two hashes make a node; a last one without a sibling rises to the next level as it is. The two prefixes keep a record
from posing as a node. This is the readable twin of ``codecs.merkle_*``, which use SM3.
"""

from collections.abc import Callable, Sequence

Hash = Callable[[bytes], bytes]


def merkle_root(digest: Hash, leaves: Sequence[bytes]) -> bytes:
    """The hash over all records in their order; that of no records is the hash of nothing."""
    if not leaves:
        return digest(b"")
    level = [digest(b"\x00" + record) for record in leaves]
    while len(level) > 1:
        level = _above(digest, level)
    return level[0]


def merkle_path(digest: Hash, leaves: Sequence[bytes], index: int) -> bytes:
    """The siblings on the way from record ``index`` to the root, one after the other. Raises IndexError."""
    if not 0 <= index < len(leaves):
        raise IndexError("no such leaf")
    path = b""
    level = [digest(b"\x00" + record) for record in leaves]
    while len(level) > 1:
        if index ^ 1 < len(level):
            path += level[index ^ 1]
        level = _above(digest, level)
        index //= 2
    return path


def merkle_root_from_path(digest: Hash, leaf: bytes, index: int, count: int, path: bytes) -> bytes:
    """The root that a proof leads to, for the caller to compare with a signed one.

    ``leaf`` is the record itself, ``count`` the number of records. Raises ValueError when the index is outside the tree
    or the path has not the length that index and count ask for.
    """
    if not 0 <= index < count:
        raise ValueError("no such leaf")
    node = digest(b"\x00" + leaf)
    width = len(node)
    while count > 1:
        if index ^ 1 < count:
            sibling, path = path[:width], path[width:]
            if len(sibling) < width:
                raise ValueError("the audit path is too short")
            node = digest(b"\x01" + sibling + node) if index & 1 else digest(b"\x01" + node + sibling)
        index //= 2
        count = (count + 1) // 2
    if path:
        raise ValueError("the audit path is too long")
    return node


def _above(digest: Hash, level: list[bytes]) -> list[bytes]:
    pairs = [digest(b"\x01" + level[at] + level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return pairs + level[len(level) & ~1 :]
