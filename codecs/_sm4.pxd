# SM4-GCM and SM4-CMAC for short data under a key that stays. This is the index; the meaning stands in _sm4.pyi.

from libc.stdint cimport uint8_t, uint64_t

from fengshou.codecs._libcrypto cimport EVP_CIPHER_CTX

cdef struct Half:
    uint64_t high
    uint64_t low

cdef class Sm4Gcm:
    cdef EVP_CIPHER_CTX *ecb
    cdef Half multiples[16]  # of the hash key, by four bits

    cdef int keystream(self, const uint8_t *nonce, unsigned int counter, uint8_t *out, int blocks) except -1 nogil
    cdef void absorb(self, Half *state, const uint8_t *data, size_t size) noexcept nogil
    cdef void tag(
        self, uint8_t *mask, const uint8_t *context, size_t context_size, const uint8_t *hidden, size_t size,
        uint8_t *out
    ) noexcept nogil
    cdef int cover(
        self, const uint8_t *nonce, const uint8_t *data, uint8_t *out, size_t size, uint8_t *mask
    ) except -1 nogil

cdef class Sm4Cmac:
    cdef EVP_CIPHER_CTX *cbc
    cdef uint8_t[16] whole  # what masks a last block that is whole (K1), and one that was filled up (K2)
    cdef uint8_t[16] filled

    cdef int mac_into(self, const uint8_t *data, size_t size, uint8_t *out) except -1
