# SM3 (GB/T 32905). This is the index; the meaning stands in _sm3.pyi.

from libc.stdint cimport uint8_t

cdef enum:
    DIGEST_BYTES = 32

# One SM3 over one piece of memory. Needs no GIL; fails (-1) only when memory is gone.
cdef int sm3_into(uint8_t *out, const uint8_t *data, size_t size) noexcept nogil
