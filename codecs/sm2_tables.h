/* Multiples of the generator and of public keys, from which a scalar's multiple is a sum without doublings.
 *
 * Digits are odd and signed, so none is zero, every scalar has the same number of summands, and half a window of points
 * is stored.
 */
#ifndef FENGSHOU_SM2_TABLES_H
#define FENGSHOU_SM2_TABLES_H

#include "sm2_kernel.h"
#include "sm2_points.h"

/* Window widths in bits: the generator's table is one for all, the keys' are many. */
#define KEY_BITS 6
#define KEY_WINDOWS 43
#define KEY_POINTS (1 << (KEY_BITS - 1))
#define GENERATOR_BITS 10
#define GENERATOR_WINDOWS 26
#define GENERATOR_POINTS (1 << (GENERATOR_BITS - 1))

_Static_assert(KEY_BITS * KEY_WINDOWS >= 256 && GENERATOR_BITS * GENERATOR_WINDOWS >= 256, "a scalar has 256 bits");

/* entry[i * KEY_POINTS + j] = (2 j + 1) 2^(i KEY_BITS) times the key. */
struct sm2_table {
    point entry[KEY_WINDOWS * KEY_POINTS];
};

/* The same of the generator; sm2_generator_make fills it in. */
extern const point *sm2_generator;

/* Returns 0 when memory is short, else 1. */
int sm2_generator_make(void);

#endif
