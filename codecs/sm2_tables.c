/* See sm2_tables.h. */
#include "sm2_tables.h"

#include <stdlib.h>

#include "sm2_scalars.h"

#define WINDOWS_MAX (KEY_WINDOWS > GENERATOR_WINDOWS ? KEY_WINDOWS : GENERATOR_WINDOWS)

const point *sm2_generator;

/* GB/T 32918.5: b and G. */
static const uint8_t B[32] = {0x28, 0xE9, 0xFA, 0x9E, 0x9D, 0x9F, 0x5E, 0x34, 0x4D, 0x5A, 0x9E, 0x4B, 0xCF, 0x65, 0x09, 0xA7,
                              0xF3, 0x97, 0x89, 0xF5, 0x15, 0xAB, 0x8F, 0x92, 0xDD, 0xBC, 0xBD, 0x41, 0x4D, 0x94, 0x0E, 0x93};
static const uint8_t G[64] = {0x32, 0xC4, 0xAE, 0x2C, 0x1F, 0x19, 0x81, 0x19, 0x5F, 0x99, 0x04, 0x46, 0x6A, 0x39, 0xC9, 0x94,
                              0x8F, 0xE3, 0x0B, 0xBF, 0xF2, 0x66, 0x0B, 0xE1, 0x71, 0x5A, 0x45, 0x89, 0x33, 0x4C, 0x74, 0xC7,
                              0xBC, 0x37, 0x36, 0xA2, 0xF4, 0xF6, 0x77, 0x9C, 0x59, 0xBD, 0xCE, 0xE3, 0x6B, 0x69, 0x21, 0x53,
                              0xD0, 0xA9, 0x87, 0x7C, 0xC6, 0x2A, 0x47, 0x40, 0x02, 0xDF, 0x32, 0xE5, 0x21, 0x39, 0xF0, 0xA0};
/* 2^512 mod p: a product with it is in Montgomery form. */
static const fe RR = {0x0000000200000003u, 0x00000002FFFFFFFFu, 0x0000000100000001u, 0x0000000400000002u};

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

/* entry[i * stride] = 2^(i width) base, with one inversion for all. */
static void spread(point *entry, size_t stride, const point *base, int width, int windows) {
    jacobian at[WINDOWS_MAX];
    fe before[WINDOWS_MAX], product, inverse, own, square;
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

/* entry[i * points + j] = (2 j + 1) 2^(i width) base, for j = 0 .. points - 1, points = 2^(width - 1). Returns 0 when
 * memory is short.
 *
 * First the base of every window; then all windows side by side, each round doubling how many multiples are there:
 * those of j = have .. 2 have - 1 are those of 0 .. have - 1 plus a step of 2 have bases. */
static int build(point *entry, const point *base, int width, int windows) {
    size_t points = (size_t)1 << (width - 1), count = 0;
    point steps[2][WINDOWS_MAX], *step = steps[0], *next = steps[1];
    sum *sums = malloc(sizeof(sum) * (windows * (points / 2 + 1) + CHAINS));
    if (!sums) return 0;
    spread(entry, points, base, width, windows);
    for (int i = 0; i < windows; i++)
        sums[count++] = (sum){.to = &step[i], .a = &entry[i * points], .b = &entry[i * points]};
    add_all(sums, count);
    for (size_t have = 1; have < points; have *= 2) {
        count = 0;
        for (int i = 0; i < windows; i++) {
            point *row = entry + i * points;
            for (size_t j = 0; j < have; j++) sums[count++] = (sum){.to = &row[have + j], .a = &row[j], .b = &step[i]};
            sums[count++] = (sum){.to = &next[i], .a = &step[i], .b = &step[i]};
        }
        add_all(sums, count);
        point *used = step;
        step = next;
        next = used;
    }
    free(sums);
    return 1;
}

int sm2_table_build(sm2_table *table, const uint8_t *xy) {
    point base;
    return load_point(&base, xy) && build(table->entry, &base, KEY_BITS, KEY_WINDOWS);
}

int sm2_generator_make(void) {
    point base;
    point *made = aligned_alloc(sizeof(point), sizeof(point) * GENERATOR_WINDOWS * GENERATOR_POINTS);
    if (!made || !load_point(&base, G) || !build(made, &base, GENERATOR_BITS, GENERATOR_WINDOWS)) {
        free(made);
        return 0;
    }
    sm2_generator = made;
    return 1;
}
