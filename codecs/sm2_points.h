/* Points of the SM2 curve in affine coordinates, and sums of them that share an inversion. */
#ifndef FENGSHOU_SM2_POINTS_H
#define FENGSHOU_SM2_POINTS_H

#include <stddef.h>

#include "sm2_field.h"

/* One line of the cache. The point at infinity is (0, 0), which is not on the curve because b is not 0. */
typedef struct {
    fe x, y;
} __attribute__((aligned(64))) point;

/* to = a + b. `to` may be a or b; no other sum of the round reads there. */
typedef struct {
    point *to;
    const point *a, *b;
    fe denominator; /* of the slope through a and b */
    fe before;      /* product of the denominators before it in its chain */
    int how;
} sum;

/* The denominators are multiplied up in two chains, each by itself, and two sums are finished side by side, so that one
 * multiplication does not wait for another. */
#define CHAINS 2

/* Do `count` sums whose to, a and b are set. There is room for CHAINS more. */
void add_all(sum *sums, size_t count);

/* A sum under way, as (x / zz, y / zzz) with zz^3 = zzz^2; zz = 0 is infinity. */
typedef struct {
    fe x, y, zz, zzz;
} running;

/* r = r + a. Ten multiplications, where a sum of a round takes six and its share of an inversion. */
void accumulate(running *r, const point *a);

static inline int is_infinity(const point *a) { return fe_is_zero(a->x) && fe_is_zero(a->y); }

#endif
