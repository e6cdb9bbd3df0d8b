# What we use of the system's libcrypto (OpenSSL >= 3.0), as its headers declare it.

from libc.stdint cimport uint8_t


cdef extern from "openssl/obj_mac.h" nogil:
    int NID_sm2

cdef extern from "openssl/err.h" nogil:
    void ERR_clear_error()

cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_cleanse(void *data, size_t size)
    int CRYPTO_memcmp(const void *a, const void *b, size_t size)
    void OPENSSL_free(void *data)

cdef extern from "openssl/bn.h" nogil:
    ctypedef struct BIGNUM
    BIGNUM *BN_new()
    BIGNUM *BN_secure_new()
    void BN_free(BIGNUM *number)
    void BN_clear_free(BIGNUM *number)
    BIGNUM *BN_copy(BIGNUM *target, const BIGNUM *source)
    BIGNUM *BN_bin2bn(const uint8_t *data, int size, BIGNUM *number)
    int BN_bn2binpad(const BIGNUM *number, uint8_t *out, int size)
    int BN_priv_rand_range(BIGNUM *number, const BIGNUM *below)
    int BN_add_word(BIGNUM *number, unsigned long word)
    int BN_sub_word(BIGNUM *number, unsigned long word)
    int BN_cmp(const BIGNUM *a, const BIGNUM *b)
    int BN_is_zero(const BIGNUM *number)
    int BN_set_bit(BIGNUM *number, int bit)
    int BN_mask_bits(BIGNUM *number, int bits)
    ctypedef struct BN_CTX
    BN_CTX *BN_CTX_secure_new()
    void BN_CTX_free(BN_CTX *ctx)
    int BN_mod_mul(BIGNUM *out, const BIGNUM *a, const BIGNUM *b, const BIGNUM *modulus, BN_CTX *ctx)
    int BN_mod_add(BIGNUM *out, const BIGNUM *a, const BIGNUM *b, const BIGNUM *modulus, BN_CTX *ctx)

cdef extern from "openssl/ec.h" nogil:
    ctypedef struct EC_GROUP
    ctypedef struct EC_POINT
    ctypedef enum point_conversion_form_t:
        POINT_CONVERSION_UNCOMPRESSED
    EC_GROUP *EC_GROUP_new_by_curve_name(int nid)
    const BIGNUM *EC_GROUP_get0_order(const EC_GROUP *group)
    EC_POINT *EC_POINT_new(const EC_GROUP *group)
    void EC_POINT_free(EC_POINT *point)
    int EC_POINT_mul(const EC_GROUP *group, EC_POINT *out, const BIGNUM *k, const EC_POINT *q, const BIGNUM *m, void *ctx)
    size_t EC_POINT_point2oct(
        const EC_GROUP *group, const EC_POINT *point, point_conversion_form_t form, uint8_t *out, size_t size, void *ctx
    )
    int EC_POINT_oct2point(const EC_GROUP *group, EC_POINT *point, const uint8_t *data, size_t size, void *ctx)
    int EC_POINT_add(const EC_GROUP *group, EC_POINT *out, const EC_POINT *a, const EC_POINT *b, void *ctx)
    int EC_POINT_is_at_infinity(const EC_GROUP *group, const EC_POINT *point)
    ctypedef struct ECDSA_SIG
    ECDSA_SIG *ECDSA_SIG_new()
    void ECDSA_SIG_free(ECDSA_SIG *signature)
    int ECDSA_SIG_set0(ECDSA_SIG *signature, BIGNUM *r, BIGNUM *s)
    void ECDSA_SIG_get0(const ECDSA_SIG *signature, const BIGNUM **r, const BIGNUM **s)
    int i2d_ECDSA_SIG(const ECDSA_SIG *signature, uint8_t **out)
    ECDSA_SIG *d2i_ECDSA_SIG(ECDSA_SIG **signature, const uint8_t **data, long size)

cdef extern from "openssl/core_names.h" nogil:
    const char *OSSL_PKEY_PARAM_GROUP_NAME
    const char *OSSL_PKEY_PARAM_PUB_KEY
    const char *OSSL_PKEY_PARAM_PRIV_KEY

