/* See sm2_field.h. Multiplication, in portable C and for x86-64 processors with BMI2 and ADX. */
#include "sm2_field.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* hi:lo = a b + c (+ d); it cannot overflow. */
#define MULADD(hi, lo, a, b, c) \
    do { \
        unsigned __int128 product_ = (unsigned __int128)(a) * (b) + (c); \
        lo = (limb)product_; \
        hi = (limb)(product_ >> 64); \
    } while (0)
#define MULADD2(hi, lo, a, b, c, d) \
    do { \
        unsigned __int128 product_ = (unsigned __int128)(a) * (b) + (c) + (d); \
        lo = (limb)product_; \
        hi = (limb)(product_ >> 64); \
    } while (0)

/* One step of Montgomery reduction. Because p is -1 modulo 2^64, the multiple of p that clears the lowest limb m is m
 * itself, and m p + m = 2^64 m (2^192 - 2^160 - 2^32 + 1): shifts and additions only. */
#define FOLD(m, u1, u2, u3, u4, carry) \
    do { \
        limb low_ = (m) << 32, high_ = (m) >> 32, q0_, q1_, q2_, q3_; \
        carry_bit c_ = 0; \
        SBB(c_, q0_, m, low_); \
        SBB(c_, q1_, 0, high_); \
        SBB(c_, q2_, 0, low_); \
        SBB(c_, q3_, m, high_); \
        c_ = 0; \
        ADC(c_, u1, u1, q0_); \
        ADC(c_, u2, u2, q1_); \
        ADC(c_, u3, u3, q2_); \
        ADC(c_, u4, u4, q3_); \
        carry = c_; \
    } while (0)

static void multiply(fe r, const fe a, const fe b) {
    limb t0, t1, t2, t3, t4, t5, t6, t7, c;
    MULADD(c, t0, a[0], b[0], 0);
    MULADD(c, t1, a[0], b[1], c);
    MULADD(c, t2, a[0], b[2], c);
    MULADD(t4, t3, a[0], b[3], c);
    MULADD(c, t1, a[1], b[0], t1);
    MULADD2(c, t2, a[1], b[1], t2, c);
    MULADD2(c, t3, a[1], b[2], t3, c);
    MULADD2(t5, t4, a[1], b[3], t4, c);
    MULADD(c, t2, a[2], b[0], t2);
    MULADD2(c, t3, a[2], b[1], t3, c);
    MULADD2(c, t4, a[2], b[2], t4, c);
    MULADD2(t6, t5, a[2], b[3], t5, c);
    MULADD(c, t3, a[3], b[0], t3);
    MULADD2(c, t4, a[3], b[1], t4, c);
    MULADD2(c, t5, a[3], b[2], t5, c);
    MULADD2(t7, t6, a[3], b[3], t6, c);
    limb f0 = 0, f1, f2, f3, high; /* what the four low limbs leave after folding */
    FOLD(t0, t1, t2, t3, f0, f1);
    FOLD(t1, t2, t3, f0, f1, f2);
    FOLD(t2, t3, f0, f1, f2, f3);
    FOLD(t3, f0, f1, f2, f3, high);
    carry_bit carry = 0;
    ADC(carry, t4, t4, f0);
    ADC(carry, t5, t5, f1);
    ADC(carry, t6, t6, f2);
    ADC(carry, t7, t7, f3);
    fe_reduce_once(r, t4, t5, t6, t7, high + carry);
}

#if defined(__x86_64__)
/* t0 .. t4 += a[at] b: low halves on one chain of carries, high halves on the other. t4 held at most a carry, and the
 * sum stays below 2^320, because b is below p. t5 becomes 0. */
#define ROW_MULX(at, t0, t1, t2, t3, t4, t5) \
    "mov " at "(%[a]), %%rdx\n\t" \
    "xor %k[" t5 "], %k[" t5 "]\n\t" /* clears both carries too */ \
    "mulx (%[b]), %[low], %[high]\n\t" \
    "adcx %[low], %[" t0 "]\n\t" \
    "adox %[high], %[" t1 "]\n\t" \
    "mulx 8(%[b]), %[low], %[high]\n\t" \
    "adcx %[low], %[" t1 "]\n\t" \
    "adox %[high], %[" t2 "]\n\t" \
    "mulx 16(%[b]), %[low], %[high]\n\t" \
    "adcx %[low], %[" t2 "]\n\t" \
    "adox %[high], %[" t3 "]\n\t" \
    "mulx 24(%[b]), %[low], %[high]\n\t" \
    "adcx %[low], %[" t3 "]\n\t" \
    "adox %[high], %[" t4 "]\n\t" \
    "adc $0, %[" t4 "]\n\t"

