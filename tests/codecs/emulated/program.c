/* The verification kernel on a bare machine: each path that the processor has judges the cases that lie in memory, and says
 * on the port of the emulator's console with how many of the expected verdicts it agrees.
 */
#include <stddef.h>
#include <stdint.h>

#include "sm2_kernel.h"

#define CASES_AT 0x4000000
#define HEAP_FROM 0x6000000
#define HEAP_TO 0x10000000
#define CONSOLE 0xE9
#define POWER 0x8900
#define KEYS_MAX 256

typedef struct {
    uint8_t key[64], e[32], r[32], s[32], expected;
} given;

/* What the kernel takes from the C library. */

void *memcpy(void *to, const void *from, size_t bytes) {
    void *end = to;
    __asm__ volatile("rep movsb" : "+c"(bytes), "+D"(end), "+S"(from) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t bytes) {
    void *end = to;
    __asm__ volatile("rep stosb" : "+c"(bytes), "+D"(end) : "a"(value) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) return 1;
    return 0;
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    static uintptr_t end = HEAP_FROM;
    uintptr_t start = (end + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (start + bytes > HEAP_TO) return NULL;
    end = start + bytes;
    return (void *)start;
}

void *malloc(size_t bytes) { return aligned_alloc(64, bytes); }

void free(void *memory) { (void)memory; }

int madvise(void *start, size_t bytes, int advice) {
    (void)start, (void)bytes, (void)advice;
    return 0;
}

/* The console. */

static void out(uint16_t port, char byte) { __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"(port)); }

static void say(const char *text) {
    while (*text) out(CONSOLE, *text++);
}

static void say_number(size_t number) {
    if (number >= 10) say_number(number / 10);
    out(CONSOLE, (char)('0' + number % 10));
}

static const sm2_table *table_of(const uint8_t *key) {
    static struct {
        const uint8_t *key;
        sm2_table *table;
    } known[KEYS_MAX];
    size_t i = 0;
    for (; known[i].key; i++)
        if (!memcmp(known[i].key, key, 64)) return known[i].table;
    known[i].table = sm2_table_new();
    known[i].key = key;
    if (i == KEYS_MAX - 1 || !known[i].table || !sm2_table_build(known[i].table, key)) say("no table\n");
    return known[i].table;
}

static void judge(const given *given_cases, size_t count) {
    static const char *names[SM2_PATHS] = {"portable", "mulx", "lanes-in-c", "lanes"};
    sm2_case *cases = malloc(count * sizeof(sm2_case));
    uint8_t *verdicts = malloc(count);
    void *scratch = sm2_scratch_new();
    for (size_t i = 0; i < count; i++) {
        const given *g = &given_cases[i];
        cases[i] = (sm2_case){.key = table_of(g->key), .e = g->e, .r = g->r, .s = g->s};
    }
    for (int path = 0; path < SM2_PATHS; path++) {
        if (!sm2_can_take(path)) continue;
        size_t agreed = 0;
        sm2_take(path);
        sm2_verify(cases, count, verdicts, scratch);
        for (size_t i = 0; i < count; i++) agreed += verdicts[i] == given_cases[i].expected;
        say(names[path]);
        say(" agrees on ");
        say_number(agreed);
        say(" of ");
        say_number(count);
        say("\n");
    }
}

__attribute__((noreturn)) void program(void) {
    const uint64_t *count = (const uint64_t *)CASES_AT;
    __builtin_cpu_init();
    if (!sm2_kernel_init()) say("no memory\n");
    say(sm2_lanes_refused() ? "lanes refused\n" : "lanes accepted\n");
    judge((const given *)(count + 1), *count);
    for (const char *end = "Shutdown"; *end; end++) out(POWER, *end);
    for (;;) __asm__ volatile("hlt");
}
