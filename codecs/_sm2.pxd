# SM2 (GB/T 32918). This is the index; the meaning stands in _sm2.pyi.

from fengshou.codecs._libcrypto cimport EVP_PKEY

cdef enum:
    SCALAR_BYTES = 32
    POINT_BYTES = 65
    SIGNATURE_BYTES = 64

cdef class PublicKey:
    cdef EVP_PKEY *key
    cdef readonly bytes point
    cdef readonly bytes za

cdef class PrivateKey:
    cdef EVP_PKEY *key
    cdef readonly PublicKey public_key
