# Bytes in and bytes out, for every codec here. A Reader's ``take`` and a Writer's ``room`` are the only pointer arithmetic.

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy


cdef enum:
    VARINT_BYTES_MAX = 9  # limits.VARINT_BYTES_MAX
    LOCAL_BYTES = 1024  # what a Writer holds before it takes memory: every message but a receipt's answer

# protocol/errors.py, WireError; NONE is "nothing wrong".
cdef enum Error:
    NONE
    FRAME_TOO_LONG
    FRAME_TOO_SHORT
    LENGTH_MALFORMED
    UNKNOWN_VERSION
    UNKNOWN_TEMPLATE
    UNKNOWN_FLAG
    UNKNOWN_FIELD
    FORM_UNSUPPORTED
    TRUNCATED
    TRAILING_BYTES
    VARINT_MALFORMED
    VALUE_OUT_OF_RANGE
    TEXT_MALFORMED
    SIGNATURE_MISSING
    SIGNATURE_UNEXPECTED
    BASE_LOST


# ---- in

cdef struct Reader:
    const uint8_t *at
    const uint8_t *end


cdef inline const uint8_t *take(Reader *reader, size_t count) noexcept nogil:
    """The next ``count`` bytes, or NULL when fewer are left. Nothing else moves through received bytes."""
    cdef const uint8_t *piece = reader.at
    if <size_t>(reader.end - piece) < count:
        return NULL
    reader.at = piece + count
    return piece


cdef inline Error read_varint(Reader *reader, uint64_t *value) noexcept nogil:
    cdef const uint8_t *byte
    cdef int count
    value[0] = 0
    for count in range(VARINT_BYTES_MAX):
        byte = take(reader, 1)
        if byte == NULL:
            return TRUNCATED
        value[0] |= <uint64_t>(byte[0] & 0x7F) << (7 * count)
        if byte[0] < 0x80:
            return VARINT_MALFORMED if byte[0] == 0 and count > 0 else NONE
    return VARINT_MALFORMED


# ---- out

cdef struct Writer:
    uint8_t *start
    uint8_t *at
    uint8_t *end
    uint8_t local[LOCAL_BYTES]


cdef inline void open_writer(Writer *writer) noexcept:
    writer.start = writer.at = writer.local
    writer.end = writer.local + LOCAL_BYTES


cdef inline void close_writer(Writer *writer) noexcept:
    if writer.start != writer.local:
        free(writer.start)


cdef inline int grow(Writer *writer, size_t count) except -1:
    cdef size_t used = writer.at - writer.start
    cdef size_t size = 2 * (used + count)
    cdef uint8_t *memory = <uint8_t *>malloc(size)
    if memory == NULL:
        raise MemoryError
    memcpy(memory, writer.start, used)
    close_writer(writer)
    writer.start = memory
    writer.at = memory + used
    writer.end = memory + size
    return 0


cdef inline uint8_t *room(Writer *writer, size_t count) except NULL:
    """The place for the next ``count`` bytes. Nothing else moves through bytes that are being written."""
    if <size_t>(writer.end - writer.at) < count:
        grow(writer, count)
    writer.at += count
    return writer.at - count


cdef inline int write_bytes(Writer *writer, const uint8_t *data, size_t size) except -1:
    memcpy(room(writer, size), data, size)
    return 0


cdef inline int write_varint(Writer *writer, uint64_t value) except -1:
    while value > 0x7F:
        room(writer, 1)[0] = <uint8_t>(value | 0x80)
        value >>= 7
    room(writer, 1)[0] = <uint8_t>value
    return 0


cdef inline int write_big_endian(Writer *writer, uint64_t value, int size) except -1:
    cdef uint8_t *out = room(writer, size)
    cdef int index
    for index in range(size):
        out[index] = <uint8_t>(value >> (8 * (size - 1 - index)))
    return 0
