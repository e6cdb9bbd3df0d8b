/* The field of SM2 (GB/T 32918.5): integers modulo p = 2^256 - 2^224 - 2^96 + 2^64 - 1.
 *
 * An element stands in Montgomery form, a 2^256 mod p for the number a, in four little-endian limbs, and is below p.
 * Results may be written over operands. Running time depends on the values in places: public data only.
 */
#ifndef FENGSHOU_SM2_FIELD_H
#define FENGSHOU_SM2_FIELD_H

#include <stdint.h>
#include <string.h>

typedef uint64_t fe[4];

#define P0 0xFFFFFFFFFFFFFFFFu
#define P1 0xFFFFFFFF00000000u
#define P2 0xFFFFFFFFFFFFFFFFu
#define P3 0xFFFFFFFEFFFFFFFFu

static const fe ZERO = {0, 0, 0, 0};
static const fe ONE = {0x0000000000000001u, 0x00000000FFFFFFFFu, 0x0000000000000000u, 0x0000000100000000u};

/* Chains of carries. Compilers see them in these intrinsics better than in plain C. */
#if defined(__x86_64__)
#include <immintrin.h>
typedef unsigned long long limb;
typedef unsigned char carry_bit;
#define ADC(c, r, a, b) c = _addcarry_u64(c, a, b, &(r))
#define SBB(c, r, a, b) c = _subborrow_u64(c, a, b, &(r))
#else
typedef uint64_t limb;
typedef uint64_t carry_bit;
#define ADC(c, r, a, b) \
    do { \
        unsigned __int128 sum_ = (unsigned __int128)(a) + (b) + (c); \
        r = (limb)sum_; \
        c = (limb)(sum_ >> 64); \
    } while (0)
#define SBB(c, r, a, b) \
    do { \
        unsigned __int128 difference_ = (unsigned __int128)(a) - (b) - (c); \
        r = (limb)difference_; \
        c = (limb)(difference_ >> 64) & 1; \
    } while (0)
#endif

/* How fe_mul multiplies. FE_MULX needs an x86-64 processor with BMI2 and ADX. */
enum { FE_PORTABLE, FE_MULX };

/* Whether this processor can multiply so. */
int fe_can(int way);

/* Multiply so from now on; not while another thread computes. At the start it is FE_PORTABLE. */
void fe_use(int way);

/* r = a b, that is, the product of the limbs divided by 2^256. */
extern void (*fe_mul)(fe r, const fe a, const fe b);

static inline void fe_sqr(fe r, const fe a) { fe_mul(r, a, a); }

/* r = 1 / a; 0 for 0. */
void fe_invert(fe r, const fe a);

/* r = (high, t3 .. t0) - p if that is not negative, else t. */
static inline void fe_reduce_once(fe r, limb t0, limb t1, limb t2, limb t3, limb high) {
    limb d0, d1, d2, d3, rest;
    carry_bit borrow = 0;
    SBB(borrow, d0, t0, P0);
    SBB(borrow, d1, t1, P1);
    SBB(borrow, d2, t2, P2);
    SBB(borrow, d3, t3, P3);
    SBB(borrow, rest, high, 0);
    (void)rest;
    limb keep = (limb)0 - borrow; /* all ones: it was below p */
    r[0] = (t0 & keep) | (d0 & ~keep);
    r[1] = (t1 & keep) | (d1 & ~keep);
    r[2] = (t2 & keep) | (d2 & ~keep);
    r[3] = (t3 & keep) | (d3 & ~keep);
}

static inline void fe_add(fe r, const fe a, const fe b) {
    limb t0, t1, t2, t3;
    carry_bit carry = 0;
    ADC(carry, t0, a[0], b[0]);
    ADC(carry, t1, a[1], b[1]);
    ADC(carry, t2, a[2], b[2]);
    ADC(carry, t3, a[3], b[3]);
    fe_reduce_once(r, t0, t1, t2, t3, carry);
}

#if defined(__x86_64__)
/* By hand: the compiler brings the second carry to and fro between flag and byte, and the result through vector
 * registers, which made a whole verification 1.5 us slower. */
static inline void fe_sub(fe r, const fe a, const fe b) {
    limb t0, t1, t2, t3, p1, p3, borrowed;
    __asm__("mov (%[a]), %[t0]\n\t"
            "mov 8(%[a]), %[t1]\n\t"
            "mov 16(%[a]), %[t2]\n\t"
            "mov 24(%[a]), %[t3]\n\t"
            "sub (%[b]), %[t0]\n\t"
            "sbb 8(%[b]), %[t1]\n\t"
            "sbb 16(%[b]), %[t2]\n\t"
            "sbb 24(%[b]), %[t3]\n\t"
            "sbb %[borrowed], %[borrowed]\n\t" /* all ones, which are P0 and P2 too, or 0 */
            "mov %[borrowed], %[p1]\n\t"
            "mov %[borrowed], %[p3]\n\t"
            "shl $32, %[p1]\n\t"
            "btr $32, %[p3]\n\t"
            "add %[borrowed], %[t0]\n\t"
            "adc %[p1], %[t1]\n\t"
            "adc %[borrowed], %[t2]\n\t"
            "adc %[p3], %[t3]\n\t"
            "mov %[t0], (%[r])\n\t"
            "mov %[t1], 8(%[r])\n\t"
            "mov %[t2], 16(%[r])\n\t"
            "mov %[t3], 24(%[r])\n\t"
            : "=m"(*(fe *)r), [t0] "=&r"(t0), [t1] "=&r"(t1), [t2] "=&r"(t2), [t3] "=&r"(t3), [p1] "=&r"(p1),
              [p3] "=&r"(p3), [borrowed] "=&r"(borrowed)
            : [r] "r"(r), [a] "r"(a), [b] "r"(b), "m"(*(const fe *)a), "m"(*(const fe *)b)
            : "cc");
}
#else
static inline void fe_sub(fe r, const fe a, const fe b) {
    limb t0, t1, t2, t3;
    carry_bit borrow = 0, carry = 0;
    SBB(borrow, t0, a[0], b[0]);
    SBB(borrow, t1, a[1], b[1]);
    SBB(borrow, t2, a[2], b[2]);
    SBB(borrow, t3, a[3], b[3]);
    limb borrowed = (limb)0 - borrow;
    ADC(carry, r[0], t0, P0 & borrowed);
    ADC(carry, r[1], t1, P1 & borrowed);
    ADC(carry, r[2], t2, P2 & borrowed);
    ADC(carry, r[3], t3, P3 & borrowed);
    (void)carry;
}
#endif

static inline int fe_is_zero(const fe a) { return (a[0] | a[1] | a[2] | a[3]) == 0; }

static inline int fe_equal(const fe a, const fe b) {
    return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])) == 0;
}

static inline void fe_copy(fe r, const fe a) { memcpy(r, a, sizeof(fe)); }

#endif
