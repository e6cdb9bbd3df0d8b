/* Receipts (§10): record, audit path, commits, the signature of the switch. */

#include "fengshou.h"

#include <string.h>

enum { COMMIT = 92, RECORD_HEAD = 104, OUTCOME = 3 };

void verify_receipt(const struct message *receipt, EVP_PKEY *switch_key) {
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

void verify_exchange(const struct message *receipt, unsigned id, const struct buffer *request,
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
