/* A GM/T 0018 device in software, the other side of the ABI in the tests of hsm/sdf.py. Not a product: keys are files.
 *
 * Its folder is named by SOFT_SDF: sign.<i> and enc.<i> hold the scalars of key pair i, pin.<i> its password. While a
 * file "unplugged" is there every call fails, and what was opened before it stays dead afterwards, as with a device that
 * lost its power. Built with -DECC_BITS=256 or 512, and with -DEDITION=2023 for authenticated encryption and HMAC.
 */
#include <openssl/asn1t.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NUMBER = ECC_BITS / 8, PAD = NUMBER - 32, KEYS_MAX = 512, INDEX_MAX = 16 };

typedef unsigned char u8;
typedef unsigned int u32;
typedef struct { u32 bits; u8 x[NUMBER], y[NUMBER]; } PublicKey;
typedef struct { u8 r[NUMBER], s[NUMBER]; } Signature;
typedef struct { u8 x[NUMBER], y[NUMBER], M[32]; u32 L; u8 C[]; } Cipher;

enum {
    OK = 0, NOTSUPPORT = 0x01000002, COMMFAIL = 0x01000003, OPENDEVICE = 0x01000005, PARDENY = 0x01000007,
    KEYNOTEXIST = 0x01000008, ALGMODNOTSUPPORT = 0x0100000A, SKOPERR = 0x0100000C, SYMOPERR = 0x0100000F,
    ENCDATAERR = 0x01000016, PRKRERR = 0x01000018, MACERR = 0x01000019, NOBUFFER = 0x0100001C, INARGERR = 0x0100001D,
};

typedef struct { u8 bytes[32]; u32 size; } Key;
typedef struct { long epoch; Key *keys[KEYS_MAX]; int granted[INDEX_MAX]; HMAC_CTX *hmac; } Session;

static char *folder(char *path, const char *name, int index) {
    const char *home = getenv("SOFT_SDF");
    if (index < 0) snprintf(path, 512, "%s/%s", home ? home : ".", name);
    else snprintf(path, 512, "%s/%s.%d", home ? home : ".", name, index);
    return path;
}

/* The device's life: how often it was unplugged. A session of an earlier life is dead. */
static long life(void) {
    static long count = 0;
    static int was_away = 0;
    char path[512];
    int away = access(folder(path, "unplugged", -1), F_OK) == 0;
    if (away && !was_away) count++;
    was_away = away;
    return away ? -1 : count;
}

static int alive(const Session *session) { return session != NULL && session->epoch == life(); }
#define LIVING(session) if (!alive(session)) return COMMFAIL

static int slurp(const char *name, int index, u8 *out, size_t size) {
    char path[512];
    FILE *file = fopen(folder(path, name, index), "rb");
    int count = file ? (int)fread(out, 1, size, file) : -1;
    if (file) fclose(file);
    return count;
}

/* ---- SM2 keys */

static EVP_PKEY *make_key(const u8 *scalar, const u8 *point) {
    EC_GROUP *curve = EC_GROUP_new_by_curve_name(NID_sm2);
    EC_POINT *product = EC_POINT_new(curve);
    BIGNUM *d = scalar ? BN_bin2bn(scalar, 32, NULL) : NULL;
    u8 own[65];
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "SM2", NULL);
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    if (d) {
        EC_POINT_mul(curve, product, d, NULL, NULL, NULL);
        EC_POINT_point2oct(curve, product, POINT_CONVERSION_UNCOMPRESSED, own, 65, NULL);
        OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, d);
        point = own;
    }
    OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, "SM2", 0);
    OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, 65);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
    EVP_PKEY_fromdata_init(ctx);
    EVP_PKEY_fromdata(ctx, &key, d ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(builder);
    EVP_PKEY_CTX_free(ctx);
    BN_clear_free(d);
    EC_POINT_free(product);
    EC_GROUP_free(curve);
    return key;
}

static EVP_PKEY *load_key(const char *name, int index) {
    u8 scalar[32];
    return slurp(name, index, scalar, 32) == 32 ? make_key(scalar, NULL) : NULL;
}

static int export_key(Session *session, const char *name, u32 index, PublicKey *out) {
    LIVING(session);
    EVP_PKEY *key = load_key(name, index);
    u8 point[65];
    size_t size;
    if (!key) return KEYNOTEXIST;
    EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, point, 65, &size);
    EVP_PKEY_free(key);
    memset(out, 0, sizeof *out);
    out->bits = 256;
    memcpy(out->x + PAD, point + 1, 32);
    memcpy(out->y + PAD, point + 33, 32);
    return OK;
}

/* ---- SM2 ciphertexts: libcrypto speaks DER, the device its struct */

