/* SM3 (GB/T 32905) of many texts at once, one in each lane of the processor's vectors. For public data and for hashes that
 * the journal keeps; a single text is libcrypto's. */
#ifndef FENGSHOU_SM3_LANES_H
#define FENGSHOU_SM3_LANES_H

#include <stddef.h>
#include <stdint.h>

#define SM3_LANES 8

typedef struct {
    const uint8_t *data;
    size_t size;
} sm3_text;

/* What stands before each text; RFC 6962 section 2.1 has 0 before a leaf and 1 before a node. */
enum { SM3_PLAIN = -1, SM3_LEAF = 0, SM3_NODE = 1 };

/* The digests of `count` texts, 32 bytes each, to `out`. It may be where the texts are, as long as none of them begins
 * before its own digest does. */
void sm3_lanes(uint8_t *out, const sm3_text *texts, size_t count, int before);

#endif
