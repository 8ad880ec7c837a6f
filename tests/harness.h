/* The test vocabulary: Criterion normally; with PLAIN_RUNNER (the race detector's tier) the same bodies under a plain main. */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"

#ifdef PLAIN_RUNNER
/* Defined in tests/plain_main.c. */
void plain_register(const char *suite, const char *name, void (*body)(void));
void plain_fail(const char *file, int line, const char *text) __attribute__((noreturn));
#define TEST(suite, name) TEST_WITHIN(0, suite, name)
#define TEST_WITHIN(seconds, suite, name)                                                                                              \
    static void test_##suite##_##name(void);                                                                                           \
    __attribute__((constructor)) static void register_##suite##_##name(void) { plain_register(#suite, #name, test_##suite##_##name); } \
    static void test_##suite##_##name(void)
#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition)) {                                             \
            char check_text_[1400];                                     \
            snprintf(check_text_, sizeof check_text_, " " __VA_ARGS__); \
            plain_fail(__FILE__, __LINE__, check_text_);                \
        }                                                               \
    } while (0)
#else
#include <criterion/criterion.h>
#define TEST_WITHIN(seconds, suite, name) Test(suite, name, .timeout = (seconds))
#define TEST(suite, name) TEST_WITHIN(300, suite, name)
#define CHECK(condition, ...) cr_assert((condition), "" __VA_ARGS__)
#endif

/* A test of `make test-long` alone, which sets CAMBIUM_LONG. */
#define TEST_LONG(suite, name)                                               \
    static void long_##suite##_##name(void);                                 \
    TEST_WITHIN(7200, suite, name) {                                         \
        if (getenv("CAMBIUM_LONG"))                                          \
            long_##suite##_##name();                                         \
        else                                                                 \
            fprintf(stderr, #suite "/" #name ": in make test-long alone\n"); \
    }                                                                        \
    static void long_##suite##_##name(void)

/* A call that must succeed / fail with a code and words in its message. `err` must be a struct cb_err in scope, zeroed. */
#define CHECK_OK(call)                                                                       \
    do {                                                                                     \
        enum cb_status status_ = (call);                                                     \
        CHECK(status_ == CB_OK, "%s: %s (%s)", #call, err.message, cb_status_text(status_)); \
    } while (0)
#define CHECK_FAILS(call, wanted_code, word)                                                                                    \
    do {                                                                                                                        \
        memset(&err, 0, sizeof err);                                                                                            \
        enum cb_status status_ = (call);                                                                                        \
        CHECK(status_ == (wanted_code), "%s: status %d (%s), wanted %d", #call, (int)status_, err.message, (int)(wanted_code)); \
        CHECK(strstr(err.message, (word)), "%s: message '%s' lacks '%s'", #call, err.message, (word));                          \
        memset(&err, 0, sizeof err);                                                                                            \
    } while (0)

/* A new folder, removed when the test's process ends; ends the test where that fails. text: 128 bytes for its path, which is returned. */
const char *temporary_folder(char text[128], const char *name);

/* Folder of the outside fixtures, or NULL (with a printed reason) where it is absent; then the test returns. */
static inline const char *shared_dir(void) {
    const char *dir = getenv("CAMBIUM_SHARED");
    struct stat s;
    if (!dir) dir = "../shared";
    if (stat(dir, &s) == 0) return dir;
    fprintf(stderr, "skipped: %s is absent (set CAMBIUM_SHARED to the fixtures' folder)\n", dir);
    return NULL;
}
#endif