cdef extern from "openssl/param_build.h" nogil:
    ctypedef struct OSSL_PARAM
    ctypedef struct OSSL_PARAM_BLD
    OSSL_PARAM_BLD *OSSL_PARAM_BLD_new()
    void OSSL_PARAM_BLD_free(OSSL_PARAM_BLD *builder)
    int OSSL_PARAM_BLD_push_utf8_string(OSSL_PARAM_BLD *builder, const char *key, const char *text, size_t size)
    int OSSL_PARAM_BLD_push_octet_string(OSSL_PARAM_BLD *builder, const char *key, const void *data, size_t size)
    int OSSL_PARAM_BLD_push_BN(OSSL_PARAM_BLD *builder, const char *key, const BIGNUM *number)
    OSSL_PARAM *OSSL_PARAM_BLD_to_param(OSSL_PARAM_BLD *builder)
    void OSSL_PARAM_free(OSSL_PARAM *params)

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER
    ctypedef struct EVP_CIPHER_CTX
    EVP_CIPHER *EVP_CIPHER_fetch(void *library, const char *name, const char *properties)
    void EVP_CIPHER_free(EVP_CIPHER *cipher)
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *ctx)
    int EVP_CIPHER_CTX_set_padding(EVP_CIPHER_CTX *ctx, int pad)
    int EVP_EncryptInit_ex2(
        EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *iv, const void *params
    )
    int EVP_EncryptUpdate(EVP_CIPHER_CTX *ctx, uint8_t *out, int *size, const uint8_t *data, int count)
    ctypedef struct EVP_MD
    ctypedef struct EVP_PKEY
    ctypedef struct EVP_PKEY_CTX
    int EVP_PKEY_KEYPAIR
    int EVP_PKEY_PUBLIC_KEY
    EVP_MD *EVP_MD_fetch(void *library, const char *name, const char *properties)
    int EVP_Digest(const void *data, size_t count, uint8_t *out, unsigned int *size, const EVP_MD *md, void *engine)
    EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_name(void *library, const char *name, const char *properties)
    EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_pkey(void *library, EVP_PKEY *key, const char *properties)
    void EVP_PKEY_CTX_free(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_fromdata_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_fromdata(EVP_PKEY_CTX *ctx, EVP_PKEY **key, int selection, OSSL_PARAM *params)
    void EVP_PKEY_free(EVP_PKEY *key)
    int EVP_PKEY_is_a(const EVP_PKEY *key, const char *name)
    int EVP_PKEY_get_bn_param(const EVP_PKEY *key, const char *name, BIGNUM **number)
    int EVP_PKEY_sign_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_sign(EVP_PKEY_CTX *ctx, uint8_t *out, size_t *size, const uint8_t *digest, size_t digest_size)
    int EVP_PKEY_verify_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_verify(EVP_PKEY_CTX *ctx, const uint8_t *sig, size_t sig_size, const uint8_t *digest, size_t digest_size)

    int EVP_PKEY_encrypt_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_encrypt(EVP_PKEY_CTX *ctx, uint8_t *out, size_t *size, const uint8_t *data, size_t data_size)
    int EVP_PKEY_decrypt_init(EVP_PKEY_CTX *ctx)
    int EVP_PKEY_decrypt(EVP_PKEY_CTX *ctx, uint8_t *out, size_t *size, const uint8_t *data, size_t data_size)

cdef extern from "openssl/hmac.h" nogil:
    uint8_t *HMAC(
        const EVP_MD *md, const void *key, int key_size, const uint8_t *data, size_t size, uint8_t *out, unsigned int *out_size
    )

cdef extern from "openssl/x509.h" nogil:
    ctypedef struct PKCS8_PRIV_KEY_INFO
    PKCS8_PRIV_KEY_INFO *d2i_PKCS8_PRIV_KEY_INFO(PKCS8_PRIV_KEY_INFO **info, const uint8_t **data, long size)
    int i2d_PKCS8_PRIV_KEY_INFO(const PKCS8_PRIV_KEY_INFO *info, uint8_t **out)
    void PKCS8_PRIV_KEY_INFO_free(PKCS8_PRIV_KEY_INFO *info)
    EVP_PKEY *EVP_PKCS82PKEY_ex(const PKCS8_PRIV_KEY_INFO *info, void *library, const char *properties)
    PKCS8_PRIV_KEY_INFO *EVP_PKEY2PKCS8(const EVP_PKEY *key)
