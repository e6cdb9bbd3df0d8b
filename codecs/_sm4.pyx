"""SM4-GCM (GB/T 32907, GB/T 36624, AEAD_SM4_GCM of RFC 8998) and SM4-CMAC for short data. ``_sm4.pyi`` has meanings.

The block cipher is libcrypto's, which has SM4 but, up to OpenSSL 3.0, not its GCM; the context is set up once a key, not
once a message, and that is what it is here for. GHASH goes by tables of four bits (Shoup), as NIST SP 800-38D describes
the field: bit 0 of a block is its highest.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fengshou.codecs._libcrypto cimport *

cdef enum:
    BLOCK_BYTES = 16
    NONCE_BYTES = 12
    TAG_BYTES = 16
    BLOCKS_AT_ONCE = 32

# What leaves at the low end when a block moves by four bits, brought back modulo x^128 + x^7 + x^2 + x + 1.
cdef uint64_t[16] REDUCED = [
    0x0000, 0x1C20, 0x3840, 0x2460, 0x7080, 0x6CA0, 0x48C0, 0x54E0, 0xE100, 0xFD20, 0xD940, 0xC560, 0x9180, 0x8DA0,
    0xA9C0, 0xB5E0,
]


class BadTag(Exception):
    pass


cdef inline uint64_t load(const uint8_t *data) noexcept nogil:
    cdef uint64_t value = 0
    cdef int index
    for index in range(8):
        value = value << 8 | data[index]
    return value


cdef inline void store(uint8_t *out, uint64_t value) noexcept nogil:
    cdef int index
    for index in range(8):
        out[index] = <uint8_t>(value >> (56 - 8 * index))


cdef class Sm4Gcm:
    def __cinit__(self, key not None):
        cdef const uint8_t[::1] octets = key
        cdef uint8_t block[BLOCK_BYTES]
        cdef int size = 0, index
        cdef Half one
        cdef EVP_CIPHER *cipher
        if octets.shape[0] != BLOCK_BYTES:
            raise ValueError("an SM4 key has 16 bytes")
        cipher = EVP_CIPHER_fetch(NULL, b"SM4-ECB", NULL)
        self.ecb = EVP_CIPHER_CTX_new()
        try:
            if cipher == NULL or self.ecb == NULL or not EVP_EncryptInit_ex2(self.ecb, cipher, &octets[0], NULL, NULL):
                ERR_clear_error()
                raise MemoryError("this libcrypto was built without SM4, or memory is short")
        finally:
            EVP_CIPHER_free(cipher)
        EVP_CIPHER_CTX_set_padding(self.ecb, 0)
        for index in range(BLOCK_BYTES):
            block[index] = 0
        EVP_EncryptUpdate(self.ecb, block, &size, block, BLOCK_BYTES)
        one.high = load(block)
        one.low = load(block + 8)
        self.multiples[0].high = self.multiples[0].low = 0
        index = 8
        while index:
            self.multiples[index] = one
            # times x: one bit towards the low end
            one.low, one.high = (
                one.high << 63 | one.low >> 1, one.high >> 1 ^ (<uint64_t>0xE100000000000000 if one.low & 1 else 0)
            )
            index >>= 1
        for index in range(3, 16):
            if index & (index - 1):
                self.multiples[index].high = (
                    self.multiples[index & (index - 1)].high ^ self.multiples[index & -index].high
                )
                self.multiples[index].low = self.multiples[index & (index - 1)].low ^ self.multiples[index & -index].low
        OPENSSL_cleanse(block, sizeof(block))

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.ecb)  # wipes the key schedule
        OPENSSL_cleanse(self.multiples, sizeof(self.multiples))

    cdef int keystream(self, const uint8_t *nonce, unsigned int counter, uint8_t *out, int blocks) except -1 nogil:
        cdef int index, size = 0
        for index in range(blocks):
            memcpy(out + BLOCK_BYTES * index, nonce, NONCE_BYTES)
            out[BLOCK_BYTES * index + 12] = <uint8_t>(counter >> 24)
            out[BLOCK_BYTES * index + 13] = <uint8_t>(counter >> 16)
            out[BLOCK_BYTES * index + 14] = <uint8_t>(counter >> 8)
            out[BLOCK_BYTES * index + 15] = <uint8_t>counter
            counter += 1
        if not EVP_EncryptUpdate(self.ecb, out, &size, out, BLOCK_BYTES * blocks):
            with gil:
                raise MemoryError
        return 0

    cdef void absorb(self, Half *state, const uint8_t *data, size_t size) noexcept nogil:
        """Blocks of ``data``, the last one filled up with zeros, into the hash."""
        cdef uint8_t block[BLOCK_BYTES]
        cdef Half product
        cdef unsigned int nibble, out
        cdef int index
        cdef size_t piece
        while size:
            piece = size if size < BLOCK_BYTES else BLOCK_BYTES
            for index in range(BLOCK_BYTES):
                block[index] = data[index] if index < <int>piece else 0
            data += piece
            size -= piece
            store(block, load(block) ^ state.high)
            store(block + 8, load(block + 8) ^ state.low)
            product.high = product.low = 0
            for index in range(2 * BLOCK_BYTES):
                # from the last half byte to the first
                nibble = block[15 - index // 2]
                nibble = nibble >> 4 if index & 1 else nibble & 15
                if index:
                    out = product.low & 15
                    product.low = product.high << 60 | product.low >> 4
                    product.high = product.high >> 4 ^ REDUCED[out] << 48
                product.high ^= self.multiples[nibble].high
                product.low ^= self.multiples[nibble].low
            state[0] = product

    cdef void tag(
        self, uint8_t *mask, const uint8_t *context, size_t context_size, const uint8_t *hidden, size_t size,
        uint8_t *out
    ) noexcept nogil:
        """The 16 bytes of the tag; ``mask`` is block 1 of the counter mode, and is wiped."""
        cdef Half state
        cdef uint8_t block[BLOCK_BYTES]
        state.high = state.low = 0
        self.absorb(&state, context, context_size)
        self.absorb(&state, hidden, size)
        store(block, <uint64_t>context_size * 8)
        store(block + 8, <uint64_t>size * 8)
        self.absorb(&state, block, BLOCK_BYTES)
        store(out, load(mask) ^ state.high)
        store(out + 8, load(mask + 8) ^ state.low)
        OPENSSL_cleanse(mask, BLOCK_BYTES)

    cdef int cover(
        self, const uint8_t *nonce, const uint8_t *data, uint8_t *out, size_t size, uint8_t *mask
    ) except -1 nogil:
        """Counter mode: block 1 into ``mask``, for the tag; those from 2 on hide the data, or show it."""
        cdef uint8_t stream[BLOCK_BYTES * BLOCKS_AT_ONCE]
        cdef size_t before = BLOCK_BYTES, piece, blocks, most = 0, index
        cdef unsigned int counter = 1
        while before or size:
            piece = min(size, sizeof(stream) - before)
            blocks = (before + piece + BLOCK_BYTES - 1) // BLOCK_BYTES
            self.keystream(nonce, counter, stream, <int>blocks)
            if before:
                memcpy(mask, stream, BLOCK_BYTES)
                most = blocks
            for index in range(piece):
                out[index] = data[index] ^ stream[before + index]
            counter += BLOCKS_AT_ONCE
            data += piece
            out += piece
            size -= piece
            before = 0
        OPENSSL_cleanse(stream, BLOCK_BYTES * most)
        return 0

    def seal(self, bytes nonce not None, data not None, bytes context not None):
        cdef Py_buffer given
        cdef uint8_t mask[BLOCK_BYTES]
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(nonce)
        cdef bytes sealed
        cdef uint8_t *out
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce has 12 bytes")
        PyObject_GetBuffer(data, &given, PyBUF_SIMPLE)  # a typed view of it costs 0.2 µs
        try:
            sealed = PyBytes_FromStringAndSize(NULL, given.len + TAG_BYTES)
            out = <uint8_t *>PyBytes_AS_STRING(sealed)
            self.cover(at, <const uint8_t *>given.buf, out, given.len, mask)
            self.tag(mask, <const uint8_t *>PyBytes_AS_STRING(context), len(context), out, given.len, out + given.len)
            return sealed
        finally:
            PyBuffer_Release(&given)

    def open(self, bytes nonce not None, bytes sealed not None, bytes context not None):
        cdef Py_ssize_t size = len(sealed) - TAG_BYTES
        cdef const uint8_t *given = <const uint8_t *>PyBytes_AS_STRING(sealed)
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(nonce)
        cdef uint8_t wanted[TAG_BYTES]
        cdef uint8_t mask[BLOCK_BYTES]
        cdef bytearray data
        cdef uint8_t[::1] out
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce has 12 bytes")
        if size < 0:
            raise BadTag("too short for a tag")
        self.cover(at, NULL, NULL, 0, mask)
        self.tag(mask, <const uint8_t *>PyBytes_AS_STRING(context), len(context), given, size, wanted)
        if CRYPTO_memcmp(wanted, given + size, TAG_BYTES):
            raise BadTag("the tag does not fit")
        data = bytearray(size)
        if size:
            out = data
            self.cover(at, given, &out[0], size, mask)
        return data

    def __reduce__(self):
        raise TypeError("a key is not pickled")


cdef void double(uint8_t *block) noexcept nogil:
    """Times x in the field of NIST SP 800-38B section 6.1."""
    cdef uint64_t high = load(block), low = load(block + 8)
    store(block, high << 1 | low >> 63)
    store(block + 8, low << 1 ^ (0x87 if high >> 63 else 0))


cdef class Sm4Cmac:
    def __cinit__(self, key not None):
        cdef const uint8_t[::1] octets = key
        cdef uint8_t zeros[BLOCK_BYTES]
        cdef int size = 0, index
        cdef EVP_CIPHER *cipher
        if octets.shape[0] != BLOCK_BYTES:
            raise ValueError("an SM4 key has 16 bytes")
        for index in range(BLOCK_BYTES):
            zeros[index] = 0
        cipher = EVP_CIPHER_fetch(NULL, b"SM4-CBC", NULL)
        self.cbc = EVP_CIPHER_CTX_new()
        try:
            if cipher == NULL or self.cbc == NULL or not EVP_EncryptInit_ex2(self.cbc, cipher, &octets[0], zeros, NULL):
                ERR_clear_error()
                raise MemoryError("this libcrypto was built without SM4, or memory is short")
        finally:
            EVP_CIPHER_free(cipher)
        EVP_CIPHER_CTX_set_padding(self.cbc, 0)
        EVP_EncryptUpdate(self.cbc, self.whole, &size, zeros, BLOCK_BYTES)
        double(self.whole)
        memcpy(self.filled, self.whole, BLOCK_BYTES)
        double(self.filled)

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.cbc)  # wipes the key schedule
        OPENSSL_cleanse(self.whole, BLOCK_BYTES)
        OPENSSL_cleanse(self.filled, BLOCK_BYTES)

    cdef int mac_into(self, const uint8_t *data, size_t size, uint8_t *out) except -1:
        """The 16 bytes of the MAC, into ``out``."""
        cdef uint8_t chain[BLOCK_BYTES * BLOCKS_AT_ONCE]
        cdef uint8_t last[BLOCK_BYTES]
        cdef const uint8_t *mask
        cdef size_t left = size, piece
        cdef int written = 0, index
        for index in range(BLOCK_BYTES):
            last[index] = 0
        if not EVP_EncryptInit_ex2(self.cbc, NULL, NULL, last, NULL):
            raise MemoryError
        while left > BLOCK_BYTES:
            piece = (left - 1) // BLOCK_BYTES * BLOCK_BYTES
            if piece > sizeof(chain):
                piece = sizeof(chain)
            if not EVP_EncryptUpdate(self.cbc, chain, &written, data, <int>piece):
                raise MemoryError
            data += piece
            left -= piece
        memcpy(last, data, left)
        if left < BLOCK_BYTES:
            last[left] = 0x80
        mask = &self.whole[0] if left == BLOCK_BYTES else &self.filled[0]
        for index in range(BLOCK_BYTES):
            last[index] ^= mask[index]
        if not EVP_EncryptUpdate(self.cbc, out, &written, last, BLOCK_BYTES):
            raise MemoryError
        return 0

    def mac(self, bytes data not None):
        cdef uint8_t out[BLOCK_BYTES]
        self.mac_into(<const uint8_t *>PyBytes_AS_STRING(data), len(data), out)
        return PyBytes_FromStringAndSize(<char *>out, BLOCK_BYTES)

    def __reduce__(self):
        raise TypeError("a key is not pickled")