typedef struct { BIGNUM *x, *y; ASN1_OCTET_STRING *hash, *data; } Der;
ASN1_SEQUENCE(Der) = {
    ASN1_SIMPLE(Der, x, BIGNUM), ASN1_SIMPLE(Der, y, BIGNUM),
    ASN1_SIMPLE(Der, hash, ASN1_OCTET_STRING), ASN1_SIMPLE(Der, data, ASN1_OCTET_STRING),
} ASN1_SEQUENCE_END(Der)

static int sm2_encrypt(EVP_PKEY *key, const u8 *data, u32 size, Cipher *out) {
    u8 der[512];
    const u8 *at = der;
    size_t der_size = sizeof der;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    int good = EVP_PKEY_encrypt_init(ctx) == 1 && EVP_PKEY_encrypt(ctx, der, &der_size, data, size) == 1;
    EVP_PKEY_CTX_free(ctx);
    Der *parts = good ? (Der *)ASN1_item_d2i(NULL, &at, der_size, ASN1_ITEM_rptr(Der)) : NULL;
    if (!parts) return ENCDATAERR;
    memset(out, 0, sizeof *out);
    BN_bn2binpad(parts->x, out->x + PAD, 32);
    BN_bn2binpad(parts->y, out->y + PAD, 32);
    memcpy(out->M, ASN1_STRING_get0_data(parts->hash), 32);
    out->L = ASN1_STRING_length(parts->data);
    memcpy(out->C, ASN1_STRING_get0_data(parts->data), out->L);
    ASN1_item_free((ASN1_VALUE *)parts, ASN1_ITEM_rptr(Der));
    return OK;
}

static int sm2_decrypt(u32 index, const Cipher *in, Key *out) {
    EVP_PKEY *key = load_key("enc", index);
    Der *parts = (Der *)ASN1_item_new(ASN1_ITEM_rptr(Der));
    u8 *der = NULL;
    u8 clear[512];
    size_t size = sizeof clear;
    if (!key || in->L > sizeof out->bytes) return key ? ENCDATAERR : KEYNOTEXIST;
    BN_bin2bn(in->x + PAD, 32, parts->x);
    BN_bin2bn(in->y + PAD, 32, parts->y);
    ASN1_STRING_set(parts->hash, in->M, 32);
    ASN1_STRING_set(parts->data, in->C, in->L);
    int der_size = ASN1_item_i2d((ASN1_VALUE *)parts, &der, ASN1_ITEM_rptr(Der));
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    int good = EVP_PKEY_decrypt_init(ctx) == 1 && EVP_PKEY_decrypt(ctx, clear, &size, der, der_size) == 1;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    OPENSSL_free(der);
    ASN1_item_free((ASN1_VALUE *)parts, ASN1_ITEM_rptr(Der));
    if (!good) return ENCDATAERR;
    memcpy(out->bytes, clear, size);
    out->size = size;
    return OK;
}

/* ---- device and sessions */

int SDF_OpenDevice(void **device) {
    if (life() < 0) return OPENDEVICE;
    *device = malloc(1);
    return OK;
}

int SDF_CloseDevice(void *device) {
    free(device);
    return OK;
}

int SDF_OpenSession(void *device, void **out) {
    if (!device || life() < 0) return COMMFAIL;
    Session *session = calloc(1, sizeof *session);
    session->epoch = life();
    *out = session;
    return OK;
}

int SDF_CloseSession(Session *session) {
    for (int at = 0; at < KEYS_MAX; at++) free(session->keys[at]);
    HMAC_CTX_free(session->hmac);
    free(session);
    return OK;
}

int SDF_GetPrivateKeyAccessRight(Session *session, u32 index, const u8 *password, u32 size) {
    u8 known[64];
    LIVING(session);
    int count = slurp("pin", index, known, sizeof known);
    if (index >= INDEX_MAX || count != (int)size || memcmp(known, password, size)) return PRKRERR;
    session->granted[index] = 1;
    return OK;
}

int SDF_ExportSignPublicKey_ECC(Session *s, u32 index, PublicKey *out) { return export_key(s, "sign", index, out); }
int SDF_ExportEncPublicKey_ECC(Session *s, u32 index, PublicKey *out) { return export_key(s, "enc", index, out); }

/* ---- session keys */

static int keep(Session *session, const Key *key, void **handle) {
    for (int at = 0; at < KEYS_MAX; at++) {
        if (!session->keys[at]) {
            session->keys[at] = malloc(sizeof *key);
            *session->keys[at] = *key;
            *handle = session->keys[at];
            return OK;
        }
    }
    return NOBUFFER;
}

static int known(const Session *session, const Key *key) {
    for (int at = 0; at < KEYS_MAX; at++) if (key && session->keys[at] == key) return 1;
    return 0;
}
#define KNOWN(session, key) LIVING(session); if (!known(session, key)) return KEYNOTEXIST

int SDF_GenerateKeyWithIPK_ECC(Session *session, u32 index, u32 bits, Cipher *out, void **handle) {
    Key key = {.size = bits / 8};
    LIVING(session);
    EVP_PKEY *pair = load_key("enc", index);
    if (!pair) return KEYNOTEXIST;
    if (key.size > sizeof key.bytes) return INARGERR;
    RAND_bytes(key.bytes, key.size);
    int code = sm2_encrypt(pair, key.bytes, key.size, out);
    EVP_PKEY_free(pair);
    return code ? code : keep(session, &key, handle);
}

