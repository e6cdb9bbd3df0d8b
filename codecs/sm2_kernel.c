/* See sm2_kernel.h.
 *
 * Theory of operation. A verification needs the affine x of [s]G + [t]P. Both points are fixed, so tables of their
 * multiples turn each scalar into a list of table entries to be added up, one for each nonzero window: at most 26 for G
 * and 43 for P, and no doublings.
 *
 * All additions of a level are independent, so with many cases at hand they are done in affine coordinates with one shared
 * inversion (Montgomery's trick): the entries of each case are summed as a tree, seven levels for 69 entries, and each
 * level takes all cases of a batch together. An addition then costs six multiplications instead of ten, and the result is
 * affine without a final inversion. Few cases are summed in line.
 *
 * The point at infinity is (0, 0), which is not on the curve because b is not 0. Equal and opposite summands are treated
 * apart; whoever makes a signature can provoke them, so they must be right.
 */
#include "sm2_kernel.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 u128;
typedef uint64_t fe[4]; /* an element of the field, Montgomery form, little-endian limbs, below p */

typedef struct {
    fe x, y;
} point;

/* GB/T 32918.5: p, n, b and G. */
static const uint64_t N[4] = {0x53BBF40939D54123u, 0x7203DF6B21C6052Bu, 0xFFFFFFFFFFFFFFFFu, 0xFFFFFFFEFFFFFFFFu};
static const uint8_t B[32] = {0x28, 0xE9, 0xFA, 0x9E, 0x9D, 0x9F, 0x5E, 0x34, 0x4D, 0x5A, 0x9E, 0x4B, 0xCF, 0x65, 0x09, 0xA7,
                              0xF3, 0x97, 0x89, 0xF5, 0x15, 0xAB, 0x8F, 0x92, 0xDD, 0xBC, 0xBD, 0x41, 0x4D, 0x94, 0x0E, 0x93};
static const uint8_t G[64] = {0x32, 0xC4, 0xAE, 0x2C, 0x1F, 0x19, 0x81, 0x19, 0x5F, 0x99, 0x04, 0x46, 0x6A, 0x39, 0xC9, 0x94,
                              0x8F, 0xE3, 0x0B, 0xBF, 0xF2, 0x66, 0x0B, 0xE1, 0x71, 0x5A, 0x45, 0x89, 0x33, 0x4C, 0x74, 0xC7,
                              0xBC, 0x37, 0x36, 0xA2, 0xF4, 0xF6, 0x77, 0x9C, 0x59, 0xBD, 0xCE, 0xE3, 0x6B, 0x69, 0x21, 0x53,
                              0xD0, 0xA9, 0x87, 0x7C, 0xC6, 0x2A, 0x47, 0x40, 0x02, 0xDF, 0x32, 0xE5, 0x21, 0x39, 0xF0, 0xA0};
/* 2^512 mod p and 1 in Montgomery form (2^256 mod p). */
static const fe RR = {0x0000000200000003u, 0x00000002FFFFFFFFu, 0x0000000100000001u, 0x0000000400000002u};
static const fe ONE = {0x0000000000000001u, 0x00000000FFFFFFFFu, 0x0000000000000000u, 0x0000000100000000u};

/* Window widths in bits: the generator's table is one for all, the keys' are many. A digit is signed, so half a window of
 * points is stored, and the last window takes the carry. */
#define KEY_BITS 6
#define KEY_WINDOWS 43
#define KEY_POINTS (1 << (KEY_BITS - 1))
#define GEN_BITS 10
#define GEN_WINDOWS 26
#define GEN_POINTS (1 << (GEN_BITS - 1))
#define SUMMANDS (KEY_WINDOWS + GEN_WINDOWS)

/* Up to so many cases are summed in line, with ten multiplications an addition but one inversion in all; a tree needs
 * six and seven inversions (measured: 24 against 62 us for one case, equal at about seven). */
#define FEW 6

_Static_assert(KEY_BITS * KEY_WINDOWS > 256 && GEN_BITS * GEN_WINDOWS > 256, "the last window must hold the carry");

struct sm2_table {
    point entry[KEY_WINDOWS * KEY_POINTS];
};

static point *generator; /* GEN_WINDOWS * GEN_POINTS */

