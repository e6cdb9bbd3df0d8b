/* A terminal core in plain C, written from docs/PROTOCOL.md alone. It needs libcrypto (OpenSSL 3.0 or later).
 *
 *   terminal trade CONF PRODUCT VARIETY GRADE WEIGHT PRICE PAYEE
 *       Signs in, buys goods (weight in 0.01 kg, price in fen per kg) for the account PAYEE, and verifies the receipt.
 *       Frames go to standard output and come from standard input: put a TLS 1.3 channel between them and the switch.
 *       The channel's binding, 64 hexadecimal digits, is in the environment variable FENGSHOU_BINDING.
 *   terminal receipt SWITCH.pem
 *       Verifies the receipt in the frame on standard input.
 *
 * CONF has lines name=value: terminal, merchant, acquirer, serial, credit_code, settlement_account, app, app_version,
 * app_manifest (hexadecimal), operator, key (file of the terminal's private key, PEM), switch (public key, PEM).
 * The exit status is 0 when all went well, 1 when the switch declined, 2 when something is wrong.
 *
 * "§" in comments refers to sections of docs/PROTOCOL.md. */

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned char byte;

static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("terminal: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(2);
}

static void need(int holds, const char *what) {
  if (!holds) die("%s", what);
}

/* §12 */
enum { FRAME_MIN = 3, FRAME_MAX = 8192, VARINT_MAX = 9, SIGNATURE = 64, HASH = 32 };
/* §3 */
enum { RESPONSE = 0x80, SIGNED = 0x40, RECEIPT_FLAG = 0x10, REPEAT = 0x01 };
/* §6 */
enum { FARM_PURCHASE = 1, SIGN_IN = 15, RECEIPT = 30 };

/* ---- bytes ---------------------------------------------------------------------------------------------------- */

struct buffer {
  byte data[2 * FRAME_MAX];
  size_t length;
};

static void put(struct buffer *out, const void *data, size_t length) {
  need(length <= sizeof out->data - out->length, "a message is too long");
  memcpy(out->data + out->length, data, length);
  out->length += length;
}

static void put_byte(struct buffer *out, unsigned value) {
  byte one = (byte)value;
  put(out, &one, 1);
}

static void put_big(struct buffer *out, uint64_t value, unsigned bytes) {
  while (bytes-- > 0) put_byte(out, (unsigned)(value >> (8 * bytes)) & 0xff);
}

static void put_varint(struct buffer *out, uint64_t value) { /* §4 */
  for (; value > 0x7f; value >>= 7) put_byte(out, (unsigned)(value & 0x7f) | 0x80);
  put_byte(out, (unsigned)value);
}

struct reader {
  const byte *data;
  size_t length;
};

static const byte *take(struct reader *in, size_t length) {
  need(length <= in->length, "truncated");
  const byte *taken = in->data;
  in->data += length;
  in->length -= length;
  return taken;
}

static uint64_t take_big(struct reader *in, unsigned bytes) {
  uint64_t value = 0;
  for (const byte *at = take(in, bytes); bytes-- > 0; at++) value = value << 8 | *at;
  return value;
}

static uint64_t take_varint(struct reader *in) {
  uint64_t value = 0;
  for (unsigned count = 0; count < VARINT_MAX; count++) {
    byte next = *take(in, 1);
    value |= (uint64_t)(next & 0x7f) << (7 * count);
    if (next < 0x80) {
      need(next != 0 || count == 0, "a varint is not in its shortest form");
      return value;
    }
  }
  die("a varint is too long");
  return 0;
}

/* ---- elements and templates (§5, §6): those that this terminal uses ------------------------------------------ */

struct element {
  unsigned key;
  char kind; /* n, d, a = an, s = ans, b, v = bv */
  size_t size;
};

