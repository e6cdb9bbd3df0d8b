/* Numbers of 256 bits, as little-endian limbs: from bytes, and modulo the order n of the generator. */
#ifndef FENGSHOU_SM2_SCALARS_H
#define FENGSHOU_SM2_SCALARS_H

#include "sm2_field.h"

/* GB/T 32918.5 */
static const uint64_t N[4] = {0x53BBF40939D54123u, 0x7203DF6B21C6052Bu, 0xFFFFFFFFFFFFFFFFu, 0xFFFFFFFEFFFFFFFFu};

static inline void load(uint64_t r[4], const uint8_t *bytes) {
    for (int i = 0; i < 4; i++) {
        uint64_t limb = 0;
        for (int j = 0; j < 8; j++) limb = limb << 8 | bytes[8 * (3 - i) + j];
        r[i] = limb;
    }
}

static inline int below(const uint64_t a[4], const uint64_t b[4]) {
    for (int i = 3; i >= 0; i--)
        if (a[i] != b[i]) return a[i] < b[i];
    return 0;
}

/* Subtract n once if that is not negative, `high` being the bit above: enough for anything below 2 n, and for anything
 * below 2^256, because n is above 2^255. */
static inline void modulo_n(uint64_t a[4], limb high) {
    limb d[4], rest;
    carry_bit borrow = 0;
    for (int i = 0; i < 4; i++) SBB(borrow, d[i], a[i], N[i]);
    SBB(borrow, rest, high, 0);
    (void)rest;
    if (!borrow)
        for (int i = 0; i < 4; i++) a[i] = d[i];
}

/* r = a + b modulo n, both below n. */
static inline void add_modulo_n(uint64_t r[4], const uint64_t a[4], const uint64_t b[4]) {
    limb sum[4];
    carry_bit carry = 0;
    for (int i = 0; i < 4; i++) ADC(carry, sum[i], a[i], b[i]);
    for (int i = 0; i < 4; i++) r[i] = sum[i];
    modulo_n(r, carry);
}

/* a = n - a, a below n and not 0. */
static inline void negate_modulo_n(uint64_t a[4]) {
    limb d[4];
    carry_bit borrow = 0;
    for (int i = 0; i < 4; i++) SBB(borrow, d[i], N[i], a[i]);
    for (int i = 0; i < 4; i++) a[i] = d[i];
}

/* `width` bits of a from bit `at` on; those above 2^256 are 0. */
static inline unsigned bits_of(const uint64_t a[4], int at, int width) {
    int limb = at >> 6, shift = at & 63;
    uint64_t bits = limb < 4 ? a[limb] >> shift : 0;
    if (shift + width > 64 && limb < 3) bits |= a[limb + 1] << (64 - shift);
    return (unsigned)(bits & (((uint64_t)1 << width) - 1));
}

#endif