/* FOLD of t0: t1 .. t4 += t0 (2^192 - 2^160 - 2^32 + 1), and the carry to t5. */
#define FOLD_MULX(t0, t1, t2, t3, t4, t5) \
    "mov %[" t0 "], %[low]\n\t" \
    "mov %[" t0 "], %[high]\n\t" \
    "shl $32, %[low]\n\t" \
    "shr $32, %[high]\n\t" \
    "add %[" t0 "], %[" t1 "]\n\t" \
    "adc $0, %[" t2 "]\n\t" \
    "adc $0, %[" t3 "]\n\t" \
    "adc %[" t0 "], %[" t4 "]\n\t" \
    "adc $0, %[" t5 "]\n\t" \
    "sub %[low], %[" t1 "]\n\t" \
    "sbb %[high], %[" t2 "]\n\t" \
    "sbb %[low], %[" t3 "]\n\t" \
    "sbb %[high], %[" t4 "]\n\t" \
    "sbb $0, %[" t5 "]\n\t"

/* A row of the product, its lowest limb folded away, the next row: five limbs and a carry are alive at a time, in six
 * registers that take turns. */
static void multiply_mulx(fe r, const fe a, const fe b) {
    static const limb p1 = P1, p3 = P3;
    limb t0, t1, t2, t3, t4, t5, low, high;
    __asm__("mov (%[a]), %%rdx\n\t"
            "xor %k[t5], %k[t5]\n\t"
            "mulx (%[b]), %[t0], %[t1]\n\t"
            "mulx 8(%[b]), %[low], %[t2]\n\t"
            "add %[low], %[t1]\n\t"
            "mulx 16(%[b]), %[low], %[t3]\n\t"
            "adc %[low], %[t2]\n\t"
            "mulx 24(%[b]), %[low], %[t4]\n\t"
            "adc %[low], %[t3]\n\t"
            "adc $0, %[t4]\n\t"
            FOLD_MULX("t0", "t1", "t2", "t3", "t4", "t5")
            ROW_MULX("8", "t1", "t2", "t3", "t4", "t5", "t0")
            FOLD_MULX("t1", "t2", "t3", "t4", "t5", "t0")
            ROW_MULX("16", "t2", "t3", "t4", "t5", "t0", "t1")
            FOLD_MULX("t2", "t3", "t4", "t5", "t0", "t1")
            ROW_MULX("24", "t3", "t4", "t5", "t0", "t1", "t2")
            FOLD_MULX("t3", "t4", "t5", "t0", "t1", "t2")
            /* (t2, t1, t0, t5, t4) less p, unless that is negative */
            "mov %[t4], %[t3]\n\t"
            "mov %[t5], %[low]\n\t"
            "mov %[t0], %[high]\n\t"
            "mov %[t1], %%rdx\n\t"
            "sub $-1, %[t4]\n\t"
            "sbb %[p1], %[t5]\n\t"
            "sbb $-1, %[t0]\n\t"
            "sbb %[p3], %[t1]\n\t"
            "sbb $0, %[t2]\n\t"
            "cmovc %[t3], %[t4]\n\t"
            "cmovc %[low], %[t5]\n\t"
            "cmovc %[high], %[t0]\n\t"
            "cmovc %%rdx, %[t1]\n\t"
            "mov %[t4], (%[r])\n\t"
            "mov %[t5], 8(%[r])\n\t"
            "mov %[t0], 16(%[r])\n\t"
            "mov %[t1], 24(%[r])\n\t"
            : "=m"(*(fe *)r), [t0] "=&r"(t0), [t1] "=&r"(t1), [t2] "=&r"(t2), [t3] "=&r"(t3), [t4] "=&r"(t4),
              [t5] "=&r"(t5), [low] "=&r"(low), [high] "=&r"(high)
            : [r] "r"(r), [a] "r"(a), [b] "r"(b), "m"(*(const fe *)a), "m"(*(const fe *)b), [p1] "m"(p1), [p3] "m"(p3)
            : "rdx", "cc");
}
#endif

void (*fe_mul)(fe r, const fe a, const fe b) = multiply;

#if defined(__x86_64__)
/* Whether the processor has the instructions, and carries with them as it should: there are emulators that do not. */
static int mulx_works(void) {
    enum { BMI2 = 1 << 8, ADX = 1 << 19 }; /* of leaf 7 */
    unsigned int eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx & BMI2) || !(ebx & ADX)) return 0;
    fe a = {P0, P1, P2, P3 - 1}, b = {3, 1, 4, 1}, expected, found;
    for (int i = 0; i < 100; i++) {
        multiply(expected, a, b);
        multiply_mulx(found, a, b);
        if (!fe_equal(expected, found)) return 0;
        fe_copy(a, b);
        fe_copy(b, expected);
    }
    return 1;
}
#endif

int fe_can(int way) {
#if defined(__x86_64__)
    if (way == FE_MULX) return mulx_works();
#endif
    return way == FE_PORTABLE;
}

void fe_use(int way) {
    fe_mul = multiply;
#if defined(__x86_64__)
    if (way == FE_MULX) fe_mul = multiply_mulx;
#else
    (void)way;
#endif
}
