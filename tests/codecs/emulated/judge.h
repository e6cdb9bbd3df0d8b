#ifndef EMULATED_JUDGE_H
#define EMULATED_JUDGE_H

#include <stddef.h>
#include <stdint.h>

/* A public key x || y, the digest, the signature, and 1 when it is genuine. */
typedef struct {
    uint8_t key[64], e[32], r[32], s[32], expected;
} given;

void judge(const given *cases, size_t count);

/* To the console, whatever that is. */
void say(const char *text);

#endif
