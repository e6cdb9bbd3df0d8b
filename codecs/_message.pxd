# Frames and messages, compiled from the grammar's rows. This is the index; the meaning stands in _message.pyi, the
# readable authority is fengshou.protocol.grammar.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from fengshou.codecs._values cimport Element
from fengshou.codecs._wire cimport Error, Reader, Writer


# protocol/message.py, Flag
cdef enum Flag:
    RESPONSE = 0x80
    SIGNED = 0x40
    DELTA = 0x20
    COMMAND_BITS = 0x0F
    REPEAT = 0x01

# protocol/limits.py; compared at import.
cdef enum:
    FRAME_BYTES_MAX = 8192
    FRAME_BYTES_MIN = 3
    LENGTH_BYTES_MAX = 2
    VERSION = 1
    BINDING_BYTES = 32
    SIGNATURE_BYTES = 64
    TEMPLATES = 64  # a 6-bit id
    DELTA_WINDOW = 127
    OFFLINE_ITEMS_MAX = 20

# protocol/operators.py, Operator
cdef enum Operator:
    PLAIN
    CLOCK
    COPY
    DIFFERENCE  # DELTA; that is the flag here
    INCREMENT
    DERIVED
    TAIL

# protocol/delta.py
cdef enum Said:
    AS_PREDICTED
    ABSENT
    GIVEN
    UNLAWFUL

cdef enum:
    DAY_S = 86400
    TAIL_HEAD = 0x80

cdef enum:
    ELEMENTS_MAX = 512  # of one grammar: a call keeps a pointer for each of them on its stack


# ---- plans: what the grammar's rows come to

cdef struct Slot:
    const Element *element
    const PyObject *key_object  # of the element
    uint16_t rank  # of the element, by ascending key
    uint16_t presence_byte
    uint8_t presence_bit  # 0: required
    Operator operator
    uint8_t delta_bits  # how many; 0: it is always said

cdef struct Side:
    Slot *slots
    uint16_t *places  # of an element among the slots, by its rank; 1 is the first slot, 0 none
    int count
    int presence_bytes
    uint8_t spare_bits  # of the last presence byte: they announce nothing
    int delta_bytes  # of bits of the delta form
    uint8_t delta_spare_bits

cdef struct Template:
    bint known
    bint signed
    bint has_delta
    bint is_sign_in
    Side request
    Side response

# Where the wire form of an element stands in a body; NULL where the body has none.
cdef struct Piece:
    const uint8_t *at
    size_t size


cdef int refuse(Error error, str path) except -1
cdef bytes written(Writer *writer)
cdef bytes end_frame(Writer *writer)
cdef int locate(const uint8_t *body, size_t size, const Side *side, Piece *pieces) except -1
cdef int64_t number_at(const uint8_t *place) noexcept
cdef int64_t seconds_of(int64_t hhmmss) noexcept
cdef int64_t time_of(int64_t second) noexcept


cdef class MessageCodec:
    cdef Template templates[TEMPLATES]
    cdef Element *elements
    cdef int count
    cdef uint16_t *ranks  # by key; 1 is the first element, 0 none
    cdef list keys
    cdef list paths

    cdef int plan_side(self, Side *side, tuple fields) except -1
    cdef int plan_delta(self, Side *side, object row) except -1
    cdef const Template *template_of(self, object template) except NULL

    cdef dict read_fields(self, Reader *reader, const Side *side)
    cdef dict read_delta(self, Reader *reader, int template_id, uint64_t sequence, object history)
    cdef object read_tail(
        self, Reader *reader, const Side *side, int index, int template_id, uint64_t sequence, bytes keeps_base,
        const uint8_t *was, object history, Error *error,
    )

    cdef int begin_frame(
        self, Writer *writer, const Template *template, object flags, object sequence, object signature
    ) except -1
    cdef int collect(self, dict values, PyObject **table) except -1
    cdef int arrange(self, dict values, const Side *side, PyObject **table) except -1
    cdef int write_fields(self, Writer *writer, const Side *side, object values) except -1
    cdef int write_signed(self, Writer *writer, bytes za, bytes binding, object message, object implied) except -1
    cdef int write_head(self, Writer *writer, object template, object flags, object sequence) except -1
    cdef int write_canonicals(self, Writer *writer, PyObject **table) except -1