/* Chains of carries. Compilers see them in these intrinsics better than in plain C. */
#if defined(__x86_64__)
#include <immintrin.h>
typedef unsigned long long limb;
typedef unsigned char carry_bit;
#define ADC(c, r, a, b) c = _addcarry_u64(c, a, b, &(r))
#define SBB(c, r, a, b) c = _subborrow_u64(c, a, b, &(r))
#else
typedef uint64_t limb;
typedef uint64_t carry_bit;
#define ADC(c, r, a, b) \
    do { \
        u128 sum_ = (u128)(a) + (b) + (c); \
        r = (limb)sum_; \
        c = (limb)(sum_ >> 64); \
    } while (0)
#define SBB(c, r, a, b) \
    do { \
        u128 difference_ = (u128)(a) - (b) - (c); \
        r = (limb)difference_; \
        c = (limb)(difference_ >> 64) & 1; \
    } while (0)
#endif

/* ---- the field ---------------------------------------------------------------------------------------------------- */

#define P0 0xFFFFFFFFFFFFFFFFu
#define P1 0xFFFFFFFF00000000u
#define P2 0xFFFFFFFFFFFFFFFFu
#define P3 0xFFFFFFFEFFFFFFFFu

/* r = (high, t3 .. t0) - p if that is not negative, else t. */
static inline void reduce_once(fe r, limb t0, limb t1, limb t2, limb t3, limb high) {
    limb d0, d1, d2, d3, rest;
    carry_bit borrow = 0;
    SBB(borrow, d0, t0, P0);
    SBB(borrow, d1, t1, P1);
    SBB(borrow, d2, t2, P2);
    SBB(borrow, d3, t3, P3);
    SBB(borrow, rest, high, 0);
    (void)rest;
    limb keep = (limb)0 - borrow; /* all ones: it was below p */
    r[0] = (t0 & keep) | (d0 & ~keep);
    r[1] = (t1 & keep) | (d1 & ~keep);
    r[2] = (t2 & keep) | (d2 & ~keep);
    r[3] = (t3 & keep) | (d3 & ~keep);
}

static inline void fe_add(fe r, const fe a, const fe b) {
    limb t0, t1, t2, t3;
    carry_bit carry = 0;
    ADC(carry, t0, a[0], b[0]);
    ADC(carry, t1, a[1], b[1]);
    ADC(carry, t2, a[2], b[2]);
    ADC(carry, t3, a[3], b[3]);
    reduce_once(r, t0, t1, t2, t3, carry);
}

static inline void fe_sub(fe r, const fe a, const fe b) {
    limb t0, t1, t2, t3;
    carry_bit borrow = 0, carry = 0;
    SBB(borrow, t0, a[0], b[0]);
    SBB(borrow, t1, a[1], b[1]);
    SBB(borrow, t2, a[2], b[2]);
    SBB(borrow, t3, a[3], b[3]);
    limb mask = (limb)0 - borrow;
    ADC(carry, t0, t0, P0 & mask);
    ADC(carry, t1, t1, P1 & mask);
    ADC(carry, t2, t2, P2 & mask);
    ADC(carry, t3, t3, P3 & mask);
    (void)carry;
    r[0] = t0;
    r[1] = t1;
    r[2] = t2;
    r[3] = t3;
}

/* hi:lo = a b + c (+ d); it cannot overflow. */
#define MULADD(hi, lo, a, b, c) \
    do { \
        u128 product_ = (u128)(a) * (b) + (c); \
        lo = (limb)product_; \
        hi = (limb)(product_ >> 64); \
    } while (0)
#define MULADD2(hi, lo, a, b, c, d) \
    do { \
        u128 product_ = (u128)(a) * (b) + (c) + (d); \
        lo = (limb)product_; \
        hi = (limb)(product_ >> 64); \
    } while (0)

/* One step of Montgomery reduction. Because p is -1 modulo 2^64, the multiple of p that clears the lowest limb m is m
 * itself, and m p + m = 2^64 m (2^192 - 2^160 - 2^32 + 1): shifts and additions only. */
#define FOLD(m, u1, u2, u3, u4, carry) \
    do { \
        limb low_ = (m) << 32, high_ = (m) >> 32, q0_, q1_, q2_, q3_; \
        carry_bit c_ = 0; \
        SBB(c_, q0_, m, low_); \
        SBB(c_, q1_, 0, high_); \
        SBB(c_, q2_, 0, low_); \
        SBB(c_, q3_, m, high_); \
        c_ = 0; \
        ADC(c_, u1, u1, q0_); \
        ADC(c_, u2, u2, q1_); \
        ADC(c_, u3, u3, q2_); \
        ADC(c_, u4, u4, q3_); \
        carry = c_; \
    } while (0)

