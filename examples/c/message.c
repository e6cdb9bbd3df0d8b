/* Messages as bytes: varints, elements, templates, and the canonical form. */

#include "fengshou.h"

#include <string.h>

void put(struct buffer *out, const void *data, size_t length) {
  need(length <= sizeof out->data - out->length, "a message is too long");
  memcpy(out->data + out->length, data, length);
  out->length += length;
}

void put_byte(struct buffer *out, unsigned value) {
  byte one = (byte)value;
  put(out, &one, 1);
}

void put_big(struct buffer *out, uint64_t value, unsigned bytes) {
  while (bytes-- > 0) put_byte(out, (unsigned)(value >> (8 * bytes)) & 0xff);
}

void put_varint(struct buffer *out, uint64_t value) { /* §4 */
  for (; value > 0x7f; value >>= 7) put_byte(out, (unsigned)(value & 0x7f) | 0x80);
  put_byte(out, (unsigned)value);
}

const byte *take(struct reader *in, size_t length) {
  need(length <= in->length, "truncated");
  const byte *taken = in->data;
  in->data += length;
  in->length -= length;
  return taken;
}

uint64_t take_big(struct reader *in, unsigned bytes) {
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
     {STAN, LOCAL_TIME, LOCAL_DATE, ACQUIRER, TERMINAL, MERCHANT, CURRENCY, KEY_EPOCH | OPTIONAL,
      MASTER_EPOCH | OPTIONAL, SERIAL, CREDIT_CODE, APP, APP_VERSION, APP_MANIFEST, DICTIONARY | OPTIONAL, ASSIST | OPTIONAL, LATITUDE | OPTIONAL,
      LONGITUDE | OPTIONAL, BATCH, OPERATOR, FROM_ACCOUNT}},
    {SIGN_IN, RESPONSE,
     {LOCAL_TIME | OPTIONAL, LOCAL_DATE | OPTIONAL, SETTLEMENT_DATE | OPTIONAL, RRN | OPTIONAL, AUTHORISATION | OPTIONAL,
      RESPONSE_CODE, TEXT | OPTIONAL, KEY_EPOCH | OPTIONAL, MASTER_EPOCH | OPTIONAL, DICTIONARY | OPTIONAL,
      BATCH | OPTIONAL, WORKING_KEYS | OPTIONAL, MASTER_KEY | OPTIONAL}},
    {RECEIPT, RESPONSE,
     {SETTLEMENT_DATE | OPTIONAL, RRN | OPTIONAL, AUTHORISATION | OPTIONAL, RESPONSE_CODE, TEXT | OPTIONAL,
      RECORD_NUMBER | OPTIONAL, RECORD | OPTIONAL, LEAF_INDEX | OPTIONAL, AUDIT_PATH | OPTIONAL, COMMITS | OPTIONAL,
      ROOT_SIGNATURE | OPTIONAL}},
    {ERROR, RESPONSE,
     {SETTLEMENT_DATE | OPTIONAL, RRN | OPTIONAL, AUTHORISATION | OPTIONAL, RESPONSE_CODE, TEXT | OPTIONAL}},
};

static const struct side *side_of(unsigned id, unsigned flags) {
  for (size_t at = 0; at < sizeof SIDES / sizeof *SIDES; at++)
    if (SIDES[at].id == id && SIDES[at].flags == (flags & RESPONSE)) return &SIDES[at];
  die("this terminal does not know template %u", id);
  return NULL;
}

const struct value *find(const struct message *message, unsigned key) {
  for (size_t at = 0; at < message->count; at++)
    if (message->values[at].key == key) return &message->values[at];
  return NULL;
}

uint64_t number_of(const struct message *message, unsigned key) {
  const struct value *value = find(message, key);
  return value ? value->number : 0;
}

const struct value *bytes_of(const struct message *message, unsigned key) {
  const struct value *value = find(message, key);
  need(value != NULL, "an element is missing in an answer");
  return value;
}

void insert(struct message *message, struct value value) {
  size_t at = message->count++;
  need(at < sizeof message->values / sizeof *message->values, "too many elements");
  for (; at > 0 && message->values[at - 1].key > value.key; at--) message->values[at] = message->values[at - 1];
  message->values[at] = value;
}

void set_number(struct message *message, unsigned key, uint64_t number) {
  insert(message, (struct value){key, number, NULL, 0});
}

void set_text(struct message *message, unsigned key, const char *text) {
  insert(message, (struct value){key, 0, (const byte *)text, strlen(text)});
}

/* ---- values on the wire and under a signature (§4) ---------------------------------------------------------------- */

char kind_of(unsigned key) { return element_of(key)->kind; }

void put_digits(struct buffer *out, const byte *digits, size_t count) {
  for (size_t at = 0; at < count; at += 2) {
    unsigned low = at + 1 < count ? digits[at + 1] - '0' : 0xf;
    put_byte(out, (unsigned)(digits[at] - '0') << 4 | low);
  }
}

void put_value(struct buffer *out, const struct value *value) {
  const struct element *element = element_of(value->key);
  switch (element->kind) {
    case 'n':
      put_varint(out, value->number);
      return;
    case 'd':
      need(value->length >= 1 && value->length <= element->size, "a number has too few or too many digits");
      put_byte(out, (unsigned)value->length);
      put_digits(out, value->bytes, value->length);
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

void put_body(struct buffer *out, const struct message *message) { /* §3: presence, elements */
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

void put_canonical(struct buffer *out, const struct message *message, const struct message *session) { /* §7 */
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

struct reader take_answer(struct message *answer, const byte *frame, size_t length) { /* §3 */
  struct reader in = {frame, length};
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
