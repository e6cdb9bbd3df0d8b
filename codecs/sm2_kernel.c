/* See sm2_kernel.h.
 *
 * Theory of operation. A verification needs the affine x of [s]G + [t]P. Both points are fixed, so tables of their
 * multiples turn each scalar into a list of table entries to be added up, 26 for G and 43 for P, and no doublings. All
 * additions of a level of that sum are independent, within a case and across cases; how they are done is a path's own
 * matter.
 */
#include "sm2_kernel.h"

#include <stdlib.h>

#include "sm2_lanes.h"
#include "sm2_scalars.h"
#include "sm2_sums.h"

typedef struct {
    claim claims[SM2_BATCH];
    size_t of_case[SM2_BATCH];
    union {
        sums_space sums;
        lanes_space lanes;
    };
} scratch_space;

/* Fewer cases are faster one by one: a group of eight costs seven inversions, however few of it are taken. Reckoned,
 * not measured. */
#define LANES_FROM 3

static int taken = SM2_PORTABLE;
static int lanes_agreed; /* in their self-test */

void *sm2_scratch_new(void) { return aligned_alloc(_Alignof(scratch_space), sizeof(scratch_space)); }

/* The entries for the digits of a scalar, which is below n and not 0. An odd scalar is a sum of odd digits: digit i is
 * 2 b + 1 - 2^width, b being the scalar's bits from i width + 1 on, and the last is 2 b + 1; the 2^width that a digit is
 * short of are the 1 that the next has beyond its bits. Of an even scalar take n less it, and all opposites. */
static void find(const point **entry, uint8_t *opposite, uint64_t scalar[4], const point *table, int width,
                 int windows) {
    unsigned points = 1u << (width - 1);
    uint8_t even = !(scalar[0] & 1);
    if (even) negate_modulo_n(scalar);
    for (int i = 0; i < windows; i++, table += points) {
        unsigned b = bits_of(scalar, i * width + 1, width);
        if (i == windows - 1) b += points;
        uint8_t negative = b < points;
        entry[i] = &table[negative ? points - 1 - b : b - points];
        opposite[i] = negative ^ even;
        __builtin_prefetch(entry[i]);
    }
}

/* The range checks of GB/T 32918.2 section 7.1 B1, B2, B5 and the claim that is left. Returns 0 when the case is
 * lost. */
static int claim_of(claim *made, const sm2_case *c) {
    uint64_t s[4], t[4];
    load(made->r, c->r);
    load(s, c->s);
    if (!below(ZERO, made->r) || !below(made->r, N) || !below(ZERO, s) || !below(s, N)) return 0;
    add_modulo_n(t, made->r, s);
    if (!below(ZERO, t)) return 0;
    load(made->e, c->e);
    modulo_n(made->e, 0);
    find(made->entry, made->opposite, s, sm2_generator, GENERATOR_BITS, GENERATOR_WINDOWS);
    find(made->entry + GENERATOR_WINDOWS, made->opposite + GENERATOR_WINDOWS, t, c->key->entry, KEY_BITS, KEY_WINDOWS);
    return 1;
}

/* B6 and B7: R = (e + x1) modulo n must be r. */
static int holds(const claim *c) {
    static const fe one = {1, 0, 0, 0};
    uint64_t x[4], sum_n[4];
    if (c->infinite) return 0;
    fe_mul(x, c->x, one); /* out of Montgomery form */
    modulo_n(x, 0);
    add_modulo_n(sum_n, c->e, x);
    return memcmp(sum_n, c->r, sizeof sum_n) == 0;
}

static void find_sums(scratch_space *space, size_t claims) {
    if (claims >= LANES_FROM) {
        if (taken == SM2_LANES && sum_in_lanes_ifma(space->claims, claims, &space->lanes)) return;
        if (taken == SM2_LANES_IN_C && sum_in_lanes_in_c(space->claims, claims, &space->lanes)) return;
    }
    sum_claims(space->claims, claims, &space->sums);
}

void sm2_verify(const sm2_case *cases, size_t count, uint8_t *verdicts, void *scratch) {
    scratch_space *space = scratch;
    for (size_t start = 0; start < count; start += SM2_BATCH) {
        size_t batch = count - start < SM2_BATCH ? count - start : SM2_BATCH, claims = 0;
        for (size_t i = start; i < start + batch; i++) {
            verdicts[i] = 0;
            if (claim_of(&space->claims[claims], &cases[i])) space->of_case[claims++] = i;
        }
        find_sums(space, claims);
        for (size_t i = 0; i < claims; i++) verdicts[space->of_case[i]] = (uint8_t)holds(&space->claims[i]);
    }
}

int sm2_can_take(int path) {
    if (path == SM2_MULX) return fe_can(FE_MULX);
    if (path == SM2_LANES) return lanes_can() && lanes_agreed;
    return path == SM2_PORTABLE || path == SM2_LANES_IN_C;
}

void sm2_take(int path) {
    taken = path;
    fe_use(path != SM2_PORTABLE && fe_can(FE_MULX) ? FE_MULX : FE_PORTABLE);
}

int sm2_taken(void) { return taken; }

int sm2_lanes_refused(void) { return lanes_can() && !lanes_agreed; }

int sm2_kernel_init(void) {
    sm2_take(sm2_can_take(SM2_MULX) ? SM2_MULX : SM2_PORTABLE);
    if (!sm2_generator && !sm2_generator_make()) return 0;
    lanes_agreed = lanes_can() && lanes_agree();
    if (lanes_agreed) sm2_take(SM2_LANES);
    return 1;
}
