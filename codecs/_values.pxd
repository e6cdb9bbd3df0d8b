# Values of the kinds of protocol/elements.py: from the wire, to the wire, and to the form that is signed.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_Check, PyLong_CheckExact, PyLong_FromLong
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8, PyUnicode_GET_LENGTH
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy

from fengshou.codecs._wire cimport *

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_ASCII(object text)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    bint PyBool_Check(object value)
    # Of an integer, which is all it is asked for here, it cannot fail.
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) noexcept

cdef extern from *:
    # Cython's own names for an integer of one digit, on every Python that it supports.
    bint __Pyx_PyLong_IsCompact(object value)
    Py_ssize_t __Pyx_PyLong_CompactValue(object value)


# protocol/elements.py, Kind
cdef enum Kind:
    KIND_N
    KIND_Z
    KIND_D
    KIND_AN
    KIND_ANS
    KIND_B
    KIND_BV

# A row of the grammar.
cdef struct Element:
    Kind kind
    uint16_t key
    int64_t maximum  # kinds n and z
    size_t size  # the other kinds
    int privacy  # 1 to 3 for C1 to C3
    PyObject *key_object  # borrowed from the codec

# A value that was found to be of its kind: a number, or bytes that belong to the Python object.
cdef struct Checked:
    int64_t number
    const uint8_t *data
    size_t size


# ---- in


cdef inline object read_digits(Reader *reader, size_t size, Error *error):
    cdef const uint8_t *piece = take(reader, 1)
    if piece == NULL:
        error[0] = TRUNCATED
        return None
    if not 1 <= piece[0] <= size:
        error[0] = VALUE_OUT_OF_RANGE
        return None
    return read_packed_digits(reader, piece[0], error)


