/* See sm2_lanes.h. The same body twice: for AVX-512 IFMA, and in C so that its arithmetic can be tried on any
 * processor. */
#include "sm2_lanes.h"

#include <stdlib.h>

#define LIMB ((1ull << 52) - 1)
#define EACH(n) {n, n, n, n, n, n, n, n}
/* The bits of t from `bit` on, as a signed number. */
#define ABOVE(t, bit) ((lanes)((signed_lanes)(t) >> (bit)))
typedef int64_t signed_lanes __attribute__((vector_size(8 * LANES)));

/* The product of two limbs. */
static inline unsigned __int128 product(uint64_t a, uint64_t b) { return (unsigned __int128)(a & LIMB) * (b & LIMB); }

#define LANES_ATTRIBUTES
#define LANES_NAME(name) name##_in_c
#define MADD_LOW(t, a, b) \
    for (int k_ = 0; k_ < LANES; k_++) (t)[k_] += (uint64_t)product((a)[k_], (b)[k_]) & LIMB
#define MADD_HIGH(t, a, b) \
    for (int k_ = 0; k_ < LANES; k_++) (t)[k_] += (uint64_t)(product((a)[k_], (b)[k_]) >> 52)
#include "sm2_lanes_body.h"
#undef LANES_ATTRIBUTES
#undef LANES_NAME
#undef MADD_LOW
#undef MADD_HIGH

#if defined(__x86_64__)
#define LANES_ATTRIBUTES __attribute__((target("avx512f,avx512ifma")))
#define LANES_NAME(name) name##_ifma
#define MADD_LOW(t, a, b) t = (lanes)_mm512_madd52lo_epu64((__m512i)(t), (__m512i)(a), (__m512i)(b))
#define MADD_HIGH(t, a, b) t = (lanes)_mm512_madd52hi_epu64((__m512i)(t), (__m512i)(a), (__m512i)(b))
#include "sm2_lanes_body.h"

int lanes_can(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512ifma"); }
#else
int sum_in_lanes_ifma(claim *claims, size_t count, lanes_space *space) {
    return sum_in_lanes_in_c(claims, count, space);
}

int lanes_can(void) { return 0; }
#endif

/* Entries drawn by xorshift. Those of two windows are never equal or opposite, and of one window no two meet on the
 * first level. */
static void draw(claim *c, uint64_t *state) {
    for (int i = 0; i < SUMMANDS; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        c->entry[i] = &sm2_generator[i % GENERATOR_WINDOWS * GENERATOR_POINTS + (*state >> 32) % GENERATOR_POINTS];
        c->opposite[i] = *state >> 31 & 1;
    }
}

int lanes_agree(void) {
    static const size_t counts[] = {SM2_BATCH, 1, 7, 8, 9, SM2_BATCH, 19, SM2_BATCH, SM2_BATCH};
    lanes_space *lanes_memory = aligned_alloc(_Alignof(lanes_space), sizeof(lanes_space));
    sums_space *sums_memory = aligned_alloc(_Alignof(sums_space), sizeof(sums_space));
    claim *claims = malloc(2 * SM2_BATCH * sizeof(claim)), *again = claims + SM2_BATCH;
    uint64_t state = 1;
    int agree = lanes_memory && sums_memory && claims;
    for (size_t i = 0; agree && i < sizeof counts / sizeof counts[0]; i++) {
        for (size_t k = 0; k < counts[i]; k++) {
            draw(&claims[k], &state);
            again[k] = claims[k];
        }
        agree = sum_in_lanes_ifma(claims, counts[i], lanes_memory);
        sum_claims(again, counts[i], sums_memory);
        for (size_t k = 0; agree && k < counts[i]; k++) agree = !again[k].infinite && fe_equal(claims[k].x, again[k].x);
    }
    free(lanes_memory);
    free(sums_memory);
    free(claims);
    return agree;
}
