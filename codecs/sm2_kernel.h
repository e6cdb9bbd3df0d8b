/* SM2 signature verification (GB/T 32918.2 section 7) by fixed-base tables, many signatures at once.
 *
 * Public data only: running time depends on the inputs. Never use any of this with a private key.
 */
#ifndef FENGSHOU_SM2_KERNEL_H
#define FENGSHOU_SM2_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* Multiples of one public key: 43 windows of 6 bits, 32 affine points each, 88 KB. */
typedef struct sm2_table sm2_table;

/* One signature to judge: the key's table, e = SM3(ZA || M), r and s, each 32 bytes big-endian. */
typedef struct {
    const sm2_table *key;
    const uint8_t *e;
    const uint8_t *r;
    const uint8_t *s;
} sm2_case;

/* Signatures that share their inversions. With more, the working memory leaves the second-level cache. */
#define SM2_BATCH 64

/* Ways to compute, all with one outcome. */
enum {
    SM2_PORTABLE,   /* C for any 64-bit processor */
    SM2_MULX,       /* x86-64 with BMI2 and ADX */
    SM2_LANES_IN_C, /* eight cases side by side in C: slow, for tests of its arithmetic on any processor */
    SM2_LANES,      /* the same by AVX-512 IFMA */
    SM2_PATHS
};

/* Choose the fastest path of this processor and make the generator's table; once, before anything else, from one
 * thread. Returns 0 when memory is short, else 1. */
int sm2_kernel_init(void);

/* Whether this processor can take the path. SM2_LANES it can only if that agreed with SM2_MULX in sm2_kernel_init. */
int sm2_can_take(int path);

/* Take the path from now on; not while another thread is in the kernel. */
void sm2_take(int path);

int sm2_taken(void);

/* Whether the processor has the instructions of SM2_LANES but they did not agree. */
int sm2_lanes_refused(void);

/* A table not yet filled, or NULL when memory is short. No two threads at a time in sm2_table_new and
 * sm2_table_free. */
sm2_table *sm2_table_new(void);
void sm2_table_free(sm2_table *table);

/* Fill `table` from x || y (64 bytes, big-endian). Returns 0 when that is no point of the curve or memory is short,
 * else 1. */
int sm2_table_build(sm2_table *table, const uint8_t *xy);

/* Working memory for sm2_verify, so that threads do not share it, or NULL when memory is short; free() ends it. */
void *sm2_scratch_new(void);

/* Judge `count` cases: verdicts[i] becomes 1 or 0. */
void sm2_verify(const sm2_case *cases, size_t count, uint8_t *verdicts, void *scratch);

#endif
