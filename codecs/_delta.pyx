"""Requests as their difference to earlier ones: the twin of ``fengshou.protocol.delta.ReferenceDeltaWriter``.

A request is written whole once, and kept and compared in that wire form. What an earlier one is looked for by stands
beside it as marks of 64 bits, a column for each thing that is looked for, so that going back through all that is kept
reads little memory: a fleet has thousands of writers, and none of them is in the processor's cache when its turn comes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from fengshou.codecs._message cimport *
from fengshou.codecs._values cimport *
from fengshou.codecs._wire cimport *

from fengshou.protocol import elements as de

cdef int WEIGHT = de.WEIGHT
cdef int UNIT_PRICE = de.UNIT_PRICE

# Columns of marks. Those of a template's TAIL elements follow, in its order.
cdef enum:
    OF_TEMPLATE
    OF_ALIKE
    OF_TAILS

# FNV-1a with 64 bits (draft-eastlake-fnv). Marks are of the terminal's own values: nobody gains by two that collide.
cdef enum:
    FNV_PRIME = 0x100000001B3
cdef uint64_t FNV_BASIS = 0xCBF29CE484222325

# A request that is to be said or kept.
cdef struct Request:
    int template_id
    const Side *side
    uint64_t sequence
    Piece pieces[ELEMENTS_MAX]

# What stands in an element of kind d or ans: its count of digits or bytes, and where they are.
cdef struct Text:
    size_t size
    const uint8_t *data


cdef inline uint64_t marked(uint64_t mark, const uint8_t *data, size_t size) noexcept nogil:
    cdef size_t index
    for index in range(size):
        mark = (mark ^ data[index]) * FNV_PRIME
    return mark


cdef inline bint same(const Piece *one, const Piece *other) noexcept nogil:
    """Whether an element is there twice and alike, or missing twice."""
    if one.at == NULL or other.at == NULL:
        return one.at == other.at
    return one.size == other.size and memcmp(one.at, other.at, one.size) == 0


cdef inline void set_bit(uint8_t *bits, int at) noexcept:
    bits[at >> 3] |= 0x80 >> (at & 7)


cdef inline int write_zigzag(Writer *writer, int64_t number) except -1:
    return write_varint(writer, (<uint64_t>number << 1) ^ <uint64_t>(number >> 63))


cdef Text text_of(const Element *element, const Piece *piece) noexcept nogil:
    cdef Reader reader
    cdef uint64_t size
    cdef Text text
    reader.at = piece.at
    reader.end = piece.at + piece.size
    if element.kind == KIND_D:
        text.size = take(&reader, 1)[0]
    else:
        read_varint(&reader, &size)
        text.size = size
    text.data = reader.at
    return text


cdef inline uint8_t digit_at(const uint8_t *packed, size_t index) noexcept nogil:
    return packed[index // 2] & 0x0F if index & 1 else packed[index // 2] >> 4


cdef size_t head_of(const Element *element, Text new, Text old) noexcept nogil:
    """How many digits or bytes two texts of the same count have in common before the first that differs."""
    cdef size_t head = 0
    if element.kind == KIND_D:
        while head < new.size and digit_at(new.data, head) == digit_at(old.data, head):
            head += 1
    else:
        while head < new.size and new.data[head] == old.data[head]:
            head += 1
    return head


cdef int write_tail(Writer *writer, const Element *element, const Piece *piece, const Piece *was) except -1:
    """A new tail behind the base's head where they are as long, shorter than the whole by its count; else the whole."""
    cdef Text new = text_of(element, piece)
    cdef Text old
    cdef size_t head = TAIL_HEAD, rest, index
    cdef uint8_t *out
    if was.at != NULL:
        old = text_of(element, was)
        if new.size == old.size:
            head = head_of(element, new, old)
    if head >= TAIL_HEAD:
        room(writer, 1)[0] = 0
        return write_bytes(writer, piece.at, piece.size)
    room(writer, 1)[0] = <uint8_t>(TAIL_HEAD + head)
    if element.kind != KIND_D:
        return write_bytes(writer, new.data + head, new.size - head)
    rest = (new.size - head + 1) // 2
    out = room(writer, rest)
    for index in range(rest):
        out[index] = digit_at(new.data, head) << 4 | (digit_at(new.data, head + 1) if head + 1 < new.size else 0x0F)
        head += 2
    return 0


