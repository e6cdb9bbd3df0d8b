/* The verification kernel on a bare machine: what it needs of the C library, a console, and the cases that lie in
 * memory. */
#include "judge.h"

#define CASES_AT 0x4000000
#define HEAP_FROM 0x6000000
#define HEAP_TO 0x10000000
#define CONSOLE 0xE9
#define POWER 0x8900

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

static void out(uint16_t port, char byte) { __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"(port)); }

void say(const char *text) {
    while (*text) out(CONSOLE, *text++);
}

__attribute__((noreturn)) void program(void) {
    const uint64_t *count = (const uint64_t *)CASES_AT;
    __builtin_cpu_init();
    judge((const given *)(count + 1), *count);
    for (const char *end = "Shutdown"; *end; end++) out(POWER, *end);
    for (;;) __asm__ volatile("hlt");
}