cdef inline object read_packed_digits(Reader *reader, size_t count, Error *error):
    """So many digits, two a byte, with a last nibble f behind an odd count."""
    cdef const uint8_t *piece = take(reader, (count + 1) // 2)
    cdef size_t index
    if piece == NULL:
        error[0] = TRUNCATED
        return None
    if not are_packed_digits(piece, count):
        error[0] = TEXT_MALFORMED
        return None
    digits = PyUnicode_New(count, 127)
    cdef uint8_t *out = <uint8_t *>PyUnicode_DATA(digits)
    for index in range(count // 2):
        out[2 * index] = c'0' + (piece[index] >> 4)
        out[2 * index + 1] = c'0' + (piece[index] & 0x0F)
    if count & 1:
        out[count - 1] = c'0' + (piece[count // 2] >> 4)
    return digits


cdef inline bint are_packed_digits(const uint8_t *piece, size_t count) noexcept nogil:
    cdef size_t index
    for index in range(count // 2):
        if piece[index] >> 4 > 9 or piece[index] & 0x0F > 9:
            return False
    return not count & 1 or (piece[count // 2] >> 4 <= 9 and piece[count // 2] & 0x0F == 0x0F)


cdef inline bint is_printable(const uint8_t *piece, size_t size) noexcept nogil:
    cdef size_t index
    for index in range(size):
        if not 0x20 <= piece[index] <= 0x7E:
            return False
    return True


cdef inline object printable(const uint8_t *piece, size_t size, Error *error):
    if not is_printable(piece, size):
        error[0] = TEXT_MALFORMED
        return None
    text = PyUnicode_New(size, 127)
    memcpy(PyUnicode_DATA(text), piece, size)
    return text


cdef inline object read_value(Reader *reader, const Element *element, Error *error):
    """A value of the element's kind; None with ``error`` set when the bytes are not one."""
    cdef uint64_t number
    if element.kind != KIND_N:
        return read_other(reader, element, error)
    error[0] = read_varint(reader, &number)
    if error[0] == NONE and number > <uint64_t>element.maximum:
        error[0] = VALUE_OUT_OF_RANGE
    return PyLong_FromLong(<int64_t>number) if error[0] == NONE else None


cdef inline object read_other(Reader *reader, const Element *element, Error *error):
    cdef uint64_t number
    cdef int64_t signed
    if element.kind == KIND_Z:
        error[0] = read_varint(reader, &number)
        signed = <int64_t>(number >> 1) ^ -<int64_t>(number & 1)
        if error[0] == NONE and not -element.maximum <= signed <= element.maximum:
            error[0] = VALUE_OUT_OF_RANGE
        return PyLong_FromLong(signed) if error[0] == NONE else None
    if element.kind == KIND_D:
        return read_digits(reader, element.size, error)

    number = element.size
    if element.kind == KIND_ANS or element.kind == KIND_BV:
        error[0] = read_varint(reader, &number)
        if error[0] == NONE and number > element.size:
            error[0] = VALUE_OUT_OF_RANGE
        if error[0] != NONE:
            return None
    cdef const uint8_t *piece = take(reader, number)
    if piece == NULL:
        error[0] = TRUNCATED
        return None
    if element.kind == KIND_AN:
        return printable(piece, number, error)
    if element.kind == KIND_ANS:
        try:
            return PyUnicode_DecodeUTF8(<char *>piece, number, NULL)
        except UnicodeDecodeError:
            error[0] = TEXT_MALFORMED
            return None
    return PyBytes_FromStringAndSize(<char *>piece, number)


cdef inline bint skip_value(Reader *reader, const Element *element) noexcept nogil:
    """Pass over a value of the element's kind without looking at it; False when the bytes end."""
    cdef const uint8_t *piece
    cdef uint64_t count = element.size
    if element.kind == KIND_N or element.kind == KIND_Z:
        return read_varint(reader, &count) == NONE
    if element.kind == KIND_D:
        piece = take(reader, 1)
        if piece == NULL:
            return False
        count = (<uint64_t>piece[0] + 1) // 2
    elif element.kind == KIND_ANS or element.kind == KIND_BV:
        if read_varint(reader, &count) != NONE:
            return False
    return take(reader, count) != NULL


# ---- out


cdef inline Error check_number(object value, int64_t minimum, int64_t maximum, int64_t *number) noexcept:
    cdef int overflow = 0
    number[0] = 0
    if PyLong_CheckExact(value) and __Pyx_PyLong_IsCompact(value):
        number[0] = __Pyx_PyLong_CompactValue(value)
    elif PyLong_Check(value) and not PyBool_Check(value):
        number[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
    else:
        return VALUE_OUT_OF_RANGE
    return NONE if overflow == 0 and minimum <= number[0] <= maximum else VALUE_OUT_OF_RANGE


cdef inline Error check_value(const Element *element, object value, Checked *checked) except? TEXT_MALFORMED:
    """Whether the value is one of its kind, and where its number or bytes are."""
    if element.kind == KIND_N:
        return check_number(value, 0, element.maximum, &checked.number)
    return check_other(element, value, checked)


cdef inline Error check_other(const Element *element, object value, Checked *checked) except? TEXT_MALFORMED:
    cdef Py_ssize_t size
    cdef size_t index
    if element.kind == KIND_Z:
        return check_number(value, -element.maximum, element.maximum, &checked.number)

    if element.kind == KIND_B or element.kind == KIND_BV:
        if not PyBytes_Check(value):
            return VALUE_OUT_OF_RANGE
        checked.data = <const uint8_t *>PyBytes_AS_STRING(value)
        checked.size = PyBytes_GET_SIZE(value)
        if checked.size > element.size or (element.kind == KIND_B and checked.size < element.size):
            return VALUE_OUT_OF_RANGE
        return NONE

    if not PyUnicode_Check(value):
        return VALUE_OUT_OF_RANGE
    checked.size = PyUnicode_GET_LENGTH(value)
    if element.kind == KIND_ANS:
        try:
            checked.data = <const uint8_t *>PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            return TEXT_MALFORMED
        checked.size = size
        return NONE if checked.size <= element.size else VALUE_OUT_OF_RANGE

    if checked.size > element.size or checked.size < (element.size if element.kind == KIND_AN else 1):
        return VALUE_OUT_OF_RANGE
    if not PyUnicode_IS_ASCII(value):
        return TEXT_MALFORMED
    checked.data = <const uint8_t *>PyUnicode_DATA(value)
    if element.kind == KIND_AN:
        return NONE if is_printable(checked.data, checked.size) else TEXT_MALFORMED
    for index in range(checked.size):
        if not c'0' <= checked.data[index] <= c'9':
            return TEXT_MALFORMED
    return NONE


cdef inline int write_wire(Writer *writer, const Element *element, const Checked *checked) except -1:
    if element.kind == KIND_N:
        return write_varint(writer, checked.number)
    return write_other(writer, element, checked)


cdef inline int write_other(Writer *writer, const Element *element, const Checked *checked) except -1:
    cdef uint8_t *out
    cdef size_t index
    if element.kind == KIND_Z:
        return write_varint(writer, (<uint64_t>checked.number << 1) ^ <uint64_t>(checked.number >> 63))
    if element.kind == KIND_D:
        out = room(writer, 1 + (checked.size + 1) // 2)
        out[0] = <uint8_t>checked.size
        for index in range(checked.size // 2):
            out[1 + index] = (checked.data[2 * index] & 0x0F) << 4 | (checked.data[2 * index + 1] & 0x0F)
        if checked.size & 1:
            out[1 + checked.size // 2] = (checked.data[checked.size - 1] & 0x0F) << 4 | 0x0F
        return 0
    if element.kind == KIND_ANS or element.kind == KIND_BV:
        write_varint(writer, checked.size)
    return write_bytes(writer, checked.data, checked.size)


cdef inline int write_canonical(Writer *writer, const Element *element, const Checked *checked) except -1:
    write_big_endian(writer, element.key, 2)
    if element.kind == KIND_N or element.kind == KIND_Z:
        write_big_endian(writer, 8, 2)
        return write_big_endian(writer, <uint64_t>checked.number, 8)
    write_big_endian(writer, checked.size, 2)
    return write_bytes(writer, checked.data, checked.size)