/* r = a b / 2^256 */
static inline __attribute__((always_inline)) void fe_mul(fe r, const fe a, const fe b) {
    limb t0, t1, t2, t3, t4, t5, t6, t7, c;
    MULADD(c, t0, a[0], b[0], 0);
    MULADD(c, t1, a[0], b[1], c);
    MULADD(c, t2, a[0], b[2], c);
    MULADD(t4, t3, a[0], b[3], c);
    MULADD(c, t1, a[1], b[0], t1);
    MULADD2(c, t2, a[1], b[1], t2, c);
    MULADD2(c, t3, a[1], b[2], t3, c);
    MULADD2(t5, t4, a[1], b[3], t4, c);
    MULADD(c, t2, a[2], b[0], t2);
    MULADD2(c, t3, a[2], b[1], t3, c);
    MULADD2(c, t4, a[2], b[2], t4, c);
    MULADD2(t6, t5, a[2], b[3], t5, c);
    MULADD(c, t3, a[3], b[0], t3);
    MULADD2(c, t4, a[3], b[1], t4, c);
    MULADD2(c, t5, a[3], b[2], t5, c);
    MULADD2(t7, t6, a[3], b[3], t6, c);
    limb f0 = 0, f1, f2, f3, high; /* what the four low limbs leave after folding */
    FOLD(t0, t1, t2, t3, f0, f1);
    FOLD(t1, t2, t3, f0, f1, f2);
    FOLD(t2, t3, f0, f1, f2, f3);
    FOLD(t3, f0, f1, f2, f3, high);
    carry_bit carry = 0;
    ADC(carry, t4, t4, f0);
    ADC(carry, t5, t5, f1);
    ADC(carry, t6, t6, f2);
    ADC(carry, t7, t7, f3);
    reduce_once(r, t4, t5, t6, t7, high + carry);
}

static inline void fe_sqr(fe r, const fe a) { fe_mul(r, a, a); }

static inline int fe_is_zero(const fe a) { return (a[0] | a[1] | a[2] | a[3]) == 0; }

static inline int fe_equal(const fe a, const fe b) {
    return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])) == 0;
}

static inline void fe_copy(fe r, const fe a) { memcpy(r, a, sizeof(fe)); }

static void fe_sqr_times(fe r, const fe a, int times) {
    fe_sqr(r, a);
    while (--times) fe_sqr(r, r);
}

/* r = 1 / a by Fermat, a ^ (p - 2). The exponent in words of 32 bits: FFFFFFFE FFFFFFFF x 4 00000000 FFFFFFFF FFFFFFFD. */
static void fe_invert(fe r, const fe a) {
    fe x2, x4, x8, x16, x30, x31, x32, t; /* xk = a ^ (2^k - 1) */
    fe_sqr(t, a);
    fe_mul(x2, t, a);
    fe_sqr_times(t, x2, 2);
    fe_mul(x4, t, x2);
    fe_sqr_times(t, x4, 4);
    fe_mul(x8, t, x4);
    fe_sqr_times(t, x8, 8);
    fe_mul(x16, t, x8);
    fe_sqr_times(t, x16, 8);
    fe_mul(t, t, x8); /* x24 */
    fe_sqr_times(t, t, 4);
    fe_mul(t, t, x4); /* x28 */
    fe_sqr_times(t, t, 2);
    fe_mul(x30, t, x2);
    fe_sqr(t, x30);
    fe_mul(x31, t, a);
    fe_sqr(t, x31);
    fe_mul(x32, t, a);
    fe_sqr(t, x31);
    for (int i = 0; i < 4; i++) {
        fe_sqr_times(t, t, 32);
        fe_mul(t, t, x32);
    }
    fe_sqr_times(t, t, 64);
    fe_mul(t, t, x32);
    fe_sqr_times(t, t, 30);
    fe_mul(t, t, x30);
    fe_sqr_times(t, t, 2);
    fe_mul(r, t, a);
}

/* ---- bytes and scalars ---------------------------------------------------------------------------------------------- */

static void load(uint64_t r[4], const uint8_t *bytes) {
    for (int i = 0; i < 4; i++) {
        uint64_t limb = 0;
        for (int j = 0; j < 8; j++) limb = limb << 8 | bytes[8 * (3 - i) + j];
        r[i] = limb;
    }
}

