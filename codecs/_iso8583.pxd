# Messages of ISO 8583:1987 hosts. This is the index; the meaning stands in protocol/iso8583.py and _iso8583.pyi.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint64_t

cdef enum:
    MESSAGE_BYTES = 8192  # protocol.iso8583.MESSAGE_BYTES_MAX; asserted at import
    ELEMENTS = 129

cdef enum Kind:
    ABSENT
    N
    Z
    AN
    ANS
    B

cdef enum LengthPacking:
    LENGTH_BCD
    LENGTH_ASCII
    LENGTH_BINARY

cdef enum Pad:
    LEADING_ZERO
    TRAILING_ZERO
    TRAILING_F

cdef enum:
    MTI_DIGITS = 4
    MAC_BYTES = 8
    MAC = 64
    MAC_2 = 128
    SECURITY_CONTROL = 53
    CONTROL_DIGITS = 16

# One element: what its row in protocol.iso8583 says.
cdef struct Plan:
    Kind kind
    uint8_t length_digits  # 0 fixed, 2 LLVAR, 3 LLLVAR
    Pad pad
    uint16_t size

# Bytes of a message, taken from the front. ``take`` is the only pointer arithmetic of decoding.
cdef struct Reader:
    const uint8_t *data
    Py_ssize_t left

# Space for a message, filled from the front. ``give`` is the only pointer arithmetic of encoding.
cdef struct Writer:
    uint8_t *data
    Py_ssize_t left

# The values of a message by element, borrowed from who gave them. The bits of the two halves of the bitmap say which.
cdef struct Table:
    PyObject *mti
    PyObject *values[ELEMENTS]
    uint64_t first
    uint64_t second

cdef const uint8_t *take(Reader *reader, Py_ssize_t count, int number) except NULL
cdef uint8_t *give(Writer *writer, Py_ssize_t count, int number) except NULL

cdef class Iso8583Codec:
    cdef Plan plans[ELEMENTS]
    cdef bint mti_packed
    cdef bint bitmap_packed
    cdef bint numbers_packed
    cdef bint gb18030
    cdef LengthPacking lengths

    cdef int collect(self, dict items, Table *table) except -1
    cdef int put(self, Table *table, int number, object value) except -1
    cdef object unknown(self, dict items)
    cdef Py_ssize_t write(self, const Table *table, uint8_t *out) except -1
    cdef int write_mti(self, Writer *writer, object value) except -1
    cdef int write_bitmap(self, Writer *writer, uint64_t first, uint64_t second) except -1
    cdef int write_bitmap_half(self, Writer *writer, uint64_t bits) except -1
    cdef int write_field(self, Writer *writer, int number, object value) except -1
    cdef int write_text(self, Writer *writer, int number, object value) except -1
    cdef int write_content(self, Writer *writer, int number, const uint8_t *content, Py_ssize_t count) except -1
    cdef int write_digits(self, Writer *writer, int number, const uint8_t *digits, Py_ssize_t count) except -1
    cdef int write_length(self, Writer *writer, int number, Py_ssize_t count) except -1

    cdef dict read(self, bytes message)
    cdef str read_mti(self, Reader *reader)
    cdef int read_bitmap_half(self, Reader *reader, uint64_t *bits) except -1
    cdef object read_field(self, Reader *reader, int number)
    cdef str read_digits(self, Reader *reader, int number, Py_ssize_t count)
    cdef Py_ssize_t read_length(self, Reader *reader, int number) except -1
