# SM2 (GB/T 32918) and SM3 (GB/T 32905). This is the index; the meaning stands in _gm.pyi.

from libc.stdint cimport uint8_t

from fengshou.codecs._libcrypto cimport EVP_PKEY

cdef enum:
    DIGEST_BYTES = 32
    SCALAR_BYTES = 32
    POINT_BYTES = 65
    SIGNATURE_BYTES = 64

# One SM3 over one piece of memory. Needs no GIL; fails only when memory is gone.
cdef int sm3_into(uint8_t *out, const uint8_t *data, size_t size) noexcept nogil

cdef class PublicKey:
    cdef EVP_PKEY *key
    cdef readonly bytes point
    cdef readonly bytes za

cdef class PrivateKey:
    cdef EVP_PKEY *key
    cdef readonly PublicKey public_key