static int below(const uint64_t a[4], const uint64_t b[4]) {
    for (int i = 3; i >= 0; i--)
        if (a[i] != b[i]) return a[i] < b[i];
    return 0;
}

/* Subtract n once if that is not negative, `high` being the bit above: enough for anything below 2 n, and for anything
 * below 2^256, because n is above 2^255. */
static void modulo_n(uint64_t a[4], limb high) {
    limb d[4], rest;
    carry_bit borrow = 0;
    for (int i = 0; i < 4; i++) SBB(borrow, d[i], a[i], N[i]);
    SBB(borrow, rest, high, 0);
    (void)rest;
    if (!borrow)
        for (int i = 0; i < 4; i++) a[i] = d[i];
}

/* r = a + b modulo n, both below n. */
static void add_modulo_n(uint64_t r[4], const uint64_t a[4], const uint64_t b[4]) {
    limb sum[4];
    carry_bit carry = 0;
    for (int i = 0; i < 4; i++) ADC(carry, sum[i], a[i], b[i]);
    for (int i = 0; i < 4; i++) r[i] = sum[i];
    modulo_n(r, carry);
}

/* The signed digits of a scalar, width bits each, from -2^(width-1) + 1 to 2^(width-1). */
static void recode(int16_t *digits, const uint64_t scalar[4], int width, int windows) {
    int carry = 0, half = 1 << (width - 1);
    for (int i = 0; i < windows; i++) {
        int at = i * width, limb = at >> 6, shift = at & 63;
        uint64_t bits = limb < 4 ? scalar[limb] >> shift : 0;
        if (shift + width > 64 && limb < 3) bits |= scalar[limb + 1] << (64 - shift);
        int digit = (int)(bits & ((1u << width) - 1)) + carry;
        carry = digit > half;
        digits[i] = (int16_t)(digit - (carry << width));
    }
}

/* ---- additions that share inversions ----------------------------------------------------------------------------------- */

static inline int is_infinity(const point *a) { return fe_is_zero(a->x) && fe_is_zero(a->y); }

enum { ADD, DOUBLE, LEFT, RIGHT, NOTHING };

/* The denominator of the slope through a and b, and how to go on: LEFT, RIGHT and NOTHING need none (it is 1 then). */
static int denominator(fe d, const point *a, const point *b) {
    fe_sub(d, b->x, a->x);
    if (!fe_is_zero(d)) {
        if (!is_infinity(a) && !is_infinity(b)) return ADD;
    } else if (fe_equal(a->y, b->y) && !is_infinity(a)) {
        fe_add(d, a->y, a->y); /* not zero: the order of the curve is odd */
        return DOUBLE;
    }
    fe_copy(d, ONE);
    if (is_infinity(a)) return RIGHT;
    return is_infinity(b) ? LEFT : NOTHING;
}

/* r = a + b, given 1 / denominator. r may be a or b. */
static inline void finish(point *r, const point *a, const point *b, int how, const fe inverse) {
    fe slope, x, t;
    switch (how) {
    case LEFT:
        *r = *a;
        return;
    case RIGHT:
        *r = *b;
        return;
    case NOTHING:
        memset(r, 0, sizeof *r);
        return;
    case DOUBLE: /* slope = 3 (x^2 - 1) / 2y, because a = -3 */
        fe_sqr(t, a->x);
        fe_sub(t, t, ONE);
        fe_add(slope, t, t);
        fe_add(t, slope, t);
        break;
    default:
        fe_sub(t, b->y, a->y);
    }
    fe_mul(slope, t, inverse);
    fe_sqr(x, slope);
    fe_sub(x, x, a->x);
    fe_sub(x, x, b->x);
    fe_sub(t, a->x, x);
    fe_mul(t, slope, t);
    fe_sub(r->y, t, a->y);
    fe_copy(r->x, x);
}

/* A sum that waits for its share of the common inversion. */
typedef struct {
    point *to;
    const point *a, *b;
    fe d, before; /* denominator; product of the denominators before it */
    int how;
} sum;

typedef struct {
    size_t count;
    fe product;
    sum *sums;
} round_of_sums;

static inline void begin(round_of_sums *round) {
    round->count = 0;
    fe_copy(round->product, ONE);
}

