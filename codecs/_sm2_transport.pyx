"""SM2 encryption and key exchange over the system's libcrypto. The meaning of each name stands in the stub beside it."""

from collections import namedtuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from fengshou.codecs._libcrypto cimport *
from fengshou.codecs._sm2 cimport POINT_BYTES, SCALAR_BYTES, PrivateKey, PublicKey

from fengshou.codecs._sm2 import BadKey
from fengshou.codecs._sm3 import sm3

cdef EC_GROUP *CURVE = EC_GROUP_new_by_curve_name(NID_sm2)
if CURVE == NULL:
    raise ImportError("this libcrypto was built without SM2")

# GB/T 32918.3 section 6.1: w = ceil(ceil(log2 n) / 2) - 1, for this curve 127.
cdef enum:
    W = 127

Agreement = namedtuple("Agreement", "key confirm_responder confirm_initiator")


class BadCiphertext(Exception):
    pass


# ---- encryption. libcrypto speaks the DER of GM/T 0009 itself, C1 C3 C2 only, and checks that C1 is on the curve.


def sm2_encrypt(PublicKey key not None, data):
    cdef Py_buffer view
    cdef size_t size = 0
    cdef bint done = False
    cdef bytes out = b""
    cdef uint8_t *target
    cdef EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key.key, NULL)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len == 0:
            raise ValueError("SM2 encrypts at least one byte")
        if (
            ctx != NULL
            and EVP_PKEY_encrypt_init(ctx) == 1
            and EVP_PKEY_encrypt(ctx, NULL, &size, <const uint8_t *>view.buf, view.len) == 1
        ):
            out = PyBytes_FromStringAndSize(NULL, size)
            target = <uint8_t *>PyBytes_AS_STRING(out)
            with nogil:
                done = EVP_PKEY_encrypt(ctx, target, &size, <const uint8_t *>view.buf, view.len) == 1
        if not done:
            ERR_clear_error()
            raise MemoryError
        return out[:size]
    finally:
        EVP_PKEY_CTX_free(ctx)
        PyBuffer_Release(&view)


def sm2_decrypt(PrivateKey key not None, bytes ciphertext not None):
    cdef size_t size = len(ciphertext)
    cdef bytearray out = bytearray(len(ciphertext))
    cdef uint8_t *target = <uint8_t *>PyByteArray_AS_STRING(out)
    cdef const uint8_t *source = <const uint8_t *>PyBytes_AS_STRING(ciphertext)
    cdef size_t source_size = len(ciphertext)
    cdef bint done
    cdef EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key.key, NULL)
    try:
        with nogil:
            done = (
                ctx != NULL
                and EVP_PKEY_decrypt_init(ctx) == 1
                and EVP_PKEY_decrypt(ctx, target, &size, source, source_size) == 1
            )
        if not done:
            ERR_clear_error()
            raise BadCiphertext("not an SM2 ciphertext for this key")
        del out[size:]
        return out
    finally:
        EVP_PKEY_CTX_free(ctx)


# ---- key exchange. libcrypto has no face for it; the points and numbers are its own, the steps those of the standard.


cdef int reduced(bytes point, BIGNUM *out) except 0:
    """x with its upper half replaced by 1 (section 6.1, steps A4 and A6): 2^w + (x mod 2^w)."""
    if BN_bin2bn(<const uint8_t *>PyBytes_AS_STRING(point) + 1, SCALAR_BYTES, out) == NULL:
        raise MemoryError
    BN_mask_bits(out, W)
    if not BN_set_bit(out, W):
        raise MemoryError
    return 1


cdef bytes shared_point(PrivateKey own, PrivateKey own_ephemeral, PublicKey peer, PublicKey peer_ephemeral):
    """U = [d + x1 r] (P + [x2] R), without its form byte. The cofactor of the curve is 1."""
    cdef bint done = False
    cdef BIGNUM *d = BN_secure_new()
    cdef BIGNUM *r = BN_secure_new()
    cdef BIGNUM *t = BN_secure_new()
    cdef BIGNUM *x1 = BN_new()
    cdef BIGNUM *x2 = BN_new()
    cdef BN_CTX *ctx = BN_CTX_secure_new()
    cdef EC_POINT *p = EC_POINT_new(CURVE)
    cdef EC_POINT *q = EC_POINT_new(CURVE)
    cdef const BIGNUM *n = EC_GROUP_get0_order(CURVE)
    cdef const uint8_t *peer_point = <const uint8_t *>PyBytes_AS_STRING(peer.point)
    cdef const uint8_t *ephemeral_point = <const uint8_t *>PyBytes_AS_STRING(peer_ephemeral.point)
    cdef uint8_t out[POINT_BYTES]
    try:
        if d == NULL or r == NULL or t == NULL or x1 == NULL or x2 == NULL or ctx == NULL or p == NULL or q == NULL:
            raise MemoryError
        reduced(own_ephemeral.public_key.point, x1)
        reduced(peer_ephemeral.point, x2)
        with nogil:
            done = (
                EVP_PKEY_get_bn_param(own.key, OSSL_PKEY_PARAM_PRIV_KEY, &d)
                and EVP_PKEY_get_bn_param(own_ephemeral.key, OSSL_PKEY_PARAM_PRIV_KEY, &r)
                and BN_mod_mul(t, x1, r, n, ctx)
                and BN_mod_add(t, t, d, n, ctx)
                and EC_POINT_oct2point(CURVE, p, peer_point, POINT_BYTES, ctx)
                and EC_POINT_oct2point(CURVE, q, ephemeral_point, POINT_BYTES, ctx)
                and EC_POINT_mul(CURVE, q, NULL, q, x2, ctx)
                and EC_POINT_add(CURVE, p, p, q, ctx)
                and EC_POINT_mul(CURVE, q, NULL, p, t, ctx)  # one scalar, one point: libcrypto's constant-time ladder
                and not EC_POINT_is_at_infinity(CURVE, q)
                and EC_POINT_point2oct(CURVE, q, POINT_CONVERSION_UNCOMPRESSED, out, POINT_BYTES, ctx) == POINT_BYTES
            )
        if not done:
            ERR_clear_error()
            raise BadKey("the points of this exchange give no shared one")
        return PyBytes_FromStringAndSize(<char *>out + 1, POINT_BYTES - 1)
    finally:
        OPENSSL_cleanse(out, POINT_BYTES)
        BN_clear_free(d)
        BN_clear_free(r)
        BN_clear_free(t)
        BN_free(x1)
        BN_free(x2)
        BN_CTX_free(ctx)
        EC_POINT_free(p)
        EC_POINT_free(q)


def sm2_agree(
    PrivateKey own not None,
    PrivateKey own_ephemeral not None,
    PublicKey peer not None,
    PublicKey peer_ephemeral not None,
    int key_bytes,
    *,
    bint initiator,
):
    cdef bytes u = shared_point(own, own_ephemeral, peer, peer_ephemeral)
    cdef bytes x = u[:SCALAR_BYTES]
    cdef bytes y = u[SCALAR_BYTES:]
    sides = [(own.public_key.za, own_ephemeral.public_key.point[1:]), (peer.za, peer_ephemeral.point[1:])]
    if not initiator:
        sides.reverse()
    (za, first), (zb, second) = sides
    # KDF of GB/T 32918.3 section 5.4.3.
    blocks = [sm3(u + za + zb + counter.to_bytes(4, "big")) for counter in range(1, (key_bytes + 31) // 32 + 1)]
    inner = sm3(x + za + zb + first + second)
    return Agreement(b"".join(blocks)[:key_bytes], sm3(b"\x02" + y + inner), sm3(b"\x03" + y + inner))
