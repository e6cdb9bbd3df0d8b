# Frames and messages, compiled from the grammar's rows. This is the index; the meaning stands in _message.pyi, the
# readable authority is fengshou.protocol.grammar.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t


# protocol/elements.py, Kind
cdef enum Kind:
    KIND_N
    KIND_Z
    KIND_D
    KIND_AN
    KIND_ANS
    KIND_B
    KIND_BV

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

# protocol/message.py, Flag
cdef enum Flag:
    RESPONSE = 0x80
    SIGNED = 0x40
    DELTA = 0x20
    COMMAND_BITS = 0x0F
    REPEAT = 0x01

cdef enum:
    TEMPLATES = 64  # a 6-bit id
    ELEMENTS_MAX = 512  # of one grammar: a call keeps a pointer for each of them on its stack
    LOCAL_BYTES = 1024  # what a Writer holds before it takes memory: every message but a receipt's answer


# ---- plans: what the grammar's rows come to

cdef struct Element:
    Kind kind
    uint16_t key
    int64_t maximum  # kinds n and z
    size_t size  # the other kinds
    PyObject *key_object  # borrowed from MessageCodec.keys

cdef struct Slot:
    uint16_t rank  # of the element, by ascending key
    uint16_t presence_byte
    uint8_t presence_bit  # 0: required

cdef struct Side:
    Slot *slots
    int count
    int presence_bytes
    uint8_t spare_bits  # of the last presence byte: they announce nothing

cdef struct Template:
    bint known
    bint signed
    Side request
    Side response


# ---- bytes in

cdef struct Reader:
    const uint8_t *at
    const uint8_t *end

cdef const uint8_t *take(Reader *reader, size_t count) noexcept nogil
cdef Error read_varint(Reader *reader, uint64_t *value) noexcept nogil
cdef object read_value(Reader *reader, const Element *element, Error *error)

# ---- bytes out

cdef struct Writer:
    uint8_t *start
    uint8_t *at
    uint8_t *end
    uint8_t local[LOCAL_BYTES]

# A value that was found to be of its kind: a number, or bytes that belong to the Python object.
cdef struct Checked:
    int64_t number
    const uint8_t *data
    size_t size

cdef void open_writer(Writer *writer) noexcept
cdef void close_writer(Writer *writer) noexcept
cdef uint8_t *room(Writer *writer, size_t count) except NULL
cdef int write_varint(Writer *writer, uint64_t value) except -1
cdef Error check_value(const Element *element, object value, Checked *checked) except? TEXT_MALFORMED
cdef int write_wire(Writer *writer, const Element *element, const Checked *checked) except -1
cdef int write_canonical(Writer *writer, const Element *element, const Checked *checked) except -1


cdef class MessageCodec:
    cdef Template templates[TEMPLATES]
    cdef Element *elements
    cdef int count
    cdef uint16_t *ranks  # by key; 1 is the first element, 0 none
    cdef list keys
    cdef list paths

    cdef int plan_side(self, Side *side, tuple fields) except -1
    cdef const Template *template_of(self, object template) except NULL
    cdef dict read_fields(self, Reader *reader, const Side *side)
    cdef int write_fields(self, Writer *writer, const Side *side, object values) except -1
    cdef int collect(self, dict values, PyObject **table) except -1
    cdef int write_canonicals(self, Writer *writer, PyObject **table) except -1
    cdef int write_head(self, Writer *writer, object template, bint response, object sequence) except -1
