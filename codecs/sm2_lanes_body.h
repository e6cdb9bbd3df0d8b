/* The body of sum_in_lanes; sm2_lanes.c includes it once for each way to multiply and says what these are:
 *
 * LANES_NAME(name)      the function's name
 * LANES_ATTRIBUTES      its attributes
 * MADD_LOW(t, a, b)     t += the low 52 bits of a b, a and b being the low 52 bits of their lanes
 * MADD_HIGH(t, a, b)    t += the bits of a b above these
 *
 * Limbs may leave their 52 bits, and be negative, between two carries; shifts for carrying are arithmetic.
 */

/* Bring limbs to 52 bits each; the last keeps what is above. */
static inline LANES_ATTRIBUTES void LANES_NAME(carry)(fe8 r, const lanes *t) {
    lanes carried = {0};
    for (int i = 0; i < 4; i++) {
        lanes limb = t[i] + carried;
        carried = ABOVE(limb, 52);
        r[i] = limb & LIMB;
    }
    r[4] = t[4] + carried;
}

/* r = t less so many times p that it is above 0 and below 2.01 p, for a t between -20 p and 20 p. The top limb says
 * how many, to within a part in 2^40. */
static inline LANES_ATTRIBUTES void LANES_NAME(settle)(fe8 r, lanes *t) {
    lanes times = ABOVE(t[4], 48) - 1;
    t[0] += times;
    t[1] += (times << 44) - (times << 12);
    t[4] += (times << 16) - (times << 48);
    LANES_NAME(carry)(r, t);
}

static inline LANES_ATTRIBUTES void LANES_NAME(sub)(fe8 r, const fe8 a, const fe8 b) {
    lanes t[5];
    for (int i = 0; i < 5; i++) t[i] = a[i] - b[i];
    LANES_NAME(settle)(r, t);
}

/* r = a b / 2^260, by the rows of the product and Montgomery reduction. Because p is -1 modulo 2^52, the multiple of
 * p that clears the lowest limb m is m itself, and m p + m = 2^52 m (2^12 - 2^44) + 2^208 m (2^48 - 2^16), where the
 * first factor is taken as one limb more than it is. From factors below 2.01 p it is below 1.26 p. */
static LANES_ATTRIBUTES void LANES_NAME(mul)(fe8 r, const fe8 a, const fe8 b) {
    const lanes low_factor = EACH((1ull << 52) - (1ull << 44) + (1ull << 12));
    const lanes high_factor = EACH((1ull << 48) - (1ull << 16));
    lanes t[10] = {{0}};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            MADD_LOW(t[i + j], a[i], b[j]);
            MADD_HIGH(t[i + j + 1], a[i], b[j]);
        }
    for (int i = 0; i < 5; i++) {
        lanes m = t[i] & LIMB;
        t[i + 1] += ABOVE(t[i], 52);
        MADD_LOW(t[i + 1], m, low_factor);
        MADD_HIGH(t[i + 2], m, low_factor);
        t[i + 2] -= m;
        MADD_LOW(t[i + 4], m, high_factor);
        MADD_HIGH(t[i + 5], m, high_factor);
    }
    LANES_NAME(carry)(r, t + 5);
}

/* From Montgomery form with 2^256, four limbs of 64 bits, to that with 2^260: 16 times as much, in five limbs. */
static inline LANES_ATTRIBUTES void LANES_NAME(widen)(fe8 r, const uint64_t limbs[4][LANES]) {
    lanes a[4];
    memcpy(a, limbs, sizeof a);
    lanes t[5] = {
        a[0] << 4 & LIMB,
        (a[0] >> 48 | a[1] << 16) & LIMB,
        (a[1] >> 36 | a[2] << 28) & LIMB,
        (a[2] >> 24 | a[3] << 40) & LIMB,
        a[3] >> 12,
    };
    LANES_NAME(settle)(r, t);
}

/* And back, each lane by itself. */
static LANES_ATTRIBUTES void LANES_NAME(narrow)(fe r[LANES], const fe8 a) {
    static const fe8 two_to_256 = {{0}, {0}, {0}, {0}, EACH(1ull << 48)};
    fe8 t;
    LANES_NAME(mul)(t, a, two_to_256);
    for (int k = 0; k < LANES; k++)
        fe_reduce_once(r[k], t[0][k] | t[1][k] << 52, t[1][k] >> 12 | t[2][k] << 40, t[2][k] >> 24 | t[3][k] << 28,
                       t[3][k] >> 36 | t[4][k] << 16, t[4][k] >> 48);
}

/* inverse[k] = 1 / product[k] for CHAINS elements of LANES lanes, with one inversion. Returns 0 when any is 0. */
static LANES_ATTRIBUTES int LANES_NAME(invert)(fe8 *inverse, const fe8 *product) {
    fe each[CHAINS * LANES], before[CHAINS * LANES], all, own;
    uint64_t limbs[4][LANES];
    for (int k = 0; k < CHAINS; k++) LANES_NAME(narrow)(each + k * LANES, product[k]);
    fe_copy(all, ONE);
    for (int i = 0; i < CHAINS * LANES; i++) {
        fe_copy(before[i], all);
        fe_mul(all, all, each[i]);
    }
    if (fe_is_zero(all)) return 0;
    fe_invert(all, all);
    for (int i = CHAINS * LANES; i-- > 0;) {
        fe_mul(own, all, before[i]);
        fe_mul(all, all, each[i]);
        for (int j = 0; j < 4; j++) limbs[j][i % LANES] = own[j];
        if (i % LANES == 0) LANES_NAME(widen)(inverse[i / LANES], limbs);
    }
    return 1;
}

