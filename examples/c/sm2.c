/* SM2 with SM3 by libcrypto (§7): it computes ZA and e from the message; on the wire r and s stand bare. */

#include "fengshou.h"

#include <openssl/ec.h>
#include <openssl/pem.h>

static const char SIGNER[] = "1234567812345678";

EVP_PKEY *load_key(const char *file, int private) {
  FILE *in = fopen(file, "r");
  if (!in) die("cannot open %s", file);
  EVP_PKEY *key = private ? PEM_read_PrivateKey(in, NULL, NULL, NULL) : PEM_read_PUBKEY(in, NULL, NULL, NULL);
  fclose(in);
  if (!key || !EVP_PKEY_is_a(key, "SM2")) die("%s holds no SM2 key", file);
  return key;
}

static EVP_MD_CTX *sm2(EVP_PKEY *key, int sign) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  EVP_PKEY_CTX *of_key = EVP_PKEY_CTX_new(key, NULL);
  need(context && of_key && EVP_PKEY_CTX_set1_id(of_key, SIGNER, sizeof SIGNER - 1) > 0, "no memory");
  EVP_MD_CTX_set_pkey_ctx(context, of_key);
  int ready = sign ? EVP_DigestSignInit(context, NULL, EVP_sm3(), NULL, key)
                   : EVP_DigestVerifyInit(context, NULL, EVP_sm3(), NULL, key);
  need(ready == 1, "libcrypto has no SM2");
  return context;
}

static void sm2_free(EVP_MD_CTX *context) {
  EVP_PKEY_CTX *of_key = EVP_MD_CTX_get_pkey_ctx(context);
  EVP_MD_CTX_free(context);
  EVP_PKEY_CTX_free(of_key);
}

void sign(EVP_PKEY *key, const struct buffer *message, byte signature[SIGNATURE]) {
  byte der[80];
  size_t length = sizeof der;
  EVP_MD_CTX *context = sm2(key, 1);
  need(EVP_DigestSign(context, der, &length, message->data, message->length) == 1, "cannot sign");
  sm2_free(context);
  const byte *at = der;
  ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)length); /* the same SEQUENCE of two INTEGERs */
  need(pair != NULL, "cannot sign");
  need(BN_bn2binpad(ECDSA_SIG_get0_r(pair), signature, HASH) == HASH, "cannot sign");
  need(BN_bn2binpad(ECDSA_SIG_get0_s(pair), signature + HASH, HASH) == HASH, "cannot sign");
  ECDSA_SIG_free(pair);
}

int verifies(EVP_PKEY *key, const struct buffer *message, const byte signature[SIGNATURE]) {
  byte *der = NULL;
  ECDSA_SIG *pair = ECDSA_SIG_new();
  need(pair != NULL, "no memory");
  ECDSA_SIG_set0(pair, BN_bin2bn(signature, HASH, NULL), BN_bin2bn(signature + HASH, HASH, NULL));
  int length = i2d_ECDSA_SIG(pair, &der);
  ECDSA_SIG_free(pair);
  need(length > 0, "no memory");
  EVP_MD_CTX *context = sm2(key, 0);
  int good = EVP_DigestVerify(context, der, (size_t)length, message->data, message->length) == 1;
  sm2_free(context);
  OPENSSL_free(der);
  return good;
}

void sm3(const struct buffer *data, byte digest[HASH]) {
  need(EVP_Digest(data->data, data->length, digest, NULL, EVP_sm3(), NULL) == 1, "libcrypto has no SM3");
}