static inline void plan(round_of_sums *round, point *to, const point *a, const point *b) {
    sum *s = &round->sums[round->count++];
    s->to = to;
    s->a = a;
    s->b = b;
    s->how = denominator(s->d, a, b);
    fe_copy(s->before, round->product);
    fe_mul(round->product, round->product, s->d);
}

/* Do all planned sums. A sum may write where a later one reads only if that one was planned before. */
static void carry_out(round_of_sums *round) {
    fe inverse, own;
    if (!round->count) return;
    fe_invert(inverse, round->product);
    for (size_t i = round->count; i-- > 0;) {
        sum *s = &round->sums[i];
        fe_mul(own, inverse, s->before);
        fe_mul(inverse, inverse, s->d);
        finish(s->to, s->a, s->b, s->how, own);
    }
}

/* ---- tables ------------------------------------------------------------------------------------------------------------- */

static int on_curve(const point *a) {
    fe left, right, t, b;
    uint64_t raw[4];
    load(raw, B);
    fe_mul(b, raw, RR);
    fe_sqr(left, a->y);
    fe_sqr(right, a->x);
    fe_sub(right, right, ONE);
    fe_sub(right, right, ONE);
    fe_sub(right, right, ONE);
    fe_mul(t, right, a->x);
    fe_add(t, t, b);
    return fe_equal(left, t);
}

static int load_point(point *r, const uint8_t *xy) {
    static const uint64_t prime[4] = {P0, P1, P2, P3};
    uint64_t x[4], y[4];
    load(x, xy);
    load(y, xy + 32);
    if (!below(x, prime) || !below(y, prime)) return 0;
    fe_mul(r->x, x, RR);
    fe_mul(r->y, y, RR);
    return on_curve(r);
}

/* A point as (x / z^2, y / z^3). */
typedef struct {
    fe x, y, z;
} jacobian;

/* r = 2 a, for a = -3 (Explicit-Formulas Database, dbl-2001-b); a is not infinity, nor of order 2: there is none. */
static void twice(jacobian *r, const jacobian *a) {
    fe delta, gamma, beta, alpha, t, u;
    fe_sqr(delta, a->z);
    fe_sqr(gamma, a->y);
    fe_mul(beta, a->x, gamma);
    fe_sub(t, a->x, delta);
    fe_add(u, a->x, delta);
    fe_mul(t, t, u);
    fe_add(alpha, t, t);
    fe_add(alpha, alpha, t);
    fe_add(t, a->y, a->z);
    fe_sqr(t, t);
    fe_sub(t, t, gamma);
    fe_sub(r->z, t, delta);
    fe_add(beta, beta, beta);
    fe_add(beta, beta, beta); /* 4 beta */
    fe_sqr(t, alpha);
    fe_sub(t, t, beta);
    fe_sub(r->x, t, beta);
    fe_sub(t, beta, r->x);
    fe_mul(t, alpha, t);
    fe_sqr(u, gamma);
    fe_add(u, u, u);
    fe_add(u, u, u);
    fe_add(u, u, u);
    fe_sub(r->y, t, u);
}

/* bases[i] = 2^(i width) base, with one inversion for all. */
static void spread(point *entry, size_t stride, const point *base, int width, int windows) {
    jacobian at[KEY_WINDOWS]; /* the more of the two */
    fe before[KEY_WINDOWS], product, inverse, own, square;
    fe_copy(at[0].x, base->x);
    fe_copy(at[0].y, base->y);
    fe_copy(at[0].z, ONE);
    fe_copy(product, ONE);
    for (int i = 0; i < windows; i++) {
        if (i) {
            at[i] = at[i - 1];
            for (int bit = 0; bit < width; bit++) twice(&at[i], &at[i]);
        }
        fe_copy(before[i], product);
        fe_mul(product, product, at[i].z);
    }
    fe_invert(inverse, product);
    for (int i = windows; i-- > 0;) {
        fe_mul(own, inverse, before[i]);
        fe_mul(inverse, inverse, at[i].z);
        fe_sqr(square, own);
        fe_mul(entry[i * stride].x, at[i].x, square);
        fe_mul(square, square, own);
        fe_mul(entry[i * stride].y, at[i].y, square);
    }
}

/* entry[i * points + d - 1] = d 2^(i width) base, for d = 1 .. points = 2^(width - 1).
 *
 * First the base of every window; then all windows side by side, each round doubling how many multiples are there:
 * d + 1 .. 2 d are 1 .. d plus d. */
