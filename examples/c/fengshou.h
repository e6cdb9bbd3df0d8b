/* What the parts of the terminal share. "§" refers to sections of docs/PROTOCOL.md. */

#ifndef FENGSHOU_H
#define FENGSHOU_H

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned char byte;

/* §12 */
enum { FRAME_MIN = 3, FRAME_MAX = 8192, VARINT_MAX = 9, SIGNATURE = 64, HASH = 32, DISTANCE_MAX = 127 };
/* §3 */
enum { RESPONSE = 0x80, SIGNED = 0x40, DELTA = 0x20, RECEIPT_FLAG = 0x10, REPEAT = 0x01 };
/* §6 */
enum { FARM_PURCHASE = 1, SIGN_IN = 15, RECEIPT = 30, ERROR = 63 };
/* §5: the elements that this terminal uses, by key */
#define DE(number, sub) ((number) << 8 | (sub))
enum {
  PAN = DE(2, 0), AMOUNT = DE(4, 0), STAN = DE(11, 0), LOCAL_TIME = DE(12, 0), LOCAL_DATE = DE(13, 0),
  SETTLEMENT_DATE = DE(15, 0), ENTRY_MODE = DE(22, 0), ACQUIRER = DE(32, 0), RRN = DE(37, 0),
  AUTHORISATION = DE(38, 0), RESPONSE_CODE = DE(39, 0), TERMINAL = DE(41, 0), MERCHANT = DE(42, 0), TEXT = DE(44, 0),
  PRODUCT = DE(48, 1), VARIETY = DE(48, 2), GRADE = DE(48, 3), WEIGHT = DE(48, 4), UNIT_PRICE = DE(48, 5),
  TOWN = DE(48, 6), LOT = DE(48, 7), CURRENCY = DE(49, 0), KEY_EPOCH = DE(53, 1), MASTER_EPOCH = DE(53, 3),
  SERIAL = DE(57, 1), CREDIT_CODE = DE(57, 2), APP = DE(57, 3), APP_VERSION = DE(57, 4), APP_MANIFEST = DE(57, 5), DICTIONARY = DE(57, 6),
  ASSIST = DE(57, 7), LATITUDE = DE(59, 1), LONGITUDE = DE(59, 2), BATCH = DE(60, 2), OPERATOR = DE(63, 1),
  WORKING_KEYS = DE(96, 1), MASTER_KEY = DE(96, 2), FROM_ACCOUNT = DE(102, 0),
  TO_ACCOUNT = DE(103, 0), RECORD_NUMBER = DE(120, 1), RECORD = DE(120, 2), LEAF_INDEX = DE(120, 3),
  AUDIT_PATH = DE(120, 4), COMMITS = DE(120, 5), ROOT_SIGNATURE = DE(120, 6)
};

/* Ends the program with a line on standard error and status 2. */
_Noreturn void die(const char *format, ...);
void need(int holds, const char *what);

/* ---- bytes ---- */

struct buffer {
  byte data[2 * FRAME_MAX];
  size_t length;
};

struct reader {
  const byte *data;
  size_t length;
};

void put(struct buffer *out, const void *data, size_t length);
void put_byte(struct buffer *out, unsigned value);
void put_big(struct buffer *out, uint64_t value, unsigned bytes);
void put_varint(struct buffer *out, uint64_t value); /* §4 */
const byte *take(struct reader *in, size_t length);
uint64_t take_big(struct reader *in, unsigned bytes);

/* ---- messages ---- */

enum { FIELDS_MAX = 24 };

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

const struct value *find(const struct message *message, unsigned key);  /* NULL: it is not there */
uint64_t number_of(const struct message *message, unsigned key);        /* 0: it is not there */
const struct value *bytes_of(const struct message *message, unsigned key);
void insert(struct message *message, struct value value);
void set_number(struct message *message, unsigned key, uint64_t number);
void set_text(struct message *message, unsigned key, const char *text);

char kind_of(unsigned key);
void put_value(struct buffer *out, const struct value *value); /* §4 */
/* Two a byte, with a last nibble f behind an odd count. */
void put_digits(struct buffer *out, const byte *digits, size_t count);
/* §3: presence bytes and elements. */
void put_body(struct buffer *out, const struct message *message);
/* §7: what is signed, without tag and binding; session holds the elements that messages do not repeat. */
void put_canonical(struct buffer *out, const struct message *message, const struct message *session);
/* §8: distance, bits and elements of the delta form; 0 and nothing written when the base is none for this message. */
int put_delta(struct buffer *out, const struct message *message, const struct message *base);
/* An answer in a frame without its length. Its values point into the frame; so does the body that is returned. */
struct reader take_answer(struct message *answer, const byte *frame, size_t length);

/* ---- SM2 and SM3 by libcrypto ---- */

EVP_PKEY *load_key(const char *file, int private);
void sign(EVP_PKEY *key, const struct buffer *message, byte signature[SIGNATURE]);
int verifies(EVP_PKEY *key, const struct buffer *message, const byte signature[SIGNATURE]);
void sm3(const struct buffer *data, byte digest[HASH]);

/* ---- receipts (§10): both end the program when the receipt does not prove what it should ---- */

void verify_receipt(const struct message *receipt, EVP_PKEY *switch_key);
void verify_exchange(const struct message *receipt, unsigned id, const struct buffer *request,
                     const struct reader *answer);

#endif
