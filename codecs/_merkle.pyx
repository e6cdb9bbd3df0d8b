"""Merkle trees of RFC 6962 section 2.1 over SM3, the compiled twin of ``fengshou.protocol.merkle``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fengshou.codecs._sm3 cimport DIGEST_BYTES, SM3_LEAF, SM3_NODE, sm3_into, sm3_lanes, sm3_text


cdef enum:
    NODE_BYTES = 1 + 2 * DIGEST_BYTES
    # A tree of 2**63 leaves has a path of 63 hashes.
    LEVELS_MAX = 64


cdef int hash_leaf(uint8_t *out, const uint8_t *record, size_t size) noexcept nogil:
    cdef int failed
    cdef uint8_t *text = <uint8_t *>malloc(1 + size)
    if text == NULL:
        return -1
    text[0] = 0
    memcpy(text + 1, record, size)
    failed = sm3_into(out, text, 1 + size)
    free(text)
    return failed


cdef int hash_node(uint8_t *out, const uint8_t *left, const uint8_t *right) noexcept nogil:
    cdef uint8_t text[NODE_BYTES]
    text[0] = 1
    memcpy(text + 1, left, DIGEST_BYTES)
    memcpy(text + 1 + DIGEST_BYTES, right, DIGEST_BYTES)
    return sm3_into(out, text, NODE_BYTES)


cdef int climb(uint8_t *nodes, size_t count, size_t index, uint8_t *path, sm3_text *pairs) noexcept nogil:
    """Fold a level of hashes to its root, in place at ``nodes[0]``.

    A last hash without a sibling rises as it is, which yields the tree of the RFC. Writes the siblings on the way up
    from ``index`` to ``path``; returns how many there are. ``pairs`` is room for half a level.
    """
    cdef int siblings = 0
    cdef size_t pair
    while count > 1:
        if index ^ 1 < count:
            memcpy(path + siblings * DIGEST_BYTES, nodes + (index ^ 1) * DIGEST_BYTES, DIGEST_BYTES)
            siblings += 1
        for pair in range(count // 2):
            pairs[pair].data = nodes + 2 * pair * DIGEST_BYTES
            pairs[pair].size = 2 * DIGEST_BYTES
        sm3_lanes(nodes, pairs, count // 2, SM3_NODE)
        if count & 1:
            memcpy(nodes + (count // 2) * DIGEST_BYTES, nodes + (count - 1) * DIGEST_BYTES, DIGEST_BYTES)
        index //= 2
        count = (count + 1) // 2
    return siblings


cdef tuple root_and_path(leaves, index):
    # The tuple holds every record while the GIL is free, whatever happens to the caller's list.
    cdef tuple kept = tuple(leaves)
    cdef size_t count = len(kept), place, leaf
    cdef bytes record
    cdef uint8_t path[LEVELS_MAX * DIGEST_BYTES]
    cdef int siblings
    if not 0 <= index < count:
        raise IndexError("no such leaf")
    leaf = index
    cdef sm3_text *texts = <sm3_text *>malloc(count * sizeof(sm3_text))
    cdef uint8_t *nodes = <uint8_t *>malloc(count * DIGEST_BYTES)
    try:
        if texts == NULL or nodes == NULL:
            raise MemoryError
        for place in range(count):
            record = kept[place]
            if record is None:
                raise TypeError("a leaf is bytes")
            texts[place].data = <const uint8_t *>PyBytes_AS_STRING(record)
            texts[place].size = len(record)
        with nogil:
            sm3_lanes(nodes, texts, count, SM3_LEAF)
            siblings = climb(nodes, count, leaf, path, texts)
        return (
            PyBytes_FromStringAndSize(<char *>nodes, DIGEST_BYTES),
            PyBytes_FromStringAndSize(<char *>path, siblings * DIGEST_BYTES),
        )
    finally:
        free(texts)
        free(nodes)


def merkle_root(leaves):
    cdef uint8_t out[DIGEST_BYTES]
    if len(leaves):
        return root_and_path(leaves, 0)[0]
    if sm3_into(out, b"", 0):
        raise MemoryError
    return PyBytes_FromStringAndSize(<char *>out, DIGEST_BYTES)


def merkle_path(leaves, index):
    return root_and_path(leaves, index)[1]


def merkle_root_from_path(bytes leaf not None, index, count, bytes path not None):
    cdef size_t place, width = count
    cdef uint8_t node[DIGEST_BYTES]
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(path)
    cdef size_t left = len(path)
    cdef int failed
    if not 0 <= index < count:
        raise ValueError("no such leaf")
    place = index
    failed = hash_leaf(node, <const uint8_t *>PyBytes_AS_STRING(leaf), len(leaf))
    while width > 1:
        if place ^ 1 < width:
            if left < DIGEST_BYTES:
                raise ValueError("the audit path is too short")
            failed |= hash_node(node, at, node) if place & 1 else hash_node(node, node, at)
            at += DIGEST_BYTES
            left -= DIGEST_BYTES
        place //= 2
        width = (width + 1) // 2
    if left:
        raise ValueError("the audit path is too long")
    if failed:
        raise MemoryError
    return PyBytes_FromStringAndSize(<char *>node, DIGEST_BYTES)