static void build(point *entry, const point *base, int width, int windows, sum *sums) {
    size_t points = (size_t)1 << (width - 1);
    round_of_sums round = {.sums = sums};
    spread(entry, points, base, width, windows);
    for (size_t have = 1; have < points; have *= 2) {
        begin(&round);
        for (int i = 0; i < windows; i++) {
            point *row = entry + i * points;
            for (size_t d = 0; d < have; d++) plan(&round, &row[have + d], &row[d], &row[have - 1]);
        }
        carry_out(&round);
    }
}

size_t sm2_table_bytes(void) { return sizeof(sm2_table); }

int sm2_table_build(sm2_table *table, const uint8_t *xy) {
    point base;
    if (!load_point(&base, xy)) return 0;
    sum *sums = malloc(sizeof(sum) * KEY_WINDOWS * KEY_POINTS);
    if (!sums) return 0;
    build(table->entry, &base, KEY_BITS, KEY_WINDOWS, sums);
    free(sums);
    return 1;
}

int sm2_kernel_init(void) {
    if (generator) return 1;
    point base;
    point *made = malloc(sizeof(point) * GEN_WINDOWS * GEN_POINTS);
    sum *sums = malloc(sizeof(sum) * GEN_WINDOWS * GEN_POINTS);
    if (made && sums && load_point(&base, G)) {
        build(made, &base, GEN_BITS, GEN_WINDOWS, sums);
        generator = made;
        made = NULL;
    }
    free(made);
    free(sums);
    return generator != NULL;
}

/* ---- verification ----------------------------------------------------------------------------------------------------- */

typedef struct {
    point summand[SUMMANDS];
    uint64_t e[4], r[4];
    int left; /* summands that are still to be added up; 0: the case is lost already */
} work;

typedef struct {
    work cases[SM2_BATCH];
    sum sums[SM2_BATCH * (SUMMANDS / 2 + 1)];
} scratch_space;

size_t sm2_scratch_bytes(void) { return sizeof(scratch_space); }

static void pick(work *w, const point *entry, const int16_t *digits, int windows, int points) {
    for (int i = 0; i < windows; i++) {
        int digit = digits[i];
        if (!digit) continue;
        point *to = &w->summand[w->left++];
        if (digit > 0) {
            *to = entry[(size_t)i * points + digit - 1];
        } else {
            static const fe zero;
            const point *from = &entry[(size_t)i * points - digit - 1];
            fe_copy(to->x, from->x);
            fe_sub(to->y, zero, from->y);
        }
    }
}

/* The range checks of GB/T 32918.2 section 7.1 B1, B2, B5; then the summands of [s]G + [t]P. */
static void prepare(work *w, const sm2_case *c) {
    static const uint64_t zero[4];
    uint64_t s[4], t[4];
    int16_t digits[KEY_WINDOWS];
    w->left = 0;
    load(w->r, c->r);
    load(s, c->s);
    if (!below(zero, w->r) || !below(w->r, N) || !below(zero, s) || !below(s, N)) return;
    add_modulo_n(t, w->r, s);
    if (!below(zero, t)) return;
    load(w->e, c->e);
    modulo_n(w->e, 0);
    recode(digits, s, GEN_BITS, GEN_WINDOWS);
    pick(w, generator, digits, GEN_WINDOWS, GEN_POINTS);
    recode(digits, t, KEY_BITS, KEY_WINDOWS);
    pick(w, c->key->entry, digits, KEY_WINDOWS, KEY_POINTS);
}

/* A sum under way, as (x / zz, y / zzz) with zz^3 = zzz^2; zz = 0 is infinity. */
typedef struct {
    fe x, y, zz, zzz;
} running;

/* r = 2 a (Explicit-Formulas Database, xyzz mdbl-2008-s-1). */
static void restart_doubled(running *r, const point *a) {
    fe u, s, m, t;
    fe_add(u, a->y, a->y);
    fe_sqr(r->zz, u);
    fe_mul(r->zzz, u, r->zz);
    fe_mul(s, a->x, r->zz);
    fe_sqr(t, a->x);
    fe_sub(t, t, ONE);
    fe_add(m, t, t);
    fe_add(m, m, t); /* 3 x^2 + a, a = -3 */
    fe_sqr(t, m);
    fe_sub(t, t, s);
    fe_sub(r->x, t, s);
    fe_sub(t, s, r->x);
    fe_mul(t, m, t);
    fe_mul(u, r->zzz, a->y);
    fe_sub(r->y, t, u);
}

