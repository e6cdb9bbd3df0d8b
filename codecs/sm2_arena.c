/* Where tables live: side by side in chunks of 2 MB, one huge page each where the system gives them.
 *
 * A verification reads 43 entries all over a table. With pages of 4 KB and thousands of tables nearly each of them is a
 * miss of the processor's address cache too. The first chunk has small pages, so that a process with few keys takes no
 * more memory than their tables.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "sm2_tables.h"

#define CHUNK_BYTES ((size_t)2 << 20)
#define TABLES_IN_CHUNK ((CHUNK_BYTES - sizeof(point)) / sizeof(sm2_table))

typedef struct chunk {
    struct chunk *next;
    uint32_t taken; /* a bit for each table */
    sm2_table tables[];
} chunk;

_Static_assert(TABLES_IN_CHUNK > 1 && TABLES_IN_CHUNK < 32, "a bit for each table");
_Static_assert(sizeof(chunk) <= sizeof(point), "the tables end within the chunk");

#define ALL_TAKEN (((uint32_t)1 << TABLES_IN_CHUNK) - 1)

static chunk *chunks;

sm2_table *sm2_table_new(void) {
    chunk *home = chunks;
    while (home && home->taken == ALL_TAKEN) home = home->next;
    if (!home) {
        home = aligned_alloc(CHUNK_BYTES, CHUNK_BYTES);
        if (!home) return NULL;
#ifdef MADV_HUGEPAGE
        if (chunks) (void)madvise(home, CHUNK_BYTES, MADV_HUGEPAGE); /* only advice: all is as right without */
#endif
        home->taken = 0;
        home->next = chunks;
        chunks = home;
    }
    int place = __builtin_ctz(~home->taken);
    home->taken |= (uint32_t)1 << place;
    return &home->tables[place];
}

void sm2_table_free(sm2_table *table) {
    if (!table) return;
    chunk *home = (chunk *)((uintptr_t)table & ~(uintptr_t)(CHUNK_BYTES - 1));
    home->taken &= ~((uint32_t)1 << (table - home->tables));
    if (home->taken) return;
    chunk **link = &chunks;
    while (*link != home) link = &(*link)->next;
    *link = home->next;
    free(home);
}