int SDF_ImportKeyWithISK_ECC(Session *session, u32 index, const Cipher *in, void **handle) {
    Key key;
    LIVING(session);
    if (index >= INDEX_MAX || !session->granted[index]) return PARDENY;
    int code = sm2_decrypt(index, in, &key);
    return code ? code : keep(session, &key, handle);
}

int SDF_ExchangeDigitEnvelopeBaseOnECC(
    Session *session, u32 index, u32 algorithm, const PublicKey *to, const Cipher *in, Cipher *out) {
    Key key;
    u8 point[65] = {4};
    LIVING(session);
    if (algorithm != 0x20800) return ALGMODNOTSUPPORT;
    if (index >= INDEX_MAX || !session->granted[index]) return PARDENY;
    int code = sm2_decrypt(index, in, &key);
    if (code) return code;
    memcpy(point + 1, to->x + PAD, 32);
    memcpy(point + 33, to->y + PAD, 32);
    EVP_PKEY *recipient = make_key(NULL, point);
    if (!recipient) return INARGERR;
    code = sm2_encrypt(recipient, key.bytes, key.size, out);
    EVP_PKEY_free(recipient);
    return code;
}

int SDF_DestroyKey(Session *session, Key *key) {
    KNOWN(session, key);
    for (int at = 0; at < KEYS_MAX; at++) if (session->keys[at] == key) session->keys[at] = NULL;
    OPENSSL_cleanse(key, sizeof *key);
    free(key);
    return OK;
}

/* ---- signing */

int SDF_InternalSign_ECC(Session *session, u32 index, const u8 *digest, u32 size, Signature *out) {
    u8 der[80];
    const u8 *at = der;
    size_t der_size = sizeof der;
    LIVING(session);
    if (index >= INDEX_MAX || !session->granted[index]) return PARDENY;
    if (size != 32) return INARGERR;
    EVP_PKEY *key = load_key("sign", index);
    if (!key) return KEYNOTEXIST;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    int good = EVP_PKEY_sign_init(ctx) == 1 && EVP_PKEY_sign(ctx, der, &der_size, digest, size) == 1;
    ECDSA_SIG *pair = good ? d2i_ECDSA_SIG(NULL, &at, der_size) : NULL;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    if (!pair) return SKOPERR;
    memset(out, 0, sizeof *out);
    BN_bn2binpad(ECDSA_SIG_get0_r(pair), out->r + PAD, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(pair), out->s + PAD, 32);
    ECDSA_SIG_free(pair);
    return OK;
}

/* ---- SM4 */

static int sm4(const char *name, const Key *key, const u8 *iv, const u8 *in, u32 size, u8 *out, int encrypting) {
    int count = 0;
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int good = key->size == 16 && EVP_CipherInit_ex2(ctx, cipher, key->bytes, iv, encrypting, NULL) &&
               EVP_CIPHER_CTX_set_padding(ctx, 0) && EVP_CipherUpdate(ctx, out, &count, in, size) && count == (int)size;
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    return good ? OK : SYMOPERR;
}

static int cipher(Session *s, Key *key, u32 algorithm, const u8 *iv, const u8 *in, u32 size, u8 *out, u32 *out_size, int way) {
    KNOWN(s, key);
    const char *name = algorithm == 0x401 ? "SM4-ECB" : algorithm == 0x402 ? "SM4-CBC" : algorithm == 0x420 ? "SM4-CTR" : NULL;
    if (!name) return ALGMODNOTSUPPORT;
    if (*out_size < size) return NOBUFFER;
    *out_size = size;
    return sm4(name, key, iv, in, size, out, way);
}

int SDF_Encrypt(Session *s, Key *key, u32 algorithm, u8 *iv, const u8 *in, u32 size, u8 *out, u32 *out_size) {
    return cipher(s, key, algorithm, iv, in, size, out, out_size, 1);
}

int SDF_Decrypt(Session *s, Key *key, u32 algorithm, u8 *iv, const u8 *in, u32 size, u8 *out, u32 *out_size) {
    return cipher(s, key, algorithm, iv, in, size, out, out_size, 0);
}

int SDF_CalculateMAC(Session *s, Key *key, u32 algorithm, u8 *iv, const u8 *in, u32 size, u8 *out, u32 *out_size) {
    KNOWN(s, key);
    if (algorithm != 0x410 || !size || size % 16) return MACERR;
    u8 *all = malloc(size);
    int code = sm4("SM4-CBC", key, iv, in, size, all, 1);
    memcpy(out, all + size - 16, *out_size = 16);
    free(all);
    return code;
}

#if EDITION >= 2023
#include "soft_sdf_2023.h"
#endif
