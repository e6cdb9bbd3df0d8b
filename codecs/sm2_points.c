/* See sm2_points.h.
 *
 * The slope of a sum of affine points needs an inversion. Montgomery's trick inverts the product of all denominators
 * and takes each one's share out again with three multiplications; with three more a sum is made. Equal and opposite
 * summands are treated apart; whoever makes a signature can provoke them, so they must be right.
 */
#include "sm2_points.h"

enum { ADD, DOUBLE, LEFT, RIGHT, NOTHING };

/* Find the denominator, and how to go on: LEFT, RIGHT and NOTHING need none (it is 1 then). */
static inline int denominator(fe d, const point *a, const point *b) {
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

/* The sums that are no sum of two different points. */
static void settle(point *r, const sum *s) {
    if (s->how == LEFT)
        *r = *s->a;
    else if (s->how == RIGHT)
        *r = *s->b;
    else
        memset(r, 0, sizeof *r);
}

/* The numerator of the slope of a tangent, 3 (x^2 - 1), because a = -3. */
static void tangent(fe n, const point *a) {
    fe t;
    fe_sqr(t, a->x);
    fe_sub(t, t, ONE);
    fe_add(n, t, t);
    fe_add(n, n, t);
}

/* Finish the `wide` sums that end before `end`, one of each chain; inverse[k] is that of the product of all
 * denominators of the chain of end[-1 - k] up to it, and becomes the inverse of the product before it. */
static inline __attribute__((always_inline)) void finish(sum *end, fe *inverse, int wide) {
    fe own[CHAINS], slope[CHAINS], t[CHAINS];
    point r[CHAINS];
    for (int k = 0; k < wide; k++) fe_mul(own[k], inverse[k], end[-1 - k].before);
    for (int k = 0; k < wide; k++) fe_mul(inverse[k], inverse[k], end[-1 - k].denominator);
    for (int k = 0; k < wide; k++) {
        const sum *s = &end[-1 - k];
        if (s->how == DOUBLE)
            tangent(t[k], s->a);
        else
            fe_sub(t[k], s->b->y, s->a->y);
    }
    for (int k = 0; k < wide; k++) fe_mul(slope[k], t[k], own[k]);
    for (int k = 0; k < wide; k++) fe_sqr(r[k].x, slope[k]);
    for (int k = 0; k < wide; k++) {
        const sum *s = &end[-1 - k];
        fe_sub(r[k].x, r[k].x, s->a->x);
        fe_sub(r[k].x, r[k].x, s->b->x);
        fe_sub(t[k], s->a->x, r[k].x);
    }
    for (int k = 0; k < wide; k++) fe_mul(t[k], slope[k], t[k]);
    for (int k = 0; k < wide; k++) {
        const sum *s = &end[-1 - k];
        fe_sub(r[k].y, t[k], s->a->y);
        if (s->how > DOUBLE) settle(&r[k], s);
        *s->to = r[k];
    }
}

void add_all(sum *sums, size_t count) {
    fe inverse[CHAINS];
    if (!count) return;
    for (int k = 0; k < CHAINS; k++) fe_copy(sums[k].before, ONE);
    for (size_t i = 0; i < count; i++) {
        sum *s = &sums[i];
        s->how = denominator(s->denominator, s->a, s->b);
        fe_mul(sums[i + CHAINS].before, s->before, s->denominator);
    }
    sum *end = sums + count; /* end[0] and end[1] hold the product of a chain each, end[1] that which ends last */
    fe both;
    fe_mul(both, end[0].before, end[1].before);
    fe_invert(both, both);
    fe_mul(inverse[0], both, end[0].before);
    fe_mul(inverse[1], both, end[1].before);
    if (count & 1) { /* one alone, and the chains change places */
        finish(end--, inverse, 1);
        fe_copy(both, inverse[0]);
        fe_copy(inverse[0], inverse[1]);
        fe_copy(inverse[1], both);
    }
    for (; end > sums; end -= CHAINS) finish(end, inverse, CHAINS);
}

/* r = 2 a (Explicit-Formulas Database, xyzz mdbl-2008-s-1). */
static void restart_doubled(running *r, const point *a) {
    fe u, s, m, t;
    fe_add(u, a->y, a->y);
    fe_sqr(r->zz, u);
    fe_mul(r->zzz, u, r->zz);
    fe_mul(s, a->x, r->zz);
    tangent(m, a);
    fe_sqr(t, m);
    fe_sub(t, t, s);
    fe_sub(r->x, t, s);
    fe_sub(t, s, r->x);
    fe_mul(t, m, t);
    fe_mul(u, r->zzz, a->y);
    fe_sub(r->y, t, u);
}

/* madd-2008-s */
void accumulate(running *r, const point *a) {
    fe p, s, pp, ppp, q, t;
    if (is_infinity(a)) return;
    if (fe_is_zero(r->zz)) {
        fe_copy(r->x, a->x);
        fe_copy(r->y, a->y);
        fe_copy(r->zz, ONE);
        fe_copy(r->zzz, ONE);
        return;
    }
    fe_mul(p, a->x, r->zz);
    fe_mul(s, a->y, r->zzz);
    fe_sub(p, p, r->x);
    fe_sub(s, s, r->y);
    if (fe_is_zero(p)) {
        if (fe_is_zero(s))
            restart_doubled(r, a);
        else
            memset(r, 0, sizeof *r);
        return;
    }
    fe_sqr(pp, p);
    fe_sqr(t, s);
    fe_mul(q, r->x, pp);
    fe_mul(ppp, p, pp);
    fe_mul(r->zz, r->zz, pp);
    fe_sub(t, t, ppp);
    fe_sub(t, t, q);
    fe_sub(r->x, t, q);
    fe_sub(t, q, r->x);
    fe_mul(r->zzz, r->zzz, ppp);
    fe_mul(q, r->y, ppp);
    fe_mul(t, s, t);
    fe_sub(r->y, t, q);
}
