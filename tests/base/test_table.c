/* The string table against a plain array, through growth and removal. */
#include "base/table.h"

#include "../harness.h"

static struct cb_err err;

TEST(table, put_get_remove) {
    enum { N = 5000 };
    static char keys[N][16];
    struct table t = {0};
    CHECK(table_get(&t, "x", 1) == -1);
    table_remove(&t, "x", 1);
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        CHECK_OK(table_put(&t, keys[i], strlen(keys[i]), i, &err));
    }
    CHECK_OK(table_put(&t, "", 0, 77, &err));
    CHECK(table_get(&t, "", 0) == 77);
    for (int i = 0; i < N; i += 3) table_remove(&t, keys[i], strlen(keys[i]));
    for (int i = 0; i < N; i++) CHECK(table_get(&t, keys[i], strlen(keys[i])) == (i % 3 ? i : -1), "%s", keys[i]);
    CHECK_OK(table_put(&t, keys[1], strlen(keys[1]), 9, &err));
    CHECK(table_get(&t, "k1", 2) == 9 && table_get(&t, "k1x", 2) == 9 && table_get(&t, "k1x", 3) == -1);
    table_deinit(&t);
    CHECK(table_get(&t, "k1", 2) == -1);
}
