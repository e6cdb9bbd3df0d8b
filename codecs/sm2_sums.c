/* See sm2_sums.h.
 *
 * The summands of each claim are added up as a tree, and each level takes all claims together, with one inversion. When
 * a level has too few sums for an inversion of its own, what is left of each claim is summed in line, without
 * inversions but one at the end.
 */
#include "sm2_sums.h"

/* So many sums pay for an inversion; measured, and flat around it. */
#define PAYS 24

static void pick(point *summand, const claim *c) {
    for (int i = 0; i < SUMMANDS; i++) {
        fe_copy(summand[i].x, c->entry[i]->x);
        if (c->opposite[i])
            fe_sub(summand[i].y, ZERO, c->entry[i]->y);
        else
            fe_copy(summand[i].y, c->entry[i]->y);
    }
}

static void sum_in_line(claim *claims, size_t count, point (*summand)[SUMMANDS], int left) {
    running sums[SM2_BATCH];
    fe before[SM2_BATCH], product, inverse, own;
    fe_copy(product, ONE);
    for (size_t i = 0; i < count; i++) {
        memset(&sums[i], 0, sizeof sums[i]);
        for (int j = 0; j < left; j++) accumulate(&sums[i], &summand[i][j]);
        claims[i].infinite = fe_is_zero(sums[i].zz);
        fe_copy(before[i], product);
        if (!claims[i].infinite) fe_mul(product, product, sums[i].zz);
    }
    fe_invert(inverse, product);
    for (size_t i = count; i-- > 0;) {
        if (claims[i].infinite) continue;
        fe_mul(own, inverse, before[i]);
        fe_mul(inverse, inverse, sums[i].zz);
        fe_mul(claims[i].x, sums[i].x, own);
    }
}

void sum_claims(claim *claims, size_t count, sums_space *space) {
    int left = SUMMANDS;
    for (size_t i = 0; i < count; i++) pick(space->summand[i], &claims[i]);
    while (left > 1 && count * (size_t)(left / 2) >= PAYS) {
        int half = left / 2; /* the first half plus the last; one in the middle waits */
        sum *next = space->sums;
        left -= half;
        for (size_t i = 0; i < count; i++) {
            point *summand = space->summand[i];
            for (int j = 0; j < half; j++, next++) {
                next->to = &summand[j];
                next->a = &summand[j];
                next->b = &summand[left + j];
            }
        }
        add_all(space->sums, count * (size_t)half);
    }
    if (left > 1) {
        sum_in_line(claims, count, space->summand, left);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        claims[i].infinite = is_infinity(&space->summand[i][0]);
        fe_copy(claims[i].x, space->summand[i][0].x);
    }
}
