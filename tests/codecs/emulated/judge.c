/* Each path that the processor has judges the given cases, and it is said with how many of the expected verdicts it
 * agrees. */
#include "judge.h"

#include <stdlib.h>
#include <string.h>

#include "sm2_kernel.h"

#define KEYS_MAX 256

static void say_number(size_t number) {
    char digits[2] = {(char)('0' + number % 10)};
    if (number >= 10) say_number(number / 10);
    say(digits);
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

void judge(const given *given_cases, size_t count) {
    static const char *names[SM2_PATHS] = {"portable", "mulx", "lanes-in-c", "lanes"};
    if (!sm2_kernel_init()) say("no memory\n");
    say(sm2_lanes_refused() ? "lanes refused\n" : "lanes not refused\n");
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
