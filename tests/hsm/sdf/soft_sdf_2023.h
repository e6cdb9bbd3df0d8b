/* What GM/T 0018-2023 added. GCM is written out (NIST SP 800-38D), because libcrypto 3.0 has none for SM4. */

static void multiply(u8 *x, const u8 *h) {
    u8 z[16] = {0}, v[16];
    memcpy(v, h, 16);
    for (int bit = 0; bit < 128; bit++) {
        u8 carry = v[15] & 1;
        if (x[bit / 8] >> (7 - bit % 8) & 1) for (int at = 0; at < 16; at++) z[at] ^= v[at];
        for (int at = 15; at > 0; at--) v[at] = v[at] >> 1 | v[at - 1] << 7;
        v[0] = v[0] >> 1 ^ (carry ? 0xE1 : 0);
    }
    memcpy(x, z, 16);
}

static void absorb(u8 *y, const u8 *h, const u8 *data, u32 size) {
    for (u32 at = 0; at < size; at += 16) {
        for (u32 byte = 0; byte < 16 && at + byte < size; byte++) y[byte] ^= data[at + byte];
        multiply(y, h);
    }
}

/* Tag over AAD and ciphertext; `counter` is left where the data's key stream begins. */
static void gcm_tag(const Key *key, u8 *counter, const u8 *aad, u32 aad_size, const u8 *hidden, u32 size, u8 *tag) {
    u8 h[16] = {0}, lengths[16] = {0}, mask[16];
    sm4("SM4-ECB", key, NULL, h, 16, h, 1);
    memset(tag, 0, 16);
    absorb(tag, h, aad, aad_size);
    absorb(tag, h, hidden, size);
    for (int at = 0; at < 8; at++) {
        lengths[at] = (unsigned long long)aad_size * 8 >> (56 - 8 * at);
        lengths[8 + at] = (unsigned long long)size * 8 >> (56 - 8 * at);
    }
    absorb(tag, h, lengths, 16);
    counter[15] = 1;
    sm4("SM4-ECB", key, NULL, counter, 16, mask, 1);
    for (int at = 0; at < 16; at++) tag[at] ^= mask[at];
    counter[15] = 2;
}

int SDF_AuthEnc(
    Session *s, Key *key, u32 algorithm, const u8 *iv, u32 iv_size, const u8 *aad, u32 aad_size, const u8 *in, u32 size,
    u8 *out, u32 *out_size, u8 *tag, u32 *tag_size) {
    u8 counter[16] = {0}, start[16] = {0};
    KNOWN(s, key);
    if (algorithm != 0x02000400 || iv_size != 12) return ALGMODNOTSUPPORT;
    if (*out_size < size || *tag_size < 16) return NOBUFFER;
    memcpy(counter, iv, 12);
    memcpy(start, iv, 12);
    start[15] = 2;
    int code = size ? sm4("SM4-CTR", key, start, in, size, out, 1) : key->size == 16 ? OK : SYMOPERR;
    if (code) return code;
    gcm_tag(key, counter, aad, aad_size, out, size, tag);
    *out_size = size;
    *tag_size = 16;
    return OK;
}

int SDF_AuthDec(
    Session *s, Key *key, u32 algorithm, const u8 *iv, u32 iv_size, const u8 *aad, u32 aad_size, const u8 *tag,
    u32 *tag_size, const u8 *in, u32 size, u8 *out, u32 *out_size) {
    u8 counter[16] = {0}, expected[16];
    KNOWN(s, key);
    if (algorithm != 0x02000400 || iv_size != 12 || *tag_size != 16) return ALGMODNOTSUPPORT;
    if (*out_size < size) return NOBUFFER;
    memcpy(counter, iv, 12);
    gcm_tag(key, counter, aad, aad_size, in, size, expected);
    if (CRYPTO_memcmp(expected, tag, 16)) return MACERR;
    *out_size = size;
    return size ? sm4("SM4-CTR", key, counter, in, size, out, 1) : OK;
}

int SDF_HMACInit(Session *session, Key *key, u32 algorithm) {
    KNOWN(session, key);
    if (algorithm != 1) return ALGMODNOTSUPPORT;
    if (!session->hmac) session->hmac = HMAC_CTX_new();
    return HMAC_Init_ex(session->hmac, key->bytes, key->size, EVP_sm3(), NULL) ? OK : MACERR;
}

int SDF_HMACUpdate(Session *session, const u8 *data, u32 size) {
    LIVING(session);
    return session->hmac && HMAC_Update(session->hmac, data, size) ? OK : MACERR;
}

int SDF_HMACFinal(Session *session, u8 *out, u32 *size) {
    LIVING(session);
    return session->hmac && HMAC_Final(session->hmac, out, size) ? OK : MACERR;
}