#define DE(number, sub) ((number) << 8 | (sub))
enum {
  PAN = DE(2, 0), AMOUNT = DE(4, 0), STAN = DE(11, 0), LOCAL_TIME = DE(12, 0), LOCAL_DATE = DE(13, 0),
  SETTLEMENT_DATE = DE(15, 0), ENTRY_MODE = DE(22, 0), ACQUIRER = DE(32, 0), RRN = DE(37, 0),
  AUTHORISATION = DE(38, 0), RESPONSE_CODE = DE(39, 0), TERMINAL = DE(41, 0), MERCHANT = DE(42, 0), TEXT = DE(44, 0),
  PRODUCT = DE(48, 1), VARIETY = DE(48, 2), GRADE = DE(48, 3), WEIGHT = DE(48, 4), UNIT_PRICE = DE(48, 5),
  TOWN = DE(48, 6), LOT = DE(48, 7), CURRENCY = DE(49, 0), SERIAL = DE(57, 1), CREDIT_CODE = DE(57, 2),
  APP = DE(57, 3), APP_VERSION = DE(57, 4), APP_MANIFEST = DE(57, 5), DICTIONARY = DE(57, 6), ASSIST = DE(57, 7),
  LATITUDE = DE(59, 1), LONGITUDE = DE(59, 2), BATCH = DE(60, 2), OPERATOR = DE(63, 1), FROM_ACCOUNT = DE(102, 0),
  TO_ACCOUNT = DE(103, 0), RECORD_NUMBER = DE(120, 1), RECORD = DE(120, 2), LEAF_INDEX = DE(120, 3),
  AUDIT_PATH = DE(120, 4), COMMITS = DE(120, 5), ROOT_SIGNATURE = DE(120, 6)
};

static const struct element ELEMENTS[] = {
    {AMOUNT, 'n', 0}, {STAN, 'n', 0}, {LOCAL_TIME, 'n', 0}, {LOCAL_DATE, 'n', 0}, {SETTLEMENT_DATE, 'n', 0},
    {ENTRY_MODE, 'n', 0}, {ACQUIRER, 'n', 0}, {RRN, 'n', 0}, {AUTHORISATION, 'a', 6}, {RESPONSE_CODE, 'a', 2},
    {TERMINAL, 'a', 8}, {MERCHANT, 'a', 15}, {TEXT, 's', 64}, {PRODUCT, 'n', 0}, {VARIETY, 'n', 0}, {GRADE, 'n', 0},
    {WEIGHT, 'n', 0}, {UNIT_PRICE, 'n', 0}, {CURRENCY, 'n', 0}, {SERIAL, 's', 32}, {CREDIT_CODE, 'a', 18},
    {APP, 's', 32}, {APP_VERSION, 's', 16}, {APP_MANIFEST, 'b', 32}, {DICTIONARY, 'n', 0}, {BATCH, 'n', 0},
    {OPERATOR, 'a', 3}, {FROM_ACCOUNT, 'd', 28}, {TO_ACCOUNT, 'd', 28}, {RECORD_NUMBER, 'n', 0}, {RECORD, 'v', 2048},
    {LEAF_INDEX, 'n', 0}, {AUDIT_PATH, 'v', 1024}, {COMMITS, 'v', 4096}, {ROOT_SIGNATURE, 'b', 64},
};

static const struct element *element_of(unsigned key) {
  for (size_t at = 0; at < sizeof ELEMENTS / sizeof *ELEMENTS; at++)
    if (ELEMENTS[at].key == key) return &ELEMENTS[at];
  die("this terminal does not know DE %u.%u", key >> 8, key & 0xff);
  return NULL;
}

#define OPTIONAL 0x10000u /* added to a key */
enum { FIELDS_MAX = 24 };

struct side { /* one direction of a template; a list of keys ends with 0 */
  unsigned id, flags, fields[FIELDS_MAX];
};

