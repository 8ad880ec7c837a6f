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
