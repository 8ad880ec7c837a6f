/* A plain runner: the same test bodies in one process, for the race detector's tier. Argument: how the suites to run begin, "pool|train". */
#include <setjmp.h>

#include "harness.h"

struct plain_test {
    const char *suite, *name;
    void (*body)(void);
};
static struct plain_test *tests;
static int n_tests;
static jmp_buf after_failure;

void plain_register(const char *suite, const char *name, void (*body)(void)) {
    struct plain_test *grown = realloc(tests, (size_t)(n_tests + 1) * sizeof *tests);
    if (!grown) exit(1);
    tests = grown;
    tests[n_tests++] = (struct plain_test){suite, name, body};
}

void plain_fail(const char *file, int line, const char *text) {
    fprintf(stderr, "%s:%d:%s\n", file, line, text);
    longjmp(after_failure, 1);
}

/* Whether "suite/name" begins with any of the words of "word|word|..."; all tests are wanted where there is no argument. (The regcomp of the C library
   is hidden by Oniguruma's function of the same name.) */
static int wanted(const struct plain_test *test, const char *words) {
    char label[512];
    snprintf(label, sizeof label, "%s/%s", test->suite, test->name);
    for (const char *end; words && *words; words = *end ? end + 1 : end) {
        end = words + strcspn(words, "|");
        char word[128];
        snprintf(word, sizeof word, "%.*s", (int)(end - words), words);
        if (strncmp(label, word, strlen(word)) == 0) return 1;
    }
    return words == NULL;
}

int main(int argc, char **argv) {
    static int n_run, n_failed, i;  // static: they live across longjmp
    for (i = 0; i < n_tests; i++) {
        if (!wanted(&tests[i], argc > 1 ? argv[1] : NULL)) continue;
        n_run++;
        if (setjmp(after_failure) == 0) {
            tests[i].body();
        } else {
            n_failed++;
            fprintf(stderr, "[FAIL] %s::%s\n", tests[i].suite, tests[i].name);
        }
    }
    printf("Synthesis: Tested: %d | Passing: %d | Failing: %d\n", n_run, n_run - n_failed, n_failed);
    free(tests);
    return n_failed || !n_run;
}