static const struct side SIDES[] = {
    {FARM_PURCHASE, 0,
     {PAN | OPTIONAL, AMOUNT, STAN, LOCAL_TIME, LOCAL_DATE, ENTRY_MODE, PRODUCT, VARIETY, GRADE, WEIGHT, UNIT_PRICE,
      TOWN | OPTIONAL, LOT | OPTIONAL, TO_ACCOUNT}},
    {FARM_PURCHASE, RESPONSE,
     {SETTLEMENT_DATE | OPTIONAL, RRN | OPTIONAL, AUTHORISATION | OPTIONAL, RESPONSE_CODE, TEXT | OPTIONAL}},
    {SIGN_IN, 0,
     {STAN, LOCAL_TIME, LOCAL_DATE, ACQUIRER, TERMINAL, MERCHANT, CURRENCY, SERIAL, CREDIT_CODE, APP, APP_VERSION,
      APP_MANIFEST, DICTIONARY | OPTIONAL, ASSIST | OPTIONAL, LATITUDE | OPTIONAL, LONGITUDE | OPTIONAL, BATCH, OPERATOR,
      FROM_ACCOUNT}},
    {SIGN_IN, RESPONSE,
     {LOCAL_TIME | OPTIONAL, LOCAL_DATE | OPTIONAL, SETTLEMENT_DATE | OPTIONAL, RRN | OPTIONAL, AUTHORISATION | OPTIONAL,
      RESPONSE_CODE, TEXT | OPTIONAL, DICTIONARY | OPTIONAL, BATCH | OPTIONAL}},
    {RECEIPT, RESPONSE,
     {SETTLEMENT_DATE | OPTIONAL, RRN | OPTIONAL, AUTHORISATION | OPTIONAL, RESPONSE_CODE, TEXT | OPTIONAL,
      RECORD_NUMBER | OPTIONAL, RECORD | OPTIONAL, LEAF_INDEX | OPTIONAL, AUDIT_PATH | OPTIONAL, COMMITS | OPTIONAL,
      ROOT_SIGNATURE | OPTIONAL}},
    {63, RESPONSE,
     {SETTLEMENT_DATE | OPTIONAL, RRN | OPTIONAL, AUTHORISATION | OPTIONAL, RESPONSE_CODE, TEXT | OPTIONAL}},
};

static const struct side *side_of(unsigned id, unsigned flags) {
  for (size_t at = 0; at < sizeof SIDES / sizeof *SIDES; at++)
    if (SIDES[at].id == id && SIDES[at].flags == (flags & RESPONSE)) return &SIDES[at];
  die("this terminal does not know template %u", id);
  return NULL;
}

struct value { /* a number (kind n), else bytes; the bytes belong to whoever made the value */
  unsigned key;
  uint64_t number;
  const byte *bytes;
  size_t length;
};

struct message {
  unsigned id, flags;
  uint64_t sequence;
  struct value values[FIELDS_MAX + 5]; /* by ascending key */
  size_t count;
};

static const struct value *find(const struct message *message, unsigned key) {
  for (size_t at = 0; at < message->count; at++)
    if (message->values[at].key == key) return &message->values[at];
  return NULL;
}

static uint64_t number_of(const struct message *message, unsigned key) {
  const struct value *value = find(message, key);
  return value ? value->number : 0;
}

static const struct value *bytes_of(const struct message *message, unsigned key) {
  const struct value *value = find(message, key);
  need(value != NULL, "an element is missing in an answer");
  return value;
}

static void insert(struct message *message, struct value value) {
  size_t at = message->count++;
  need(at < sizeof message->values / sizeof *message->values, "too many elements");
  for (; at > 0 && message->values[at - 1].key > value.key; at--) message->values[at] = message->values[at - 1];
  message->values[at] = value;
}

static void set_number(struct message *message, unsigned key, uint64_t number) {
  insert(message, (struct value){key, number, NULL, 0});
}

static void set_text(struct message *message, unsigned key, const char *text) {
  insert(message, (struct value){key, 0, (const byte *)text, strlen(text)});
}

/* ---- values on the wire and under a signature (§4) ---------------------------------------------------------------- */

static void put_value(struct buffer *out, const struct value *value) {
  const struct element *element = element_of(value->key);
  switch (element->kind) {
    case 'n':
      put_varint(out, value->number);
      return;
    case 'd':
      need(value->length >= 1 && value->length <= element->size, "a number has too few or too many digits");
      put_byte(out, (unsigned)value->length);
      for (size_t at = 0; at < value->length; at += 2) {
        unsigned low = at + 1 < value->length ? value->bytes[at + 1] - '0' : 0xf;
        put_byte(out, (unsigned)(value->bytes[at] - '0') << 4 | low);
      }
      return;
    case 's':
    case 'v':
      need(value->length <= element->size, "a text is too long");
      put_varint(out, value->length);
      break;
    default:
      need(value->length == element->size, "a value has not the size of its element");
  }
  put(out, value->bytes, value->length);
}

