"""SM2 signatures judged in batches by the kernel of ``sm2_kernel.h``. The meaning of each name stands in ``_verify.pyi``.

A key's table is made when its first signature arrives and kept for the next; the table that was not used for longest
makes room. A table in use by a batch outlives its place in the cache.
"""

import logging
from collections import OrderedDict

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

from fengshou.codecs._sm2 cimport POINT_BYTES, SCALAR_BYTES, SIGNATURE_BYTES, PublicKey
from fengshou.codecs._sm3 cimport DIGEST_BYTES

# 88 KB each. A worker that serves this many terminals at once has 180 MB of tables.
TABLES_MAX_DEFAULT = 2048

cdef object tables = OrderedDict()  # by point, the one not used for longest first
cdef Py_ssize_t tables_max = TABLES_MAX_DEFAULT

# One working memory is kept from batch to batch; a second thread that verifies meanwhile brings its own.
cdef void *spare = NULL

if not sm2_kernel_init():
    raise ImportError("no memory for the generator's table")
if sm2_lanes_refused():
    logging.getLogger(__name__).error("AVX-512 IFMA fails its self-test on this processor; verifying without it")

cdef dict PATHS = {"portable": SM2_PORTABLE, "mulx": SM2_MULX, "lanes-in-c": SM2_LANES_IN_C, "lanes": SM2_LANES}
assert list(PATHS.values()) == list(range(SM2_PATHS))


cdef class Table:
    def __cinit__(self, bytes point not None):
        cdef const uint8_t *xy = <const uint8_t *>PyBytes_AS_STRING(point) + 1
        cdef bint made
        assert len(point) == POINT_BYTES
        self.data = sm2_table_new()
        if self.data == NULL:
            raise MemoryError
        with nogil:
            made = sm2_table_build(self.data, xy)
        if not made:  # a PublicKey is on the curve, so only memory can be short
            raise MemoryError

    def __dealloc__(self):
        sm2_table_free(self.data)


cdef Table table_of(bytes point):
    cdef Table table = tables.get(point)
    if table is None:
        table = Table(point)
        tables[point] = table
        make_room(tables_max)
    else:
        tables.move_to_end(point)
    return table


cdef int make_room(Py_ssize_t most) except -1:
    while len(tables) > most:
        tables.popitem(last=False)
    return 0


def verify_batch(items):
    # Tuples and tables are kept while the GIL is free, whatever happens to the caller's list and to the cache.
    cdef list kept = [tuple(item) for item in items]
    cdef list in_use = []
    cdef list verdicts = [False] * len(kept)
    cdef list judged = []
    cdef Py_ssize_t index, count = 0
    cdef PublicKey key
    cdef bytes digest, signature
    cdef Table table
    cdef sm2_case *cases = <sm2_case *>malloc((len(kept) or 1) * (sizeof(sm2_case) + 1))
    if cases == NULL:
        raise MemoryError
    cdef uint8_t *results = <uint8_t *>(cases + (len(kept) or 1))
    try:
        for index in range(len(kept)):
            key, digest, signature = kept[index]
            if key is None or digest is None or signature is None:
                raise TypeError("an item is a key, a digest and a signature")
            if len(digest) != DIGEST_BYTES or len(signature) != SIGNATURE_BYTES:
                continue
            table = table_of(key.point)
            in_use.append(table)
            judged.append(index)
            cases[count].key = table.data
            cases[count].e = <const uint8_t *>PyBytes_AS_STRING(digest)
            cases[count].r = <const uint8_t *>PyBytes_AS_STRING(signature)
            cases[count].s = cases[count].r + SCALAR_BYTES
            count += 1
        if count:
            judge(cases, count, results)
        for index in range(count):
            verdicts[judged[index]] = results[index] == 1
        return verdicts
    finally:
        free(cases)


cdef int judge(const sm2_case *cases, Py_ssize_t count, uint8_t *results) except -1:
    global spare
    cdef void *scratch = spare
    spare = NULL
    if scratch == NULL:
        scratch = sm2_scratch_new()
        if scratch == NULL:
            raise MemoryError
    with nogil:
        sm2_verify(cases, count, results, scratch)
    if spare == NULL:
        spare = scratch
    else:
        free(scratch)
    return 0


def keep_tables(Py_ssize_t most):
    global tables_max
    if most < 1:
        raise ValueError("at least one table is kept")
    tables_max = most
    make_room(most)


def tables_kept():
    return len(tables)


def paths():
    return [name for name, path in PATHS.items() if sm2_can_take(path)]


def path_taken():
    return list(PATHS)[sm2_taken()]


def take_path(str name not None):
    if name not in paths():
        raise ValueError(f"this processor has no path {name!r}")
    sm2_take(PATHS[name])
