/* Inversion in the field by Bernstein and Yang's division steps ("Fast constant-time gcd computation and modular
 * inversion", 2019), in a form whose time depends on the number: a third of the time of Fermat's a ^ (p - 2).
 *
 * A division step takes a pair (f, g), f odd, to (g, (g - f) / 2) or to (f, (g + f) / 2) or to (f, g / 2), and keeps
 * the gcd; from (p, a) on they end at (1, 0) or (-1, 0). Which step it is depends on low bits only. So 62 of them are
 * found from the lowest words, as a matrix, which is then applied to f and g, and modulo p to d and e, where d a = f
 * and e a = g modulo p throughout.
 */
#include "sm2_field.h"

typedef __int128 wide;

/* A number above -2 p and below p, in limbs of 62 bits, the last with the sign. */
#define LIMBS 5
#define LIMB_BITS 62
#define LIMB_MASK (((int64_t)1 << LIMB_BITS) - 1)
typedef int64_t number[LIMBS];

static const number PRIME = {0x3FFFFFFFFFFFFFFF, 0x3FFFFFFC00000003, 0x3FFFFFFFFFFFFFFF, 0x3FFFFFBFFFFFFFFF, 0xFF};

/* It takes (f, g) to (u f + v g, q f + r g) / 2^62. */
typedef struct {
    int64_t u, v, q, r;
} matrix;

/* The matrix of 62 division steps; delta of the paper is -eta, and decides when f and g change places. Returns the
 * next eta. */
static int64_t divide(int64_t eta, uint64_t f, uint64_t g, matrix *steps) {
    uint64_t u = 1, v = 0, q = 0, r = 1, other, inverse;
    for (int left = LIMB_BITS;;) {
        int zeros = __builtin_ctzll(g | UINT64_MAX << left); /* steps that only halve g */
        g >>= zeros;
        u <<= zeros;
        v <<= zeros;
        eta -= zeros;
        left -= zeros;
        if (!left) break;
        /* A multiple of f makes the lowest bits of g vanish: of as many steps as there are until the next exchange,
         * as are left, and as -1 / f is known for. */
        int vanish;
        if (eta < 0) {
            eta = -eta;
            other = f, f = g, g = 0 - other;
            other = u, u = q, q = 0 - other;
            other = v, v = r, r = 0 - other;
            inverse = f * (f * f - 2);
            vanish = 6;
        } else { /* fewer bits are needed, and found sooner */
            inverse = 0 - f - (((f + 1) & 4) << 1);
            vanish = 4;
        }
        if (vanish > eta + 1) vanish = (int)eta + 1;
        if (vanish > left) vanish = left;
        uint64_t times = inverse * g & (((uint64_t)1 << vanish) - 1);
        g += f * times;
        q += u * times;
        r += v * times;
    }
    *steps = (matrix){(int64_t)u, (int64_t)v, (int64_t)q, (int64_t)r};
    return eta;
}

/* result = (a x + b y + c p) / 2^62, which must divide evenly, of numbers of so many limbs. result may be x or y. */
static inline void combine(number result, int64_t a, const number x, int64_t b, const number y, int64_t c, int limbs) {
    wide sum = 0;
    for (int i = 0; i < limbs; i++) {
        sum += (wide)a * x[i] + (wide)b * y[i] + (wide)c * PRIME[i];
        if (i) result[i - 1] = (int64_t)sum & LIMB_MASK;
        sum >>= LIMB_BITS;
    }
    result[limbs - 1] = (int64_t)sum;
}

/* The same modulo p, for factors that together are at most 2^62: p is added as often as it takes to divide evenly
 * and to stay in range. p is -1 modulo 2^62. */
static inline void combine_modulo_p(number result, int64_t a, const number x, int64_t b, const number y) {
    int64_t times = (a & x[LIMBS - 1] >> 63) + (b & y[LIMBS - 1] >> 63); /* makes x and y positive */
    uint64_t lowest = (uint64_t)a * (uint64_t)x[0] + (uint64_t)b * (uint64_t)y[0];
    times -= (int64_t)(((uint64_t)times - lowest) & LIMB_MASK);
    combine(result, a, x, b, y, times, LIMBS);
}

static inline void add_prime(number a) {
    for (int i = 0; i < LIMBS; i++) a[i] += PRIME[i];
}

static inline void carry(number a) {
    for (int i = 0; i < LIMBS - 1; i++) {
        a[i + 1] += a[i] >> LIMB_BITS;
        a[i] &= LIMB_MASK;
    }
}

/* r = d, or -d, from 0 to p - 1; d is above -2 p and below p. */
static void reduce(fe r, number d, int opposite) {
    if (d[LIMBS - 1] < 0) add_prime(d);
    if (opposite)
        for (int i = 0; i < LIMBS; i++) d[i] = -d[i];
    carry(d);
    if (d[LIMBS - 1] < 0) {
        add_prime(d);
        carry(d);
    }
    r[0] = (uint64_t)d[0] | (uint64_t)d[1] << 62;
    r[1] = (uint64_t)d[1] >> 2 | (uint64_t)d[2] << 60;
    r[2] = (uint64_t)d[2] >> 4 | (uint64_t)d[3] << 58;
    r[3] = (uint64_t)d[3] >> 6 | (uint64_t)d[4] << 56;
}

static inline int is_sign(int64_t limb) { return limb == 0 || limb == -1; }

void fe_invert(fe r, const fe a) {
    /* 2^768 mod p: what is inverted is 2^256 times the number, and a product is divided by as much. */
    static const fe back = {0x0000001200000016u, 0x0000000EFFFFFFF8u, 0x0000000A0000000Cu, 0x0000001B00000009u};
    number d = {0}, e = {1}, f, g = {
        (int64_t)a[0] & LIMB_MASK,
        (int64_t)(a[0] >> 62 | a[1] << 2) & LIMB_MASK,
        (int64_t)(a[1] >> 60 | a[2] << 4) & LIMB_MASK,
        (int64_t)(a[2] >> 58 | a[3] << 6) & LIMB_MASK,
        (int64_t)(a[3] >> 56),
    };
    int64_t eta = -1, rest = 1;
    int limbs = LIMBS; /* so many f and g have still */
    memcpy(f, PRIME, sizeof f);
    while (rest) {
        matrix steps;
        number old_d, old_f;
        memcpy(old_d, d, sizeof d);
        memcpy(old_f, f, sizeof f);
        eta = divide(eta, (uint64_t)f[0], (uint64_t)g[0], &steps);
        combine_modulo_p(d, steps.u, old_d, steps.v, e);
        combine_modulo_p(e, steps.q, old_d, steps.r, e);
        combine(f, steps.u, old_f, steps.v, g, 0, limbs);
        combine(g, steps.q, old_f, steps.r, g, 0, limbs);
        if (limbs > 1 && is_sign(f[limbs - 1]) && is_sign(g[limbs - 1])) {
            limbs--;
            f[limbs - 1] |= (int64_t)((uint64_t)f[limbs] << LIMB_BITS);
            g[limbs - 1] |= (int64_t)((uint64_t)g[limbs] << LIMB_BITS);
        }
        rest = 0;
        for (int i = 0; i < limbs; i++) rest |= g[i];
    }
    reduce(r, d, f[limbs - 1] < 0);
    fe_mul(r, r, back);
}
