/* A plain runner: the same test bodies in one process, for the race detector's tier. Arguments: extended patterns over suite/name. */
#include <regex.h>
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
    fprintf(stderr, "%s:%d: %s\n", file, line, text);
    longjmp(after_failure, 1);
}

/* Whether "suite/name" matches any of the patterns; all match where there is none. A pattern that is none matches nothing. */
static int wanted(const struct plain_test *test, int n, char **patterns) {
    char label[512];
    snprintf(label, sizeof label, "%s/%s", test->suite, test->name);
    for (int i = 0; i < n; i++) {
        regex_t re;
        if (regcomp(&re, patterns[i], REG_EXTENDED | REG_NOSUB)) return 0;
        int hit = regexec(&re, label, 0, NULL, 0) == 0;
        regfree(&re);
        if (hit) return 1;
    }
    return n == 0;
}

int main(int argc, char **argv) {
    static int n_run, n_failed, i;  // static: they live across longjmp
    for (i = 0; i < n_tests; i++) {
        if (!wanted(&tests[i], argc - 1, argv + 1)) continue;
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
