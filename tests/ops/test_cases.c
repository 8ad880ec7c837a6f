/* Every op's own cases with ref kernels: first and second derivatives against finite differences. */
#include "graph/selftest.h"
#include "harness.h"
#include "ops/ops.h"

/* Ops that take a graph have no cases of their own: tests/graph/test_call.c runs them. */
static bool takes_graph(const struct op *op) {
    for (const struct attr_field *a = op->attrs; a && a->name; a++)
        if (a->kind == ATTR_PTR) return true;
    return false;
}

static void print_line(void *context, const char *line) {
    (void)context;
    fprintf(stderr, "%s\n", line);
}

TEST(op_cases, hold) {
    struct cb_err err = {0};
    const struct op_table *table = ops_table();
    static const struct kernel *const no_kernels[] = {NULL};
    static const struct backend plain = {.name = "ref", .files = no_kernels, .runs = true};
    struct selftest test = {.ops = table, .backend = &plain, .report = print_line};
    int n_ops = 0, n_without = 0;
    CHECK_OK(pool_create(&test.pool, 1, &err));
    for (int f = 0; table->files[f]; f++)
        for (int i = 0; table->files[f][i]; i++, n_ops++) {
            const struct op *op = table->files[f][i];
            CHECK(op_find(table, op->name) == op, "%s: another op has that name", op->name);
            CHECK_OK(selftest_op(&test, op, &err));
            if ((!op->cases || !op->cases[0].name) && !takes_graph(op)) {
                n_without++;
                fprintf(stderr, "%s: no cases\n", op->name);
            }
        }
    pool_destroy(&test.pool);
    fprintf(stderr, "op cases: %d ops, %d checks passed, %d failed\n", n_ops, test.n_passed, test.n_failed);
    CHECK(n_ops > 0 && test.n_passed > 0, "nothing was checked");
    CHECK(n_without == 0, "%d ops without cases", n_without);
    CHECK(test.n_failed == 0, "%d of %d checks failed", test.n_failed, test.n_passed + test.n_failed);
}
