/* The delta form (§8): a request as its difference to an earlier one of the session, its base. */

#include "fengshou.h"

#include <string.h>

enum operator { PLAIN, CLOCK, COPY, DIFFERENCE, INCREMENT, DERIVED, TAIL }; /* DIFFERENCE is DELTA in the document */

struct rule {
  unsigned key;
  int optional;
  enum operator operator;
};

/* The line "delta form" of template 1 in §6. */
static const struct rule FARM_PURCHASE_RULES[] = {
    {PAN, 1, TAIL}, {AMOUNT, 0, DERIVED}, {STAN, 0, INCREMENT}, {LOCAL_TIME, 0, CLOCK}, {LOCAL_DATE, 0, DIFFERENCE},
    {ENTRY_MODE, 0, COPY}, {PRODUCT, 0, COPY}, {VARIETY, 0, COPY}, {GRADE, 0, COPY}, {WEIGHT, 0, PLAIN},
    {UNIT_PRICE, 0, DIFFERENCE}, {TOWN, 1, COPY}, {LOT, 1, TAIL}, {TO_ACCOUNT, 0, TAIL},
};
enum { RULES = sizeof FARM_PURCHASE_RULES / sizeof *FARM_PURCHASE_RULES };

static int equal(const struct value *a, const struct value *b) {
  if (a->length != b->length) return 0;
  return a->length ? memcmp(a->bytes, b->bytes, a->length) == 0 : a->number == b->number;
}

static int as_predicted(enum operator operator, const struct value *value, const struct value *was,
                        const struct message *message, uint64_t distance) {
  switch (operator) {
    case PLAIN:
    case CLOCK:
      return 0;
    case DERIVED:
      return value->number == (number_of(message, WEIGHT) * number_of(message, UNIT_PRICE) + 50) / 100;
    case INCREMENT:
      return was && value->number == was->number + distance;
    default:
      return was && equal(value, was);
  }
}

static void put_zigzag(struct buffer *out, int64_t number) { /* §4, kind z */
  put_varint(out, (uint64_t)number << 1 ^ (number < 0 ? UINT64_MAX : 0));
}

static int64_t seconds_of_day(uint64_t hhmmss) {
  return (int64_t)(hhmmss / 10000 * 3600 + hhmmss / 100 % 100 * 60 + hhmmss % 100);
}

static void put_tail(struct buffer *out, const struct value *value, const struct value *was) {
  size_t same = 0;
  if (!was || was->length != value->length) { /* the value itself */
    put_byte(out, 0);
    put_value(out, value);
    return;
  }
  while (same < value->length && same < 0x7f && value->bytes[same] == was->bytes[same]) same++;
  put_byte(out, 0x80 + (unsigned)same);
  if (kind_of(value->key) == 'd')
    put_digits(out, value->bytes + same, value->length - same);
  else
    put(out, value->bytes + same, value->length - same);
}

static void put_said(struct buffer *out, enum operator operator, const struct value *value, const struct value *was) {
  switch (operator) {
    case CLOCK:
      put_zigzag(out, seconds_of_day(value->number) - seconds_of_day(was->number));
      return;
    case DIFFERENCE:
      put_zigzag(out, (int64_t)(value->number - was->number));
      return;
    case TAIL:
      put_tail(out, value, was);
      return;
    default:
      put_value(out, value);
  }
}

int put_delta(struct buffer *out, const struct message *message, const struct message *base) {
  uint64_t distance = message->sequence - base->sequence;
  if (base->id != FARM_PURCHASE || message->id != base->id || distance < 1 || distance > DISTANCE_MAX) return 0;

  struct buffer elements = {.length = 0};
  byte bits[(2 * RULES + 7) / 8] = {0};
  size_t count = 0;
  for (const struct rule *rule = FARM_PURCHASE_RULES; rule < FARM_PURCHASE_RULES + RULES; rule++) {
    const struct value *value = find(message, rule->key), *was = find(base, rule->key);
    int said = value && !as_predicted(rule->operator, value, was, message, distance);
    if (said) put_said(&elements, rule->operator, value, was);
    if (rule->operator == PLAIN || rule->operator == CLOCK) continue; /* always said: no bits */
    if (said) bits[count / 8] |= 0x80 >> count % 8;
    count++;
    if (!rule->optional) continue;
    if (!value && was) bits[count / 8] |= 0x80 >> count % 8; /* 01: not there, but in the base */
    count++;
  }
  put_byte(out, (unsigned)distance);
  put(out, bits, (count + 7) / 8);
  put(out, elements.data, elements.length);
  return 1;
}