static struct value take_value(struct reader *in, unsigned key) {
  const struct element *element = element_of(key);
  struct value value = {key, 0, NULL, element->size};
  switch (element->kind) {
    case 'n':
      value.number = take_varint(in);
      return value;
    case 's':
    case 'v':
      value.length = take_varint(in);
      need(value.length <= element->size, "a value is too long");
      break;
    case 'd':
      die("no answer that this terminal knows has digits");
  }
  value.bytes = take(in, value.length);
  return value;
}

static void put_body(struct buffer *out, const struct message *message) { /* §3: presence, elements */
  const struct side *side = side_of(message->id, message->flags);
  unsigned presence = 0, bit = 0x80, optional = 0;
  for (const unsigned *field = side->fields; *field; field++) {
    if (!(*field & OPTIONAL)) continue;
    if (find(message, *field & 0xffff)) presence |= bit;
    bit >>= 1;
    optional++;
  }
  need(optional <= 8, "requests of this terminal have one presence byte at most");
  if (optional) put_byte(out, presence);
  for (const unsigned *field = side->fields; *field; field++) {
    const struct value *value = find(message, *field & 0xffff);
    if (value) put_value(out, value);
  }
}

static void put_canonical(struct buffer *out, const struct message *message, const struct message *session) { /* §7 */
  struct message expanded = *message;
  for (size_t at = 0; at < session->count; at++)
    if (!find(message, session->values[at].key)) insert(&expanded, session->values[at]);
  put_byte(out, 1);
  put_byte(out, message->id);
  put_byte(out, message->flags);
  put_big(out, message->sequence, 8);
  for (size_t at = 0; at < expanded.count; at++) {
    const struct value *value = &expanded.values[at];
    put_big(out, value->key, 2);
    if (element_of(value->key)->kind == 'n') {
      put_big(out, 8, 2);
      put_big(out, value->number, 8);
    } else {
      put_big(out, value->length, 2);
      put(out, value->bytes, value->length);
    }
  }
}

/* ---- SM2 and SM3 by libcrypto (§7) ------------------------------------------------------------------------------- */

static const char SIGNER[] = "1234567812345678";

