/* The sums of claims, one case at a time on the processor's ordinary registers. */
#ifndef FENGSHOU_SM2_SUMS_H
#define FENGSHOU_SM2_SUMS_H

#include "sm2_claims.h"

/* Working memory of sum_claims. */
typedef struct {
    point summand[SM2_BATCH][SUMMANDS];
    sum sums[SM2_BATCH * (SUMMANDS / 2) + CHAINS];
} sums_space;

/* Find x of each of at most SM2_BATCH claims. */
void sum_claims(claim *claims, size_t count, sums_space *space);

#endif
