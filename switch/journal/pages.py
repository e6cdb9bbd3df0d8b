"""Reads the pages of an LMDB file without trusting one of them.

LMDB maps its file and follows what stands there: a file that lost writes can end the process. This reader checks every
number that it follows, reads with plain reads, and names the page that is wrong. The switch asks it before it opens its
journal, ``journal repair`` reads by nothing else. Format: lmdb.h and mdb.c of LMDB 0.9 (data version 1), 64-bit.

    page    number (8) | (2) | flags (2) | lower (2) upper (2), or the length of an overflow in pages (4) | node offsets
    node    low (2) high (2) flags (2) key length (2) | key | value; in a branch low, high and flags are a page number
    meta    page head | magic (4) version (4) address (8) map size (8) | free tree (48) main tree (48) | last page (8)
            transaction (8)
    tree    (4) flags (2) depth (2) branch (8) leaf (8) overflow (8) entries (8) | root (8)
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEAD = struct.Struct("<QHHHH")
_META = struct.Struct("<IIQQ48s48sQQ")
_TREE = struct.Struct("<IHHQQQQQ")
_NODE = struct.Struct("<HHHH")
_OFFSET = struct.Struct("<H")
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_BIG = 0x01  # a node whose value stands on overflow pages
_INTEGER_KEYS = 0x08  # a tree's flag
_NO_PAGE = (1 << 64) - 1
_DEPTH_MAX = 32


class PageDamaged(Exception):
    """A page is not what its place in the file says. ``page`` is its number."""

    def __init__(self, page: int, why: str) -> None:
        super().__init__(f"page {page} (byte {page * 4096}): {why}")
        self.page = page


@dataclass(frozen=True, slots=True)
class _Meta:
    last_page: int
    transaction: int
    free: "_Tree"
    main: "_Tree"


@dataclass(frozen=True, slots=True)
class _Tree:
    little_endian: bool  # its keys are integers of the machine
    depth: int
    entries: int
    root: int


class Pages:
    """One file, as its newest whole meta page has it."""

    def __init__(self, path: Path, *, whole: bool = True) -> None:
        """Raises OSError, PageDamaged: no meta page is whole; or, where the file must be ``whole``, it ends before the
        last page in use."""
        self._file = path.open("rb")
        try:
            self._size = 4096
            self._used: bytearray | None = None
            metas = [meta for meta in (self._meta(page) for page in (0, 1)) if meta is not None]
            if not metas:
                raise PageDamaged(0, "neither meta page is one of LMDB's")
            # LMDB itself needs both; transactions write them in turn, and a new file has two of transaction 0.
            self.both_metas = len(metas) == 2
            self.in_turn = self.both_metas and metas[0].transaction - metas[1].transaction in (
                -1, 1, 0 if not metas[0].transaction else 1,
            )  # fmt: skip
            newest = max(metas, key=lambda meta: meta.transaction)
            self._last_page, self.transaction = newest.last_page, newest.transaction
            self._free, self._main = newest.free, newest.main
            length = os.fstat(self._file.fileno()).st_size
            if whole and length < (self._last_page + 1) * self._size:
                raise PageDamaged(self._last_page, f"the file ends at byte {length}, before the last page in use")
        except BaseException:
            self._file.close()
            raise

    @cached_property
    def _tables(self) -> dict[bytes, _Tree]:
        found = dict(self._walk(self._main))
        if len(found) != self._main.entries or any(len(value) != _TREE.size for value in found.values()):
            raise PageDamaged(self._main.root, "not the list of tables that the meta page promises")
        return {name: _tree(value) for name, value in found.items()}

    def __enter__(self) -> "Pages":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key. Raises PageDamaged when the way to it is."""
        tree = self._tables.get(table.encode())
        if tree is None or tree.root == _NO_PAGE:
            return None
        page = tree.root
        for _ in range(_DEPTH_MAX):
            data = self._page(page)
            branch = bool(_flags(data) & _BRANCH)
            at, name = self._last_up_to(page, data, key, 1 if branch else 0)
            if not branch:
                return self._value(page, data, at) if name == key else None
            page = self._child(data, at)
        raise PageDamaged(page, "the tree is too deep")

    def entries(self, table: str) -> int:
        """How many the table says that it has."""
        tree = self._tables.get(table.encode())
        return tree.entries if tree else 0

    def backwards(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from the last one on. Raises PageDamaged."""
        return self._walk(self._tables.get(table.encode()), backwards=True)

    def walk(self, table: str, damaged: list[PageDamaged] | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in order. Damage is raised, or, given a list, noted there and passed over."""
        return self._walk(self._tables.get(table.encode()), damaged=damaged)

    def count(self, table: str) -> int:
        """The rows of a table by its pages, whose heads are read and no more. Raises PageDamaged."""
        tree = self._tables.get(table.encode())
        if tree is None or tree.root == _NO_PAGE:
            return 0
        rows, waiting = 0, [(tree.root, 1)]
        while waiting:
            page, depth = waiting.pop()
            data = self._page(page)
            if bool(_flags(data) & _BRANCH) == (depth == tree.depth):
                raise PageDamaged(page, "a page of another level")
            if depth == tree.depth:
                rows += _nodes_of(data)
            else:
                waiting += [(self._child(data, at), depth + 1) for at, _ in self._nodes(page, data)]
        return rows

    def proven(self) -> Iterator[PageDamaged]:
        """Every damage to the file's structure: each page of each table is read, and none serves twice.

        What values say is for others. A file that is written meanwhile looks damaged where it is not.
        """
        if not self.both_metas or not self.in_turn:
            yield PageDamaged(0, "the two meta pages are not of two transactions in a row")
        damaged: list[PageDamaged] = []
        try:
            tables = self._tables
            self._used = bytearray(self._last_page + 1)
            for _ in self._walk(self._main):
                pass
            for table in tables:
                rows = sum(1 for _ in self.walk(table.decode(), damaged))
                if rows != self.entries(table.decode()) and not damaged:
                    yield PageDamaged(tables[table].root, f"table {table.decode()} has not the rows that it says")
            for page in self._free_pages(damaged):
                self._note(page, 1)  # to be written next: it must serve nobody
        except (PageDamaged, UnicodeDecodeError, struct.error) as error:
            yield error if isinstance(error, PageDamaged) else PageDamaged(self._main.root, "no list of tables")
        finally:
            self._used = None
        yield from damaged

    def _free_pages(self, damaged: list[PageDamaged]) -> Iterator[int]:
        """The pages that no table uses, a list of them for each transaction that gave some up."""
        for _, value in self._walk(self._free, damaged=damaged):
            count, *pages = struct.unpack(f"<{len(value) // 8}Q", value)
            yield from pages[:count]

    def _note(self, page: int, count: int) -> None:
        """Pages are in use, which they may be once."""
        if self._used is None:
            return
        if not 1 < page <= self._last_page + 1 - count or any(self._used[page : page + count]):
            raise PageDamaged(page, "is used twice, or is no page of this file")
        self._used[page : page + count] = b"\1" * count

    # -- trees -----------------------------------------------------------------------------------------------------

    def _walk(
        self, tree: _Tree | None, *, backwards: bool = False, damaged: list[PageDamaged] | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        if tree is None or tree.root == _NO_PAGE:
            return
        waiting = [(tree.root, 1)]
        while waiting:
            page, depth = waiting.pop()
            try:
                data = self._page(page)
                if bool(_flags(data) & _BRANCH) == (depth == tree.depth):
                    raise PageDamaged(page, "a page of another level")
                nodes = list(self._nodes(page, data, little_endian=tree.little_endian))
                if _flags(data) & _BRANCH:
                    children = [(self._child(data, at), depth + 1) for at, _ in nodes]
                    waiting += children if backwards else reversed(children)
                    continue
            except PageDamaged as error:
                if damaged is None:
                    raise
                damaged.append(error)
                continue
            for at, key in reversed(nodes) if backwards else nodes:
                try:
                    value = self._value(page, data, at)
                except PageDamaged as error:
                    if damaged is None:
                        raise
                    damaged.append(error)
                else:
                    yield key, value

    # -- pages -----------------------------------------------------------------------------------------------------

    def _meta(self, page: int) -> _Meta | None:
        """What a meta page says; None when it is not one."""
        data = os.pread(self._file.fileno(), 4096, page * self._size)
        if len(data) < _HEAD.size + _META.size or not _flags(data) & _META_PAGE:
            return None
        magic, version, _, _, free, main, last_page, transaction = _META.unpack_from(data, _HEAD.size)
        size = _TREE.unpack(free)[0]  # the free tree's first field is the page size
        if magic != _MAGIC or version != _VERSION or size != self._size:
            return None
        return _Meta(last_page, transaction, _tree(free), _tree(main))

    def _page(self, page: int) -> bytes:
        if not 1 < page <= self._last_page:
            raise PageDamaged(page, "no page of this file")
        self._note(page, 1)
        data = os.pread(self._file.fileno(), self._size, page * self._size)
        if len(data) != self._size:
            raise PageDamaged(page, "cannot be read whole")
        number, _, flags, lower, upper = _HEAD.unpack_from(data)
        if number != page or flags & 0x0F not in (_BRANCH, _LEAF):
            raise PageDamaged(page, f"says that it is page {number} of kind {flags:#x}")
        if not _HEAD.size <= lower <= upper <= self._size or lower % 2:
            raise PageDamaged(page, "its bounds are wrong")
        return data

    def _nodes(self, page: int, data: bytes, *, little_endian: bool = False) -> Iterator[tuple[int, bytes]]:
        """Offset and key of each node, in ascending order."""
        before: bytes | None = None
        for index in range(_nodes_of(data)):
            at, key = self._node(page, data, index)
            rank = key[::-1] if little_endian else key
            first_of_branch = not index and _flags(data) & _BRANCH
            if not first_of_branch and rank <= (before or b""):  # no key is empty
                raise PageDamaged(page, "its keys are not in order")
            before = None if first_of_branch else rank
            yield at, key

    def _node(self, page: int, data: bytes, index: int) -> tuple[int, bytes]:
        """Offset and key of one node."""
        (at,) = _OFFSET.unpack_from(data, _HEAD.size + index * _OFFSET.size)
        if not _HEAD.unpack_from(data)[4] <= at <= self._size - _NODE.size:
            raise PageDamaged(page, "a node outside of the page")
        begin = at + _NODE.size
        return at, data[begin : begin + _NODE.unpack_from(data, at)[3]]

    def _last_up_to(self, page: int, data: bytes, key: bytes, first: int) -> tuple[int, bytes]:
        """Offset and key of the last node that is not above ``key``; of the first one when all are.

        ``first`` is 1 in a branch, whose first key is not used: it stands for everything below the second.
        """
        low, high = first, _nodes_of(data)
        if not high:
            raise PageDamaged(page, "a page in use without a node")
        while low < high:
            middle = (low + high) // 2
            if self._node(page, data, middle)[1] <= key:
                low = middle + 1
            else:
                high = middle
        return self._node(page, data, max(low - 1, 0))

    @staticmethod
    def _child(data: bytes, at: int) -> int:
        low, high, flags, _ = _NODE.unpack_from(data, at)
        return int(low | high << 16 | flags << 32)

    def _value(self, page: int, data: bytes, at: int) -> bytes:
        low, high, flags, key = _NODE.unpack_from(data, at)
        size, begin = low | high << 16, at + _NODE.size + key
        if not flags & _BIG:
            if begin + size > self._size:
                raise PageDamaged(page, "a value that leaves the page")
            return data[begin : begin + size]
        if begin + 8 > self._size:
            raise PageDamaged(page, "a value that leaves the page")
        return self._overflow(int.from_bytes(data[begin : begin + 8], "little"), size)

    def _overflow(self, page: int, size: int) -> bytes:
        count = (_HEAD.size + size + self._size - 1) // self._size
        if not 1 < page <= self._last_page + 1 - count:
            raise PageDamaged(page, "no page of this file")
        self._note(page, count)
        data = os.pread(self._file.fileno(), count * self._size, page * self._size)
        number, _, flags, low, high = _HEAD.unpack_from(data)
        if number != page or flags & 0x0F != _OVERFLOW or (low | high << 16) != count:
            raise PageDamaged(page, "not the overflow that it should be")
        return data[_HEAD.size : _HEAD.size + size]


def _nodes_of(data: bytes) -> int:
    """How many nodes a page has."""
    return int(_HEAD.unpack_from(data)[3] - _HEAD.size) // _OFFSET.size


def _flags(data: bytes) -> int:
    return int(_HEAD.unpack_from(data)[2])


def _tree(data: bytes) -> _Tree:
    _, flags, depth, _, _, _, entries, root = _TREE.unpack(data)
    return _Tree(bool(flags & _INTEGER_KEYS), depth, entries, root)
