"""SM2 (GB/T 32918) over the system's libcrypto. The meaning of each name stands in ``_sm2.pyi``.

The GIL is free while a curve is at work.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from fengshou.codecs._libcrypto cimport *
from fengshou.codecs._sm3 cimport DIGEST_BYTES

from fengshou.codecs._sm3 import sm3
from fengshou.protocol.signing import SIGNER_ID

# An SM2 signature as DER: SEQUENCE of two INTEGERs of at most 33 bytes.
cdef enum:
    DER_BYTES_MAX = 72

# GB/T 32918.5: a, b and the base point, the fixed part of what ZA covers.
_CURVE = bytes.fromhex(
    "FFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFC"
    "28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93"
    "32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7"
    "BC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0"
)
# GM/T 0010 and RFC 5480: a SubjectPublicKeyInfo of an SM2 key is this and the point; no other form is accepted.
_SPKI_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")

cdef EC_GROUP *CURVE = EC_GROUP_new_by_curve_name(NID_sm2)
if CURVE == NULL:
    raise ImportError("this libcrypto was built without SM2")


class BadSignature(Exception):
    pass


class BadKey(ValueError):
    pass


cdef inline const uint8_t *octets(bytes data) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(data)


# ---- keys. Scalars travel in numbers marked secure: libcrypto then wipes every copy that it makes on the way.


def za(bytes point not None, bytes signer_id not None = SIGNER_ID):
    if len(point) != POINT_BYTES or point[0] != 4:
        raise BadKey("an SM2 point is 04 || x || y, 65 bytes")
    if len(signer_id) > 8191:
        raise ValueError("a signer's identity is at most 8191 bytes, its length in bits has 16 bits")
    return sm3((8 * len(signer_id)).to_bytes(2, "big") + signer_id + _CURVE + point[1:])


cdef EVP_PKEY *key_from(bytes point, const BIGNUM *scalar) except NULL:
    """A key of libcrypto; a public one when ``scalar`` is NULL. libcrypto checks that the point is on the curve."""
    cdef EVP_PKEY *key = NULL
    cdef OSSL_PARAM *params = NULL
    cdef OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new()
    cdef EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, b"SM2", NULL)
    if (
        builder != NULL
        and ctx != NULL
        and OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, b"SM2", 0)
        and OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, octets(point), POINT_BYTES)
        and (scalar == NULL or OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, scalar))
    ):
        params = OSSL_PARAM_BLD_to_param(builder)
        if params != NULL and EVP_PKEY_fromdata_init(ctx) == 1:
            EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY if scalar == NULL else EVP_PKEY_KEYPAIR, params)
    OSSL_PARAM_free(params)
    OSSL_PARAM_BLD_free(builder)
    EVP_PKEY_CTX_free(ctx)
    if key == NULL:
        ERR_clear_error()
        raise BadKey("not a point of the SM2 curve")
    return key


cdef class PublicKey:
    def __cinit__(self, bytes data not None):
        if data.startswith(_SPKI_PREFIX):
            data = data[len(_SPKI_PREFIX) :]
        self.za = za(data)
        self.point = data
        self.key = key_from(data, NULL)

    def __dealloc__(self):
        EVP_PKEY_free(self.key)

    @property
    def spki(self):
        return _SPKI_PREFIX + self.point

    def verify(self, bytes digest not None, bytes signature not None):
        cdef bint good = False
        cdef const uint8_t *e = octets(digest)
        cdef const uint8_t *rs = octets(signature)
        if len(digest) == DIGEST_BYTES and len(signature) == SIGNATURE_BYTES:
            with nogil:
                good = verify_one(self.key, e, rs)
        if not good:
            ERR_clear_error()
            raise BadSignature("the signature does not fit the key and the digest")

    def __eq__(self, other):
        return isinstance(other, PublicKey) and (<PublicKey>other).point == self.point

    def __hash__(self):
        return hash(self.point)

    def __reduce__(self):
        return PublicKey, (self.point,)

    def __repr__(self):
        return f"PublicKey({self.point.hex()})"


cdef class PrivateKey:
    def __init__(self):
        raise TypeError("use PrivateKey.generate, from_scalar or from_pkcs8")

    def __dealloc__(self):
        EVP_PKEY_free(self.key)

    @staticmethod
    def generate():
        cdef BIGNUM *scalar = BN_secure_new()
        cdef BIGNUM *below = BN_new()
        try:
            # GB/T 32918.1: d is 1 .. n-2, so draw 0 .. n-3 and add 1.
            if (
                scalar == NULL
                or below == NULL
                or BN_copy(below, EC_GROUP_get0_order(CURVE)) == NULL
                or not BN_sub_word(below, 2)
                or not BN_priv_rand_range(scalar, below)
                or not BN_add_word(scalar, 1)
            ):
                raise MemoryError
            return private_key(scalar)
        finally:
            BN_clear_free(scalar)
            BN_free(below)

    @staticmethod
    def from_scalar(scalar):
        cdef Py_buffer view
        cdef BIGNUM *number = NULL
        PyObject_GetBuffer(scalar, &view, PyBUF_SIMPLE)
        try:
            if view.len != SCALAR_BYTES:
                raise BadKey("an SM2 scalar has 32 bytes")
            number = BN_bin2bn(<const uint8_t *>view.buf, SCALAR_BYTES, BN_secure_new())
            if number == NULL:
                raise MemoryError
            return private_key(number)
        finally:
            BN_clear_free(number)
            PyBuffer_Release(&view)

    @staticmethod
    def from_pkcs8(der):
        cdef Py_buffer view
        cdef BIGNUM *scalar = BN_secure_new()
        cdef EVP_PKEY *key = NULL
        cdef PKCS8_PRIV_KEY_INFO *info = NULL
        cdef const uint8_t *at
        PyObject_GetBuffer(der, &view, PyBUF_SIMPLE)
        try:
            at = <const uint8_t *>view.buf
            info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, view.len)
            if info != NULL and at == <const uint8_t *>view.buf + view.len:
                key = EVP_PKCS82PKEY_ex(info, NULL, NULL)
            if (
                key == NULL
                or not EVP_PKEY_is_a(key, b"SM2")
                or not EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &scalar)
            ):
                ERR_clear_error()
                raise BadKey("not a PKCS#8 structure with an SM2 key")
            return private_key(scalar)
        finally:
            BN_clear_free(scalar)
            EVP_PKEY_free(key)
            PKCS8_PRIV_KEY_INFO_free(info)
            PyBuffer_Release(&view)

    def to_scalar(self):
        cdef uint8_t out[SCALAR_BYTES]
        cdef BIGNUM *scalar = BN_secure_new()
        try:
            if (
                not EVP_PKEY_get_bn_param(self.key, OSSL_PKEY_PARAM_PRIV_KEY, &scalar)
                or BN_bn2binpad(scalar, out, SCALAR_BYTES) != SCALAR_BYTES
            ):
                raise MemoryError
            return PyBytes_FromStringAndSize(<char *>out, SCALAR_BYTES)
        finally:
            BN_clear_free(scalar)
            OPENSSL_cleanse(out, SCALAR_BYTES)

    def to_pkcs8(self):
        cdef uint8_t *der = NULL
        cdef PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(self.key)
        cdef int size = i2d_PKCS8_PRIV_KEY_INFO(info, &der) if info != NULL else -1
        PKCS8_PRIV_KEY_INFO_free(info)
        if size < 0:
            ERR_clear_error()
            raise MemoryError
        try:
            return PyBytes_FromStringAndSize(<char *>der, size)
        finally:
            OPENSSL_cleanse(der, size)
            OPENSSL_free(der)

    def sign(self, bytes digest not None):
        if len(digest) != DIGEST_BYTES:
            raise ValueError("what SM2 signs is a digest of 32 bytes")
        cdef uint8_t out[SIGNATURE_BYTES]
        cdef const uint8_t *e = octets(digest)
        cdef bint done
        with nogil:
            done = sign_one(self.key, e, out)
        if not done:
            ERR_clear_error()
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *>out, SIGNATURE_BYTES)

    def __reduce__(self):
        raise TypeError("a private key is not pickled")

    def __repr__(self):
        return f"<PrivateKey of {self.public_key!r}>"


cdef PrivateKey private_key(const BIGNUM *scalar):
    """The key of a scalar 1 .. n-2; n-1 is refused because signing needs the inverse of 1 + d."""
    cdef bytes point = PyBytes_FromStringAndSize(NULL, POINT_BYTES)
    cdef BIGNUM *limit = BN_new()
    cdef EC_POINT *product = EC_POINT_new(CURVE)
    try:
        if (
            limit == NULL
            or product == NULL
            or BN_copy(limit, EC_GROUP_get0_order(CURVE)) == NULL
            or not BN_sub_word(limit, 1)
        ):
            raise MemoryError
        if BN_is_zero(scalar) or BN_cmp(scalar, limit) >= 0:
            raise BadKey("an SM2 scalar is 1 .. n-2")
        if not EC_POINT_mul(CURVE, product, scalar, NULL, NULL, NULL) or not EC_POINT_point2oct(
            CURVE, product, POINT_CONVERSION_UNCOMPRESSED, <uint8_t *>PyBytes_AS_STRING(point), POINT_BYTES, NULL
        ):
            ERR_clear_error()
            raise MemoryError
    finally:
        BN_free(limit)
        EC_POINT_free(product)
    cdef PrivateKey private = PrivateKey.__new__(PrivateKey)
    private.public_key = PublicKey(point)
    private.key = key_from(point, scalar)
    return private


# ---- signatures. libcrypto speaks DER, the wire speaks r || s; it refuses r and s outside 1 .. n-1 itself.


cdef bint verify_one(EVP_PKEY *key, const uint8_t *digest, const uint8_t *signature) noexcept nogil:
    cdef uint8_t der[DER_BYTES_MAX]
    cdef uint8_t *end = der
    cdef EVP_PKEY_CTX *ctx = NULL
    cdef bint good = False
    cdef ECDSA_SIG *pair = ECDSA_SIG_new()
    cdef BIGNUM *r = BN_bin2bn(signature, SCALAR_BYTES, NULL)
    cdef BIGNUM *s = BN_bin2bn(signature + SCALAR_BYTES, SCALAR_BYTES, NULL)
    if pair == NULL or r == NULL or s == NULL:
        BN_free(r)
        BN_free(s)
    else:
        ECDSA_SIG_set0(pair, r, s)  # takes r and s over
        if i2d_ECDSA_SIG(pair, &end) > 0:
            ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL)
            good = (
                ctx != NULL
                and EVP_PKEY_verify_init(ctx) == 1
                and EVP_PKEY_verify(ctx, der, end - der, digest, DIGEST_BYTES) == 1
            )
            EVP_PKEY_CTX_free(ctx)
    ECDSA_SIG_free(pair)
    return good


cdef bint sign_one(EVP_PKEY *key, const uint8_t *digest, uint8_t *out) noexcept nogil:
    cdef uint8_t der[DER_BYTES_MAX]
    cdef size_t size = DER_BYTES_MAX
    cdef const uint8_t *at = der
    cdef const BIGNUM *r = NULL
    cdef const BIGNUM *s = NULL
    cdef ECDSA_SIG *pair = NULL
    cdef bint done = False
    cdef EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL)
    if (
        ctx != NULL
        and EVP_PKEY_sign_init(ctx) == 1
        and EVP_PKEY_sign(ctx, der, &size, digest, DIGEST_BYTES) == 1
    ):
        pair = d2i_ECDSA_SIG(NULL, &at, size)
        if pair != NULL:
            ECDSA_SIG_get0(pair, &r, &s)
            done = (
                BN_bn2binpad(r, out, SCALAR_BYTES) == SCALAR_BYTES
                and BN_bn2binpad(s, out + SCALAR_BYTES, SCALAR_BYTES) == SCALAR_BYTES
            )
    ECDSA_SIG_free(pair)
    EVP_PKEY_CTX_free(ctx)
    return done
