"""Records of the journal to bytes and to the columns by which they are found: the twin of
``fengshou.protocol.record.Record.to_bytes`` and of ``fengshou.switch.journal.columns.pack_columns``, the authorities.

A record's fields are read from where its Struct keeps them: asking for them by name costs more than writing them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from fengshou.codecs._slots cimport place_of
from fengshou.codecs._wire cimport Writer, close_writer, open_writer, room, write_big_endian, write_bytes

from fengshou.protocol.record import RECORD_VERSION, Record

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    bint PyUnicode_IS_ASCII(object text)

# Bytes of the columns, as in ``RECORD``.
cdef enum:
    TERMINAL_BYTES = 8
    MERCHANT_BYTES = 15
    CODE_BYTES = 2
    CONTENT_BYTES = 32

cdef uint8_t VERSION = RECORD_VERSION

cdef Py_ssize_t KIND = place_of(Record, "kind")
cdef Py_ssize_t NUMBER = place_of(Record, "number")
cdef Py_ssize_t TIME_US = place_of(Record, "time_us")
cdef Py_ssize_t BUSINESS_DAY = place_of(Record, "business_day")
cdef Py_ssize_t RRN = place_of(Record, "rrn")
cdef Py_ssize_t TEMPLATE = place_of(Record, "template")
cdef Py_ssize_t TERMINAL = place_of(Record, "terminal")
cdef Py_ssize_t MERCHANT = place_of(Record, "merchant")
cdef Py_ssize_t BATCH = place_of(Record, "batch")
cdef Py_ssize_t STAN = place_of(Record, "stan")
cdef Py_ssize_t REFERS = place_of(Record, "refers")
cdef Py_ssize_t CODE = place_of(Record, "code")
cdef Py_ssize_t CONTENT = place_of(Record, "content")
cdef Py_ssize_t EVIDENCE = place_of(Record, "evidence")
cdef Py_ssize_t CLEAR = place_of(Record, "clear")
cdef Py_ssize_t SEALED = place_of(Record, "sealed")


cdef inline object field(object record, Py_ssize_t place):
    return <object>(<PyObject **>(<char *>(<PyObject *>record) + place))[0]


cdef int write_number(Writer *writer, uint64_t number, int size) except -1:
    """Called with a Python integer; the conversion refuses a negative one, or one of more than 8 bytes."""
    if size < 8 and number >> 8 * size:
        raise OverflowError(f"a column of {size} bytes cannot hold this number")
    return write_big_endian(writer, number, size)


cdef int write_column(Writer *writer, str text, Py_ssize_t width) except -1:
    """ASCII with spaces behind."""
    cdef Py_ssize_t size
    cdef const char *letters = PyUnicode_AsUTF8AndSize(text, &size)
    cdef uint8_t *out
    if not PyUnicode_IS_ASCII(text) or size > width:
        raise ValueError(f"a column of {width} bytes cannot hold this text")
    out = room(writer, width)
    memset(out, b" ", width)
    memcpy(out, letters, size)
    return 0


cdef int write_octets(Writer *writer, object data, size_t size) except -1:
    """Exactly so many."""
    if not PyBytes_Check(data) or <size_t>PyBytes_GET_SIZE(data) != size:
        raise TypeError(f"here are {size} bytes")
    return write_bytes(writer, <const uint8_t *>PyBytes_AS_STRING(data), size)


cdef int write_counted(Writer *writer, object data, int length_bytes) except -1:
    write_number(writer, len(data), length_bytes)
    return write_octets(writer, data, len(data))


cdef int write_record(Writer *writer, object record) except -1:
    write_big_endian(writer, VERSION, 1)
    write_number(writer, field(record, KIND), 1)
    write_number(writer, field(record, NUMBER), 8)
    write_number(writer, field(record, TIME_US), 8)
    write_number(writer, field(record, BUSINESS_DAY), 4)
    write_number(writer, field(record, RRN), 8)
    write_number(writer, field(record, TEMPLATE), 1)
    write_column(writer, field(record, TERMINAL), TERMINAL_BYTES)
    write_column(writer, field(record, MERCHANT), MERCHANT_BYTES)
    write_number(writer, field(record, BATCH), 4)
    write_number(writer, field(record, STAN), 4)
    write_number(writer, field(record, REFERS), 8)
    write_column(writer, field(record, CODE), CODE_BYTES)
    write_octets(writer, field(record, CONTENT), CONTENT_BYTES)
    write_counted(writer, field(record, EVIDENCE), 1)
    write_counted(writer, field(record, CLEAR), 2)
    return write_counted(writer, field(record, SEALED), 2)


cdef int must_be_records(list records) except -1:
    for record in records:
        if type(record) is not Record:
            raise TypeError("what is packed is a Record")
    return 0


def pack_records(list records not None):
    cdef Writer writer
    cdef list packed = []
    must_be_records(records)
    for record in records:
        open_writer(&writer)
        try:
            write_record(&writer, record)
            packed.append(PyBytes_FromStringAndSize(<char *>writer.start, writer.at - writer.start))
        finally:
            close_writer(&writer)
    return packed


def pack_row(list records not None):
    cdef Writer writer
    cdef uint64_t time_us, earliest = UINT64_MAX, latest = 0
    must_be_records(records)
    if not records:
        raise ValueError("a row stands for one record at least")
    for record in records:
        time_us = field(record, TIME_US)
        earliest = min(earliest, time_us)
        latest = max(latest, time_us)
    open_writer(&writer)
    try:
        write_number(&writer, len(records), 4)
        write_number(&writer, earliest, 8)
        write_number(&writer, latest, 8)
        for record in records:
            write_number(&writer, field(record, RRN), 8)
        for record in records:
            write_column(&writer, field(record, TERMINAL), TERMINAL_BYTES)
        for record in records:
            write_number(&writer, field(record, STAN), 4)
        return PyBytes_FromStringAndSize(<char *>writer.start, writer.at - writer.start)
    finally:
        close_writer(&writer)
