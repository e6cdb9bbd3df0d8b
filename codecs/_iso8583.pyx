# cython: boundscheck=False, wraparound=False
"""The compiled twin of ``protocol.iso8583_reference`` and ``protocol.iso8583_mac``.

Tests hold them equal for good and for bad input.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memcpy

from fengshou.codecs._libcrypto cimport CRYPTO_memcmp
from fengshou.codecs._sm4 cimport Sm4Cmac

from fengshou.protocol import iso8583 as table
from fengshou.protocol import iso8583_mac
from fengshou.protocol.errors import UntrustedBytesError, WireError
from fengshou.protocol.iso8583_mac import ForgedMessage

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    long PyLong_AsLongAndOverflow(object number, int *overflow) except? -1

cdef extern from *:
    int leading_zeros "__builtin_clzll"(unsigned long long bits) nogil
    int ones "__builtin_popcountll"(unsigned long long bits) nogil

cdef extern from *:
    # Cython's own name for a dict that need not grow, on every Python that it supports.
    dict __Pyx_PyDict_NewPresized(Py_ssize_t size)

cdef extern from *:
    """
    static const char fengshou_hex[] = "0123456789ABCDEF";
    """
    const char *HEX "fengshou_hex"

assert table.MESSAGE_BYTES_MAX == MESSAGE_BYTES
assert table.ELEMENT_MAX + 1 == ELEMENTS
assert table.LENGTH_BYTES == 2
assert table.MTI == 0
assert iso8583_mac.MAC_BYTES == MAC_BYTES
assert (iso8583_mac.MAC, iso8583_mac.MAC_2, iso8583_mac.SECURITY_CONTROL) == (MAC, MAC_2, SECURITY_CONTROL)
assert len(iso8583_mac.NO_PIN) == CONTROL_DIGITS

cdef str NO_PIN = iso8583_mac.NO_PIN
cdef bytes PLACEHOLDER = bytes(MAC_BYTES)

# The numbers of the elements, as keys of a message's dict.
cdef tuple NUMBERS = tuple(range(ELEMENTS))
cdef PyObject *KEYS[ELEMENTS]
for _number in NUMBERS:
    KEYS[<int> _number] = <PyObject *> NUMBERS[_number]

cdef dict KINDS = {"n": N, "z": Z, "an": AN, "ans": ANS, "b": B}
cdef dict LENGTHS = {"bcd": LENGTH_BCD, "ascii": LENGTH_ASCII, "binary": LENGTH_BINARY}
cdef dict PADS = {"leading-zero": LEADING_ZERO, "trailing-zero": TRAILING_ZERO, "trailing-f": TRAILING_F}

# Where an error happened: the number of an element, or one of these.
cdef enum:
    NOWHERE = -2
    AT_BITMAP = -1
    AT_MTI = 0


cdef object refusal(object error, int number):
    """The exception for ``error`` at an element."""
    if number == NOWHERE:
        return UntrustedBytesError(error)
    if number == AT_BITMAP:
        return UntrustedBytesError(error, "bitmap")
    if number == AT_MTI:
        return UntrustedBytesError(error, "MTI")
    return UntrustedBytesError(error, f"DE {number}")


cdef const uint8_t *take(Reader *reader, Py_ssize_t count, int number) except NULL:
    cdef const uint8_t *taken = reader.data
    if count > reader.left:
        raise refusal(WireError.TRUNCATED, number)
    reader.data += count
    reader.left -= count
    return taken


cdef uint8_t *give(Writer *writer, Py_ssize_t count, int number) except NULL:
    cdef uint8_t *given = writer.data
    if count > writer.left:
        raise refusal(WireError.FRAME_TOO_LONG, number)
    writer.data += count
    writer.left -= count
    return given


cdef class Iso8583Codec:
    def __cinit__(self, host_format):
        cdef int number
        self.mti_packed = host_format.mti is table.Packing.BCD
        self.bitmap_packed = host_format.bitmap is table.Packing.BCD
        self.numbers_packed = host_format.numbers is table.Packing.BCD
        self.gb18030 = host_format.charset is table.Charset.GB18030
        self.lengths = LENGTHS[host_format.lengths.value]
        for number in range(ELEMENTS):
            self.plans[number].kind = ABSENT
        for row in host_format.fields:
            number = row.number
            assert 1 < number < ELEMENTS
            pad = host_format.variable_pad if row.length_digits else host_format.fixed_pad
            self.plans[number].kind = KINDS[row.kind.value]
            self.plans[number].length_digits = row.length_digits
            self.plans[number].pad = PADS[pad.value]
            self.plans[number].size = row.size

    def encode(self, fields):
        cdef uint8_t out[MESSAGE_BYTES]
        cdef Table table
        cdef dict items = fields if type(fields) is dict else dict(fields)
        self.collect(items, &table)
        return PyBytes_FromStringAndSize(<char *> out, self.write(&table, out))

    def frame(self, fields):
        cdef uint8_t out[2 + MESSAGE_BYTES]
        cdef Table table
        cdef dict items = fields if type(fields) is dict else dict(fields)
        self.collect(items, &table)
        return framed(out, self.write(&table, &out[2]))

    def frame_with_mac(self, keys, int epoch, fields):
        cdef uint8_t out[2 + MESSAGE_BYTES]
        cdef uint8_t mac[16]
        cdef Table table
        cdef Py_ssize_t count
        cdef dict items = fields if type(fields) is dict else dict(fields)
        self.collect(items, &table)
        if is_network(<object> table.mti if table.mti != NULL else None):
            return framed(out, self.write(&table, &out[2]))
        control = items.get(SECURITY_CONTROL, NO_PIN)
        epoch = epoch_of(control) or epoch
        control = with_epoch(control, epoch)
        self.put(&table, SECURITY_CONTROL, control)
        self.put(&table, MAC_2 if table.second else MAC, PLACEHOLDER)
        count = self.write(&table, &out[2])
        authenticate(keys[epoch], &out[2], count - MAC_BYTES, mac)
        memcpy(&out[2 + count - MAC_BYTES], mac, MAC_BYTES)
        return framed(out, count)

    def decode(self, bytes message not None):
        return self.read(message)

    def decode_with_mac(self, keys, bytes message not None):
        cdef dict fields = self.read(message)
        cdef const uint8_t *content = <const uint8_t *> PyBytes_AS_STRING(message)
        cdef Py_ssize_t covered = PyBytes_GET_SIZE(message) - MAC_BYTES
        cdef uint8_t wanted[16]
        if is_network(fields[AT_MTI]):
            return fields
        mac = fields.pop(MAC_2 if MAC_2 in fields else MAC, b"")
        try:
            key = keys[epoch_of(fields.get(SECURITY_CONTROL))]
        except KeyError:
            raise ForgedMessage(fields) from None
        if covered < 0 or mac != message[covered:]:
            raise ForgedMessage(fields)
        authenticate(key, content, covered, wanted)
        if CRYPTO_memcmp(wanted, content + covered, MAC_BYTES):
            raise ForgedMessage(fields)
        return fields

    def split(self, const uint8_t[::1] data not None):
        cdef list messages = []
        cdef Py_ssize_t used = 0, total = data.shape[0], length
        while used + 2 <= total:
            length = data[used] << 8 | data[used + 1]
            if length > MESSAGE_BYTES:
                if used == 0:
                    raise refusal(WireError.FRAME_TOO_LONG, NOWHERE)
                break
            if used + 2 + length > total:
                break
            if length:
                messages.append(PyBytes_FromStringAndSize(<const char *> &data[used + 2], length))
            used += 2 + length
        return messages, used

    cdef dict read(self, bytes message):
        cdef Reader reader = Reader(<const uint8_t *> PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        cdef uint64_t bits, second = 0
        cdef dict fields
        cdef int number
        if reader.left > MESSAGE_BYTES:
            raise refusal(WireError.FRAME_TOO_LONG, NOWHERE)
        mti = self.read_mti(&reader)
        self.read_bitmap_half(&reader, &bits)
        if bits >> 63:
            self.read_bitmap_half(&reader, &second)
            bits &= ~(<uint64_t> 1 << 63)
        fields = __Pyx_PyDict_NewPresized(1 + ones(bits) + ones(second))
        PyDict_SetItem(fields, <object> KEYS[AT_MTI], mti)
        while bits:
            number = leading_zeros(bits) + 1
            bits &= ~(<uint64_t> 1 << (64 - number))
            PyDict_SetItem(fields, <object> KEYS[number], self.read_field(&reader, number))
        while second:
            number = leading_zeros(second) + 65
            second &= ~(<uint64_t> 1 << (128 - number))
            PyDict_SetItem(fields, <object> KEYS[number], self.read_field(&reader, number))
        if reader.left:
            raise refusal(WireError.TRAILING_BYTES, NOWHERE)
        return fields

    cdef int collect(self, dict items, Table *table) except -1:
        """The values of a message, which ``items`` keeps alive."""
        # Nothing between here and the end of ``write`` gives up the GIL to who could change it but the codec of GB 18030
        # at its first use, so that one is looked up at import.
        cdef PyObject *key
        cdef PyObject *value
        cdef Py_ssize_t position = 0
        cdef int number, overflow = 0
        table.mti = NULL
        table.first = table.second = 0
        while PyDict_Next(items, &position, &key, &value):
            number = <int> min(max(PyLong_AsLongAndOverflow(<object> key, &overflow), -1), ELEMENTS)
            if number == 0 and not overflow:
                table.mti = value
            elif overflow or not 0 < number < ELEMENTS or self.plans[number].kind == ABSENT:
                raise self.unknown(items)
            else:
                self.put(table, number, <object> value)
        return 0

    cdef int put(self, Table *table, int number, object value) except -1:
        """A value that the caller keeps alive."""
        if self.plans[number].kind == ABSENT:
            raise refusal(WireError.UNKNOWN_FIELD, number)
        table.values[number] = <PyObject *> value
        if number <= 64:
            table.first |= <uint64_t> 1 << (64 - number)
        else:
            table.second |= <uint64_t> 1 << (128 - number)
        return 0

    cdef object unknown(self, dict items):
        """The exception for the smallest number that no row has."""
        numbers = [n for n in items if n != 0 and not (0 < n < ELEMENTS and self.plans[<int> n].kind != ABSENT)]
        return UntrustedBytesError(WireError.UNKNOWN_FIELD, f"DE {min(numbers)}")

    cdef Py_ssize_t write(self, const Table *table, uint8_t *out) except -1:
        """The message into ``out``, which has room for MESSAGE_BYTES; returns its length."""
        cdef Writer writer = Writer(out, MESSAGE_BYTES)
        cdef uint64_t bits
        cdef int number
        self.write_mti(&writer, <object> table.mti if table.mti != NULL else None)
        self.write_bitmap(&writer, table.first, table.second)
        bits = table.first
        while bits:
            number = leading_zeros(bits) + 1
            bits &= ~(<uint64_t> 1 << (64 - number))
            self.write_field(&writer, number, <object> table.values[number])
        bits = table.second
        while bits:
            number = leading_zeros(bits) + 65
            bits &= ~(<uint64_t> 1 << (128 - number))
            self.write_field(&writer, number, <object> table.values[number])
        return MESSAGE_BYTES - writer.left

    cdef int write_mti(self, Writer *writer, object value) except -1:
        cdef const uint8_t *digits
        cdef uint8_t *out
        if not isinstance(value, str):
            raise refusal(WireError.TEXT_MALFORMED, AT_MTI)
        if PyUnicode_GET_LENGTH(value) != 4:
            raise refusal(WireError.VALUE_OUT_OF_RANGE, AT_MTI)
        digits = ascii_data(value, AT_MTI)
        if not all_digits(digits, 4, N):
            raise refusal(WireError.TEXT_MALFORMED, AT_MTI)
        if self.mti_packed:
            out = give(writer, 2, AT_MTI)
            out[0] = nibble(digits[0]) << 4 | nibble(digits[1])
            out[1] = nibble(digits[2]) << 4 | nibble(digits[3])
        else:
            memcpy(give(writer, 4, AT_MTI), digits, 4)
        return 0

    cdef str read_mti(self, Reader *reader):
        cdef str text = PyUnicode_New(4, 127)
        cdef uint8_t *digits = <uint8_t *> PyUnicode_DATA(text)
        cdef const uint8_t *content
        if self.mti_packed:
            content = take(reader, 2, AT_MTI)
            digits[0] = HEX[content[0] >> 4]
            digits[1] = HEX[content[0] & 15]
            digits[2] = HEX[content[1] >> 4]
            digits[3] = HEX[content[1] & 15]
        else:
            memcpy(digits, take(reader, 4, AT_MTI), 4)
        if not all_digits(digits, 4, N):
            memcpy(digits, b"0000", 4)  # a str must stay valid until it is gone
            raise refusal(WireError.TEXT_MALFORMED, AT_MTI)
        return text

    cdef int write_bitmap(self, Writer *writer, uint64_t first, uint64_t second) except -1:
        if second:
            self.write_bitmap_half(writer, first | <uint64_t> 1 << 63)
            self.write_bitmap_half(writer, second)
        else:
            self.write_bitmap_half(writer, first)
        return 0

    cdef int write_bitmap_half(self, Writer *writer, uint64_t bits) except -1:
        cdef uint8_t *out = give(writer, 8 if self.bitmap_packed else 16, AT_BITMAP)
        cdef int i
        if self.bitmap_packed:
            for i in range(8):
                out[i] = bits >> (56 - 8 * i) & 0xFF
        else:
            for i in range(16):
                out[i] = HEX[bits >> (60 - 4 * i) & 15]
        return 0

    cdef int read_bitmap_half(self, Reader *reader, uint64_t *bits) except -1:
        cdef const uint8_t *content = take(reader, 8 if self.bitmap_packed else 16, AT_BITMAP)
        cdef int i, value
        bits[0] = 0
        if self.bitmap_packed:
            for i in range(8):
                bits[0] = bits[0] << 8 | content[i]
            return 0
        for i in range(16):
            value = hex_value(content[i])
            if value < 0:
                raise refusal(WireError.TEXT_MALFORMED, AT_BITMAP)
            bits[0] = bits[0] << 4 | <uint64_t> value
        return 0

    cdef int write_field(self, Writer *writer, int number, object value) except -1:
        cdef Plan *plan = &self.plans[number]
        cdef const uint8_t *digits
        cdef Py_ssize_t count
        if plan.kind == B:
            if not isinstance(value, bytes):
                raise refusal(WireError.TEXT_MALFORMED, number)
            count = PyBytes_GET_SIZE(value)
            return self.write_content(writer, number, <const uint8_t *> PyBytes_AS_STRING(value), count)
        if not isinstance(value, str):
            raise refusal(WireError.TEXT_MALFORMED, number)
        if plan.kind == ANS:
            return self.write_text(writer, number, value)
        count = PyUnicode_GET_LENGTH(value)
        if count > plan.size or (plan.length_digits == 0 and count != plan.size):
            raise refusal(WireError.VALUE_OUT_OF_RANGE, number)
        digits = ascii_data(value, number)
        if plan.kind == AN:
            if not printable(digits, count):
                raise refusal(WireError.TEXT_MALFORMED, number)
            return self.write_content(writer, number, digits, count)
        if not all_digits(digits, count, plan.kind):
            raise refusal(WireError.TEXT_MALFORMED, number)
        if self.numbers_packed:
            return self.write_digits(writer, number, digits, count)
        return self.write_content(writer, number, digits, count)

    cdef object read_field(self, Reader *reader, int number):
        cdef Kind kind = self.plans[number].kind
        cdef const uint8_t *content
        cdef Py_ssize_t count
        if kind == ABSENT:
            raise refusal(WireError.UNKNOWN_FIELD, number)
        count = self.read_length(reader, number)
        if (kind == N or kind == Z) and self.numbers_packed:
            return self.read_digits(reader, number, count)
        content = take(reader, count, number)
        if kind == B:
            return PyBytes_FromStringAndSize(<const char *> content, count)
        if (kind == N or kind == Z) and not all_digits(content, count, kind) or not printable(content, count):
            raise refusal(WireError.TEXT_MALFORMED, number)
        try:
            if kind == ANS and self.gb18030:
                return content[:count].decode("gb18030")
            return PyUnicode_DecodeASCII(<const char *> content, count, NULL)
        except UnicodeDecodeError:
            raise refusal(WireError.TEXT_MALFORMED, number) from None

    cdef int write_text(self, Writer *writer, int number, object value) except -1:
        """Text in the charset of the format, kind ans."""
        cdef bytes encoded
        cdef const uint8_t *content
        cdef Py_ssize_t count
        if PyUnicode_IS_ASCII(value):  # the same bytes in both charsets
            content = <const uint8_t *> PyUnicode_DATA(value)
            count = PyUnicode_GET_LENGTH(value)
        elif self.gb18030:
            try:
                encoded = (<str> value).encode("gb18030")
            except UnicodeEncodeError:
                raise refusal(WireError.TEXT_MALFORMED, number) from None
            content = <const uint8_t *> PyBytes_AS_STRING(encoded)
            count = PyBytes_GET_SIZE(encoded)
        else:
            raise refusal(WireError.TEXT_MALFORMED, number)
        if not printable(content, count):
            raise refusal(WireError.TEXT_MALFORMED, number)
        return self.write_content(writer, number, content, count)

    cdef int write_content(self, Writer *writer, int number, const uint8_t *content, Py_ssize_t count) except -1:
        cdef Plan *plan = &self.plans[number]
        if count > plan.size or (plan.length_digits == 0 and count != plan.size):
            raise refusal(WireError.VALUE_OUT_OF_RANGE, number)
        self.write_length(writer, number, count)
        memcpy(give(writer, count, number), content, count)
        return 0

    cdef int write_digits(self, Writer *writer, int number, const uint8_t *digits, Py_ssize_t count) except -1:
        cdef Pad pad = self.plans[number].pad
        cdef uint8_t *out
        cdef Py_ssize_t i = 0
        self.write_length(writer, number, count)
        out = give(writer, (count + 1) // 2, number)
        if count & 1 and pad == LEADING_ZERO:
            out[0] = nibble(digits[0])
            out += 1
            i = 1
        while i + 1 < count:
            out[0] = nibble(digits[i]) << 4 | nibble(digits[i + 1])
            out += 1
            i += 2
        if i < count:
            out[0] = nibble(digits[i]) << 4 | (15 if pad == TRAILING_F else 0)
        return 0

    cdef str read_digits(self, Reader *reader, int number, Py_ssize_t count):
        cdef Plan *plan = &self.plans[number]
        cdef const uint8_t *content = take(reader, (count + 1) // 2, number)
        cdef str text
        cdef uint8_t *digits
        cdef Py_ssize_t i = 0
        cdef uint8_t value, seen
        if count == 0:
            return ""  # the one empty str is shared and must not be written to
        if count & 1:
            seen = content[0] >> 4 if plan.pad == LEADING_ZERO else content[count // 2] & 15
            if seen != (15 if plan.pad == TRAILING_F else 0):
                raise refusal(WireError.TEXT_MALFORMED, number)
            i = 1 if plan.pad == LEADING_ZERO else 0
        text = PyUnicode_New(count, 127)
        digits = <uint8_t *> PyUnicode_DATA(text)
        cdef Py_ssize_t written = 0
        while written < count:
            value = content[i // 2] & 15 if i & 1 else content[i // 2] >> 4
            if value < 10:
                digits[written] = 48 + value
            elif value == 13 and plan.kind == Z:
                digits[written] = 61  # "="
            else:
                while written < count:  # a str must stay valid until it is gone
                    digits[written] = 48
                    written += 1
                raise refusal(WireError.TEXT_MALFORMED, number)
            i += 1
            written += 1
        return text

    cdef int write_length(self, Writer *writer, int number, Py_ssize_t count) except -1:
        cdef uint8_t digits = self.plans[number].length_digits
        cdef uint8_t *out
        if digits == 0:
            return 0
        if self.lengths == LENGTH_ASCII:
            out = give(writer, digits, number)
            if digits == 3:
                out[0] = 48 + count // 100
                out += 1
            out[0] = 48 + count // 10 % 10
            out[1] = 48 + count % 10
            return 0
        out = give(writer, digits - 1, number)
        if self.lengths == LENGTH_BINARY:
            if digits == 3:
                out[0] = count >> 8
                out += 1
            out[0] = count & 0xFF
            return 0
        if digits == 3:
            out[0] = count // 100
            out += 1
        out[0] = count // 10 % 10 << 4 | count % 10
        return 0

    cdef Py_ssize_t read_length(self, Reader *reader, int number) except -1:
        cdef uint8_t digits = self.plans[number].length_digits
        cdef const uint8_t *content
        cdef Py_ssize_t count = 0
        cdef int i
        if digits == 0:
            return self.plans[number].size
        if self.lengths == LENGTH_ASCII:
            content = take(reader, digits, number)
            if not all_digits(content, digits, N):
                raise refusal(WireError.LENGTH_MALFORMED, number)
            for i in range(digits):
                count = 10 * count + (content[i] - 48)
        else:
            content = take(reader, digits - 1, number)
            for i in range(digits - 1):
                if self.lengths == LENGTH_BINARY:
                    count = count << 8 | content[i]
                elif content[i] >> 4 > 9 or content[i] & 15 > 9:
                    raise refusal(WireError.LENGTH_MALFORMED, number)
                else:
                    count = 100 * count + 10 * (content[i] >> 4) + (content[i] & 15)
        if count > self.plans[number].size:
            raise refusal(WireError.VALUE_OUT_OF_RANGE, number)
        return count


cdef const uint8_t *ascii_data(object text, int number) except NULL:
    """The characters of an ASCII str."""
    if not PyUnicode_IS_ASCII(text):
        raise refusal(WireError.TEXT_MALFORMED, number)
    return <const uint8_t *> PyUnicode_DATA(text)


cdef bytes framed(uint8_t *out, Py_ssize_t count):
    """The frame of a message that stands two bytes behind ``out``."""
    out[0] = count >> 8
    out[1] = count & 0xFF
    return PyBytes_FromStringAndSize(<char *> out, 2 + count)


cdef bint is_network(object mti):
    """Whether a message is network management, 08xx."""
    return isinstance(mti, str) and PyUnicode_GET_LENGTH(mti) > 1 and (<str> mti)[1] == "8"


cdef const uint8_t *control_of(object control):
    """The digits of DE 53; NULL when the value is no text of such a length."""
    if isinstance(control, str) and PyUnicode_GET_LENGTH(control) == CONTROL_DIGITS and PyUnicode_IS_ASCII(control):
        return <const uint8_t *> PyUnicode_DATA(control)
    return NULL


cdef int epoch_of(object control):
    """See ``iso8583_mac.mac_epoch_of``."""
    cdef const uint8_t *digits = control_of(control)
    if digits == NULL or not all_digits(digits, CONTROL_DIGITS, N):
        return 0
    return 100 * nibble(digits[5]) + 10 * nibble(digits[6]) + nibble(digits[7])


cdef object with_epoch(object control, int epoch):
    """DE 53 with this epoch of the authentication key; what is not DE 53 as it is, for ``write`` to refuse."""
    cdef const uint8_t *digits = control_of(control)
    if digits == NULL:
        return control
    cdef str text = PyUnicode_New(CONTROL_DIGITS, 127)
    cdef uint8_t *out = <uint8_t *> PyUnicode_DATA(text)
    memcpy(out, digits, CONTROL_DIGITS)
    out[5] = 48 + epoch // 100 % 10
    out[6] = 48 + epoch // 10 % 10
    out[7] = 48 + epoch % 10
    return text


cdef int authenticate(object key, const uint8_t *covered, Py_ssize_t count, uint8_t *mac) except -1:
    """At least the first 8 of the 16 bytes at ``mac``."""
    if type(key) is Sm4Cmac:
        return (<Sm4Cmac> key).mac_into(covered, count, mac)
    cdef bytes made = key.mac(PyBytes_FromStringAndSize(<const char *> covered, count))
    if PyBytes_GET_SIZE(made) < MAC_BYTES:
        raise ValueError("a MAC has at least 8 bytes")
    memcpy(mac, PyBytes_AS_STRING(made), MAC_BYTES)
    return 0


cdef inline uint8_t nibble(uint8_t character) noexcept nogil:
    """Of a digit its value, of ``=`` 13: both are the low four bits."""
    return character & 15


cdef inline bint all_digits(const uint8_t *content, Py_ssize_t count, Kind kind) noexcept nogil:
    """Only digits; in kind z also ``=``."""
    cdef Py_ssize_t i
    for i in range(count):
        if not 48 <= content[i] <= 57 and not (kind == Z and content[i] == 61):
            return False
    return True


cdef inline bint printable(const uint8_t *content, Py_ssize_t count) noexcept nogil:
    """No control characters; no second byte of GB 18030 looks like one."""
    cdef Py_ssize_t i
    for i in range(count):
        if content[i] < 0x20 or content[i] == 0x7F:
            return False
    return True


cdef inline int hex_value(uint8_t character) noexcept nogil:
    if 48 <= character <= 57:
        return character - 48
    character |= 0x20
    return character - 87 if 97 <= character <= 102 else -1


"".encode("gb18030")  # see ``write``
