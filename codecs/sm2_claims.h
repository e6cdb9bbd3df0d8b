/* A signature on its way through the kernel, the same for every path. */
#ifndef FENGSHOU_SM2_CLAIMS_H
#define FENGSHOU_SM2_CLAIMS_H

#include "sm2_tables.h"

#define SUMMANDS (KEY_WINDOWS + GENERATOR_WINDOWS)

/* That [s]G + [t]P, the sum of these table entries and opposites of entries, has the x that e and r ask for. */
typedef struct {
    const point *entry[SUMMANDS];
    uint8_t opposite[SUMMANDS];
    uint64_t e[4], r[4]; /* modulo n */
    fe x;                /* of the sum, once it is known */
    int infinite;        /* there is none */
} claim;

#endif
