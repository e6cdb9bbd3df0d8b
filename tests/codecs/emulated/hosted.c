/* The verification kernel under an operating system: the cases come in by standard input. */
#include <stdio.h>
#include <stdlib.h>

#include "judge.h"

void say(const char *text) { fputs(text, stdout); }

int main(void) {
    uint64_t count;
    if (fread(&count, sizeof count, 1, stdin) != 1) return 1;
    given *cases = malloc(count * sizeof(given));
    if (!cases || fread(cases, sizeof(given), count, stdin) != count) return 1;
    judge(cases, count);
    return 0;
}
