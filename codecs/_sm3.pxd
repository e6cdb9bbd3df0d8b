# SM3 (GB/T 32905). This is the index; the meaning stands in _sm3.pyi.

from libc.stdint cimport uint8_t

cdef enum:
    DIGEST_BYTES = 32

cdef extern from "sm3_lanes.h":
    ctypedef struct sm3_text:
        const uint8_t *data
        size_t size
    enum:
        SM3_PLAIN
        SM3_LEAF
        SM3_NODE
    # Digests of many texts side by side; what each parameter means stands in the header.
    void sm3_lanes(uint8_t *out, const sm3_text *texts, size_t count, int before) noexcept nogil

# One SM3 over one piece of memory. Needs no GIL; fails (-1) only when memory is gone.
cdef int sm3_into(uint8_t *out, const uint8_t *data, size_t size) noexcept nogil
