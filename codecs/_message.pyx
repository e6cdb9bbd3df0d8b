"""Frames and messages, compiled from the grammar's rows: the twin of ``fengshou.protocol.grammar.ReferenceCodec``.

Reading: a ``Reader`` walks the frame once and hands out checked pieces. Writing: values are sorted into a table by the
rank of their element (one pass over the dict, nothing is hashed or compared), checked, and written by a ``Writer``. The
table borrows its references; nothing between filling and reading it runs Python code.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fengshou.codecs._sm3 cimport DIGEST_BYTES, sm3_into
from fengshou.codecs._slots cimport place_of
from fengshou.codecs._values cimport *
from fengshou.codecs._wire cimport *

from fengshou.protocol import elements as de
from fengshou.protocol import limits
from fengshou.protocol.elements import Kind as GrammarKind
from fengshou.protocol.elements import path_of
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.history import History
from fengshou.protocol.message import Message
from fengshou.protocol.operators import Operator as GrammarOperator
from fengshou.protocol.signing import TAG_REQUEST
from fengshou.protocol.templates import SIGN_IN

cdef extern from "Python.h":
    object PyType_GenericAlloc(type kind, Py_ssize_t items)

cdef extern from *:
    # Cython's own name for a dict that need not grow, on every Python that it supports.
    dict __Pyx_PyDict_NewPresized(Py_ssize_t size)

# In the order of the enumerations of the same names.
cdef tuple WIRE_ERRORS = (None, *WireError)
cdef dict KINDS = {kind: place for place, kind in enumerate(GrammarKind)}
cdef dict OPERATORS = {operator: place for place, operator in enumerate(GrammarOperator)}

cdef const uint8_t *TAG = <const uint8_t *>PyBytes_AS_STRING(TAG_REQUEST)
cdef size_t TAG_BYTES = len(TAG_REQUEST)

if (
    FRAME_BYTES_MAX, FRAME_BYTES_MIN, LENGTH_BYTES_MAX, VARINT_BYTES_MAX, VERSION, TEMPLATES - 1,
    SIGNATURE_BYTES, BINDING_BYTES, DIGEST_BYTES, INT64_MAX, DELTA_WINDOW, OFFLINE_ITEMS_MAX,
) != (
    limits.FRAME_BYTES_MAX, limits.FRAME_BYTES_MIN, limits.LENGTH_BYTES_MAX, limits.VARINT_BYTES_MAX,
    limits.PROTOCOL_VERSION, limits.TEMPLATE_ID_MAX, limits.SIGNATURE_BYTES, limits.BINDING_BYTES,
    limits.DIGEST_BYTES, limits.UINT_MAX, limits.DELTA_WINDOW,
    limits.OFFLINE_ITEMS_MAX,
) or sizeof(long) < sizeof(int64_t):
    raise ImportError("compiled for other limits than fengshou.protocol.limits, or for a short long; build again")


cdef object WEIGHT = de.WEIGHT
cdef object UNIT_PRICE = de.UNIT_PRICE


# Where the slots of a Message are. Filling them directly costs a third of calling its class.
cdef Py_ssize_t TEMPLATE_SLOT = place_of(Message, "template")
cdef Py_ssize_t FLAGS_SLOT = place_of(Message, "flags")
cdef Py_ssize_t SEQUENCE_SLOT = place_of(Message, "sequence")
cdef Py_ssize_t VALUES_SLOT = place_of(Message, "values")
cdef Py_ssize_t SIGNATURE_SLOT = place_of(Message, "signature")


cdef inline PyObject **slot_at(object message, Py_ssize_t offset) noexcept:
    return <PyObject **>(<char *>(<PyObject *>message) + offset)


cdef inline void fill(object message, Py_ssize_t offset, object value) noexcept:
    """Put a value into a slot that is empty."""
    Py_INCREF(value)
    slot_at(message, offset)[0] = <PyObject *>value


cdef object new_message(int template, int flags, uint64_t sequence, dict values, bytes signature):
    message = PyType_GenericAlloc(Message, 0)
    fill(message, TEMPLATE_SLOT, template)
    fill(message, FLAGS_SLOT, flags)
    fill(message, SEQUENCE_SLOT, sequence)
    fill(message, VALUES_SLOT, values)
    fill(message, SIGNATURE_SLOT, signature)
    return message


cdef inline object slot_of(object message, Py_ssize_t offset):
    """The value in a slot of what is known to be a Message."""
    cdef PyObject *value = slot_at(message, offset)[0]
    if value == NULL:
        raise AttributeError("a message without one of its parts")
    return <object>value


cdef int refuse(Error error, str path) except -1:
    raise UntrustedBytesError(WIRE_ERRORS[<int>error], path)


cdef bytes written(Writer *writer):
    return PyBytes_FromStringAndSize(<char *>writer.start, writer.at - writer.start)


cdef bytes end_frame(Writer *writer):
    """The frame, with its length in the room that ``begin_frame`` left; a short one starts a byte later."""
    cdef size_t length = writer.at - writer.start - LENGTH_BYTES_MAX
    if length > FRAME_BYTES_MAX:
        refuse(FRAME_TOO_LONG, "")
    if length > 0x7F:
        writer.start[0] = <uint8_t>(length | 0x80)
        writer.start[1] = <uint8_t>(length >> 7)
        return written(writer)
    writer.start[1] = <uint8_t>length
    return PyBytes_FromStringAndSize(<char *>writer.start + 1, 1 + length)


# ---- messages


cdef Error judge(const Template *template, int flags) noexcept nogil:
    """Whether a message of this template may carry these flags; the same ladder for both directions."""
    cdef bint response = flags & RESPONSE
    cdef bint signed = flags & SIGNED
    if flags & DELTA and not template.is_sign_in:
        return FORM_UNSUPPORTED
    if not response and flags & COMMAND_BITS & ~REPEAT:
        return UNKNOWN_FLAG
    if template.signed and not response and not signed:
        return SIGNATURE_MISSING
    if signed and (response or not template.signed):
        return SIGNATURE_UNEXPECTED
    return NONE


cdef int said_of(const uint8_t *bits, int at, int count) noexcept nogil:
    """What the bits of an element say; see ``protocol.delta.Said``."""
    cdef int first
    if count == 0:
        return GIVEN
    first = bits[at >> 3] >> (7 - (at & 7)) & 1
    if count == 1:
        return GIVEN if first else AS_PREDICTED
    at += 1
    return first << 1 | (bits[at >> 3] >> (7 - (at & 7)) & 1)


cdef bytes earlier(object history, uint64_t sequence, uint64_t distance, int template_id):
    """Template and body of an earlier request of the template; None when it is not known."""
    cdef bytes stated = history.find(<int64_t>(sequence - distance))
    if PyBytes_GET_SIZE(stated) == 0 or <uint8_t>PyBytes_AS_STRING(stated)[0] != template_id:
        return None
    return stated


cdef int locate(const uint8_t *body, size_t size, const Side *side, Piece *pieces) except -1:
    """Where the elements of a body stand that was written or read before."""
    cdef Reader reader
    cdef const uint8_t *presence
    cdef const Slot *slot
    cdef Piece *piece
    cdef int index
    reader.at = body
    reader.end = body + size
    presence = take(&reader, side.presence_bytes)
    if presence == NULL:
        raise ValueError("what a history keeps is a body of its template")
    for index in range(side.count):
        slot = &side.slots[index]
        piece = &pieces[index]
        if slot.presence_bit and not presence[slot.presence_byte] & slot.presence_bit:
            piece.at = NULL
            piece.size = 0
            continue
        piece.at = reader.at
        if not skip_value(&reader, slot.element):
            raise ValueError("what a history keeps is a body of its template")
        piece.size = reader.at - piece.at
    return 0


cdef int locate_stated(bytes stated, const Side *side, Piece *pieces) except -1:
    """The same in what a history keeps: behind the template."""
    return locate(<const uint8_t *>PyBytes_AS_STRING(stated) + 1, PyBytes_GET_SIZE(stated) - 1, side, pieces)


cdef object value_at(const uint8_t *place, bytes stated, const Element *element, Error *error):
    cdef Reader reader
    reader.at = place
    reader.end = <const uint8_t *>PyBytes_AS_STRING(stated) + PyBytes_GET_SIZE(stated)
    return read_value(&reader, element, error)


cdef int64_t number_at(const uint8_t *place) noexcept:
    """An integer of kind n of which it is known that it stands there whole."""
    cdef Reader reader
    cdef uint64_t number
    reader.at = place
    reader.end = place + VARINT_BYTES_MAX
    read_varint(&reader, &number)
    return <int64_t>number


cdef Error read_zigzag(Reader *reader, int64_t maximum, int64_t *number) noexcept:
    cdef uint64_t zigzag
    cdef Error error = read_varint(reader, &zigzag)
    number[0] = <int64_t>(zigzag >> 1) ^ -<int64_t>(zigzag & 1)
    return error if error != NONE or -maximum <= number[0] <= maximum else VALUE_OUT_OF_RANGE


cdef object fitting(const Element *element, const uint8_t *was, int64_t more, Error *error):
    """The sum, when the element can be it: else the base was another one."""
    cdef int64_t number = number_at(was)
    if not -number <= more <= element.maximum - number:
        error[0] = BASE_LOST
        return None
    return number + more


cdef int64_t seconds_of(int64_t hhmmss) noexcept:
    return hhmmss // 10000 * 3600 + hhmmss // 100 % 100 * 60 + hhmmss % 100


cdef int64_t time_of(int64_t second) noexcept:
    return second // 3600 * 10000 + second // 60 % 60 * 100 + second % 60


cdef object later(Reader *reader, const uint8_t *was, Error *error):
    """hhmmss so many seconds after another."""
    cdef int64_t seconds
    error[0] = read_zigzag(reader, DAY_S, &seconds)
    if error[0] != NONE:
        return None
    seconds += seconds_of(number_at(was))
    if not 0 <= seconds < DAY_S:
        error[0] = BASE_LOST
        return None
    return time_of(seconds)


cdef class MessageCodec:
    def __cinit__(self, grammar):
        cdef int index
        cdef Template *template
        rows = sorted(grammar.elements.values(), key=lambda row: row.key)
        if len(rows) > ELEMENTS_MAX:
            raise ValueError(f"a grammar has at most {ELEMENTS_MAX} elements")
        self.count = len(rows)
        self.keys = [row.key for row in rows]
        self.paths = [row.path for row in rows]
        self.elements = <Element *>calloc(self.count, sizeof(Element))
        self.ranks = <uint16_t *>calloc(1 << 16, sizeof(uint16_t))
        if self.elements == NULL or self.ranks == NULL:
            raise MemoryError
        for index in range(self.count):
            row = rows[index]
            self.elements[index].kind = KINDS[row.kind]
            self.elements[index].key = row.key
            self.elements[index].maximum = row.maximum
            self.elements[index].size = row.size
            self.elements[index].privacy = int(row.privacy.value[1])
            self.elements[index].key_object = <PyObject *>self.keys[index]
            self.ranks[<int>row.key] = index + 1
        for row in grammar.templates.values():
            template = &self.templates[<int>row.id % TEMPLATES]
            template.known = True
            template.signed = row.signed
            template.is_sign_in = row.id == SIGN_IN.id
            self.plan_side(&template.request, row.request)
            template.has_delta = bool(row.operators)
            if template.has_delta:
                self.plan_delta(&template.request, row)
            self.plan_side(&template.response, row.response)

    def __dealloc__(self):
        cdef int index
        for index in range(TEMPLATES):
            free_side(&self.templates[index].request)
            free_side(&self.templates[index].response)
        free(self.elements)
        free(self.ranks)

    cdef int plan_side(self, Side *side, tuple fields) except -1:
        cdef int index, optional = 0
        cdef Slot *slot
        side.slots = <Slot *>calloc(len(fields) or 1, sizeof(Slot))
        side.places = <uint16_t *>calloc(self.count or 1, sizeof(uint16_t))
        if side.slots == NULL or side.places == NULL:
            raise MemoryError
        side.count = len(fields)
        for index, field in enumerate(fields):
            slot = &side.slots[index]
            slot.rank = self.ranks[<uint16_t>field.key] - 1
            slot.element = &self.elements[slot.rank]
            slot.key_object = slot.element.key_object
            side.places[slot.rank] = index + 1
            if not field.required:
                slot.presence_byte = optional // 8
                slot.presence_bit = 0x80 >> optional % 8
                optional += 1
        side.presence_bytes = (optional + 7) // 8
        side.spare_bits = 0xFF >> optional % 8 if optional % 8 else 0
        return 0

    cdef int plan_delta(self, Side *side, row) except -1:
        cdef int index, bits = 0
        cdef Slot *slot
        for index, field in enumerate(row.request):
            slot = &side.slots[index]
            slot.operator = OPERATORS[row.operator(field.key)]
            if slot.operator != PLAIN and slot.operator != CLOCK:
                slot.delta_bits = 1 if field.required else 2
            bits += slot.delta_bits
        side.delta_bytes = (bits + 7) // 8
        side.delta_spare_bits = 0xFF >> bits % 8 if bits % 8 else 0
        return 0

    cdef const Template *template_of(self, object template) except NULL:
        cdef int64_t number
        if check_number(template, 0, TEMPLATES - 1, &number) != NONE or not self.templates[number].known:
            refuse(UNKNOWN_TEMPLATE, "")
        return &self.templates[number]

    # ---- reading

    def split(self, data):
        cdef Py_buffer buffer
        cdef Reader reader
        cdef list frames = []
        cdef const uint8_t *whole
        cdef const uint8_t *byte
        cdef size_t length
        cdef int index
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            reader.at = whole = <const uint8_t *>buffer.buf
            reader.end = whole + buffer.len
            while True:
                length = 0
                for index in range(LENGTH_BYTES_MAX):
                    byte = take(&reader, 1)
                    if byte == NULL:
                        return frames, whole - <const uint8_t *>buffer.buf
                    length |= <size_t>(byte[0] & 0x7F) << (7 * index)
                    if byte[0] < 0x80:
                        if byte[0] == 0 and index:
                            refuse(LENGTH_MALFORMED, "")
                        break
                else:
                    refuse(FRAME_TOO_LONG, "")
                if length > FRAME_BYTES_MAX:
                    refuse(FRAME_TOO_LONG, "")
                if length < FRAME_BYTES_MIN:
                    refuse(FRAME_TOO_SHORT, "")
                byte = take(&reader, length)
                if byte == NULL:
                    return frames, whole - <const uint8_t *>buffer.buf
                frames.append(PyBytes_FromStringAndSize(<char *>byte, length))
                whole = reader.at
        finally:
            PyBuffer_Release(&buffer)

    def decode(self, bytes frame not None, history=None):
        cdef Reader reader
        cdef const uint8_t *piece
        cdef const Template *template
        cdef uint64_t sequence = 0
        cdef Error error
        cdef int flags, template_id
        cdef bint in_delta
        cdef size_t size = PyBytes_GET_SIZE(frame)
        cdef bytes signature = b""
        if size < FRAME_BYTES_MIN:
            refuse(FRAME_TOO_SHORT, "")
        if size > FRAME_BYTES_MAX:
            refuse(FRAME_TOO_LONG, "")
        reader.at = <const uint8_t *>PyBytes_AS_STRING(frame)
        reader.end = reader.at + size
        piece = take(&reader, 2)
        if piece[0] >> 6 != VERSION:
            refuse(UNKNOWN_VERSION, "")
        template_id = piece[0] & (TEMPLATES - 1)
        template = &self.templates[template_id]
        if not template.known:
            refuse(UNKNOWN_TEMPLATE, "")
        flags = piece[1]
        in_delta = history is not None and flags & DELTA and template.has_delta and not flags & RESPONSE
        if in_delta:
            flags &= ~DELTA
        error = judge(template, flags)
        if error == NONE:
            error = read_varint(&reader, &sequence)
        if error != NONE:
            refuse(error, "")
        if in_delta:
            values = self.read_delta(&reader, template_id, sequence, history)
        else:
            values = self.read_fields(&reader, &template.response if flags & RESPONSE else &template.request)
        if flags & SIGNED:
            piece = take(&reader, SIGNATURE_BYTES)
            if piece == NULL:
                refuse(TRUNCATED, "")
            signature = PyBytes_FromStringAndSize(<char *>piece, SIGNATURE_BYTES)
        if reader.at != reader.end:
            refuse(TRAILING_BYTES, "")
        return new_message(template_id, flags, sequence, values, signature)

    def decode_body(self, template, bint response, bytes data not None):
        cdef const Template *plan = self.template_of(template)
        cdef Reader reader
        reader.at = <const uint8_t *>PyBytes_AS_STRING(data)
        reader.end = reader.at + PyBytes_GET_SIZE(data)
        values = self.read_fields(&reader, &plan.response if response else &plan.request)
        if reader.at != reader.end:
            refuse(TRAILING_BYTES, "")
        return values

    def unpack(self, bytes data not None):
        cdef Reader reader
        cdef const uint8_t *piece
        cdef const Element *element
        cdef int key, last = 0
        cdef Error error = NONE
        cdef dict values = {}
        reader.at = <const uint8_t *>PyBytes_AS_STRING(data)
        reader.end = reader.at + PyBytes_GET_SIZE(data)
        while reader.at != reader.end:
            piece = take(&reader, 2)
            if piece == NULL:
                refuse(TRUNCATED, "")
            key = piece[0] << 8 | piece[1]
            if key <= last or self.ranks[key] == 0:
                refuse(UNKNOWN_FIELD, path_of(key))
            element = &self.elements[self.ranks[key] - 1]
            value = read_value(&reader, element, &error)
            if error != NONE:
                refuse(error, self.paths[self.ranks[key] - 1])
            PyDict_SetItem(values, <object>element.key_object, value)
            last = key
        return values

    cdef dict read_fields(self, Reader *reader, const Side *side):
        cdef const uint8_t *presence = take(reader, side.presence_bytes)
        cdef const Slot *slot
        cdef Error error = NONE
        cdef dict values = __Pyx_PyDict_NewPresized(side.count)
        cdef int index
        if presence == NULL:
            refuse(TRUNCATED, "")
        if side.spare_bits and presence[side.presence_bytes - 1] & side.spare_bits:
            refuse(UNKNOWN_FIELD, "")
        for index in range(side.count):
            slot = &side.slots[index]
            if slot.presence_bit and not presence[slot.presence_byte] & slot.presence_bit:
                continue
            value = read_value(reader, slot.element, &error)
            if error != NONE:
                refuse(error, self.paths[slot.rank])
            PyDict_SetItem(values, <object>slot.element.key_object, value)
        return values

    # ---- reading the delta form

    cdef dict read_delta(self, Reader *reader, int template_id, uint64_t sequence, object history):
        cdef const Side *side = &self.templates[template_id].request
        cdef const Slot *slot
        cdef const Slot *derived = NULL
        cdef const uint8_t *bits
        cdef Piece base[ELEMENTS_MAX]
        cdef bytes keeps_base
        cdef uint64_t distance
        cdef int64_t weight = 0, price = 0, number
        cdef dict values
        cdef int index, said, at = 0
        cdef Error error = read_varint(reader, &distance)
        if error != NONE:
            refuse(error, "")
        if not 1 <= distance <= DELTA_WINDOW:
            refuse(BASE_LOST, "")
        keeps_base = earlier(history, sequence, distance, template_id)
        if keeps_base is None:
            refuse(BASE_LOST, "")
        locate_stated(keeps_base, side, base)
        bits = take(reader, side.delta_bytes)
        if bits == NULL:
            refuse(TRUNCATED, "")
        if side.delta_spare_bits and bits[side.delta_bytes - 1] & side.delta_spare_bits:
            refuse(UNKNOWN_FIELD, "")
        values = __Pyx_PyDict_NewPresized(side.count)
        for index in range(side.count):
            slot = &side.slots[index]
            said = said_of(bits, at, slot.delta_bits)
            at += slot.delta_bits
            if said == AS_PREDICTED and slot.operator == DERIVED:
                derived = slot
                value = 0  # its place; what it derives from comes later
            elif said == AS_PREDICTED and slot.operator == INCREMENT:
                value = fitting(slot.element, base[index].at, distance, &error)
            elif said == AS_PREDICTED and base[index].at != NULL:
                value = value_at(base[index].at, keeps_base, slot.element, &error)
            elif said == AS_PREDICTED or (said == ABSENT and base[index].at != NULL):
                continue
            elif said == ABSENT:
                error = BASE_LOST
            elif said == UNLAWFUL:
                error = UNKNOWN_FIELD
            elif slot.operator == CLOCK:
                value = later(reader, base[index].at, &error)
            elif slot.operator == DIFFERENCE:
                error = read_zigzag(reader, slot.element.maximum, &number)
                value = fitting(slot.element, base[index].at, number, &error) if error == NONE else None
            elif slot.operator == TAIL:
                value = self.read_tail(reader, side, index, template_id, sequence, keeps_base, base[index].at, history, &error)
            else:
                value = read_value(reader, slot.element, &error)
            if error != NONE:
                refuse(error, self.paths[slot.rank])
            PyDict_SetItem(values, <object>slot.element.key_object, value)
        if derived != NULL:
            check_number(values[WEIGHT], 0, INT64_MAX, &weight)
            check_number(values[UNIT_PRICE], 0, INT64_MAX, &price)
            number = (weight * price + 50) // 100  # protocol/money.py; its limits say that it cannot overflow
            if number > derived.element.maximum:
                refuse(BASE_LOST, self.paths[derived.rank])
            PyDict_SetItem(values, <object>derived.element.key_object, number)
        return values

    cdef object read_tail(
        self, Reader *reader, const Side *side, int index, int template_id, uint64_t sequence, bytes keeps_base,
        const uint8_t *was, object history, Error *error,
    ):
        cdef const Element *element = side.slots[index].element
        cdef const uint8_t *told = take(reader, 1)
        cdef Piece others[ELEMENTS_MAX]
        cdef const uint8_t *piece
        cdef Py_ssize_t size, head
        cdef bytes other
        if told == NULL:
            error[0] = TRUNCATED
            return None
        if told[0] == 0:
            return read_value(reader, element, error)
        if told[0] < TAIL_HEAD:
            other = earlier(history, sequence, told[0], template_id)
            if other is not None:
                locate_stated(other, side, others)
                if others[index].at != NULL:
                    return value_at(others[index].at, other, element, error)
        if told[0] < TAIL_HEAD or was == NULL:
            error[0] = BASE_LOST
            return None
        text = value_at(was, keeps_base, element, error)
        cdef bytes before = (<str>text).encode()
        head = told[0] - TAIL_HEAD
        size = len(before)
        if head > size:
            error[0] = BASE_LOST
            return None
        if element.kind == KIND_D:
            digits = read_packed_digits(reader, size - head, error)
            return (<str>text)[:head] + <str>digits if error[0] == NONE else None
        piece = take(reader, size - head)
        if piece == NULL:
            error[0] = TRUNCATED
            return None
        try:
            return (before[:head] + piece[: size - head]).decode()
        except UnicodeDecodeError:
            error[0] = TEXT_MALFORMED
            return None

    def decode_items(self, bytes data not None):
        cdef Reader reader
        cdef const Template *template
        cdef const uint8_t *piece
        cdef int template_id
        cdef list items
        cdef object history = History()
        reader.at = <const uint8_t *>PyBytes_AS_STRING(data)
        reader.end = reader.at + PyBytes_GET_SIZE(data)
        piece = take(&reader, 1)
        if piece == NULL:
            refuse(TRUNCATED, "")
        template_id = piece[0]
        template = self.template_of(template_id)
        if not template.has_delta:
            refuse(FORM_UNSUPPORTED, "")
        items = [self.read_fields(&reader, &template.request)]
        while reader.at != reader.end:
            if len(items) == OFFLINE_ITEMS_MAX:
                refuse(TRAILING_BYTES, "")
            history.keep(len(items), bytes((template_id,)) + self.encode_body(template_id, False, items[-1]))
            items.append(self.read_delta(&reader, template_id, len(items) + 1, history))
        return template_id, items

    # ---- writing

    def encode(self, message):
        if not isinstance(message, Message):
            raise TypeError("what is encoded is a Message")
        cdef const Template *template = self.template_of(slot_of(message, TEMPLATE_SLOT))
        cdef bint is_response
        cdef Writer writer
        flags, signature = slot_of(message, FLAGS_SLOT), slot_of(message, SIGNATURE_SLOT)
        open_writer(&writer)
        try:
            self.begin_frame(&writer, template, flags, slot_of(message, SEQUENCE_SLOT), signature)
            is_response = flags & RESPONSE
            self.write_fields(&writer, &template.response if is_response else &template.request, slot_of(message, VALUES_SLOT))
            write_bytes(&writer, <const uint8_t *>PyBytes_AS_STRING(signature), PyBytes_GET_SIZE(signature))
            return end_frame(&writer)
        finally:
            close_writer(&writer)

    def frame(self, template, flags, sequence, bytes body not None):
        cdef Writer writer
        open_writer(&writer)
        try:
            self.begin_frame(&writer, self.template_of(template), flags, sequence, b"")
            write_bytes(&writer, <const uint8_t *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
            return end_frame(&writer)
        finally:
            close_writer(&writer)

    cdef int begin_frame(
        self, Writer *writer, const Template *template, object flags, object sequence, object signature
    ) except -1:
        """What stands before the body of a message that has this signature, and room for the longest length."""
        cdef int64_t bits, number
        cdef Error error
        cdef size_t expected
        cdef uint8_t *start
        if check_number(flags, 0, 0xFF, &bits) != NONE:
            refuse(UNKNOWN_FLAG, "")
        error = judge(template, <int>bits)
        if error != NONE:
            refuse(error, "")
        expected = SIGNATURE_BYTES if bits & SIGNED else 0
        if not PyBytes_Check(signature) or <size_t>PyBytes_GET_SIZE(signature) != expected:
            refuse(SIGNATURE_MISSING if expected else SIGNATURE_UNEXPECTED, "")
        if check_number(sequence, 0, INT64_MAX, &number) != NONE:
            refuse(VALUE_OUT_OF_RANGE, "")
        room(writer, LENGTH_BYTES_MAX)
        start = room(writer, 2)
        start[0] = <uint8_t>(VERSION << 6 | (template - &self.templates[0]))
        start[1] = <uint8_t>bits
        return write_varint(writer, number)

    def encode_body(self, template, bint response, values):
        cdef const Template *plan = self.template_of(template)
        cdef Writer writer
        open_writer(&writer)
        try:
            self.write_fields(&writer, &plan.response if response else &plan.request, values)
            return written(&writer)
        finally:
            close_writer(&writer)

    cdef int write_fields(self, Writer *writer, const Side *side, object values) except -1:
        cdef PyObject *table[ELEMENTS_MAX]
        cdef dict given = values if type(values) is dict else dict(values)
        cdef const Slot *slot
        cdef Checked checked
        cdef Error error
        cdef size_t presence = writer.at - writer.start
        cdef int index, count = 0
        memset(room(writer, side.presence_bytes), 0, side.presence_bytes)
        self.arrange(given, side, table)
        for index in range(side.count):
            slot = &side.slots[index]
            if table[index] == NULL:
                if slot.presence_bit:
                    continue
                refuse(TRUNCATED, self.paths[slot.rank])
            error = check_value(slot.element, <object>table[index], &checked)
            if error != NONE:
                refuse(error, self.paths[slot.rank])
            write_wire(writer, slot.element, &checked)
            writer.start[presence + slot.presence_byte] |= slot.presence_bit
            count += 1
        if count != len(given):
            refuse_stranger(given, {self.keys[side.slots[index].rank] for index in range(side.count)})
        return 0

    cdef int arrange(self, dict values, const Side *side, PyObject **table) except -1:
        """Put values where their slots are; strangers find no place. Nearly always they come in the slots' order."""
        cdef PyObject *key
        cdef PyObject *value
        cdef Py_ssize_t position = 0
        cdef int64_t number
        cdef int place, following = 0
        memset(table, 0, side.count * sizeof(PyObject *))
        while PyDict_Next(values, &position, &key, &value):
            place = following
            while place < side.count and side.slots[place].key_object != key:
                place += 1
            if place == side.count:
                if check_number(<object>key, 0, 0xFFFF, &number) != NONE or not self.ranks[number]:
                    continue
                place = side.places[self.ranks[number] - 1] - 1
                if place < 0:
                    continue
            table[place] = value
            following = place + 1
        return 0

    cdef int collect(self, dict values, PyObject **table) except -1:
        """Sort values into a table by rank. Returns how many found their place; strangers find none."""
        cdef PyObject *key
        cdef PyObject *value
        cdef Py_ssize_t place = 0
        cdef int64_t number
        cdef int count = 0
        memset(table, 0, self.count * sizeof(PyObject *))
        while PyDict_Next(values, &place, &key, &value):
            if check_number(<object>key, 0, 0xFFFF, &number) == NONE and self.ranks[number]:
                table[self.ranks[number] - 1] = value
                count += 1
        return count

    def pack(self, values):
        cdef PyObject *table[ELEMENTS_MAX]
        cdef dict given = values if type(values) is dict else dict(values)
        cdef Checked checked
        cdef Error error
        cdef Writer writer
        cdef int index
        if self.collect(given, table) != len(given):
            refuse_stranger(given, set(self.keys))
        open_writer(&writer)
        try:
            for index in range(self.count):
                if table[index] == NULL:
                    continue
                error = check_value(&self.elements[index], <object>table[index], &checked)
                if error != NONE:
                    refuse(error, self.paths[index])
                write_big_endian(&writer, self.elements[index].key, 2)
                write_wire(&writer, &self.elements[index], &checked)
            return written(&writer)
        finally:
            close_writer(&writer)

    def pack_kept(self, values, frozenset columns not None):
        cdef PyObject *table[ELEMENTS_MAX]
        cdef dict given = values if type(values) is dict else dict(values)
        cdef Checked checked
        cdef Error error
        cdef Writer clear
        cdef Writer secret
        cdef Writer *writer
        cdef int64_t number
        cdef int index
        if self.collect(given, table) != len(given):
            refuse_stranger(given, set(self.keys))
        for key in columns:  # a few, where asking the set for each value costs a third of the whole
            if check_number(key, 0, 0xFFFF, &number) == NONE and self.ranks[number]:
                table[self.ranks[number] - 1] = NULL
        open_writer(&clear)
        open_writer(&secret)
        try:
            for index in range(self.count):
                if table[index] == NULL or self.elements[index].privacy == 3:
                    continue
                error = check_value(&self.elements[index], <object>table[index], &checked)
                if error != NONE:
                    refuse(error, self.paths[index])
                writer = &clear if self.elements[index].privacy == 1 else &secret
                write_big_endian(writer, self.elements[index].key, 2)
                write_wire(writer, &self.elements[index], &checked)
            return written(&clear), written(&secret)
        finally:
            close_writer(&clear)
            close_writer(&secret)

    # ---- signing

    def canonical(self, template, flags, sequence, values):
        cdef PyObject *table[ELEMENTS_MAX]
        cdef dict given = values if type(values) is dict else dict(values)
        cdef Writer writer
        open_writer(&writer)
        try:
            self.write_head(&writer, template, flags, sequence)
            if self.collect(given, table) != len(given):
                refuse_stranger(given, set(self.keys))
            self.write_canonicals(&writer, table)
            return written(&writer)
        finally:
            close_writer(&writer)

    def signed_text(self, bytes za not None, bytes binding not None, message, implied):
        cdef Writer writer
        open_writer(&writer)
        try:
            self.write_signed(&writer, za, binding, message, implied)
            return written(&writer)
        finally:
            close_writer(&writer)

    def digest(self, bytes za not None, bytes binding not None, message, implied):
        cdef uint8_t out[DIGEST_BYTES]
        cdef Writer writer
        open_writer(&writer)
        try:
            self.write_signed(&writer, za, binding, message, implied)
            if sm3_into(out, writer.start, writer.at - writer.start):
                raise MemoryError
            return PyBytes_FromStringAndSize(<char *>out, DIGEST_BYTES)
        finally:
            close_writer(&writer)

    cdef int write_signed(self, Writer *writer, bytes za, bytes binding, object message, object implied) except -1:
        cdef PyObject *table[ELEMENTS_MAX]
        cdef PyObject *session[ELEMENTS_MAX]
        cdef dict given = message.values if type(message.values) is dict else dict(message.values)
        cdef dict known = implied if type(implied) is dict else dict(implied)
        cdef int index
        if PyBytes_GET_SIZE(za) != DIGEST_BYTES or <size_t>PyBytes_GET_SIZE(binding) != BINDING_BYTES:
            raise ValueError("ZA and the session binding have 32 bytes each")
        write_bytes(writer, <const uint8_t *>PyBytes_AS_STRING(za), DIGEST_BYTES)
        write_bytes(writer, TAG, TAG_BYTES)
        write_bytes(writer, <const uint8_t *>PyBytes_AS_STRING(binding), BINDING_BYTES)
        self.write_head(writer, message.template, message.flags, message.sequence)
        if self.collect(known, session) != len(known):
            refuse_stranger(known, set(self.keys))
        if self.collect(given, table) != len(given):
            refuse_stranger(given, set(self.keys))
        # What stands in the message itself wins.
        for index in range(self.count):
            if table[index] == NULL:
                table[index] = session[index]
        return self.write_canonicals(writer, table)

    cdef int write_head(self, Writer *writer, object template, object flags, object sequence) except -1:
        cdef const Template *plan = self.template_of(template)
        cdef int64_t bits, number
        cdef uint8_t *out
        if check_number(flags, 0, 0xFF, &bits) != NONE:
            refuse(UNKNOWN_FLAG, "")
        if check_number(sequence, 0, INT64_MAX, &number) != NONE:
            refuse(VALUE_OUT_OF_RANGE, "")
        out = room(writer, 3)
        out[0] = <uint8_t>VERSION
        out[1] = <uint8_t>(plan - &self.templates[0])
        out[2] = <uint8_t>(bits & ~DELTA)
        return write_big_endian(writer, number, 8)

    cdef int write_canonicals(self, Writer *writer, PyObject **table) except -1:
        cdef Checked checked
        cdef Error error
        cdef int index
        for index in range(self.count):
            if table[index] == NULL:
                continue
            error = check_value(&self.elements[index], <object>table[index], &checked)
            if error != NONE:
                refuse(error, self.paths[index])
            write_canonical(writer, &self.elements[index], &checked)
        return 0


cdef void free_side(Side *side) noexcept:
    free(side.slots)
    free(side.places)


cdef int refuse_stranger(dict values, set known) except -1:
    """Name the first value whose key has no place."""
    for key in values:
        if key not in known:
            refuse(UNKNOWN_FIELD, path_of(key))
    raise TypeError("the keys of elements are integers")
