/* SM2 signature verification (GB/T 32918.2 section 7) by fixed-base tables, many signatures at once.
 *
 * Public data only: running time depends on the inputs. Never use any of this with a private key.
 */
#ifndef FENGSHOU_SM2_KERNEL_H
#define FENGSHOU_SM2_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* Multiples of one public key. 43 windows of 6 bits, 32 affine points each, in Montgomery form. */
typedef struct sm2_table sm2_table;

/* One signature to judge: the key's table, e = SM3(ZA || M), r and s, each 32 bytes big-endian. */
typedef struct {
    const sm2_table *key;
    const uint8_t *e;
    const uint8_t *r;
    const uint8_t *s;
} sm2_case;

/* Signatures that share their inversions. More gain little and leave the second-level cache. */
#define SM2_BATCH 32

/* Bytes of a table. */
size_t sm2_table_bytes(void);

/* Fill `table` from x || y (64 bytes, big-endian). Returns 0 when that is no point of the curve, else 1. */
int sm2_table_build(sm2_table *table, const uint8_t *xy);

/* Bytes of the working memory that sm2_verify needs; the caller's, so that threads do not share it. */
size_t sm2_scratch_bytes(void);

/* Judge `count` cases: verdicts[i] becomes 1 or 0. Call sm2_kernel_init first. */
void sm2_verify(const sm2_case *cases, size_t count, uint8_t *verdicts, void *scratch);

/* Make the generator's table; once, before anything else, from one thread. Returns 0 when memory is short, else 1. */
int sm2_kernel_init(void);

#endif