static EVP_PKEY *load_key(const char *file, int private) {
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

static void sign(EVP_PKEY *key, const struct buffer *message, byte signature[SIGNATURE]) {
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

static int verifies(EVP_PKEY *key, const struct buffer *message, const byte signature[SIGNATURE]) {
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

static void sm3(const struct buffer *data, byte digest[HASH]) {
  need(EVP_Digest(data->data, data->length, digest, NULL, EVP_sm3(), NULL) == 1, "libcrypto has no SM3");
}

/* ---- receipts (§10) ------------------------------------------------------------------------------------------------ */

enum { COMMIT = 92, RECORD_HEAD = 104, OUTCOME = 3 };

static void verify_receipt(const struct message *receipt, EVP_PKEY *switch_key) {
  const struct value *record = bytes_of(receipt, RECORD), *path = bytes_of(receipt, AUDIT_PATH),
                     *commits = bytes_of(receipt, COMMITS), *signature = bytes_of(receipt, ROOT_SIGNATURE);
  uint64_t number = number_of(receipt, RECORD_NUMBER), index = number_of(receipt, LEAF_INDEX);
  need(record->length > RECORD_HEAD && commits->length >= COMMIT && commits->length % COMMIT == 0,
       "the receipt is malformed");

  struct reader head = {record->bytes + 2, 8}, header = {commits->bytes + 8, 12};
  uint64_t first = take_big(&header, 8), count = take_big(&header, 4);
  need(number == take_big(&head, 8) && number == first + index && index < count,
       "the receipt is of another record than it says");

  byte node[HASH], above[HASH];
  struct reader siblings = {path->bytes, path->length};
  struct buffer hashed = {.length = 0};
  put_byte(&hashed, 0);
  put(&hashed, record->bytes, record->length);
  sm3(&hashed, node);
  for (; count > 1; index /= 2, count = (count + 1) / 2) {
    if ((index ^ 1) >= count) continue; /* no sibling: it rises as it is */
    const byte *sibling = take(&siblings, HASH);
    hashed.length = 0;
    put_byte(&hashed, 1);
    put(&hashed, index & 1 ? sibling : node, HASH);
    put(&hashed, index & 1 ? node : sibling, HASH);
    sm3(&hashed, node);
  }
  need(siblings.length == 0 && memcmp(node, commits->bytes + 28, HASH) == 0, "the audit path leads to another root");

  const byte *last = commits->bytes;
  for (; last + COMMIT < commits->bytes + commits->length; last += COMMIT) {
    hashed.length = 0;
    put(&hashed, last, COMMIT);
    sm3(&hashed, above);
    need(memcmp(above, last + COMMIT + 60, HASH) == 0, "the commits are no chain");
  }
  hashed.length = 0;
  put(&hashed, "FP1J", 4);
  put(&hashed, last, COMMIT);
  need(verifies(switch_key, &hashed, signature->bytes), "the switch did not sign the last commit");
}

static void verify_exchange(const struct message *receipt, unsigned id, const struct buffer *request,
                            const struct reader *answer) {
  const byte *record = bytes_of(receipt, RECORD)->bytes;
  need(bytes_of(receipt, RECORD)->length >= RECORD_HEAD + 1 + HASH, "the receipt is malformed");
  byte digest[HASH];
  struct buffer hashed = {.length = 0};
  put_byte(&hashed, id);
  put(&hashed, request->data, request->length);
  sm3(&hashed, digest);
  need(record[1] == OUTCOME && memcmp(digest, record + 72, HASH) == 0, "the receipt is of another request");
  hashed.length = 0;
  put(&hashed, answer->data, answer->length);
  sm3(&hashed, digest);
  need(memcmp(digest, record + RECORD_HEAD + 1, HASH) == 0, "the receipt is of another answer");
}

/* ---- frames in and out (§3) ---------------------------------------------------------------------------------------- */

static byte incoming[FRAME_MAX]; /* the last frame; its values point into it */

static struct reader receive(struct message *answer) {
  size_t length = 0;
  for (unsigned count = 0;; count++) {
    int next = getchar();
    if (next == EOF) die("the switch closed the connection");
    need(count < 2, "a frame is too long");
    length |= (size_t)(next & 0x7f) << (7 * count);
    if (next < 0x80) break;
  }
  need(length >= FRAME_MIN && length <= FRAME_MAX, "a frame has a bad length");
  need(fread(incoming, 1, length, stdin) == length, "the switch closed the connection");

  struct reader in = {incoming, length};
  unsigned head = *take(&in, 1);
  need(head >> 6 == 1, "a frame of another version");
  *answer = (struct message){.id = head & 0x3f, .flags = *take(&in, 1)};
  need((answer->flags & (RESPONSE | SIGNED)) == RESPONSE, "the switch sent something that is no answer");
  answer->sequence = take_varint(&in);

  struct reader body = in;
  const struct side *side = side_of(answer->id, answer->flags);
  unsigned optional = 0, bit = 0;
  for (const unsigned *field = side->fields; *field; field++) optional += (*field & OPTIONAL) != 0;
  const byte *presence = take(&in, (optional + 7) / 8);
  for (const unsigned *field = side->fields; *field; field++) {
    int there = !(*field & OPTIONAL) || (presence[bit / 8] & 0x80 >> bit % 8);
    bit += (*field & OPTIONAL) != 0;
    if (there) insert(answer, take_value(&in, *field & 0xffff));
  }
  need(in.length == 0, "bytes are left at the end of a frame");
  return body;
}

struct session {
  EVP_PKEY *key;
  byte binding[HASH];
  uint64_t sequence;
  struct message implied; /* what messages do not repeat; empty before the sign-in */
};

static void transmit(struct session *session, struct message *message) {
  struct buffer body = {.length = 0}, covered = {.length = 0}, frame = {.length = 0}, whole = {.length = 0};
  byte signature[SIGNATURE];
  message->flags |= SIGNED;
  message->sequence = ++session->sequence;
  put(&covered, "FP1Q", 4);
  put(&covered, session->binding, HASH);
  put_canonical(&covered, message, &session->implied);
  sign(session->key, &covered, signature);
  put_body(&body, message);
  put_byte(&frame, 0x40 | message->id);
  put_byte(&frame, message->flags);
  put_varint(&frame, message->sequence);
  put(&frame, body.data, body.length);
  put(&frame, signature, SIGNATURE);
  put_varint(&whole, frame.length);
  put(&whole, frame.data, frame.length);
  need(fwrite(whole.data, 1, whole.length, stdout) == whole.length && fflush(stdout) == 0, "cannot send");
}

static struct reader ask(struct session *session, struct message *request, struct message *answer) {
  transmit(session, request);
  struct reader body = receive(answer);
  need(answer->sequence == request->sequence, "an answer to another request");
  return body;
}

static int code_is(const struct message *answer, const char *code) {
  return memcmp(bytes_of(answer, RESPONSE_CODE)->bytes, code, 2) == 0;
}

static void tell(const char *what, const struct message *answer) {
  const struct value *text = find(answer, TEXT);
  fprintf(stderr, "%s: %.2s%s%.*s\n", what, bytes_of(answer, RESPONSE_CODE)->bytes, text ? " " : "",
          text ? (int)text->length : 0, text ? (const char *)text->bytes : "");
}

/* ---- the terminal --------------------------------------------------------------------------------------------------- */

static struct { char name[32], value[256]; } configuration[32];

static void load_configuration(const char *file) {
  FILE *in = fopen(file, "r");
  if (!in) die("cannot open %s", file);
  for (size_t at = 0; at < 32 && fscanf(in, " %31[^=]=%255[^\n]", configuration[at].name, configuration[at].value) == 2;)
    at++;
  fclose(in);
}

static const char *configured(const char *name) {
  for (size_t at = 0; at < 32; at++)
    if (strcmp(configuration[at].name, name) == 0) return configuration[at].value;
  die("the configuration has no %s", name);
  return NULL;
}

static void from_hex(const char *text, byte out[HASH], const char *what) {
  size_t length = 0;
  need(OPENSSL_hexstr2buf_ex(out, HASH, &length, text ? text : "", '\0') == 1 && length == HASH, what);
}

static uint64_t integer(const char *text) {
  char *end;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text == '\0' || *end) die("%s is no number", text);
  return value;
}

static void set_clock(struct message *message) { /* DE 12 and 13: UTC+8 whatever the machine thinks */
  time_t now = time(NULL) + 8 * 3600;
  struct tm *clock = gmtime(&now);
  set_number(message, LOCAL_TIME, (uint64_t)(clock->tm_hour * 10000 + clock->tm_min * 100 + clock->tm_sec));
  set_number(message, LOCAL_DATE, (uint64_t)((clock->tm_mon + 1) * 100 + clock->tm_mday));
}

/* Signs in with a batch, 0 to ask which is current (§8); returns the batch that counts. */
static uint64_t sign_in(struct session *session, uint64_t batch) {
  static byte manifest[HASH];
  struct message request = {.id = SIGN_IN}, answer;
  from_hex(configured("app_manifest"), manifest, "app_manifest is not 64 hexadecimal digits");
  set_number(&request, STAN, 1);
  set_clock(&request);
  set_number(&request, ACQUIRER, integer(configured("acquirer")));
  set_text(&request, TERMINAL, configured("terminal"));
  set_text(&request, MERCHANT, configured("merchant"));
  set_number(&request, CURRENCY, 156);
  set_text(&request, SERIAL, configured("serial"));
  set_text(&request, CREDIT_CODE, configured("credit_code"));
  set_text(&request, APP, configured("app"));
  set_text(&request, APP_VERSION, configured("app_version"));
  insert(&request, (struct value){APP_MANIFEST, 0, manifest, HASH});
  set_number(&request, BATCH, batch);
  set_text(&request, OPERATOR, configured("operator"));
  set_text(&request, FROM_ACCOUNT, configured("settlement_account"));

  session->implied.count = 0;
  ask(session, &request, &answer);
  if (!code_is(&answer, "00")) {
    tell("sign-in", &answer);
    exit(1);
  }
  batch = number_of(&answer, BATCH);
  set_text(&session->implied, TERMINAL, configured("terminal"));
  set_text(&session->implied, MERCHANT, configured("merchant"));
  set_number(&session->implied, CURRENCY, 156);
  set_number(&session->implied, BATCH, batch);
  set_text(&session->implied, OPERATOR, configured("operator"));
  return batch;
}

static int trade(char **arguments) {
  struct session session = {.sequence = 0};
  load_configuration(arguments[0]);
  session.key = load_key(configured("key"), 1);
  EVP_PKEY *switch_key = load_key(configured("switch"), 0);
  from_hex(getenv("FENGSHOU_BINDING"), session.binding, "FENGSHOU_BINDING is not 64 hexadecimal digits");

  /* This program keeps no counters: the batch after the current one has no STAN that was used (§9). */
  uint64_t current = sign_in(&session, 0);
  uint64_t batch = sign_in(&session, current % 999999 + 1);

  uint64_t weight = integer(arguments[4]), price = integer(arguments[5]);
  struct message request = {.id = FARM_PURCHASE, .flags = RECEIPT_FLAG}, answer, receipt;
  set_number(&request, AMOUNT, (weight * price + 50) / 100);
  set_number(&request, STAN, 1);
  set_clock(&request);
  set_number(&request, ENTRY_MODE, 12);
  set_number(&request, PRODUCT, integer(arguments[1]));
  set_number(&request, VARIETY, integer(arguments[2]));
  set_number(&request, GRADE, integer(arguments[3]));
  set_number(&request, WEIGHT, weight);
  set_number(&request, UNIT_PRICE, price);
  set_text(&request, TO_ACCOUNT, arguments[6]);
  struct buffer asked = {.length = 0}, told = {.length = 0};
  put_body(&asked, &request);

  struct reader body = ask(&session, &request, &answer);
  for (int attempt = 0; attempt < 5 && (code_is(&answer, "09") || code_is(&answer, "90")); attempt++) {
    nanosleep(&(struct timespec){1, 0}, NULL);
    request.flags |= REPEAT; /* the same values, so the same body; only sequence and signature are new */
    body = ask(&session, &request, &answer);
  }
  tell("purchase", &answer);
  int approved = code_is(&answer, "00");
  fprintf(stderr, "batch %llu STAN 1 RRN %012llu amount %llu fen\n", (unsigned long long)batch,
          (unsigned long long)number_of(&answer, RRN), (unsigned long long)number_of(&request, AMOUNT));

  if (answer.flags & RECEIPT_FLAG) {
    put(&told, body.data, body.length); /* the receipt's frame takes the place of the answer's */
    uint64_t sequence = answer.sequence;
    receive(&receipt);
    need(receipt.id == RECEIPT && receipt.sequence == sequence, "an answer to another request");
    verify_receipt(&receipt, switch_key);
    verify_exchange(&receipt, request.id, &asked, &(struct reader){told.data, told.length});
    fprintf(stderr, "receipt: record %llu, verified\n", (unsigned long long)number_of(&receipt, RECORD_NUMBER));
  }
  return approved ? 0 : 1;
}

static int receipt(const char *key) {
  struct message message;
  receive(&message);
  need(message.id == RECEIPT, "this is no receipt");
  verify_receipt(&message, load_key(key, 0));
  printf("receipt: record %llu, verified\n", (unsigned long long)number_of(&message, RECORD_NUMBER));
  return 0;
}

int main(int count, char **arguments) {
  if (count == 9 && strcmp(arguments[1], "trade") == 0) return trade(arguments + 2);
  if (count == 3 && strcmp(arguments[1], "receipt") == 0) return receipt(arguments[2]);
  fputs("usage: terminal trade CONF PRODUCT VARIETY GRADE WEIGHT PRICE PAYEE | terminal receipt SWITCH.pem\n", stderr);
  return 2;
}
