/* The sums of claims, eight cases side by side: lane k of a vector belongs to the k-th of eight claims. */
#ifndef FENGSHOU_SM2_LANES_H
#define FENGSHOU_SM2_LANES_H

#include "sm2_claims.h"
#include "sm2_sums.h"

#define LANES 8

typedef uint64_t lanes __attribute__((vector_size(8 * LANES)));

/* An element of the field for each lane: a 2^260 mod p for the number a, in five little-endian limbs of 52 bits. It
 * need not be the least, but is below 2.01 p. */
typedef lanes fe8[5];

typedef struct {
    fe8 x, y;
} point8;

/* As sum in sm2_points.h, but only for points that are neither equal nor opposite nor infinite. */
typedef struct {
    point8 *to;
    const point8 *a, *b;
    fe8 denominator, before;
} sum8;

#define GROUPS ((SM2_BATCH + LANES - 1) / LANES)

/* Working memory of the functions below. */
typedef struct {
    point8 summand[GROUPS][SUMMANDS];
    sum8 sums[GROUPS * (SUMMANDS / 2) + CHAINS];
} lanes_space;

/* Find x of each of at most SM2_BATCH claims. Returns 0 when any of the sums met a pair of equal or opposite points:
 * nothing is found then, and sum_claims has to do it. The first multiplies by AVX-512 IFMA; the second is the same
 * in C. */
int sum_in_lanes_ifma(claim *claims, size_t count, lanes_space *space);
int sum_in_lanes_in_c(claim *claims, size_t count, lanes_space *space);

/* Whether this processor has the instructions of sum_in_lanes_ifma. */
int lanes_can(void);

/* Whether sum_in_lanes_ifma finds what sum_claims finds, tried with 300 sums of entries of the generator's table. */
int lanes_agree(void);

#endif
