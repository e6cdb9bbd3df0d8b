"""SM3 (GB/T 32905): one text by the system's libcrypto, many side by side by ``sm3_lanes.c``.

The meaning of each name stands in ``_sm3.pyi``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

from fengshou.codecs._libcrypto cimport EVP_MD, EVP_Digest, EVP_MD_fetch, ERR_clear_error, HMAC

# At 4 us a KiB a longer text is worth a release of the GIL; for a shorter one it costs more than it gives.
cdef enum:
    GIL_KEPT_BYTES = 2048

cdef EVP_MD *SM3 = EVP_MD_fetch(NULL, b"SM3", NULL)
if SM3 == NULL:
    raise ImportError("this libcrypto was built without SM3")


cdef inline const uint8_t *octets(bytes data) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(data)


cdef int sm3_into(uint8_t *out, const uint8_t *data, size_t size) noexcept nogil:
    return 0 if EVP_Digest(data, size, out, NULL, SM3, NULL) == 1 else -1


def sm3(bytes data not None):
    cdef uint8_t out[DIGEST_BYTES]
    cdef const uint8_t *start = octets(data)
    cdef size_t size = PyBytes_GET_SIZE(data)
    cdef int failed
    if size <= GIL_KEPT_BYTES:
        failed = sm3_into(out, start, size)
    else:
        with nogil:
            failed = sm3_into(out, start, size)
    if failed:
        raise MemoryError
    return PyBytes_FromStringAndSize(<char *>out, DIGEST_BYTES)


def sm3_many(items):
    # The tuple holds every item while the GIL is free, whatever happens to the caller's list.
    cdef tuple kept = tuple(items)
    cdef Py_ssize_t count = len(kept), index
    cdef bytes item
    cdef sm3_text *texts = <sm3_text *>malloc((count or 1) * sizeof(sm3_text))
    cdef bytes digests = PyBytes_FromStringAndSize(NULL, count * DIGEST_BYTES)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(digests)
    if texts == NULL:
        raise MemoryError
    try:
        for index in range(count):
            item = kept[index]
            if item is None:
                raise TypeError("what SM3 takes is bytes")
            texts[index].data = octets(item)
            texts[index].size = len(item)
        with nogil:
            sm3_lanes(out, texts, count, SM3_PLAIN)
    finally:
        free(texts)
    return [digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] for index in range(count)]


def hmac_sm3(bytes key not None, bytes data not None):
    cdef uint8_t out[DIGEST_BYTES]
    cdef const uint8_t *key_start = octets(key)
    cdef const uint8_t *start = octets(data)
    cdef size_t key_size = len(key), size = len(data)
    cdef uint8_t *done
    with nogil:
        done = HMAC(SM3, key_start, <int>key_size, start, size, out, NULL)
    if done == NULL:
        ERR_clear_error()
        raise MemoryError
    return PyBytes_FromStringAndSize(<char *>out, DIGEST_BYTES)
