/* A terminal core in plain C, written from docs/PROTOCOL.md alone. It needs libcrypto (OpenSSL 3.0 or later).
 *
 *   terminal trade CONF PRODUCT VARIETY GRADE WEIGHT PRICE PAYEE [WEIGHT PRICE PAYEE]...
 *       Signs in, buys goods (weight in 0.01 kg, price in fen per kg) for the account PAYEE, and verifies the receipt;
 *       then the same goods of others, as differences to the purchase before when the switch grants that.
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

#include "fengshou.h"

#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

_Noreturn void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("terminal: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(2);
}

void need(int holds, const char *what) {
  if (!holds) die("%s", what);
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

  return take_answer(answer, incoming, length);
}

struct session {
  EVP_PKEY *key;
  byte binding[HASH];
  uint64_t sequence;
  struct message implied; /* what messages do not repeat; empty before the sign-in */
  int has_delta;          /* the delta form was granted (§8) */
  size_t sent;            /* bytes of the last frame */
  struct message base;    /* the last purchase whose answer bore an RRN; its id is 0 when there is none */
};

static void transmit(struct session *session, struct message *message) {
  struct buffer body = {.length = 0}, covered = {.length = 0}, frame = {.length = 0}, whole = {.length = 0};
  byte signature[SIGNATURE];
  unsigned form = message->id == SIGN_IN ? DELTA : 0; /* it asks for the form; it is under no signature (§7) */
  message->flags |= SIGNED;
  message->sequence = ++session->sequence;
  put(&covered, "FP1Q", 4);
  put(&covered, session->binding, HASH);
  put_canonical(&covered, message, &session->implied);
  sign(session->key, &covered, signature);
  if (session->has_delta && put_delta(&body, message, &session->base))
    form = DELTA;
  else
    put_body(&body, message);
  put_byte(&frame, 0x40 | message->id);
  put_byte(&frame, message->flags | form);
  put_varint(&frame, message->sequence);
  put(&frame, body.data, body.length);
  put(&frame, signature, SIGNATURE);
  put_varint(&whole, frame.length);
  put(&whole, frame.data, frame.length);
  need(fwrite(whole.data, 1, whole.length, stdout) == whole.length && fflush(stdout) == 0, "cannot send");
  session->sent = whole.length;
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
  session->has_delta = 0;
  session->base.id = 0; /* each sign-in begins with nothing remembered (§8) */
  ask(session, &request, &answer);
  if (!code_is(&answer, "00")) {
    tell("sign-in", &answer);
    exit(1);
  }
  session->has_delta = (answer.flags & DELTA) != 0;
  batch = number_of(&answer, BATCH);
  set_text(&session->implied, TERMINAL, configured("terminal"));
  set_text(&session->implied, MERCHANT, configured("merchant"));
  set_number(&session->implied, CURRENCY, 156);
  set_number(&session->implied, BATCH, batch);
  set_text(&session->implied, OPERATOR, configured("operator"));
  return batch;
}

/* A purchase in all its attempts; returns whether it was approved. */
static int buy(struct session *session, struct message *request, EVP_PKEY *switch_key) {
  struct message answer, receipt;
  struct buffer asked = {.length = 0}, told = {.length = 0};
  put_body(&asked, request); /* what the receipt is about, in whatever form it travels */

  struct reader body = ask(session, request, &answer);
  for (int attempt = 0; attempt < 5; attempt++) {
    if (code_is(&answer, "R0")) {
      session->base.id = 0; /* the switch has not the base: nothing was done, and the same goes whole */
    } else if (code_is(&answer, "09") || code_is(&answer, "90")) {
      nanosleep(&(struct timespec){1, 0}, NULL);
      request->flags |= REPEAT;
    } else {
      break;
    }
    body = ask(session, request, &answer); /* the same values, so the same body; only sequence and signature are new */
  }
  tell("purchase", &answer);
  int approved = code_is(&answer, "00");
  if (find(&answer, RRN)) session->base = *request;
  fprintf(stderr, "batch %llu STAN %llu RRN %012llu amount %llu fen, %zu bytes\n",
          (unsigned long long)number_of(&session->implied, BATCH), (unsigned long long)number_of(request, STAN),
          (unsigned long long)number_of(&answer, RRN), (unsigned long long)number_of(request, AMOUNT), session->sent);

  if (answer.flags & RECEIPT_FLAG) {
    put(&told, body.data, body.length); /* the receipt's frame takes the place of the answer's */
    uint64_t sequence = answer.sequence;
    receive(&receipt);
    need(receipt.id == RECEIPT && receipt.sequence == sequence, "an answer to another request");
    verify_receipt(&receipt, switch_key);
    verify_exchange(&receipt, request->id, &asked, &(struct reader){told.data, told.length});
    fprintf(stderr, "receipt: record %llu, verified\n", (unsigned long long)number_of(&receipt, RECORD_NUMBER));
  }
  return approved;
}

static int trade(char **arguments, char **end) {
  struct session session = {.sequence = 0};
  load_configuration(arguments[0]);
  session.key = load_key(configured("key"), 1);
  EVP_PKEY *switch_key = load_key(configured("switch"), 0);
  from_hex(getenv("FENGSHOU_BINDING"), session.binding, "FENGSHOU_BINDING is not 64 hexadecimal digits");

  /* This program keeps no counters: the batch after the current one has no STAN that was used (§9). */
  uint64_t current = sign_in(&session, 0);
  sign_in(&session, current % 999999 + 1);

  int approved = 1;
  uint64_t stan = 0;
  for (char **sale = arguments + 4; sale < end; sale += 3) {
    uint64_t weight = integer(sale[0]), price = integer(sale[1]);
    struct message request = {.id = FARM_PURCHASE, .flags = RECEIPT_FLAG};
    set_number(&request, AMOUNT, (weight * price + 50) / 100);
    set_number(&request, STAN, ++stan);
    set_clock(&request);
    set_number(&request, ENTRY_MODE, 12);
    set_number(&request, PRODUCT, integer(arguments[1]));
    set_number(&request, VARIETY, integer(arguments[2]));
    set_number(&request, GRADE, integer(arguments[3]));
    set_number(&request, WEIGHT, weight);
    set_number(&request, UNIT_PRICE, price);
    set_text(&request, TO_ACCOUNT, sale[2]);
    approved &= buy(&session, &request, switch_key);
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
  char **end = arguments + count;
  if (count >= 9 && count % 3 == 0 && strcmp(arguments[1], "trade") == 0) return trade(arguments + 2, end);
  if (count == 3 && strcmp(arguments[1], "receipt") == 0) return receipt(arguments[2]);
  fputs("usage: terminal trade CONF PRODUCT VARIETY GRADE WEIGHT PRICE PAYEE [WEIGHT PRICE PAYEE]...\n"
        "       terminal receipt SWITCH.pem\n", stderr);
  return 2;
}
