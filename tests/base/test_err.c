/* Error records: the first failure stays, prefixes stand before it, and a message is always one printable line. */
#include "harness.h"

TEST(err, first_failure_stays) {
    struct cb_err err = {0};
    CHECK(err_set(&err, CB_E_SHAPE, "a.c", 7, "axis %d", 3) == CB_E_SHAPE);
    err_set(&err, CB_E_IO, "b.c", 8, "later");
    CHECK(err.code == CB_E_SHAPE && err.line == 7 && strcmp(err.message, "axis 3") == 0, "%s", err.message);
    err_prefix(&err, "model.json");
    CHECK(strcmp(err.message, "model.json: axis 3") == 0, "%s", err.message);
}

TEST(err, message_is_one_line) {
    struct cb_err err = {0};
    err_set(&err, CB_E_FORMAT, "a.c", 1, "key '%s'", "a\nb\x1b[31m\x7f\té");
    CHECK(strcmp(err.message, "key 'a?b?[31m??é'") == 0, "%s", err.message);
    err_prefix(&err, "x\ry");
    CHECK(strcmp(err.message, "x?y: key 'a?b?[31m??é'") == 0, "%s", err.message);
}

TEST(err, message_is_utf8) {
    struct cb_err err = {0};
    // a lone continuation, an overlong form, a surrogate, above U+10FFFF, a character that is cut off; whole ones stay
    err_set(&err, CB_E_FORMAT, "a.c", 1, "%s", "\x80 \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82 яé€😀");
    CHECK(strcmp(err.message, "\\x80 \\xc0\\xaf \\xed\\xa0\\x80 \\xf4\\x90\\x80\\x80 \\xe2\\x82 яé€😀") == 0, "%s", err.message);
    err_prefix(&err, "\xff");
    CHECK(strncmp(err.message, "\\xff: \\x80 ", 11) == 0, "%s", err.message);
    // where the message ends within a character
    char name[2 * sizeof err.message + 1] = "";
    for (size_t i = 0; i + 2 < sizeof name; i += 2) memcpy(name + i, "я", 3);
    err = (struct cb_err){0};
    err_set(&err, CB_E_IO, "a.c", 1, "%s", name);
    const size_t n = strlen(err.message);
    CHECK(n >= sizeof err.message - 5 && strncmp(err.message, name, n / 2 * 2) == 0, "%zu", n);
    memset(name, 0xff, sizeof name - 1);
    err = (struct cb_err){0};
    err_set(&err, CB_E_IO, "a.c", 1, "%s", name);
    CHECK(strlen(err.message) < sizeof err.message && strncmp(err.message, "\\xff\\xff", 8) == 0);
}

TEST(err, long_message_is_cut) {
    struct cb_err err = {0};
    char name[4 * sizeof err.message];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    err_set(&err, CB_E_IO, "a.c", 1, "%s", name);
    CHECK(strlen(err.message) == sizeof err.message - 1);
    err_prefix(&err, "%s", name);
    CHECK(strlen(err.message) == sizeof err.message - 1);
}
