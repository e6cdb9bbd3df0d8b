# cython: boundscheck=False, wraparound=False, cdivision=True
"""Filling Bloom filters in pages, the compiled twin of ``fengshou.protocol.bloom``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef enum:
    PAGE_BYTES = 4080
    PAGE_BITS = PAGE_BYTES * 8
    SLOT_BITS = 15
    SLOT_MASK = (1 << SLOT_BITS) - 1


cdef extern from *:
    """
    #define FNV_BASE 0xCBF29CE484222325ULL
    #define FNV_PRIME 0x100000001B3ULL
    #define MIX_ONE 0xFF51AFD7ED558CCDULL
    #define MIX_TWO 0xC4CEB9FE1A85EC53ULL
    #define GOLDEN 0x9E3779B97F4A7C15ULL
    """
    const uint64_t FNV_BASE, FNV_PRIME, MIX_ONE, MIX_TWO, GOLDEN


cdef inline uint64_t eat(uint64_t word, const uint8_t *data, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at
    for at in range(size):
        word = (word ^ data[at]) * FNV_PRIME
    return word


cdef inline uint64_t finalised(uint64_t word) noexcept nogil:
    word = (word ^ (word >> 33)) * MIX_ONE
    word = (word ^ (word >> 33)) * MIX_TWO
    return word ^ (word >> 33)


cdef inline void set_bit(uint8_t *page, uint64_t slot) noexcept nogil:
    cdef uint64_t bit = ((slot & SLOT_MASK) * PAGE_BITS) >> SLOT_BITS
    page[bit >> 3] |= 1 << (bit & 7)


cdef class Bloom:
    cdef uint8_t *bits
    cdef uint32_t count

    def __cinit__(self, uint32_t pages):
        if not pages:
            raise ValueError("a filter has a page at least")
        self.bits = <uint8_t *>calloc(pages, PAGE_BYTES)
        if self.bits == NULL:
            raise MemoryError
        self.count = pages

    def __dealloc__(self):
        free(self.bits)

    cdef void mark(self, uint64_t word) noexcept nogil:
        cdef uint64_t first = finalised(word)
        cdef uint64_t second = finalised(first + GOLDEN)
        cdef uint8_t *page = self.bits + (((first >> 32) * self.count) >> 32) * PAGE_BYTES
        set_bit(page, first)
        set_bit(page, first >> SLOT_BITS)
        set_bit(page, second)
        set_bit(page, second >> SLOT_BITS)
        set_bit(page, second >> (2 * SLOT_BITS))
        set_bit(page, second >> (3 * SLOT_BITS))

    def add_column(
        self, uint8_t column, bytes data not None, Py_ssize_t begin, Py_ssize_t width, Py_ssize_t stride,
        Py_ssize_t count,
    ):
        cdef const uint8_t *bytes_of = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef uint64_t base = eat(FNV_BASE, &column, 1)
        cdef Py_ssize_t index
        if count <= 0:
            return
        if begin < 0 or width < 0 or stride < 0 or begin + (count - 1) * stride + width > len(data):
            raise ValueError("values outside of the data")
        with nogil:
            for index in range(count):
                self.mark(eat(base, bytes_of + begin + index * stride, width))

    def add_pairs(
        self, uint8_t column, bytes data not None, Py_ssize_t left, Py_ssize_t left_width, Py_ssize_t right,
        Py_ssize_t right_width, Py_ssize_t count,
    ):
        cdef const uint8_t *bytes_of = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef uint64_t base = eat(FNV_BASE, &column, 1)
        cdef uint64_t word
        cdef Py_ssize_t index
        if count <= 0:
            return
        if min(left, left_width, right, right_width) < 0 or max(
            left + count * left_width, right + count * right_width
        ) > len(data):
            raise ValueError("values outside of the data")
        with nogil:
            for index in range(count):
                word = eat(base, bytes_of + left + index * left_width, left_width)
                self.mark(eat(word, bytes_of + right + index * right_width, right_width))

    def pages(self):
        cdef uint32_t page
        found = []
        for page in range(self.count):
            found.append(PyBytes_FromStringAndSize(<char *>self.bits + page * PAGE_BYTES, PAGE_BYTES))
        return found