cdef class DeltaWriter:
    cdef MessageCodec codec
    cdef uint64_t sequences[DELTA_WINDOW]  # what is kept, by sequence modulo the window
    cdef uint64_t *marks  # so many of each column
    cdef list bodies

    def __cinit__(self, MessageCodec codec not None):
        cdef int columns = OF_TAILS, template, index, tails
        cdef const Side *side
        self.codec = codec
        for template in range(TEMPLATES):
            side = &codec.templates[template].request
            tails = 0
            for index in range(side.count):
                tails += side.slots[index].operator == TAIL
            columns = max(columns, OF_TAILS + tails)
        self.marks = <uint64_t *>calloc(columns * DELTA_WINDOW, sizeof(uint64_t))
        if self.marks == NULL:
            raise MemoryError
        self.clear()

    def __dealloc__(self):
        free(self.marks)

    def clear(self):
        memset(self.sequences, 0x80, sizeof(self.sequences))  # no sequence, and none less a distance
        self.bodies = [None] * DELTA_WINDOW

    def writes(self, int template):
        return 0 <= template < TEMPLATES and self.codec.templates[template].has_delta

    def keep(self, message):
        cdef Request request
        cdef Writer whole
        cdef int place, index, column = OF_TAILS
        open_writer(&whole)
        try:
            self.state(&request, &whole, message)
            place = request.sequence % DELTA_WINDOW
            self.bodies[place] = written(&whole)
            self.sequences[place] = request.sequence
            self.column(OF_TEMPLATE)[place] = request.template_id
            self.column(OF_ALIKE)[place] = self.mark_of_alike(&request)
            for index in range(request.side.count):
                if request.side.slots[index].operator == TAIL:
                    self.column(column)[place] = self.mark_of(&request, index)
                    column += 1
        finally:
            close_writer(&whole)

    def frame(self, message):
        cdef Request request
        cdef Writer whole, writer
        cdef int64_t flags
        cdef uint8_t *start
        cdef bytes signature = message.signature
        open_writer(&whole)
        open_writer(&writer)
        try:
            self.state(&request, &whole, message)
            if check_number(message.flags, 0, 0xFF, &flags) != NONE:
                refuse(UNKNOWN_FLAG, "")
            room(&writer, LENGTH_BYTES_MAX)
            start = room(&writer, 2)
            start[0] = <uint8_t>(VERSION << 6 | request.template_id)
            start[1] = <uint8_t>(flags | DELTA)
            write_varint(&writer, request.sequence)
            if not self.write_shortest(&writer, &request):
                return None
            write_bytes(&writer, <const uint8_t *>PyBytes_AS_STRING(signature), PyBytes_GET_SIZE(signature))
            if writer.at - writer.start > LENGTH_BYTES_MAX + FRAME_BYTES_MAX:
                return None
            return end_frame(&writer)
        finally:
            close_writer(&whole)
            close_writer(&writer)

    def body(self, message):
        cdef Request request
        cdef Writer whole, writer
        open_writer(&whole)
        open_writer(&writer)
        try:
            self.state(&request, &whole, message)
            return written(&writer) if self.write_shortest(&writer, &request) else None
        finally:
            close_writer(&whole)
            close_writer(&writer)

    # ---- what is kept

    cdef inline uint64_t *column(self, int number) noexcept:
        return self.marks + number * DELTA_WINDOW

    cdef int state(self, Request *request, Writer *whole, object message) except -1:
        """Write a request whole, which checks its values, and find its elements there."""
        cdef const Template *template = self.codec.template_of(message.template)
        cdef int64_t sequence
        if not template.has_delta:
            raise KeyError(message.template)
        if check_number(message.sequence, 0, INT64_MAX, &sequence) != NONE:
            refuse(VALUE_OUT_OF_RANGE, "")
        request.template_id = template - &self.codec.templates[0]
        request.side = &template.request
        request.sequence = sequence
        self.codec.write_fields(whole, request.side, message.values)
        return locate(whole.start, whole.at - whole.start, request.side, request.pieces)

    cdef int locate_kept(self, int place, const Side *side, Piece *pieces) except -1:
        cdef bytes body = self.bodies[place]
        return locate(<const uint8_t *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), side, pieces)

    cdef uint64_t mark_of(self, const Request *request, int index) noexcept:
        """Of the value of an element. One that is not there is not looked for."""
        return marked(FNV_BASIS, request.pieces[index].at, request.pieces[index].size)

    cdef uint64_t mark_of_alike(self, const Request *request) noexcept:
        """Of what a good base has in common with a request: everything required that is either the same or said whole."""
        cdef uint64_t mark = FNV_BASIS
        cdef const Slot *slot
        cdef int index
        for index in range(request.side.count):
            slot = &request.side.slots[index]
            if slot.operator == COPY and not slot.presence_bit:
                mark = marked(mark, request.pieces[index].at, request.pieces[index].size)
        return mark

    cdef int nearest(self, const Request *request, int column, uint64_t mark, int distance) noexcept:
        """How far back, from this distance on, a request of the template has this mark; 0: nowhere within reach."""
        cdef const uint64_t *marks = self.column(column)
        cdef const uint64_t *templates = self.column(OF_TEMPLATE)
        cdef int place = (request.sequence + DELTA_WINDOW - distance) % DELTA_WINDOW
        for distance in range(distance, DELTA_WINDOW + 1):
            if (
                marks[place] == mark and self.sequences[place] == request.sequence - distance
                and templates[place] == <uint64_t>request.template_id
            ):
                return distance
            place = place - 1 if place else DELTA_WINDOW - 1
        return 0

    cdef int last_said(self, const Request *request, int index, int column) except -1:
        """How far back the same value of an element was last sent; 0: nowhere within reach."""
        cdef Piece others[ELEMENTS_MAX]
        cdef uint64_t mark = self.mark_of(request, index)
        cdef int distance = self.nearest(request, column, mark, 1)
        while distance:
            self.locate_kept((request.sequence - distance) % DELTA_WINDOW, request.side, others)
            if same(&request.pieces[index], &others[index]):
                break
            distance = self.nearest(request, column, mark, distance + 1)
        return distance

    # ---- the difference

    cdef bint write_shortest(self, Writer *writer, const Request *request) except -1:
        """False, with nothing written, when there is no base or no difference can say it."""
        cdef Writer one, other
        cdef Writer *shortest
        cdef int nearest, alike
        open_writer(&one)
        open_writer(&other)
        try:
            nearest = self.nearest(request, OF_TEMPLATE, request.template_id, 1)
            if not nearest or not self.write_difference(&one, request, nearest):
                return False
            shortest = &one
            alike = self.nearest(request, OF_ALIKE, self.mark_of_alike(request), nearest)
            if alike and alike != nearest and self.write_difference(&other, request, alike):
                if other.at - other.start < one.at - one.start:
                    shortest = &other
            write_bytes(writer, shortest.start, shortest.at - shortest.start)
            return True
        finally:
            close_writer(&one)
            close_writer(&other)

    cdef bint write_difference(self, Writer *writer, const Request *request, int distance) except -1:
        """False when the request has an element that the form cannot say."""
        cdef Piece base[ELEMENTS_MAX]
        cdef const Slot *slot
        cdef size_t bits = 1
        cdef int index, at = 0, column = OF_TAILS, own_column
        self.locate_kept((request.sequence - distance) % DELTA_WINDOW, request.side, base)
        room(writer, 1)[0] = <uint8_t>distance
        memset(room(writer, request.side.delta_bytes), 0, request.side.delta_bytes)
        for index in range(request.side.count):
            slot = &request.side.slots[index]
            own_column = column
            column += slot.operator == TAIL
            if not slot.delta_bits or not self.is_predicted(request, index, base, distance):
                if request.pieces[index].at == NULL:
                    set_bit(writer.start + bits, at + 1)  # ABSENT
                else:
                    if slot.delta_bits:
                        set_bit(writer.start + bits, at)  # GIVEN
                    if not self.write_given(writer, request, index, base, own_column):
                        return False
            at += slot.delta_bits
        return True

    cdef bint is_predicted(self, const Request *request, int index, const Piece *base, int distance) noexcept:
        cdef const Piece *piece = &request.pieces[index]
        cdef const Slot *slot = &request.side.slots[index]
        if slot.operator == INCREMENT:
            return <uint64_t>number_at(piece.at) == <uint64_t>number_at(base[index].at) + distance
        if slot.operator == DERIVED:
            return number_at(piece.at) == self.derived(request)
        return same(piece, &base[index])

    cdef int64_t derived(self, const Request *request) noexcept:
        """``protocol.money.amount_of``; a grammar has it only where both are required, and its limits fit."""
        return (self.number_of(request, WEIGHT) * self.number_of(request, UNIT_PRICE) + 50) // 100

    cdef int64_t number_of(self, const Request *request, int key) noexcept:
        return number_at(request.pieces[request.side.places[self.codec.ranks[key] - 1] - 1].at)

    cdef bint write_given(
        self, Writer *writer, const Request *request, int index, const Piece *base, int column
    ) except -1:
        """An element in the form of its operator; False for what is no time of day."""
        cdef const Slot *slot = &request.side.slots[index]
        cdef const Piece *piece = &request.pieces[index]
        cdef int64_t second
        cdef int distance
        if slot.operator == CLOCK:
            second = seconds_of(number_at(piece.at))
            if time_of(second) != number_at(piece.at):
                return False  # the ladder of its service will say so
            write_zigzag(writer, second - seconds_of(number_at(base[index].at)))
        elif slot.operator == DIFFERENCE:
            write_zigzag(writer, number_at(piece.at) - number_at(base[index].at))
        elif slot.operator == TAIL:
            distance = self.last_said(request, index, column)
            if distance:
                room(writer, 1)[0] = <uint8_t>distance
            else:
                write_tail(writer, slot.element, piece, &base[index])
        else:
            write_bytes(writer, piece.at, piece.size)
        return True