/* As finish in sm2_points.c. */
static inline __attribute__((always_inline)) LANES_ATTRIBUTES void LANES_NAME(finish)(sum8 *end, fe8 *inverse,
                                                                                      int wide) {
    fe8 own[CHAINS], slope[CHAINS], t[CHAINS], x[CHAINS];
    for (int k = 0; k < wide; k++) LANES_NAME(mul)(own[k], inverse[k], end[-1 - k].before);
    for (int k = 0; k < wide; k++) LANES_NAME(mul)(inverse[k], inverse[k], end[-1 - k].denominator);
    for (int k = 0; k < wide; k++) LANES_NAME(sub)(t[k], end[-1 - k].b->y, end[-1 - k].a->y);
    for (int k = 0; k < wide; k++) LANES_NAME(mul)(slope[k], t[k], own[k]);
    for (int k = 0; k < wide; k++) LANES_NAME(mul)(x[k], slope[k], slope[k]);
    for (int k = 0; k < wide; k++) {
        LANES_NAME(sub)(x[k], x[k], end[-1 - k].a->x);
        LANES_NAME(sub)(x[k], x[k], end[-1 - k].b->x);
        LANES_NAME(sub)(t[k], end[-1 - k].a->x, x[k]);
    }
    for (int k = 0; k < wide; k++) LANES_NAME(mul)(t[k], slope[k], t[k]);
    for (int k = 0; k < wide; k++) {
        point8 *to = end[-1 - k].to;
        LANES_NAME(sub)(to->y, t[k], end[-1 - k].a->y);
        memcpy(to->x, x[k], sizeof x[k]);
    }
}

/* As add_all in sm2_points.c. Returns 0 when a denominator is 0, which is that of equal or opposite points. */
static LANES_ATTRIBUTES int LANES_NAME(add_all)(sum8 *sums, size_t count) {
    static const fe8 one = {EACH(0x10), EACH(0xFFFFFFFF0000), EACH(0), EACH(0), EACH(0x100000)};
    fe8 products[CHAINS], inverse[CHAINS], kept;
    for (int k = 0; k < CHAINS; k++) memcpy(sums[k].before, one, sizeof one);
    for (size_t i = 0; i < count; i++) {
        LANES_NAME(sub)(sums[i].denominator, sums[i].b->x, sums[i].a->x);
        LANES_NAME(mul)(sums[i + CHAINS].before, sums[i].before, sums[i].denominator);
    }
    sum8 *end = sums + count;
    for (int k = 0; k < CHAINS; k++) memcpy(products[k], end[CHAINS - 1 - k].before, sizeof one);
    if (!LANES_NAME(invert)(inverse, products)) return 0;
    if (count & 1) {
        LANES_NAME(finish)(end--, inverse, 1);
        memcpy(kept, inverse[0], sizeof kept);
        memcpy(inverse[0], inverse[1], sizeof kept);
        memcpy(inverse[1], kept, sizeof kept);
    }
    for (; end > sums; end -= CHAINS) LANES_NAME(finish)(end, inverse, CHAINS);
    return 1;
}

/* The i-th summands of eight claims. */
static LANES_ATTRIBUTES void LANES_NAME(pick)(point8 *r, claim *const claims[LANES], int i) {
    uint64_t x[4][LANES], y[4][LANES];
    lanes opposite = {0}; /* all ones: take the opposite point */
    fe8 upright, turned;
    for (int k = 0; k < LANES; k++) {
        const point *entry = claims[k]->entry[i];
        for (int j = 0; j < 4; j++) {
            x[j][k] = entry->x[j];
            y[j][k] = entry->y[j];
        }
        opposite[k] = (uint64_t)0 - claims[k]->opposite[i];
    }
    LANES_NAME(widen)(r->x, x);
    LANES_NAME(widen)(upright, y);
    for (int j = 0; j < 5; j++) turned[j] = (upright[j] ^ opposite) - opposite;
    LANES_NAME(settle)(r->y, turned);
}

LANES_ATTRIBUTES int LANES_NAME(sum_in_lanes)(claim *claims, size_t count, lanes_space *space) {
    size_t groups = (count + LANES - 1) / LANES;
    for (size_t g = 0; g < groups; g++) {
        claim *members[LANES]; /* the last claim fills up the last group */
        for (size_t k = 0; k < LANES; k++) members[k] = &claims[g * LANES + k < count ? g * LANES + k : count - 1];
        for (int i = 0; i < SUMMANDS; i++) LANES_NAME(pick)(&space->summand[g][i], members, i);
    }
    for (int left = SUMMANDS; left > 1;) {
        int half = left / 2;
        sum8 *next = space->sums;
        left -= half;
        for (size_t g = 0; g < groups; g++)
            for (int j = 0; j < half; j++, next++) {
                next->to = &space->summand[g][j];
                next->a = &space->summand[g][j];
                next->b = &space->summand[g][left + j];
            }
        if (!LANES_NAME(add_all)(space->sums, groups * (size_t)half)) return 0;
    }
    for (size_t g = 0; g < groups; g++) {
        fe x[LANES];
        LANES_NAME(narrow)(x, space->summand[g][0].x);
        for (size_t k = 0; k < LANES && g * LANES + k < count; k++) {
            fe_copy(claims[g * LANES + k].x, x[k]);
            claims[g * LANES + k].infinite = 0;
        }
    }
    return 1;
}