/* r = r + a, a not infinity (madd-2008-s). */
static void accumulate(running *r, const point *a) {
    fe p, s, pp, ppp, q, t;
    if (fe_is_zero(r->zz)) {
        fe_copy(r->x, a->x);
        fe_copy(r->y, a->y);
        fe_copy(r->zz, ONE);
        fe_copy(r->zzz, ONE);
        return;
    }
    fe_mul(p, a->x, r->zz);
    fe_sub(p, p, r->x);
    fe_mul(s, a->y, r->zzz);
    fe_sub(s, s, r->y);
    if (fe_is_zero(p)) {
        if (fe_is_zero(s))
            restart_doubled(r, a);
        else
            memset(r, 0, sizeof *r);
        return;
    }
    fe_sqr(pp, p);
    fe_mul(ppp, p, pp);
    fe_mul(q, r->x, pp);
    fe_mul(r->zz, r->zz, pp);
    fe_mul(r->zzz, r->zzz, ppp);
    fe_sqr(t, s);
    fe_sub(t, t, ppp);
    fe_sub(t, t, q);
    fe_sub(r->x, t, q);
    fe_sub(t, q, r->x);
    fe_mul(t, s, t);
    fe_mul(q, r->y, ppp);
    fe_sub(r->y, t, q);
}

/* Few cases: each summed up by itself, and one inversion for all. */
static void sum_in_line(work *cases, size_t count) {
    running sums[FEW];
    fe before[FEW], product, inverse, own;
    fe_copy(product, ONE);
    for (size_t i = 0; i < count; i++) {
        memset(&sums[i], 0, sizeof sums[i]);
        for (int j = 0; j < cases[i].left; j++) accumulate(&sums[i], &cases[i].summand[j]);
        fe_copy(before[i], product);
        if (!fe_is_zero(sums[i].zz)) fe_mul(product, product, sums[i].zz);
    }
    fe_invert(inverse, product);
    for (size_t i = count; i-- > 0;) {
        point *result = &cases[i].summand[0];
        if (fe_is_zero(sums[i].zz)) {
            memset(result, 0, sizeof *result);
            continue;
        }
        fe_mul(own, inverse, before[i]);
        fe_mul(inverse, inverse, sums[i].zz);
        fe_mul(result->x, sums[i].x, own);
        fe_copy(result->y, ONE); /* only x is asked for; not infinity */
    }
}

/* Many cases: the summands of each as a tree, and one inversion for each level of all trees. */
static void sum_as_trees(work *cases, size_t count, sum *sums) {
    round_of_sums round = {.sums = sums};
    do {
        begin(&round);
        for (size_t i = 0; i < count; i++) {
            work *w = &cases[i];
            int half = w->left / 2; /* the first half plus the last; one in the middle waits */
            w->left -= half;
            for (int j = 0; j < half; j++) plan(&round, &w->summand[j], &w->summand[j], &w->summand[w->left + j]);
        }
        carry_out(&round);
    } while (round.count);
}

/* B6 and B7: R = (e + x1) modulo n must be r. */
static int agrees(const work *w) {
    static const fe one = {1, 0, 0, 0};
    uint64_t x[4], sum_n[4];
    if (!w->left || is_infinity(&w->summand[0])) return 0;
    fe_mul(x, w->summand[0].x, one); /* out of Montgomery form */
    modulo_n(x, 0);
    add_modulo_n(sum_n, w->e, x);
    return memcmp(sum_n, w->r, 32) == 0;
}

void sm2_verify(const sm2_case *cases, size_t count, uint8_t *verdicts, void *scratch) {
    scratch_space *space = scratch;
    while (count) {
        size_t batch = count < SM2_BATCH ? count : SM2_BATCH;
        for (size_t i = 0; i < batch; i++) prepare(&space->cases[i], &cases[i]);
        if (batch <= FEW)
            sum_in_line(space->cases, batch);
        else
            sum_as_trees(space->cases, batch, space->sums);
        for (size_t i = 0; i < batch; i++) verdicts[i] = (uint8_t)agrees(&space->cases[i]);
        cases += batch;
        verdicts += batch;
        count -= batch;
    }
}
